//! Asking for dead letters again: what a request means (`plan`), and writing it into an outbox that nobody runs (`write`).
//! A running one is asked through its handle. Deliberately absent: sending (`app::worker`).

use std::time::Duration;

use super::frame::load;
use super::keys::{self, DestinationId};
use super::kv::{Batch, Kv, KvError};
use super::lookup::filter;
use super::records::{Names, ReplayFilter};
use super::rows::count_dead;
use super::state::State;
use super::views::{ReplayAsked, ReplayMade};
use crate::domain::ids::Seq;
use crate::domain::time::Moment;
/// What a replay would take of one destination.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The destination.
    pub destination: DestinationId,
    /// Its name.
    pub name: String,
    /// Which of its dead letters.
    pub filter: ReplayFilter,
    /// How many they are now.
    pub matched: u64,
}

impl Plan {
    /// What is told of it; `number` is that of the replay, once there is one.
    #[must_use]
    pub fn made(&self, number: Option<u64>) -> ReplayMade {
        ReplayMade { destination: self.name.clone(), matched: self.matched, number }
    }
}

/// What a request takes, per destination that has any of it.
///
/// # Errors
/// When the store cannot be read.
pub fn plan(kv: &dyn Kv, asked: &ReplayAsked) -> Result<Vec<Plan>, KvError> {
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
        let matched = count_dead(kv, destination, &filter)?;
        if matched > 0 {
            plans.push(Plan { destination, name, filter: filter.clone(), matched });
        }
    }
    Ok(plans)
}

/// Writes replays into an outbox that no service runs; the next start carries them out.
///
/// # Errors
/// When the store cannot be read or written.
pub fn write(kv: &dyn Kv, plans: &[Plan], now: Moment) -> Result<Vec<ReplayMade>, KvError> {
    let mut state = State::load(kv, Duration::ZERO)?;
    let mut batch = Batch::default();
    let mut made = Vec::new();
    for plan in plans {
        let number = state.replay(&mut batch, plan.destination, plan.filter.clone(), plan.matched, now);
        made.push(plan.made(Some(number)));
    }
    state.seal(&mut batch);
    kv.commit(&batch)?;
    Ok(made)
}
