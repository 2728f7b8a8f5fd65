//! What an operator asks to be taken out for good and what it means: dead letters, expired events, updates in quarantine, a pending event by
//! its id. Deliberately absent: doing it (`operations`, and the worker of a destination that has one).

use super::filter::Filter;
use super::inspect::Books;
use super::keys::{self, DestinationId};
use super::kv::{Kv, KvError};
use super::log;
use super::lookup;
use super::operations::AT_ONCE;
use super::operator::Asked;
use super::replay::{self, Plan};
use super::requests::Operation;
use super::rows;
use super::views::{ListState, Selector};
use crate::domain::ids::Seq;

/// What a request takes.
#[derive(Clone, Debug, Default)]
pub struct DiscardPlan {
    /// Dead letters of destinations, or updates in quarantine.
    pub rows: Vec<Plan>,
    /// Destinations for which one event is pending.
    pub pending: Vec<(DestinationId, String, Seq)>,
}

impl DiscardPlan {
    /// How many rows it takes now.
    #[must_use]
    pub fn matched(&self) -> u64 {
        self.rows.iter().map(|plan| plan.matched).sum::<u64>() + self.pending.len() as u64
    }
}

/// What a request takes, per destination.
///
/// # Errors
/// When the store cannot be read.
pub fn plan(kv: &dyn Kv, asked: &Asked) -> Result<DiscardPlan, KvError> {
    let wants = |state| asked.selector.state.is_none_or(|wanted| wanted == state);
    let mut plan = DiscardPlan::default();
    if wants(ListState::Dead) || wants(ListState::Expired) || wants(ListState::Quarantined) {
        plan.rows = replay::plan(kv, asked)?;
    }
    if asked.id.is_some() && asked.selector.state.is_none() {
        let selector = Selector { state: Some(ListState::Expired), ..asked.selector.clone() };
        plan.rows
            .extend(replay::plan(kv, &Asked { selector, ..asked.clone() })?.into_iter().filter(|rows| rows.expired));
    }
    let Some(id) = asked.id.as_deref().filter(|_| wants(ListState::Pending)) else { return Ok(plan) };
    let Some(seq) = lookup::show(kv, id)?.and_then(|shown| shown.row.seq) else { return Ok(plan) };
    let asked = &asked.selector;
    let outside = asked.from_seq.is_some_and(|from| seq < from) || asked.to_seq.is_some_and(|to| seq > to);
    // What is pending has no cause.
    if outside || asked.cause.is_some() {
        return Ok(plan);
    }
    let state = Some(ListState::Pending);
    let this = Selector { state, from_seq: Some(seq), to_seq: Some(seq), limit: Some(1), ..asked.clone() };
    let books = Books::read(kv)?;
    for view in lookup::list(kv, &this)?.into_iter().flat_map(|row| row.deliveries) {
        plan.pending.extend(books.names.id_of(&view.destination).map(|id| (id, view.destination, Seq(seq))));
    }
    Ok(plan)
}

/// The destination whose pending events are all meant, if it is one that the configuration does not have.
///
/// # Errors
/// Words that say what is wrong.
pub fn detached<'a>(configured: &[String], asked: &'a Selector) -> Result<&'a str, String> {
    let words =
        "--state pending takes one event by its ID, or all of a detached destination: name it with --destination alone";
    let name = asked.destination.as_deref().ok_or(words)?;
    let (destination, state) = (asked.destination.clone(), asked.state);
    if *asked != (Selector { destination, state, ..Selector::default() }) {
        return Err(words.to_owned());
    }
    if configured.is_empty() {
        return Err(format!("the configuration names no destination, so nobody can tell whether {name} is detached"));
    }
    if configured.iter().any(|known| known == name) {
        return Err(format!("{name} is in the configuration, so it is not detached; {words}"));
    }
    Ok(name)
}

/// The next bit of a plan's rows, from a position or number on, and where to go on after it; nothing when that was all.
///
/// # Errors
/// When the store cannot be read.
pub fn page(kv: &dyn Kv, plan: &Plan, from: u64) -> Result<Option<(Operation, u64)>, KvError> {
    let filter: &Filter = &plan.filter;
    let mut found = Vec::new();
    if plan.destination == keys::QUARANTINE {
        rows::quarantined(kv, from, |number, record| {
            if filter.takes_quarantined(number, &record) {
                found.push(number);
            }
            Ok(found.len() < AT_ONCE)
        })?;
        return Ok(found.last().map(|last| last + 1).map(|next| (Operation::DiscardQuarantined(found), next)));
    }
    if plan.expired {
        rows::expired(kv, plan.destination, Seq(from), |logged, mark| {
            if filter.takes_expired(logged.queued.seq, &log::event_record(logged), mark.at) {
                found.push(logged.queued.seq.0);
            }
            Ok(found.len() < AT_ONCE)
        })?;
    } else {
        rows::dead_letters(kv, plan.destination, Seq(from), |_, dead, _| {
            if filter.takes_dead(&dead) {
                found.push(dead.seq.0);
            }
            Ok(found.len() < AT_ONCE)
        })?;
    }
    let seqs = found.iter().copied().map(Seq).collect();
    Ok(found.last().map(|last| (Operation::DiscardDead(plan.destination, seqs), last + 1)))
}
