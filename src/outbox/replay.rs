//! What an operator asks to be done again and what it means: dead letters and expired events to be delivered, updates in
//! quarantine to be converted. A replay is a record: it goes on after a restart, can be listed and cancelled, and is kept for
//! a while when it is over. Deliberately absent: sending (`app::worker`), converting (`app::reconvert`), who asks (`operator`),
//! taking out for good (`discard`).

use std::collections::BTreeSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::filter::Filter;
use super::frame::load;
use super::keys::{self, DestinationId};
use super::kv::{Kv, KvError};
use super::lookup::filter;
use super::operator::{Asked, ReplayMade};
use super::records::{DestinationRecord, Ended, Head, Names, ReplayOrder, ReplayRecord};
use super::rows::{self, count_dead, count_expired};
use super::state::State;
use super::views::{At, ListState};
use crate::domain::ids::Seq;
use crate::domain::time::Moment;

/// How many replays that are over are kept.
const KEPT: usize = 100;

/// What the quarantine is called where destinations are named.
const QUARANTINE: &str = "quarantine";

/// What a request takes of one destination, or of the quarantine.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The destination, or [`keys::QUARANTINE`].
    pub destination: DestinationId,
    /// Its name.
    pub name: String,
    /// Which of its rows.
    pub filter: Filter,
    /// How many they are now.
    pub matched: u64,
    /// Expired events are meant instead of dead letters.
    pub expired: bool,
}

impl Plan {
    /// The replay that does it, with so many microseconds between two first attempts.
    #[must_use]
    pub fn order(&self, interval_us: u64) -> ReplayOrder {
        let Self { destination, filter, matched, expired, .. } = self.clone();
        ReplayOrder { destination, filter, matched, expired, interval_us }
    }

    /// What is told of it; `number` is that of the replay, once there is one.
    #[must_use]
    pub fn made(&self, number: Option<u64>) -> ReplayMade {
        ReplayMade {
            destination: self.name.clone(),
            state: kind(self.destination, self.expired),
            matched: self.matched,
            number,
            waits: None,
        }
    }
}

/// What a request takes, per destination that has any of it.
///
/// # Errors
/// When the store cannot be read.
pub fn plan(kv: &dyn Kv, asked: &Asked) -> Result<Vec<Plan>, KvError> {
    let number = asked.id.as_ref().and_then(|id| id.strip_prefix('q')?.parse::<u64>().ok());
    if number.is_some() || asked.selector.state == Some(ListState::Quarantined) {
        return plan_quarantine(kv, asked, number);
    }
    let names: Names = load(kv, keys::NAMES)?.unwrap_or_default();
    let seq = asked.id.as_ref().and_then(|id| id.parse::<u64>().ok().filter(|_| id.len() < 20)).map(Seq);
    let event_id = asked.id.clone().filter(|_| seq.is_none());
    let mut filter = Filter { died_by: asked.died_by_ms.map(Moment), ..filter(&asked.selector, event_id) };
    if seq.is_some() {
        (filter.from, filter.to) = (seq, seq);
    }
    let mut plans = Vec::new();
    for (destination, name) in names.names {
        if asked.selector.destination.as_ref().is_some_and(|wanted| *wanted != name) {
            continue;
        }
        let expired = asked.selector.state == Some(ListState::Expired);
        let matched = match expired {
            true => count_expired(kv, destination, &filter)?,
            false => count_dead(kv, destination, &filter)?,
        };
        if matched > 0 {
            plans.push(Plan { destination, name, filter: filter.clone(), matched, expired });
        }
    }
    Ok(plans)
}

fn plan_quarantine(kv: &dyn Kv, asked: &Asked, number: Option<u64>) -> Result<Vec<Plan>, KvError> {
    let mut filter = filter(&asked.selector, asked.id.clone().filter(|_| number.is_none()));
    if let Some(number) = number {
        (filter.from, filter.to) = (Some(Seq(number)), Some(Seq(number)));
    }
    if asked.selector.destination.is_some() {
        return Ok(Vec::new());
    }
    // What comes into quarantine from now on is not meant, nor what has come since it was asked.
    let end = asked.up_to.map_or_else(|| quarantine_end(kv), Ok)?;
    let last = Seq(end.saturating_sub(1));
    filter.to = Some(filter.to.map_or(last, |to| to.min(last)));
    let mut matched = 0;
    rows::quarantined(kv, filter.from.unwrap_or_default().0, |number, record| {
        matched += u64::from(filter.takes_quarantined(number, &record));
        Ok(true)
    })?;
    let plan = Plan { destination: keys::QUARANTINE, name: QUARANTINE.to_owned(), filter, matched, expired: false };
    Ok(if matched > 0 { vec![plan] } else { Vec::new() })
}

/// The number that the next update in quarantine gets.
///
/// # Errors
/// When the store cannot be read.
pub fn quarantine_end(kv: &dyn Kv) -> Result<u64, KvError> {
    Ok(load::<Head>(kv, keys::HEAD)?.unwrap_or_default().next_quarantined)
}

/// A replay, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplayView {
    /// Its number, as in `x-event-replay`.
    pub number: u64,
    /// The destination, or `quarantine`.
    pub destination: String,
    /// `dead`, `expired` or `quarantined`: what it takes.
    pub state: ListState,
    /// When it was asked for.
    pub at: At,
    /// How many rows it took.
    pub matched: u64,
    /// How many of them are delivered, or converted.
    pub succeeded: u64,
    /// How many were refused or given up once more, or cannot be read still.
    pub failed: u64,
    /// The least time between two first attempts, in microseconds; 0 where nothing holds it back.
    pub interval_us: u64,
    /// When it was over; null while it is not.
    pub ended: Option<At>,
    /// Whether an operator ended it before all was done.
    pub cancelled: bool,
    /// What it waits for, in words; null where nothing is in its way.
    pub waits: Option<String>,
}

fn kind(destination: DestinationId, expired: bool) -> ListState {
    match (destination, expired) {
        (keys::QUARANTINE, _) => ListState::Quarantined,
        (_, true) => ListState::Expired,
        (_, false) => ListState::Dead,
    }
}

impl ReplayView {
    /// What became of those of which all went well.
    #[must_use]
    pub fn did(&self) -> &'static str {
        if self.state == ListState::Quarantined { "converted" } else { "delivered" }
    }

    /// Rows that were delivered, discarded or deleted by `retention` before they had their turn.
    #[must_use]
    pub fn gone(&self) -> u64 {
        let over = self.ended.is_some() && !self.cancelled;
        if over { self.matched.saturating_sub(self.succeeded + self.failed) } else { 0 }
    }

    /// How many first attempts a second it makes at most, if anything holds it back.
    #[must_use]
    pub fn rate(&self) -> Option<f64> {
        (self.interval_us > 0).then(|| 1.0 / Duration::from_micros(self.interval_us).as_secs_f64())
    }
}

/// Those that are not over; `configured` as for [`all`].
///
/// # Errors
/// When the store cannot be read.
pub fn under_way(kv: &dyn Kv, configured: &[String], now: Moment) -> Result<Vec<ReplayView>, KvError> {
    Ok(all(kv, configured, now)?.into_iter().filter(|view| view.ended.is_none()).collect())
}

/// `outbox replays`: every replay that is known still, oldest first. `configured` are the destinations of the configuration, if
/// they are known.
///
/// # Errors
/// When the store cannot be read.
pub fn all(kv: &dyn Kv, configured: &[String], now: Moment) -> Result<Vec<ReplayView>, KvError> {
    let names: Names = load(kv, keys::NAMES)?.unwrap_or_default();
    let mut views: Vec<ReplayView> = Vec::new();
    for (number, job) in rows::replays(kv)? {
        let id = job.order.destination;
        let name = if id == keys::QUARANTINE { QUARANTINE } else { names.name_of(id) };
        let mut view = ReplayView {
            number,
            destination: name.to_owned(),
            state: kind(id, job.order.expired),
            at: At(job.at),
            matched: job.order.matched,
            succeeded: job.succeeded,
            failed: job.failed,
            interval_us: job.order.interval_us,
            ended: job.ended.map(|ended| At(ended.at)),
            cancelled: job.ended.is_some_and(|ended| ended.cancelled),
            waits: None,
        };
        if view.ended.is_none() && id != keys::QUARANTINE {
            let record: Option<DestinationRecord> = load(kv, &keys::destination(id))?;
            let paused = record.and_then(|record| record.pause).is_some_and(|pause| pause.lasts(now));
            let before = views.iter().find(|other| other.ended.is_none() && other.destination == name);
            view.waits = match before {
                _ if !configured.is_empty() && configured.iter().all(|known| known != name) => {
                    Some(format!("{name} is not in the configuration: it goes on when the name comes back"))
                }
                _ if paused => Some(format!("{name} is paused: `outbox resume {name}`")),
                Some(other) => Some(format!("behind replay {}", other.number)),
                None => None,
            };
        }
        views.push(view);
    }
    Ok(views)
}

impl State {
    /// Makes a replay; answers its number.
    pub(super) fn replay(&mut self, order: ReplayOrder, at: Moment) -> u64 {
        let number = self.head.next_replay;
        self.head.next_replay = number + 1;
        let up_to = match order.destination {
            keys::QUARANTINE => Seq(self.head.next_quarantined),
            _ => self.head.next,
        };
        self.replays.insert(number, ReplayRecord { order, at, up_to, succeeded: 0, failed: 0, ended: None });
        self.dirty.head = true;
        self.dirty.replays.insert(number);
        number
    }

    /// Notes how a replay goes. One that is forgotten is let be.
    pub(super) fn in_replay(&mut self, number: u64, note: impl FnOnce(&mut ReplayRecord)) {
        if let Some(job) = self.replays.get_mut(&number) {
            note(job);
            self.dirty.replays.insert(number);
        }
    }

    /// A replay is over; answers whether it was not before. The oldest of many that are over is forgotten.
    pub(super) fn end_replay(&mut self, number: u64, ended: Ended) -> bool {
        let mut first = false;
        self.in_replay(number, |job| first = job.ended.replace(job.ended.unwrap_or(ended)).is_none());
        let over = self.replays.iter().filter_map(|(number, job)| Some((job.ended?.at, *number)));
        let over: BTreeSet<(Moment, u64)> = over.collect();
        for (_, number) in over.iter().take(over.len().saturating_sub(KEPT)) {
            self.replays.remove(number);
            self.dirty.replays.insert(*number);
        }
        first
    }
}
