//! Generations: sled never gives disk back, so what is live is copied into a new store beside the old one, `CURRENT` is
//! switched over by a rename, and the old one is removed. This is the seam and its form on disk; `sim::kv` has one in
//! memory. Deliberately absent: copying (`copying`), deciding when (`upkeep`).

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::current;
use super::kv::{Kv, KvError};
use super::reserve;
use super::sled_kv::SledKv;

/// The file that says that a commit failed: what the system's cache holds may not be what the disk holds.
const SUSPECT: &str = "SYNC-FAILED";

/// The file that says how many commits were durable. sled may answer to damage by going back to an older state, sound in
/// itself; this is how that is found.
const WITNESS: &str = "COMMITS";

/// Makes stores that replace one another, and keeps what must be known outside of them.
pub trait Generations: Send {
    /// Makes an empty store for the next generation; one that was begun before is forgotten.
    ///
    /// # Errors
    /// When it cannot be made; nothing has changed.
    fn begin(&mut self) -> Result<Arc<dyn Kv>, KvError>;

    /// Makes the store that was begun, which is synced, the one that is opened from now on. Answers whether it is: when it
    /// is not, nothing has changed.
    ///
    /// # Errors
    /// When it is not certain which one is opened next: the caller must stop writing.
    fn switch(&mut self) -> Result<bool, KvError>;

    /// Forgets the store that was begun. Nobody uses it any more.
    fn abandon(&mut self);

    /// Removes the store that was replaced. Nobody uses it any more.
    ///
    /// # Errors
    /// When it is still there; the next opening removes it.
    fn remove_old(&mut self) -> Result<(), KvError>;

    /// A commit failed: the next start copies everything anew before anything else.
    ///
    /// # Errors
    /// When that could not be written down.
    fn suspect(&mut self) -> Result<(), KvError>;

    /// Whether a commit failed and nothing was copied since.
    fn is_suspect(&self) -> bool;

    /// Keeps something in reserve for the day when the volume is full, while it has `free` bytes left.
    ///
    /// # Errors
    /// When that cannot be done.
    fn lay_by(&mut self, free: u64) -> Result<(), KvError>;

    /// Notes outside of the store how many commits are durable. It need not survive a power cut: an older note is as true.
    ///
    /// # Errors
    /// When it could not be noted.
    fn witness(&mut self, commits: u64) -> Result<(), KvError>;

    /// How many commits were noted as durable, if that can still be read.
    fn witnessed(&self) -> Option<u64>;
}

/// Generations as directories.
#[derive(Debug)]
pub struct Directories {
    dir: PathBuf,
    current: u32,
    old: Option<u32>,
    witness: Option<File>,
}

impl Directories {
    /// Those in `dir`, of which `current` is open.
    #[must_use]
    pub(super) fn new(dir: &Path, current: u32) -> Self {
        Self { dir: dir.to_owned(), current, old: None, witness: None }
    }

    fn next(&self) -> PathBuf {
        directory(&self.dir, self.current.saturating_add(1))
    }
}

impl Generations for Directories {
    fn begin(&mut self) -> Result<Arc<dyn Kv>, KvError> {
        let path = self.next();
        remove(&path)?;
        fs::create_dir(&path)?;
        Ok(Arc::new(SledKv::open(&path)?))
    }

    fn switch(&mut self) -> Result<bool, KvError> {
        let next = self.current.saturating_add(1);
        let Ok(file) = current::written(&self.dir, next) else { return Ok(false) };
        current::persist(file, &self.dir)?;
        self.old = Some(self.current);
        self.current = next;
        // The copy is whole and synced: what the failed commit left is behind us.
        match fs::remove_file(self.dir.join(SUSPECT)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(true),
        }
    }

    fn abandon(&mut self) {
        // What stays is removed by the next attempt, or the next opening.
        let _left = remove(&self.next());
    }

    fn remove_old(&mut self) -> Result<(), KvError> {
        match self.old.take() {
            Some(old) => Ok(remove(&directory(&self.dir, old))?),
            None => Ok(()),
        }
    }

    fn suspect(&mut self) -> Result<(), KvError> {
        let file = File::create(self.dir.join(SUSPECT))?;
        file.sync_all()?;
        Ok(File::open(&self.dir)?.sync_all()?)
    }

    fn is_suspect(&self) -> bool {
        self.dir.join(SUSPECT).exists()
    }

    fn lay_by(&mut self, free: u64) -> Result<(), KvError> {
        Ok(reserve::lay_by(&self.dir, free)?)
    }

    fn witness(&mut self, commits: u64) -> Result<(), KvError> {
        let file = match &self.witness {
            Some(file) => file,
            None => {
                let path = self.dir.join(WITNESS);
                self.witness.insert(OpenOptions::new().write(true).create(true).truncate(false).open(path)?)
            }
        };
        let number = commits.to_be_bytes();
        let note = [number.as_slice(), &crc32fast::hash(&number).to_be_bytes()].concat();
        Ok(file.write_all_at(&note, 0)?)
    }

    fn witnessed(&self) -> Option<u64> {
        witnessed(&self.dir)
    }
}

/// How many commits were noted as durable in `dir`, if that can still be read.
#[must_use]
pub(super) fn witnessed(dir: &Path) -> Option<u64> {
    let note = fs::read(dir.join(WITNESS)).ok()?;
    let (number, rest) = note.split_first_chunk::<8>()?;
    let sound = rest.first_chunk::<4>() == Some(&crc32fast::hash(number).to_be_bytes());
    sound.then(|| u64::from_be_bytes(*number))
}

/// Where a generation is.
#[must_use]
pub(super) fn directory(dir: &Path, generation: u32) -> PathBuf {
    dir.join(format!("generation-{generation:06}"))
}

/// Every generation that is there, finished or not.
///
/// # Errors
/// When the directory cannot be read.
pub(super) fn all(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        // What somebody keeps beside them under a similar name is not ours.
        let name = entry.file_name().to_string_lossy().into_owned();
        let digits = name.strip_prefix("generation-").unwrap_or_default();
        if digits.len() == 6 && digits.bytes().all(|byte| byte.is_ascii_digit()) {
            found.push(entry.path());
        }
    }
    Ok(found)
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
