//! `outbox salvage`: brings what can be read of a damaged outbox into a fresh one, and says what was missing. The old one is
//! not touched: its log is read without sled, which mends by forgetting.
//!
//! What is lost in the middle leaves a hole in the log, which must have none: events before the last hole that still wait are
//! moved aside, and the log begins behind it. A cursor that cannot be read is put at the front: rather again than never.
//! Deliberately absent: guessing at bytes that fail their check sum.

use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::current;
use super::error::OutboxError;
use super::frame;
use super::generations;
use super::keys;
use super::kv::{Kv, KvError};
use super::lock::Lock;
use super::records::Space;
use super::salvaging::Salvage;
use super::scan::{Found, everything};
use super::sled_log::pages::{Pages, View};
use super::unfinished::Unfinished;
use crate::domain::time::Moment;

/// How long a service that is just stopping is waited for.
const LOCK_PATIENCE: Duration = Duration::from_secs(3);

/// A range of positions that could not be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missing {
    /// The first.
    pub from: u64,
    /// The last.
    pub to: u64,
    /// When the last event before was received, if one was read.
    pub after: Option<String>,
    /// When the first event behind was received, if one was read.
    pub before: Option<String>,
}

impl Missing {
    /// In words.
    #[must_use]
    pub fn words(&self) -> String {
        let time = |time: &Option<String>| time.clone().unwrap_or_else(|| "?".to_owned());
        let (after, before) = (time(&self.after), time(&self.before));
        format!("events {}..{}, received between {after} and {before}", self.from, self.to)
    }
}

/// What was brought over, and what was not.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Salvaged {
    /// Where it is now.
    pub into: String,
    /// Events of the log.
    pub events: u64,
    /// Events that were moved aside, those from before a hole included.
    pub aside: u64,
    /// Dead letters.
    pub dead: u64,
    /// Updates in quarantine.
    pub quarantined: u64,
    /// Gap records.
    pub gaps: u64,
    /// Checkpoints as community and ts: VK is asked from there.
    pub checkpoints: Vec<(i64, String)>,
    /// Commits that were on disk and cannot be read: the store is as it was so many commits earlier.
    pub commits_missing: u64,
    /// Ranges of the log that cannot be read.
    pub missing: Vec<Missing>,
    /// What else could not be read, in words.
    pub holes: Vec<String>,
    /// How many of those there are.
    pub holes_found: u64,
}

impl Salvaged {
    /// Whether anything is known to be missing.
    #[must_use]
    pub fn loses_something(&self) -> bool {
        self.commits_missing > 0 || !self.missing.is_empty() || self.holes_found > 0
    }
}

/// Copies what is readable of the outbox in `from` into a new one in `into`, which must not exist or be empty.
///
/// # Errors
/// When another process holds the old one, the new one cannot be made, or nothing at all can be read; then nothing is left in
/// `into`.
pub fn salvage(from: &Path, into: &Path, now: Moment, progress: &mut dyn FnMut(u64)) -> Result<Salvaged, OutboxError> {
    if !from.is_dir() {
        return Err(OutboxError::Absent { dir: from.to_owned() });
    }
    if is_inside(into, from) {
        return Err(OutboxError::Inside { dir: into.to_owned(), outbox: from.to_owned() });
    }
    let _lock = Lock::take(from, "outbox salvage", LOCK_PATIENCE)?;
    let current = current::if_readable(from)?;
    let (pages, commits) = best_readable(from, current)
        .map_err(|error| OutboxError::of_store(from, &error))?
        .ok_or_else(|| OutboxError::Unreadable { dir: from.to_owned() })?;
    let mut target = Unfinished::begin(into)?;
    let told = Salvaged { into: into.display().to_string(), ..Salvaged::default() };
    let outcome = Salvage::read(&pages, told).and_then(|mut salvage| {
        let (findings, found) = pages.findings();
        salvage.holes(findings, found);
        salvage.commits_missing(generations::witnessed(from).unwrap_or(0).saturating_sub(commits));
        salvage.copy(&pages, &mut target, now, progress)
    });
    match outcome {
        Ok(told) => target.finish().map(|()| told),
        Err(error) => {
            target.abandon();
            Err(OutboxError::of_store(into, &error))
        }
    }
}

/// Whether a directory, which may not exist yet, is another one or inside of it.
fn is_inside(dir: &Path, other: &Path) -> bool {
    let (Ok(dir), Ok(other)) = (std::path::absolute(dir), other.canonicalize()) else { return false };
    dir.ancestors().any(|place| place.canonicalize().is_ok_and(|place| place == other))
}

/// The generation to read, and how many commits it knows of: the one that `CURRENT` names, or else the one that knows of
/// most. It is read as it would be opened, and when that is not all of it, as far as anything can be read.
fn best_readable(from: &Path, current: Option<u32>) -> Result<Option<(Pages, u64)>, KvError> {
    let mut generations = generations::all(from)?;
    if let Some(current) = current.map(|number| generations::directory(from, number)).filter(|path| path.is_dir()) {
        generations = vec![current];
    }
    let mut best: Option<(Pages, (u64, u64))> = None;
    for generation in generations.iter().filter(|path| path.join("db").is_file()) {
        let mut pages = Pages::open(generation, View::AsOpened)?;
        let all_there = generations::witnessed(from).is_some_and(|durable| durable <= commits_of(&pages));
        if !all_there || pages.findings().1 > 0 || !pages.doubts().is_empty() {
            pages = Pages::open(generation, View::Everything)?;
        }
        let known = (commits_of(&pages), records_in(&pages)?);
        if known.1 > 0 && best.as_ref().is_none_or(|(_, best)| *best < known) {
            best = Some((pages, known));
        }
    }
    Ok(best.map(|(pages, (commits, _))| (pages, commits)))
}

/// How many commits a store knows of, as far as it can be read.
fn commits_of(pages: &Pages) -> u64 {
    let space = frame::load::<Space>(pages, keys::SPACE).ok().flatten();
    space.map_or(0, |space| space.commits)
}

fn records_in(kv: &dyn Kv) -> Result<u64, KvError> {
    let mut records = 0;
    everything(kv, &[], &[u8::MAX], &mut |found| {
        records += u64::from(matches!(found, Found::Record { .. }));
        Ok(())
    })?;
    Ok(records)
}
