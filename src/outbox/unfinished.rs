//! A new outbox that is being filled, by a salvage: it is none until it is finished. Deliberately absent: what goes into it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;

use super::current;
use super::error::OutboxError;
use super::frame;
use super::generations::{self, Directories, Generations};
use super::keys;
use super::kv::{Batch, Kv, KvError};
use super::lock::Lock;
use super::open::FIRST;
use super::records::Space;
use super::sled_kv::SledKv;

/// How many bytes go into one commit.
const COMMIT_BYTES: usize = 1 << 20;

/// A new outbox that is being filled, a bounded batch at a time.
pub(super) struct Unfinished {
    dir: PathBuf,
    kv: SledKv,
    batch: Batch,
    bytes: usize,
    space: Space,
    _lock: Lock,
}

impl Unfinished {
    /// Begins one in a directory that does not exist, or is empty.
    pub(super) fn begin(dir: &Path) -> Result<Self, OutboxError> {
        let disk = |error: io::Error| OutboxError::of_store(dir, &error.into());
        fs::create_dir_all(dir).map_err(disk)?;
        if fs::read_dir(dir).map_err(disk)?.next().is_some() {
            return Err(OutboxError::NotEmpty { dir: dir.to_owned() });
        }
        let lock = Lock::take(dir, "outbox salvage", Duration::ZERO)?;
        let path = generations::directory(dir, FIRST);
        // Where it is left unfinished nobody may take it for one that nothing was ever in.
        let made = fs::create_dir(&path).map_err(KvError::from);
        let opened = made.and_then(|()| Directories::new(dir, FIRST).witness(1)).and_then(|()| SledKv::open(&path));
        let kv = opened.map_err(|error| {
            clear(dir);
            OutboxError::of_store(dir, &error)
        })?;
        let (batch, space) = (Batch::default(), Space::default());
        Ok(Self { dir: dir.to_owned(), kv, batch, bytes: 0, space, _lock: lock })
    }

    /// Adds a record that is not there yet.
    pub(super) fn add(&mut self, key: Vec<u8>, bytes: &[u8]) {
        self.bytes += bytes.len();
        frame::add_bytes(&mut self.batch, key, bytes);
    }

    /// Writes a record.
    pub(super) fn put(&mut self, key: Vec<u8>, bytes: &[u8]) {
        self.bytes += bytes.len();
        frame::put_bytes(&mut self.batch, key, bytes);
    }

    /// Writes a record of this program's making.
    pub(super) fn write<T: Serialize>(&mut self, key: Vec<u8>, record: &T) {
        self.put(key, &frame::encode(record));
    }

    /// Commits what has come together, when it is enough or the last.
    ///
    /// # Errors
    /// When it could not be made durable.
    pub(super) fn turn(&mut self, last: bool) -> Result<(), KvError> {
        if !last && self.bytes < COMMIT_BYTES {
            return Ok(());
        }
        let mut batch = std::mem::take(&mut self.batch);
        self.bytes = 0;
        self.space.commits += 1;
        self.space.weights.change(batch.weights());
        frame::put(&mut batch, keys::SPACE.to_vec(), &self.space);
        self.kv.commit(&batch)
    }

    /// From now on it is an outbox. Copied over an older one, its count of commits takes the place of that one's.
    ///
    /// # Errors
    /// When it could not be made one; then the directory is empty again.
    pub(super) fn finish(self) -> Result<(), OutboxError> {
        let noted = Directories::new(&self.dir, FIRST).witness(self.space.commits);
        noted.and_then(|()| Ok(current::write(&self.dir, FIRST)?)).map_err(|error| {
            let error = OutboxError::of_store(&self.dir, &error);
            self.abandon();
            error
        })
    }

    /// Nothing became of it.
    pub(super) fn abandon(self) {
        drop(self.kv);
        clear(&self.dir);
    }
}

/// Empties the directory again: the same one can be named once more. What cannot be removed is no outbox and is in nobody's
/// way but the next one's, who is told so.
fn clear(dir: &Path) {
    let _left = fs::remove_file(dir.join("CURRENT"));
    let _left = fs::remove_dir_all(generations::directory(dir, FIRST));
    let _left = fs::remove_file(dir.join("COMMITS"));
    let _left = fs::remove_file(dir.join("lock"));
}
