//! What can go wrong with the outbox, and what to do about it.

use std::path::PathBuf;

use super::kv::KvError;

/// Why the outbox could not do what it was asked. None of these loses what was acknowledged.
#[derive(Debug, Clone, thiserror::Error)]
pub enum OutboxError {
    /// The disk refused.
    #[error(
        "outbox in {dir}: {source_text}; nothing acknowledged is lost; free or repair the volume, then start again"
    )]
    Disk {
        /// The outbox's directory.
        dir: PathBuf,
        /// What the system said.
        source_text: String,
        /// Whether the volume had no room.
        full: bool,
    },
    /// What is on disk is not what was written.
    #[error(
        "outbox in {dir} is damaged: {finding}; nothing was deleted: `event-router outbox verify` tells all of it, and with the service stopped `event-router outbox salvage --into DIR` brings what can be read into a fresh outbox (then make that outbox.dir)"
    )]
    Damaged {
        /// The outbox's directory.
        dir: PathBuf,
        /// What was found.
        finding: String,
    },
    /// Another process holds the directory.
    #[error("outbox in {dir} is in use by {holder}; stop that process, or ask it through its socket")]
    Locked {
        /// The outbox's directory.
        dir: PathBuf,
        /// Process id and command, as the lock file says.
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
    pub fn of_store(dir: &std::path::Path, error: &KvError) -> Self {
        let dir = dir.to_owned();
        match error {
            KvError::Io(_) | KvError::Unsynced(_) => {
                Self::Disk { dir, source_text: error.to_string(), full: error.is_full() }
            }
            KvError::Damaged(finding) => Self::Damaged { dir, finding: finding.clone() },
        }
    }
}
