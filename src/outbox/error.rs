//! What can go wrong with the outbox, and what to do about it. Deliberately absent: exit codes (`cli/exit`).

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::process::{getegid, geteuid};

use super::kv::KvError;

/// Why the outbox could not do what it was asked. None of these loses what was acknowledged.
#[derive(Debug, Clone, thiserror::Error)]
pub enum OutboxError {
    /// The disk refused.
    #[error("outbox in {dir}: {source_text}; nothing acknowledged is lost; {}", remedy_of_disk(*full))]
    Disk {
        /// The outbox's directory.
        dir: PathBuf,
        /// What the system said.
        source_text: String,
        /// Whether the volume had no room.
        full: bool,
    },
    /// The directory may not be read or written.
    #[error("outbox in {dir}: {source_text}; {remedy}")]
    Forbidden {
        /// The outbox's directory.
        dir: PathBuf,
        /// What the system said.
        source_text: String,
        /// Who may, and what to do.
        remedy: String,
    },
    /// The file system cannot keep other processes out.
    #[error(
        "outbox in {dir}: the file system cannot lock a file ({source_text}), and two processes in one outbox would destroy it: it is not opened; put outbox.dir on a local disk, or on a network file system that is mounted with locks"
    )]
    Lockless {
        /// The outbox's directory.
        dir: PathBuf,
        /// What the system said.
        source_text: String,
    },
    /// What is on disk is not what was written.
    #[error(
        "outbox in {dir} is damaged: {finding}; nothing was changed: `event-router outbox verify` tells all of it, and with the service stopped `event-router outbox salvage --into DIR` brings what can be read into a fresh outbox (then make that outbox.dir)"
    )]
    Damaged {
        /// The outbox's directory.
        dir: PathBuf,
        /// What was found.
        finding: String,
    },
    /// Another process holds the directory.
    #[error(
        "outbox in {dir} is in use by {holder}; stop that process (of a container the host is its id), or ask it through its socket; one outbox has one service"
    )]
    Locked {
        /// The outbox's directory.
        dir: PathBuf,
        /// Process id, command and host, as the lock file says.
        holder: String,
    },
    /// A newer version wrote it.
    #[error(
        "outbox in {dir} has format {found}, this program reads up to {known}; run the version that wrote it, or a newer one"
    )]
    Newer {
        /// The outbox's directory.
        dir: PathBuf,
        /// The format found.
        found: u32,
        /// The newest format known here.
        known: u32,
    },
    /// A new outbox was to be made where something is.
    #[error("{dir} is not empty; name a directory that does not exist yet")]
    NotEmpty {
        /// The directory.
        dir: PathBuf,
    },
    /// A new outbox was to be made inside of an old one.
    #[error("{dir} is inside of {outbox}, the outbox that is to be salvaged; name a directory outside of it")]
    Inside {
        /// The directory.
        dir: PathBuf,
        /// The old one.
        outbox: PathBuf,
    },
    /// Nothing of it can be read.
    #[error(
        "nothing of the outbox in {dir} can be read, and nothing of it was changed: put back a copy of the directory if there is one, or begin a new outbox in another outbox.dir: VK is then asked from its present ts"
    )]
    Unreadable {
        /// The outbox's directory.
        dir: PathBuf,
    },
    /// There is no outbox there.
    #[error("no outbox in {dir}; check outbox.dir (EVENT_ROUTER__OUTBOX__DIR) or start the service once")]
    Absent {
        /// The directory that was looked into.
        dir: PathBuf,
    },
    /// An earlier commit failed, and with it every later one.
    #[error("the outbox stopped taking anything after a failed commit: {0}")]
    Poisoned(String),
    /// The writer has ended: the service is stopping.
    #[error("the outbox is closed: the service is stopping")]
    Closed,
}

impl OutboxError {
    /// Wraps what a store said, with the directory it was said about.
    #[must_use]
    pub fn of_store(dir: &Path, error: &KvError) -> Self {
        let dir = dir.to_owned();
        match error {
            KvError::Io(refused) | KvError::Unsynced(refused) if is_forbidden(refused) => {
                let remedy = remedy_of_forbidden(&dir, refused.kind());
                Self::Forbidden { dir, source_text: refused.to_string(), remedy }
            }
            KvError::Io(_) | KvError::Unsynced(_) => {
                Self::Disk { dir, source_text: error.to_string(), full: error.is_full() }
            }
            KvError::Damaged(finding) => Self::Damaged { dir, finding: finding.clone() },
        }
    }
}

fn is_forbidden(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem)
}

fn remedy_of_disk(full: bool) -> &'static str {
    if full {
        "the volume is full: make room on it, or make it larger, then start again"
    } else {
        "free or repair the volume, then start again"
    }
}

/// Who may use a directory that refused us, and what to do.
fn remedy_of_forbidden(dir: &Path, kind: ErrorKind) -> String {
    if kind == ErrorKind::ReadOnlyFilesystem {
        return "the volume is mounted read-only: mount it to be written (without `ro`), or let outbox.dir \
                (EVENT_ROUTER__OUTBOX__DIR) be on one that is"
            .to_owned();
    }
    // A directory that is not there was to be made in one that is.
    let found = dir.ancestors().find_map(|place| Some((place, fs::metadata(place).ok()?)));
    let Some((place, metadata)) = found else {
        return "this user may not reach it: check outbox.dir (EVENT_ROUTER__OUTBOX__DIR)".to_owned();
    };
    let (user, group) = (geteuid().as_raw(), getegid().as_raw());
    let (place, dir) = (place.display(), dir.display());
    let give =
        format!("as root, `chown -R {user}:{group} {dir}` (of a container: of the volume that is mounted there)");
    let mode = metadata.mode() & 0o7777;
    if metadata.uid() == user && mode & 0o700 != 0o700 {
        return format!(
            "{place} belongs to this user ({user}), whom its mode {mode:o} keeps out: `chmod u+rwx {place}`"
        );
    }
    if metadata.uid() == user {
        return format!("{place} belongs to this user ({user}), so something in it belongs to another: {give}");
    }
    let owner = metadata.uid();
    format!(
        "{place} belongs to user {owner} (mode {mode:o}), and this process runs as user {user}: {give}, or run as user {owner}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(kind: ErrorKind, dir: &Path) -> String {
        OutboxError::of_store(dir, &KvError::Io(kind.into())).to_string()
    }

    #[test]
    fn a_directory_that_refuses_is_told_with_its_owner_and_the_way_on() {
        let dir = tempfile::tempdir().expect("a directory");
        let me = geteuid().as_raw();
        let words = told(ErrorKind::PermissionDenied, dir.path());
        assert!(words.contains(&format!("belongs to this user ({me})")), "{words}");
        assert!(words.contains(&format!("`chown -R {me}:")), "{words}");
        let words = told(ErrorKind::PermissionDenied, &dir.path().join("not/there"));
        assert!(words.contains(&format!("{} belongs to", dir.path().display())), "{words}");
        let words = told(ErrorKind::ReadOnlyFilesystem, dir.path());
        assert!(words.contains("mounted read-only"), "{words}");
    }

    #[test]
    fn a_mode_that_keeps_its_owner_out_is_told_as_such() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().expect("a directory");
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o500)).expect("set");
        let words = told(ErrorKind::PermissionDenied, dir.path());
        assert!(
            words.contains("mode 500") && words.contains(&format!("`chmod u+rwx {}`", dir.path().display())),
            "{words}"
        );
    }

    #[test]
    fn a_full_volume_is_told_as_such() {
        let words = told(ErrorKind::StorageFull, Path::new("/data"));
        assert!(words.contains("make room on it"), "{words}");
    }
}
