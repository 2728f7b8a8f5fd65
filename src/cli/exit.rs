//! Exit codes, documented in the contract, the one place that prints an error, and a way to print that outlives its reader.
//! Deliberately absent: what commands do.
#![allow(clippy::print_stderr, reason = "the command line speaks on stderr")]

use std::error::Error;
use std::io::{ErrorKind, Write, stdout};
use std::process::ExitCode;

use crate::admin::AdminError;
use crate::app::RunError;
use crate::config::Problems;
use crate::outbox::OutboxError;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Exit {
    /// 0: done.
    Done,
    /// 1: failed.
    Failed,
    /// 2: the words of the command line.
    Usage,
    /// 65: the outbox is damaged.
    Damaged,
    /// 75: locked by another process, or a resource is out for now.
    Unavailable,
    /// 77: VK refuses the token.
    Refused,
    /// 78: the configuration.
    Configuration,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::Damaged => 65,
            Exit::Unavailable => 75,
            Exit::Refused => 77,
            Exit::Configuration => 78,
        })
    }
}

/// Why a command failed: the words for people, the code for programs.
#[derive(Debug, thiserror::Error)]
#[error("{words}")]
pub(super) struct Failure {
    /// What is printed.
    pub(super) words: String,
    /// How the process ends.
    pub(super) exit: Exit,
}

impl Failure {
    /// A failure without a code of its own.
    #[must_use]
    pub(super) fn new(words: impl Into<String>) -> Self {
        Self { words: words.into(), exit: Exit::Failed }
    }

    /// A failure in the words of the command line.
    #[must_use]
    pub(super) fn usage(words: impl Into<String>) -> Self {
        Self { words: words.into(), exit: Exit::Usage }
    }
}

impl From<Problems> for Failure {
    fn from(problems: Problems) -> Self {
        Self { words: problems.to_string(), exit: Exit::Configuration }
    }
}

impl From<OutboxError> for Failure {
    fn from(error: OutboxError) -> Self {
        let exit = match &error {
            OutboxError::Damaged { .. } | OutboxError::Unreadable { .. } => Exit::Damaged,
            OutboxError::Locked { .. } | OutboxError::Disk { full: true, .. } => Exit::Unavailable,
            OutboxError::Disk { .. }
            | OutboxError::Forbidden { .. }
            | OutboxError::Lockless { .. }
            | OutboxError::Newer { .. }
            | OutboxError::Absent { .. }
            | OutboxError::NotEmpty { .. }
            | OutboxError::Inside { .. }
            | OutboxError::Poisoned(_)
            | OutboxError::Closed => Exit::Failed,
        };
        Self { words: error.to_string(), exit }
    }
}

impl From<RunError> for Failure {
    fn from(error: RunError) -> Self {
        match error {
            RunError::Outbox(error) => error.into(),
            error @ (RunError::Client(_) | RunError::Sender(_)) => {
                Self { words: chain(&error), exit: Exit::Configuration }
            }
            RunError::Admin(AdminError::Listen { ref source, .. }) if source.kind() == ErrorKind::AddrInUse => {
                Self { words: chain(&error), exit: Exit::Unavailable }
            }
            error => Self { words: chain(&error), exit: Exit::Failed },
        }
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::new(error.to_string())
    }
}

fn chain(error: &dyn Error) -> String {
    let mut words = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        if !words.contains(&error.to_string()) {
            words = format!("{words}: {error}");
        }
        source = error.source();
    }
    words
}

/// Prints words on stdout as they are. A reader that has left (`… | head`) has seen enough: that is no failure, and no panic.
pub(super) fn say(words: &str) -> Result<(), Failure> {
    said(words).map(drop)
}

/// As [`say`]; whether the reader is still there.
pub(super) fn said(words: &str) -> Result<bool, Failure> {
    let mut out = stdout().lock();
    match out.write_all(words.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Failure::new(format!("stdout cannot be written: {error}"))),
    }
}

/// Prints a failure and gives its code.
#[must_use]
pub(super) fn ended(result: Result<Exit, Failure>) -> ExitCode {
    match result {
        Ok(exit) => exit.into(),
        Err(failure) => {
            eprintln!("event-router: {failure}");
            failure.exit.into()
        }
    }
}
