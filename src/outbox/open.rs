//! Opening the directory: the lock, `CURRENT`, the generation it names, the store in it. Nothing is deleted but what a
//! process left that died while it made a new, still empty outbox. Deliberately absent: reading the records (`state`).

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::system::uname;

use super::error::OutboxError;
use super::frame;
use super::generations::{self, Directories, Generations};
use super::keys;
use super::kv::{Batch, Kv, KvError};
use super::records::{Head, Space};
use super::reserve;
use super::sled_kv::SledKv;
use super::state::State;

/// The on-disk format that this program writes, and the newest it reads.
pub const FORMAT: u32 = 1;
/// The number of the first generation.
const FIRST: u32 = 1;
/// The most bytes that are read of `lock` and `CURRENT`.
const SMALL_FILE_BYTES: u64 = 4096;
/// How long the lock is left alone between two tries.
const LOCK_PAUSE: Duration = Duration::from_millis(100);

/// The directory's lock: `flock` on `<dir>/lock`, which says who holds it. Held until dropped.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Who has the lock of a directory, or had it last, as the lock file says.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn holder(dir: &Path) -> io::Result<String> {
        let mut holder = String::new();
        File::open(dir.join("lock"))?.take(SMALL_FILE_BYTES).read_to_string(&mut holder)?;
        Ok(match holder.trim() {
            "" => "a process that did not say which".to_owned(),
            words => format!("process {words}"),
        })
    }

    /// Takes the lock, trying for as long as `patience`. Blocks.
    ///
    /// # Errors
    /// [`OutboxError::Locked`] with who holds it; [`OutboxError::Lockless`] where nothing can be locked;
    /// [`OutboxError::Disk`] or [`OutboxError::Forbidden`] when the directory cannot be used.
    pub fn take(dir: &Path, command: &str, patience: Duration) -> Result<Self, OutboxError> {
        let disk = |error: io::Error| OutboxError::of_store(dir, &error.into());
        let path = dir.join("lock");
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(disk)?;
        let (start, mut told) = (Instant::now(), false);
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(fs::TryLockError::WouldBlock) if start.elapsed() < patience => {
                    if !std::mem::replace(&mut told, true) {
                        tracing::info!(dir = %dir.display(), ?patience, "another process has the outbox: it is waited for");
                    }
                    sleep(LOCK_PAUSE);
                }
                Err(fs::TryLockError::WouldBlock) => {
                    let holder = Self::holder(dir).map_err(disk)?;
                    return Err(OutboxError::Locked { dir: dir.to_owned(), holder });
                }
                Err(fs::TryLockError::Error(error)) => {
                    return Err(OutboxError::Lockless { dir: dir.to_owned(), source_text: error.to_string() });
                }
            }
        }
        file.set_len(0).map_err(disk)?;
        // A container's process is number 1 in all of them: the host, which is the container's id, tells them apart.
        let host = uname();
        writeln!(file, "{} ({command}) on host {}", std::process::id(), host.nodename().to_string_lossy())
            .map_err(disk)?;
        Ok(Self { _file: file })
    }
}

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
        match read_current(dir)? {
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
        let (generation, lock) = existing(dir, command, patience)?;
        Self::open_generation(dir, generation, lock)
    }

    /// Opens the outbox in `dir` to be read, although it may not be as it was left; what is wrong is told beside it.
    ///
    /// # Errors
    /// When it cannot be read at all, and as [`Store::open_existing`].
    pub fn open_to_verify(
        dir: &Path,
        command: &str,
        patience: Duration,
    ) -> Result<(Self, Option<String>), OutboxError> {
        let (generation, lock) = existing(dir, command, patience)?;
        let store = Self::open_unchecked(dir, generation, lock)?;
        match store.check() {
            Ok(()) => Ok((store, None)),
            Err(KvError::Damaged(finding)) => Ok((store, Some(finding))),
            Err(error) => Err(OutboxError::of_store(dir, &error)),
        }
    }

    fn open_generation(dir: &Path, generation: u32, lock: Lock) -> Result<Self, OutboxError> {
        let store = Self::open_unchecked(dir, generation, lock)?;
        store.check().map_err(|error| OutboxError::of_store(dir, &error))?;
        // A copy that was not finished, or one that was replaced: CURRENT names the one that counts, and it is sound.
        for other in generations::all(dir).map_err(|error| OutboxError::of_store(dir, &error.into()))? {
            if other != generations::directory(dir, generation) {
                fs::remove_dir_all(&other).map_err(|error| OutboxError::of_store(dir, &error.into()))?;
            }
        }
        Ok(store)
    }

    fn open_unchecked(dir: &Path, generation: u32, lock: Lock) -> Result<Self, OutboxError> {
        let path = generations::directory(dir, generation);
        if !path.join("db").exists() {
            let finding = format!("CURRENT names {}, which holds no store", path.display());
            return Err(OutboxError::Damaged { dir: dir.to_owned(), finding });
        }
        reserve::release_if_short(dir).map_err(|error| OutboxError::of_store(dir, &error.into()))?;
        let kv = SledKv::open(&path).map_err(|error| OutboxError::of_store(dir, &error))?;
        Ok(Self::of(dir, generation, kv, lock))
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

    /// Whether the store is as it was left: to damage sled may answer by opening an empty store, or an older state of it.
    fn check(&self) -> Result<(), KvError> {
        let head: Option<Head> = frame::load(self.kv.as_ref(), keys::HEAD)?;
        if head.is_none() {
            return Err(frame::damaged(keys::HEAD, "the store has no head: what sled can read of it is empty"));
        }
        let commits = frame::load::<Space>(self.kv.as_ref(), keys::SPACE)?.unwrap_or_default().commits;
        match self.generations.witnessed() {
            Some(durable) if durable > commits => Err(KvError::Damaged(format!(
                "the store has gone back to its commit {commits}, while {durable} were on disk: the last {} are missing (if an older copy was put there on purpose, remove the file COMMITS)",
                durable - commits
            ))),
            _ => Ok(()),
        }
    }

    fn of(dir: &Path, generation: u32, kv: SledKv, lock: Lock) -> Self {
        let generations = Box::new(Directories::new(dir, generation));
        Self { kv: Arc::new(kv), generations, lock: Some(lock), dir: dir.to_owned() }
    }
}

/// The generation of an outbox that must be there, and its lock.
fn existing(dir: &Path, command: &str, patience: Duration) -> Result<(u32, Lock), OutboxError> {
    // Where it may not be looked there may be one.
    let current = dir.join("CURRENT").try_exists().map_err(|error| OutboxError::of_store(dir, &error.into()))?;
    if !current && generations::all(dir).map_or(true, |found| found.is_empty()) {
        return Err(OutboxError::Absent { dir: dir.to_owned() });
    }
    let lock = Lock::take(dir, command, patience)?;
    let generation = read_current(dir)?.ok_or_else(|| no_current(dir))?;
    Ok((generation, lock))
}

/// A new outbox that is being filled: it is none until it is finished.
pub(super) struct Unfinished {
    dir: PathBuf,
    kv: SledKv,
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
        fs::create_dir(&path).map_err(disk)?;
        let kv = SledKv::open(&path).map_err(|error| OutboxError::of_store(dir, &error))?;
        Ok(Self { dir: dir.to_owned(), kv, _lock: lock })
    }

    /// Where it is written.
    pub(super) fn kv(&self) -> &dyn Kv {
        &self.kv
    }

    /// From now on it is an outbox of so many commits. Copied over an older one, its count takes the place of that one's.
    pub(super) fn finish(self, commits: u64) -> Result<(), OutboxError> {
        let noted = Directories::new(&self.dir, FIRST).witness(commits);
        noted.map_err(|error| OutboxError::of_store(&self.dir, &error))?;
        generations::write_current(&self.dir, FIRST).map_err(|error| OutboxError::of_store(&self.dir, &error.into()))
    }
}

/// The generation that `CURRENT` names, as far as it can be read.
///
/// # Errors
/// When a newer version wrote it.
pub(super) fn generation_of_current(dir: &Path) -> Result<Option<u32>, OutboxError> {
    match read_current(dir) {
        Err(error @ OutboxError::Newer { .. }) => Err(error),
        other => Ok(other.ok().flatten()),
    }
}

/// The generation that `CURRENT` names; nothing when there is no `CURRENT`.
fn read_current(dir: &Path) -> Result<Option<u32>, OutboxError> {
    let path = dir.join("CURRENT");
    let mut text = String::new();
    match File::open(&path) {
        Ok(file) => file.take(SMALL_FILE_BYTES).read_to_string(&mut text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => Err(error),
    }
    .map_err(|error| match error.kind() {
        io::ErrorKind::InvalidData => unreadable_current(dir, "it is no text"),
        _ => OutboxError::of_store(dir, &error.into()),
    })?;
    if !generations::current_is_sound(&text) {
        return Err(unreadable_current(dir, "its last line, \"sum N\", does not fit what stands before it"));
    }
    let number = |name: &str| {
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value
            .and_then(|value| value.trim().parse::<u32>().ok())
            .ok_or_else(|| unreadable_current(dir, &format!("no line \"{name} N\"")))
    };
    let format = number("format")?;
    if format > FORMAT {
        return Err(OutboxError::Newer { dir: dir.to_owned(), found: format, known: FORMAT });
    }
    number("generation").map(Some)
}

fn unreadable_current(dir: &Path, what: &str) -> OutboxError {
    OutboxError::Damaged { dir: dir.to_owned(), finding: format!("CURRENT cannot be read: {what}") }
}

fn no_current(dir: &Path) -> OutboxError {
    let finding = "there are generations and no CURRENT that names one".to_owned();
    OutboxError::Damaged { dir: dir.to_owned(), finding }
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
            let left = SledKv::open(&path).map_err(told)?;
            if !left.scan(b"c/", b"c0", 1).map_err(told)?.is_empty() {
                return Err(no_current(dir));
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
    generations::write_current(dir, FIRST).map_err(disk)?;
    Ok(kv)
}

#[cfg(test)]
mod tests {
    use super::*;

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
        fs::write(&current, generations::current_text(99, 1)).expect("written");
        assert!(matches!(open(dir.path()), Err(OutboxError::Newer { found: 99, .. })));
        // A number that damage made is no newer version, and no other generation.
        for flipped in [generations::current_text(FORMAT, 1).replace("format 1", "format 5"), "format 1\n".to_owned()] {
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
