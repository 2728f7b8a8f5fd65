//! What the outbox must know. Defaults live in `config` alone.

use std::path::PathBuf;
use std::time::Duration;

/// Where the outbox is and how long it keeps what is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The directory on the persistent volume.
    pub dir: PathBuf,
    /// How long delivered events stay after the last destination settled them.
    pub retention: Duration,
}
