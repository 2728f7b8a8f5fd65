//! sled behind the storage seam: the only file that names it.
//!
//! What was learned of sled 0.34 and is kept here: `flush()` is no barrier on Linux, so each commit ends in `fdatasync`
//! on the store's `db` file (a second handle is safe, the lock is `flock`); `flush_async()` can deadlock and is not
//! used; the background flusher is off; damage may panic, at open and at reads, so every call is caught and becomes
//! [`KvError::Damaged`]; a kill during open leaves `snap.*.generating`, which would be read as the newest snapshot and is
//! removed before opening. Deliberately absent: trees, transactions, compression, iterators that outlive a call.

use std::cell::Cell;
use std::fs::{self, File};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::path::{Path, PathBuf};
use std::sync::{Once, mpsc};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::kv::{Batch, Disk, Kv, KvError, Pair};
use super::reserve::free_bytes;

/// Fixed when a store is created. With it a page of values up to `records::PART_BYTES` never leaves the log for sled's
/// `blobs/`, which is never synced.
pub(super) const SEGMENT_BYTES: usize = 2 << 20;
/// What sled may keep of pages in memory.
const CACHE_BYTES: u64 = 32 << 20;

/// sled files what was looked at in 256 shards, and weighs the pages of a shard against its part of the cache only when so
/// many looks have come together there. A scan looks at each page a few times: it would keep gigabytes.
const LOOKS_UNTIL_WEIGHED: usize = 65;
/// After how many bytes of values a scan sees to that: about a page of a full log.
const WEIGHED_BYTES: usize = 128 << 10;

/// How long sled's own lock is waited for. Nobody else can have the store, for the outbox's lock is taken first; but sled's
/// threads may hold a file for a moment after its last handle is gone.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);
/// How long it is left alone between two tries.
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// How long sled may take to open a store, and how much of it it reads in a second at the very least: a store whose
/// snapshot is old is read whole.
const OPEN_WITHIN: Duration = Duration::from_secs(20);
const OPEN_BYTES_PER_SECOND: u64 = 4 << 20;

/// What the names of sled's snapshots begin with, and those of snapshots that it must not find.
pub(super) const SNAPSHOT: &str = "snap.";
const UNUSABLE: &str = "unusable-";

thread_local! {
    /// Whether this thread is inside sled, where a panic is an answer and not a bug of ours.
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// A sled store in a directory of its own.
pub struct SledKv {
    db: sled::Db,
    /// A handle of our own on sled's log file, for `fdatasync`.
    log: File,
    dir: PathBuf,
    /// sled could not open it with its snapshots.
    without_snapshots: bool,
}

impl SledKv {
    /// Opens the store in `dir`, making it when there is none. What a killed process left half made is cleared away, and a
    /// snapshot that cannot be used is done without: the log alone holds everything.
    ///
    /// # Errors
    /// [`KvError::Damaged`] when sled cannot read what is there, or does not come to an end; [`KvError::Io`] when the disk
    /// refuses.
    pub fn open(dir: &Path) -> Result<Self, KvError> {
        quiet_panics();
        remove_half_made_snapshots(dir)?;
        remove_damaged_settings(dir)?;
        let fresh = !dir.join("db").exists();
        // They are there until what came of doing without them was found sound.
        let mut without_snapshots = !named(dir, UNUSABLE)?.is_empty();
        let db = match open_in_time(dir)? {
            Err(KvError::Damaged(finding)) if !fresh => {
                if !move_snapshots_aside(dir)? {
                    return Err(KvError::Damaged(finding));
                }
                without_snapshots = true;
                open_in_time(dir)?
                    .map_err(|error| KvError::Damaged(format!("{finding}; without its snapshots: {error}")))?
            }
            opened => opened?,
        };
        let log = File::open(dir.join("db"))?;
        let store = Self { db, log, dir: dir.to_owned(), without_snapshots };
        if fresh {
            // sled syncs neither its settings nor the directories that name its files.
            store.sync()?;
            File::open(dir.join("conf"))?.sync_all()?;
            File::open(dir)?.sync_all()?;
            if let Some(parent) = dir.parent() {
                File::open(parent)?.sync_all()?;
            }
        }
        Ok(store)
    }
}

impl SledKv {
    /// Whether sled had to read the whole log anew, which it does in its own way: what came of it is to be verified.
    pub fn is_without_snapshots(&self) -> bool {
        self.without_snapshots
    }

    /// What came of it is sound: the snapshots that could not be used are gone for good.
    ///
    /// # Errors
    /// When they are still there.
    pub(super) fn forget_snapshots(&self) -> Result<(), KvError> {
        named(&self.dir, UNUSABLE)?.iter().try_for_each(|path| Ok(fs::remove_file(path)?))
    }

    /// Lets sled write what it holds back. That is no barrier: a power cut may take any of it.
    ///
    /// # Errors
    /// When it could not be written.
    pub fn flush_without_sync(&self) -> Result<(), KvError> {
        caught(|| self.db.flush()).map(drop)
    }
}

/// Opens on a thread of its own: on some damage sled never comes back. Then nothing else is tried, as the thread goes on.
fn open_in_time(dir: &Path) -> Result<Result<sled::Db, KvError>, KvError> {
    let length = fs::metadata(dir.join("db")).map_or(0, |file| file.len());
    let limit = OPEN_WITHIN + Duration::from_secs(length / OPEN_BYTES_PER_SECOND);
    let (told, answer) = mpsc::sync_channel(1);
    let path = dir.to_owned();
    // Whoever waits may have gone: then nobody wants the store.
    let work = move || drop(told.send(open_when_unlocked(&path)));
    std::thread::Builder::new().name("outbox-open".to_owned()).spawn(work)?;
    answer.recv_timeout(limit).map_err(|_| {
        let seconds = limit.as_secs();
        KvError::Damaged(format!(
            "sled did not come to an end within {seconds} s of opening: it is damaged, or the volume is far too slow"
        ))
    })
}

fn open_when_unlocked(dir: &Path) -> Result<sled::Db, KvError> {
    let start = Instant::now();
    loop {
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
            opened => return opened,
        }
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
            let mut pairs = Vec::new();
            let mut unweighed = 0;
            for pair in self.db.range(from..to).take(limit) {
                let (key, value) = pair?;
                unweighed += value.len();
                if unweighed >= WEIGHED_BYTES {
                    unweighed = 0;
                    (0..LOOKS_UNTIL_WEIGHED).try_for_each(|_| self.db.contains_key(&key).map(drop))?;
                }
                pairs.push((key.to_vec(), value.to_vec()));
            }
            Ok(pairs)
        })
    }

    fn last(&self, from: &[u8], to: &[u8]) -> Result<Option<Pair>, KvError> {
        if from >= to {
            return Ok(None);
        }
        let last = caught(|| self.db.range(from..to).next_back().transpose())?;
        Ok(last.map(|(key, value)| (key.to_vec(), value.to_vec())))
    }

    fn apply(&self, batch: &Batch) -> Result<(), KvError> {
        let mut changes = sled::Batch::default();
        for (key, value) in batch.changes() {
            match value {
                Some(value) => changes.insert(key.as_slice(), value.as_slice()),
                None => changes.remove(key.as_slice()),
            }
        }
        caught(|| self.db.apply_batch(changes))
    }

    fn sync(&self) -> Result<(), KvError> {
        self.flush_without_sync()?;
        self.log.sync_data().map_err(KvError::Unsynced)
    }

    fn disk(&self) -> Result<Disk, KvError> {
        disk_of(&self.dir)
    }
}

/// What a store's directory takes, and what its volume has left.
///
/// # Errors
/// When it cannot be asked.
pub(super) fn disk_of(dir: &Path) -> Result<Disk, KvError> {
    let mut bytes = 0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        match entry.metadata() {
            Ok(metadata) if metadata.is_file() => bytes += metadata.len(),
            Ok(_) => {}
            // sled replaces its snapshots while we look.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(Disk { file: bytes, free: free_bytes(dir)? })
}

/// Whether sled says that somebody has its lock: it has no kind of error for that, only words.
fn is_lock(error: &KvError) -> bool {
    matches!(error, KvError::Io(error) if error.to_string().contains("could not acquire lock"))
}

fn remove_half_made_snapshots(dir: &Path) -> io::Result<()> {
    for path in named(dir, SNAPSHOT)? {
        if path.extension().is_some_and(|end| end == "generating") {
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}

/// sled's own settings are those of this program, and made anew when they are not there: damage of that file takes nothing.
fn remove_damaged_settings(dir: &Path) -> io::Result<()> {
    let path = dir.join("conf");
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let sum = bytes.split_last_chunk::<4>();
    if sum.is_none_or(|(said, sum)| u32::from_le_bytes(*sum) != crc32fast::hash(said)) {
        tracing::warn!(file = %path.display(), "the settings of the store could not be read; they are made anew");
        fs::remove_file(&path)?;
    }
    Ok(())
}

/// Gives the snapshots names that sled does not look for. Answers whether there were any.
fn move_snapshots_aside(dir: &Path) -> io::Result<bool> {
    let all = named(dir, SNAPSHOT)?;
    for path in &all {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        fs::rename(path, dir.join(format!("{UNUSABLE}{name}")))?;
    }
    Ok(!all.is_empty())
}

/// The files whose names begin with something.
fn named(dir: &Path, start: &str) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let paths: io::Result<Vec<PathBuf>> = entries.map(|entry| Ok(entry?.path())).collect();
    let is_named =
        |path: &PathBuf| path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(start));
    Ok(paths?.into_iter().filter(is_named).collect())
}

/// A panic inside sled is caught and told as an error: it is not printed as if it were a bug.
fn quiet_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let loud = take_hook();
        set_hook(Box::new(move |panic| {
            if !INSIDE.get() {
                loud(panic);
            }
        }));
    });
}

/// sled hands some errors of the system on as text for programmers (`Os { code: 28, … }`): they become what they were.
fn in_words(error: io::Error) -> io::Error {
    let told = error.to_string();
    let code = told.strip_prefix("Os { code: ").and_then(|rest| rest.split(',').next()?.parse().ok());
    code.map_or(error, io::Error::from_raw_os_error)
}

/// Runs one call into sled and turns its errors and its panics into ours.
fn caught<T>(call: impl FnOnce() -> sled::Result<T>) -> Result<T, KvError> {
    INSIDE.set(true);
    let outcome = catch_unwind(AssertUnwindSafe(call));
    INSIDE.set(false);
    match outcome {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(sled::Error::Io(error))) => Err(KvError::Io(in_words(error))),
        // sled prints an empty backtrace behind its words.
        Ok(Err(error)) => Err(KvError::Damaged(error.to_string().replace(" backtrace ()", ""))),
        Err(panic) => {
            let words = panic.downcast_ref::<String>().map(String::as_str);
            let words = words.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without words");
            // Where sled expects no error it panics with it.
            if words.contains("StorageFull") || words.contains("os error 28") {
                return Err(KvError::Io(io::ErrorKind::StorageFull.into()));
            }
            Err(KvError::Damaged(format!("sled panicked: {}", words.chars().take(300).collect::<String>())))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damaged_settings_of_sled_are_made_anew() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut batch = Batch::default();
        batch.put(b"c/one".to_vec(), b"1".to_vec());
        SledKv::open(dir.path()).expect("made").commit(&batch).expect("committed");
        let settings = dir.path().join("conf");
        let sound = fs::read(&settings).expect("read");
        let flipped: Vec<u8> = sound.iter().map(|byte| if *byte == b'2' { b'3' } else { *byte }).collect();
        for damaged in [vec![0; sound.len()], flipped, Vec::new(), sound[..20].to_vec()] {
            fs::write(&settings, damaged).expect("written");
            let store = SledKv::open(dir.path()).expect("opened");
            assert_eq!(store.get(b"c/one").expect("read"), Some(b"1".to_vec()));
            drop(store);
            assert_eq!(fs::read(&settings).expect("read"), sound);
        }
    }

    #[test]
    fn an_error_of_the_system_is_told_in_its_words() {
        let system = || io::Error::from_raw_os_error(28);
        let of_sled = io::Error::new(io::ErrorKind::StorageFull, format!("{:?}", system()));
        let told = in_words(of_sled);
        assert_eq!((told.kind(), told.to_string()), (io::ErrorKind::StorageFull, system().to_string()));
        let other = in_words(io::Error::other("could not acquire lock on \"db\""));
        assert!(is_lock(&KvError::Io(other)));
    }
}
