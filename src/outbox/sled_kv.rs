//! sled behind the storage seam: the only file that names it.
//!
//! What was learned of sled 0.34 and is kept here: `flush()` is no barrier on Linux, so each commit ends in `fdatasync`
//! on the store's `db` file (a second handle is safe, the lock is `flock`); `flush_async()` can deadlock and is not
//! used; the background flusher is off; damage may panic, at open and at reads, so every call is caught and becomes
//! [`KvError::Damaged`]; a kill during open leaves `snap.*.generating`, which would be read as the newest snapshot and is
//! removed before opening. Deliberately absent: trees, transactions, compression, iterators that outlive a call.

use std::fs::{self, File};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::kv::{Batch, Kv, KvError, Pair};

/// Fixed when a store is created. With it a page of values up to `records::PART_BYTES` never leaves the log for sled's
/// `blobs/`, which is never synced.
const SEGMENT_BYTES: usize = 2 << 20;
/// What sled may keep of pages in memory.
const CACHE_BYTES: u64 = 32 << 20;

/// How long sled's own lock is waited for. Nobody else can have the store, for the outbox's lock is taken first; but sled's
/// threads may hold a file for a moment after its last handle is gone.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);
/// How long it is left alone between two tries.
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// A sled store in a directory of its own.
pub struct SledKv {
    db: sled::Db,
    /// A handle of our own on sled's log file, for `fdatasync`.
    log: File,
    dir: PathBuf,
}

impl SledKv {
    /// Opens the store in `dir`, making it when there is none.
    ///
    /// # Errors
    /// [`KvError::Damaged`] when sled cannot read what is there, [`KvError::Io`] when the disk refuses.
    pub fn open(dir: &Path) -> Result<Self, KvError> {
        remove_half_made_snapshots(dir)?;
        let fresh = !dir.join("db").exists();
        let start = Instant::now();
        let db = loop {
            let opened = caught(|| {
                sled::Config::new()
                    .path(dir)
                    .segment_size(SEGMENT_BYTES)
                    .cache_capacity(CACHE_BYTES)
                    .mode(sled::Mode::LowSpace)
                    .flush_every_ms(None)
                    .use_compression(false)
                    .open()
            });
            match opened {
                Err(error) if is_lock(&error) && start.elapsed() < LOCK_PATIENCE => sleep(LOCK_PAUSE),
                opened => break opened?,
            }
        };
        let log = File::open(dir.join("db"))?;
        let store = Self { db, log, dir: dir.to_owned() };
        if fresh {
            // sled syncs neither its settings nor the directories that name its files.
            store.flush()?;
            File::open(dir.join("conf"))?.sync_all()?;
            File::open(dir)?.sync_all()?;
            if let Some(parent) = dir.parent() {
                File::open(parent)?.sync_all()?;
            }
        }
        Ok(store)
    }

    fn flush(&self) -> Result<(), KvError> {
        caught(|| self.db.flush())?;
        self.log.sync_data()?;
        Ok(())
    }
}

impl Kv for SledKv {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, KvError> {
        Ok(caught(|| self.db.get(key))?.map(|value| value.to_vec()))
    }

    fn scan(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Pair>, KvError> {
        if from >= to {
            return Ok(Vec::new());
        }
        caught(|| {
            self.db
                .range(from..to)
                .take(limit)
                .map(|pair| pair.map(|(key, value)| (key.to_vec(), value.to_vec())))
                .collect()
        })
    }

    fn last(&self, from: &[u8], to: &[u8]) -> Result<Option<Pair>, KvError> {
        if from >= to {
            return Ok(None);
        }
        let last = caught(|| self.db.range(from..to).next_back().transpose())?;
        Ok(last.map(|(key, value)| (key.to_vec(), value.to_vec())))
    }

    fn commit(&self, batch: &Batch) -> Result<(), KvError> {
        let mut changes = sled::Batch::default();
        for (key, value) in batch.changes() {
            match value {
                Some(value) => changes.insert(key.as_slice(), value.as_slice()),
                None => changes.remove(key.as_slice()),
            }
        }
        caught(|| self.db.apply_batch(changes))?;
        self.flush()
    }

    fn disk_bytes(&self) -> Result<u64, KvError> {
        let mut bytes = 0;
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            match entry.metadata() {
                Ok(metadata) if metadata.is_file() => bytes += metadata.len(),
                Ok(_) => {}
                // sled replaces its snapshots while we look.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(bytes)
    }
}

/// Whether sled says that somebody has its lock: it has no kind of error for that, only words.
fn is_lock(error: &KvError) -> bool {
    matches!(error, KvError::Io(error) if error.to_string().contains("could not acquire lock"))
}

fn remove_half_made_snapshots(dir: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.starts_with("snap.") && name.ends_with(".generating") {
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}

/// Runs one call into sled and turns its errors and its panics into ours.
fn caught<T>(call: impl FnOnce() -> sled::Result<T>) -> Result<T, KvError> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(sled::Error::Io(error))) => Err(KvError::Io(error)),
        Ok(Err(error)) => Err(KvError::Damaged(error.to_string())),
        Err(panic) => {
            let words = panic.downcast_ref::<String>().map(String::as_str);
            let words = words.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without words");
            Err(KvError::Damaged(format!("sled panicked: {}", words.chars().take(300).collect::<String>())))
        }
    }
}
