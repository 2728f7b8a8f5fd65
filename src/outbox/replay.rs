//! What an operator asks to be done again and what it means: dead letters to be delivered, updates in quarantine to be
//! converted. Written here into an outbox that nobody runs. A running one is asked through its handle. Deliberately absent:
//! sending (`app::worker`), converting (`app::reconvert`), taking out for good (`discard`).

use std::time::Duration;

use super::frame::load;
use super::keys::{self, DestinationId};
use super::kv::{Batch, Kv, KvError};
use super::lookup::filter;
use super::open::Store;
use super::records::{Head, Names, ReplayFilter};
use super::rows::{self, count_dead, count_expired};
use super::state::State;
use super::views::{ListState, ReplayAsked, ReplayMade};
use crate::domain::ids::Seq;
use crate::domain::time::Moment;

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
    pub filter: ReplayFilter,
    /// How many they are now.
    pub matched: u64,
    /// Expired events are meant instead of dead letters.
    pub expired: bool,
}

impl Plan {
    /// What is told of it; `number` is that of the replay, once there is one.
    #[must_use]
    pub fn made(&self, number: Option<u64>) -> ReplayMade {
        ReplayMade { destination: self.name.clone(), matched: self.matched, expired: self.expired, number }
    }
}

/// What a request takes, per destination that has any of it.
///
/// # Errors
/// When the store cannot be read.
pub fn plan(kv: &dyn Kv, asked: &ReplayAsked) -> Result<Vec<Plan>, KvError> {
    let number = asked.id.as_ref().and_then(|id| id.strip_prefix('q')?.parse::<u64>().ok());
    if number.is_some() || asked.selector.state == Some(ListState::Quarantined) {
        return plan_quarantine(kv, asked, number);
    }
    let names: Names = load(kv, keys::NAMES)?.unwrap_or_default();
    let seq = asked.id.as_ref().and_then(|id| id.parse::<u64>().ok().filter(|_| id.len() < 20)).map(Seq);
    let event_id = asked.id.clone().filter(|_| seq.is_none());
    let mut filter = filter(&asked.selector, event_id);
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

fn plan_quarantine(kv: &dyn Kv, asked: &ReplayAsked, number: Option<u64>) -> Result<Vec<Plan>, KvError> {
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

/// Writes replays into an outbox that no service runs; the next start carries them out.
///
/// # Errors
/// When the store cannot be read or written.
pub fn write(store: &mut Store, plans: &[Plan], now: Moment) -> Result<Vec<ReplayMade>, KvError> {
    let mut state = State::load(store.kv.as_ref(), Duration::ZERO)?;
    let mut batch = Batch::default();
    let mut made = Vec::new();
    for plan in plans {
        let number = state.replay(&mut batch, plan.destination, plan.filter.clone(), plan.matched, plan.expired, now);
        made.push(plan.made(Some(number)));
    }
    store.commit(&mut state, batch)?;
    Ok(made)
}
