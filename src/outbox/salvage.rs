//! `outbox salvage`: brings what can be read of a damaged outbox into a fresh one, and says what was missing. The old one is
//! not touched: sled, which mends by forgetting, is let loose on a copy.
//!
//! What is lost in the middle leaves a hole in the log, which must have none: events before the last hole that still wait are
//! moved aside, and the log begins behind it. A cursor that cannot be read is put at the front: rather again than never.
//! Deliberately absent: guessing at bytes that fail their check sum.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::error::OutboxError;
use super::frame;
use super::generations;
use super::keys;
use super::kv::KvError;
use super::open::{Lock, Unfinished, generation_of_current};
use super::records::Space;
use super::salvaging::Salvage;
use super::scan::{Found, everything};
use super::sled_kv::SledKv;
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

/// Copies what is readable of the outbox in `from` into a new one in `into`, which must not exist or be empty.
///
/// # Errors
/// When another process holds the old one, the new one cannot be made, or nothing at all can be read.
pub fn salvage(from: &Path, into: &Path, now: Moment, progress: &mut dyn FnMut(u64)) -> Result<Salvaged, OutboxError> {
    let told = |dir: &Path| {
        let dir = dir.to_owned();
        move |error: KvError| OutboxError::of_store(&dir, &error)
    };
    if !from.is_dir() {
        return Err(OutboxError::Absent { dir: from.to_owned() });
    }
    let _lock = Lock::take(from, "outbox salvage", LOCK_PATIENCE)?;
    let target = Unfinished::begin(into)?;
    let current = generation_of_current(from)?;
    let best = best_readable(from, current, into).map_err(told(from))?;
    let Some(Readable { kv, work, known: (commits, _) }) = best else {
        return Err(OutboxError::Damaged {
            dir: from.to_owned(),
            finding: "nothing in it can be read at all".to_owned(),
        });
    };
    let mut salvaged = Salvaged { into: into.display().to_string(), ..Salvaged::default() };
    let witnessed = generations::witnessed(from).unwrap_or(0);
    salvaged.commits_missing = witnessed.saturating_sub(commits);
    let outcome = Salvage::read(&kv, salvaged).and_then(|salvage| salvage.copy(&kv, target.kv(), now, progress));
    let (salvaged, commits) = outcome.map_err(told(into))?;
    drop(kv);
    fs::remove_dir_all(&work).map_err(|error| OutboxError::of_store(into, &error.into()))?;
    target.finish(commits)?;
    Ok(salvaged)
}

struct Readable {
    kv: SledKv,
    work: PathBuf,
    /// How many commits it knows of, and how many records can be read.
    known: (u64, u64),
}

/// Opens copies of every generation, with and without what sled can make anew: its snapshots, its settings. The one that
/// knows of most commits is the best.
fn best_readable(from: &Path, current: Option<u32>, into: &Path) -> Result<Option<Readable>, KvError> {
    let mut generations = generations::all(from)?;
    if let Some(current) = current.map(|number| generations::directory(from, number)).filter(|path| path.is_dir()) {
        generations = vec![current];
    }
    let mut best: Option<Readable> = None;
    for (number, generation) in generations.iter().enumerate() {
        for (way, without) in [&[][..], &["snap."], &["conf"], &["snap.", "conf"]].into_iter().enumerate() {
            let work = into.join(format!(".work-{number}-{way}"));
            copy_files(generation, &work, without)?;
            // What is refused here is told by what is missing in the end.
            let opened = SledKv::open(&work).ok().and_then(|kv| Some((known(&kv)?, kv)));
            match opened {
                Some((known, kv)) if best.as_ref().is_none_or(|best| best.known < known) => {
                    if let Some(worse) = best.replace(Readable { kv, work, known }) {
                        drop(worse.kv);
                        fs::remove_dir_all(&worse.work)?;
                    }
                }
                other => {
                    drop(other);
                    fs::remove_dir_all(&work)?;
                }
            }
        }
    }
    Ok(best)
}

/// How many commits a store knows of, and how many records can be read; nothing when it holds nothing.
fn known(kv: &SledKv) -> Option<(u64, u64)> {
    let mut records = 0u64;
    let mut commits = 0;
    let outcome = everything(kv, &[], &[u8::MAX], &mut |found| {
        if let Found::Record { key, bytes, .. } = found {
            records += 1;
            if key == keys::SPACE {
                commits = frame::parse::<Space>(key, &bytes)?.commits;
            }
        }
        Ok(())
    });
    (outcome.is_ok() && records > 0).then_some((commits, records))
}

fn copy_files(from: &Path, to: &Path, without: &[&str]) -> Result<(), KvError> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.file_type()?.is_file() && !without.iter().any(|part| name.contains(part)) {
            fs::copy(entry.path(), to.join(entry.file_name()))?;
        }
    }
    Ok(())
}
