//! Whether a store is as it was left, before sled is let at it: to damage sled may answer by opening an empty store, or an
//! older state of it, and it writes over what it forgets. What sled would make of the log is looked at without it; where it
//! would pass something over, everything is read and recounted, for only then it is known whether that was anybody's.
//! Deliberately absent: what it would make of it (`sled_log`), mending (`salvage`).

use std::path::Path;

use super::frame;
use super::generations;
use super::keys;
use super::kv::{Kv, KvError};
use super::records::{Head, Space};
use super::sled_log::pages::Pages;
use super::verify::verify;

/// Whether sled would find everything that was left.
///
/// # Errors
/// [`KvError::Damaged`] when it would not.
pub(super) fn judge(pages: &mut Pages, dir: &Path) -> Result<(), KvError> {
    if pages.findings().1 == 0 {
        check(pages, dir)?;
    }
    if !pages.doubts().is_empty() {
        pages.find_leaves()?;
    }
    let doubt = match (pages.findings(), pages.doubts()) {
        (([], _), []) => return Ok(()),
        (([first, ..], found), _) => return Err(KvError::Damaged(with_more(first, found))),
        (_, [first, ..]) => with_more(first, pages.doubts().len() as u64),
    };
    recount(pages).map_err(|error| match error {
        KvError::Damaged(finding) => KvError::Damaged(format!("{doubt}: {finding}")),
        other => other,
    })
}

/// Reads everything and recounts it.
///
/// # Errors
/// [`KvError::Damaged`] when it is not as it was written.
pub(super) fn recount(kv: &dyn Kv) -> Result<(), KvError> {
    let told = verify(kv, &mut |_, _| {})?;
    told.findings.first().map_or(Ok(()), |first| Err(KvError::Damaged(with_more(first, told.found))))
}

fn with_more(first: &str, found: u64) -> String {
    if found > 1 { format!("{first} (and {} more)", found - 1) } else { first.to_owned() }
}

/// Whether a store has a head, and at least as many commits as were durable.
///
/// # Errors
/// [`KvError::Damaged`] when it has not.
pub(super) fn check(kv: &dyn Kv, dir: &Path) -> Result<(), KvError> {
    let head: Option<Head> = frame::load(kv, keys::HEAD)?;
    if head.is_none() {
        return Err(frame::damaged(keys::HEAD, "the store has no head: what can be read of it is empty"));
    }
    let commits = frame::load::<Space>(kv, keys::SPACE)?.unwrap_or_default().commits;
    match generations::witnessed(dir) {
        Some(durable) if durable > commits => Err(KvError::Damaged(format!(
            "the store has gone back to its commit {commits}, while {durable} were on disk: the last {} are missing",
            durable - commits
        ))),
        _ => Ok(()),
    }
}
