//! Opening the directory: what is locked (`lock`), which generation counts (`current`), and the store in it. Nothing is deleted
//! but what a process left that died while it made a new, still empty outbox. Deliberately absent: reading the records (`state`).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::current;
use super::error::OutboxError;
use super::generations::{self, Directories, Generations};
use super::kv::{Batch, Kv, KvError};
use super::lock::Lock;
use super::reserve;
use super::sled_kv::SledKv;
use super::sled_log::pages::{Pages, View};
use super::soundness::{check, judge, recount};
use super::state::State;

/// The number of the first generation.
pub(super) const FIRST: u32 = 1;

/// An opened directory.
pub struct Store {
    /// The records.
    pub kv: Arc<dyn Kv>,
    /// Makes copies of the store that replace it.
    pub generations: Box<dyn Generations>,
    /// Keeps other processes out; a store in memory needs none.
    pub lock: Option<Lock>,
    /// Where it is.
    pub dir: PathBuf,
}

impl Store {
    /// Opens the outbox in `dir`, making a new one where there is none.
    ///
    /// # Errors
    /// When another process holds it, when it is damaged or newer, when the disk refuses.
    pub fn open_or_create(dir: &Path, command: &str, patience: Duration) -> Result<Self, OutboxError> {
        fs::create_dir_all(dir).map_err(|error| OutboxError::of_store(dir, &error.into()))?;
        let lock = Lock::take(dir, command, patience)?;
        match current::read(dir)? {
            Some(generation) => Self::open_generation(dir, generation, lock),
            None => {
                let kv = create(dir)?;
                Ok(Self::of(dir, FIRST, kv, lock))
            }
        }
    }

    /// Opens the outbox in `dir` that must be there.
    ///
    /// # Errors
    /// [`OutboxError::Absent`] when it is not, and as [`Store::open_or_create`].
    pub fn open_existing(dir: &Path, command: &str, patience: Duration) -> Result<Self, OutboxError> {
        let lock = lock_existing(dir, command, patience)?;
        let generation = current::read(dir)?.ok_or_else(|| current::missing(dir))?;
        Self::open_generation(dir, generation, lock)
    }

    fn open_generation(dir: &Path, generation: u32, lock: Lock) -> Result<Self, OutboxError> {
        let told = |error: KvError| OutboxError::of_store(dir, &error);
        let disk = |error: io::Error| OutboxError::of_store(dir, &error.into());
        let path = there(dir, generation)?;
        // sled mends by forgetting: what it would lose is found before it is let at the store.
        Pages::recovered(&path).and_then(|mut pages| judge(&mut pages, dir)).map_err(told)?;
        reserve::release_if_short(dir).map_err(disk)?;
        let kv = SledKv::open(&path).map_err(told)?;
        check(&kv, dir).map_err(told)?;
        if kv.is_without_snapshots() {
            recount(&kv).and_then(|()| kv.forget_snapshots()).map_err(told)?;
        }
        let store = Self::of(dir, generation, kv, lock);
        // A copy that was not finished, or one that was replaced: CURRENT names the one that counts, and it is sound.
        for other in generations::all(dir).map_err(disk)? {
            if other != generations::directory(dir, generation) {
                fs::remove_dir_all(&other).map_err(disk)?;
            }
        }
        current::remove_half_written(dir).map_err(disk)?;
        Ok(store)
    }

    /// Commits a batch to a store that no service runs.
    ///
    /// # Errors
    /// When it could not be made durable.
    pub(super) fn commit(&mut self, state: &mut State, mut batch: Batch) -> Result<(), KvError> {
        state.seal(&mut batch);
        if batch.is_empty() {
            return Ok(());
        }
        if self.generations.is_suspect() {
            let words = "a commit of an earlier process failed: start the service once, which copies the outbox before it trusts it";
            return Err(KvError::Io(io::Error::other(words)));
        }
        self.kv.commit(&batch).inspect_err(|error| {
            if error.is_suspect() {
                // What is said is the error itself.
                let _noted = self.generations.suspect();
            }
        })?;
        state.committed();
        if let Err(error) = self.generations.witness(state.commits()) {
            tracing::warn!(%error, "how many commits are durable could not be noted beside the store");
        }
        Ok(())
    }

    fn of(dir: &Path, generation: u32, kv: SledKv, lock: Lock) -> Self {
        let generations = Box::new(Directories::new(dir, generation));
        Self { kv: Arc::new(kv), generations, lock: Some(lock), dir: dir.to_owned() }
    }
}

/// The lock of an outbox that must be there.
pub(super) fn lock_existing(dir: &Path, command: &str, patience: Duration) -> Result<Lock, OutboxError> {
    // Where it may not be looked there may be one.
    let current = dir.join("CURRENT").try_exists().map_err(|error| OutboxError::of_store(dir, &error.into()))?;
    if !current && generations::all(dir).map_or(true, |found| found.is_empty()) {
        return Err(OutboxError::Absent { dir: dir.to_owned() });
    }
    Lock::take(dir, command, patience)
}

/// Where the store of a generation is, which must be there.
pub(super) fn there(dir: &Path, generation: u32) -> Result<PathBuf, OutboxError> {
    let path = generations::directory(dir, generation);
    if path.join("db").exists() {
        return Ok(path);
    }
    let finding = format!("CURRENT names {}, which holds no store", path.display());
    Err(OutboxError::Damaged { dir: dir.to_owned(), finding })
}

/// Makes a new outbox: a generation with a head, on disk for good, then `CURRENT`.
fn create(dir: &Path) -> Result<SledKv, OutboxError> {
    let told = |error: KvError| OutboxError::of_store(dir, &error);
    let disk = |error: io::Error| OutboxError::of_store(dir, &error.into());
    if let Some(commits) = generations::witnessed(dir).filter(|commits| *commits > 0) {
        let finding =
            format!("there is no CURRENT, while {commits} commits were on disk; to begin anew, name another directory");
        return Err(OutboxError::Damaged { dir: dir.to_owned(), finding });
    }
    for path in generations::all(dir).map_err(disk)? {
        // A process died while it made this outbox, unless the generation has ever been used.
        if path.join("db").exists() {
            let left = Pages::open(&path, View::Everything).map_err(told)?;
            if !left.scan(b"c/", b"c0", 1).map_err(told)?.is_empty() {
                return Err(current::missing(dir));
            }
        }
        fs::remove_dir_all(&path).map_err(disk)?;
    }
    let path = generations::directory(dir, FIRST);
    fs::create_dir(&path).map_err(disk)?;
    let kv = SledKv::open(&path).map_err(told)?;
    let mut batch = Batch::default();
    State::found(&mut batch);
    kv.commit(&batch).map_err(told)?;
    current::write(dir, FIRST).map_err(disk)?;
    Ok(kv)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbox::frame;
    use crate::outbox::keys;
    use crate::outbox::records::Head;

    fn open(dir: &Path) -> Result<Store, OutboxError> {
        Store::open_or_create(dir, "test", Duration::ZERO)
    }

    #[test]
    fn a_new_outbox_opens_again() {
        let dir = tempfile::tempdir().expect("a directory");
        drop(open(dir.path()).expect("made"));
        let store = Store::open_existing(dir.path(), "test", Duration::ZERO).expect("opened");
        assert_eq!(frame::load(store.kv.as_ref(), keys::HEAD).expect("read"), Some(Head::fresh()));
    }

    #[test]
    fn what_a_process_left_that_died_while_it_replaced_current_goes() {
        let dir = tempfile::tempdir().expect("a directory");
        drop(open(dir.path()).expect("made"));
        let left = current::written(dir.path(), 2).expect("written").keep().expect("kept").1;
        assert!(left.exists());
        drop(open(dir.path()).expect("opened"));
        assert!(!left.exists());
    }

    #[test]
    fn a_second_process_is_told_who_holds_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let _held = open(dir.path()).expect("made");
        let error = open(dir.path()).err().expect("refused").to_string();
        assert!(error.contains(&format!("process {} (test) on host ", std::process::id())), "{error}");
    }

    #[test]
    fn a_newer_format_is_left_alone() {
        let dir = tempfile::tempdir().expect("a directory");
        drop(open(dir.path()).expect("made"));
        let current = dir.path().join("CURRENT");
        fs::write(&current, current::text_of(99, 1)).expect("written");
        assert!(matches!(open(dir.path()), Err(OutboxError::Newer { found: 99, .. })));
        // A number that damage made is no newer version, and no other generation.
        for flipped in [current::text_of(current::FORMAT, 1).replace("format 1", "format 5"), "format 1\n".to_owned()] {
            fs::write(&current, flipped).expect("written");
            assert!(matches!(open(dir.path()), Err(OutboxError::Damaged { .. })));
        }
    }

    #[test]
    fn what_is_missing_is_told_and_never_replaced_by_something_empty() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path();
        assert!(matches!(Store::open_existing(path, "test", Duration::ZERO), Err(OutboxError::Absent { .. })));
        let store = open(path).expect("made");
        let mut batch = Batch::default();
        batch.put(keys::checkpoint(1), vec![1]);
        store.kv.commit(&batch).expect("committed");
        drop(store);
        fs::rename(path.join("CURRENT"), path.join("elsewhere")).expect("renamed");
        assert!(matches!(open(path), Err(OutboxError::Damaged { .. })));
        fs::rename(path.join("elsewhere"), path.join("CURRENT")).expect("renamed");
        fs::rename(path.join("generation-000001"), path.join("hidden")).expect("renamed");
        assert!(matches!(open(path), Err(OutboxError::Damaged { .. })));
        assert!(!path.join("generation-000001").exists());
    }

    #[test]
    fn a_half_made_outbox_is_made_anew() {
        let dir = tempfile::tempdir().expect("a directory");
        drop(open(dir.path()).expect("made"));
        fs::remove_file(dir.path().join("CURRENT")).expect("removed");
        drop(open(dir.path()).expect("made anew"));
        fs::remove_file(dir.path().join("CURRENT")).expect("removed");
        fs::remove_file(dir.path().join("generation-000001/db")).expect("removed");
        drop(open(dir.path()).expect("made anew"));
    }
}
