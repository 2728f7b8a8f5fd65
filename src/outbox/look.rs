//! Looking at an outbox that no service runs, from its log alone: nothing is written, whatever state it is in, so that a look
//! at a damaged or a full one takes nothing from it. Deliberately absent: changing anything (`open`).

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::current;
use super::error::OutboxError;
use super::generations;
use super::kv::{Kv, KvError};
use super::lock::Lock;
use super::open::{lock_existing, there};
use super::sled_log::pages::{Pages, View};
use super::soundness::{check, judge};
use super::verify::{Verified, verify};

/// An outbox that is looked at. Others are kept out meanwhile.
pub struct Look {
    pages: Pages,
    /// What is wrong before anything of it is read.
    finding: Option<String>,
    dir: PathBuf,
    _lock: Lock,
}

impl Look {
    /// Reads the log of the outbox in `dir`, which must be there.
    ///
    /// # Errors
    /// As [`super::Store::open_existing`].
    pub fn open(dir: &Path, command: &str, patience: Duration) -> Result<Self, OutboxError> {
        let mut look = Self::open_as_it_is(dir, command, patience)?;
        if let Some(finding) = look.finding {
            return Err(OutboxError::Damaged { dir: dir.to_owned(), finding });
        }
        judge(&mut look.pages, dir).map_err(|error| OutboxError::of_store(dir, &error))?;
        Ok(look)
    }

    /// As [`Look::open`], although it may not be as it was left.
    ///
    /// # Errors
    /// When it cannot be read at all.
    pub fn open_as_it_is(dir: &Path, command: &str, patience: Duration) -> Result<Self, OutboxError> {
        let lock = lock_existing(dir, command, patience)?;
        let (current, finding) = match current::read(dir).and_then(|found| found.ok_or_else(|| current::missing(dir))) {
            Ok(generation) => (Some(generation), None),
            Err(OutboxError::Damaged { finding, .. }) => (None, Some(finding)),
            Err(error) => return Err(error),
        };
        let disk = |error: io::Error| OutboxError::of_store(dir, &error.into());
        let generations = generations::all(dir).map_err(disk)?.into_iter().filter(|path| path.join("db").is_file());
        let newest = || generations.max().ok_or_else(|| OutboxError::Unreadable { dir: dir.to_owned() });
        let path = current.map_or_else(newest, |current| there(dir, current))?;
        let pages = Pages::open(&path, View::AsOpened).map_err(|error| OutboxError::of_store(dir, &error))?;
        Ok(Self { pages, finding, dir: dir.to_owned(), _lock: lock })
    }

    /// Looks at its records.
    ///
    /// # Errors
    /// Those of the look, in the words of the outbox.
    pub fn at<T>(&self, look: impl FnOnce(&dyn Kv) -> Result<T, KvError>) -> Result<T, OutboxError> {
        look(&self.pages).map_err(|error| OutboxError::of_store(&self.dir, &error))
    }

    /// Reads and checks everything, the log itself included.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn verify(&self, progress: &mut dyn FnMut(u64, u64)) -> Result<Verified, OutboxError> {
        let mut told = self.at(|kv| verify(kv, progress))?;
        told.more(self.finding.as_slice(), 0);
        let (findings, found) = self.pages.findings();
        told.more(findings, found);
        match check(&self.pages, &self.dir) {
            Err(KvError::Damaged(finding)) => told.more(&[finding], 1),
            other => other.map_err(|error| OutboxError::of_store(&self.dir, &error))?,
        }
        Ok(told)
    }
}
