//! The directory's lock, which says who holds it. Deliberately absent: what is in the directory.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::system::uname;

use super::current::small_text;
use super::error::OutboxError;

/// How long it is left alone between two tries.
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
        Ok(match small_text(&dir.join("lock"))?.trim() {
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
        // On a full volume nothing can be said, which is no reason not to open.
        let _said = say(&mut file, command);
        Ok(Self { _file: file })
    }
}

/// Writes down who holds it. A container's process is number 1 in all of them: the host, which is the container's id, tells
/// them apart.
fn say(file: &mut File, command: &str) -> io::Result<()> {
    file.set_len(0)?;
    writeln!(file, "{} ({command}) on host {}", std::process::id(), uname().nodename().to_string_lossy())
}
