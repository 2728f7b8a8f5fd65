//! What the outbox must know. Defaults live in `config` alone.

use std::path::PathBuf;
use std::time::Duration;

use super::space::Limits;

/// Where the outbox is, how long it keeps what is done, and how much it may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The directory on the persistent volume.
    pub dir: PathBuf,
    /// How long delivered events stay after the last destination settled them.
    pub retention: Duration,
    /// How much of the disk it may take.
    pub limits: Limits,
}
