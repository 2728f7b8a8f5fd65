//! Dead letters, expired events and updates in quarantine, grouped by what they have in common: `outbox list --group`. Reads
//! what is durable. Deliberately absent: what a cause is (`domain::delivery::Death`), doing anything about it (`operator`).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::frame::load;
use super::keys;
use super::kv::{Kv, KvError};
use super::log;
use super::lookup::filter;
use super::records::Names;
use super::rows;
use super::views::{At, ListState, Selector};
use crate::domain::delivery::Death;
use crate::domain::ids::Seq;
use crate::domain::time::Moment;

/// How many groups are told apart; what comes on top is counted together.
const GROUPS: usize = 1000;

/// What has one cause.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupView {
    /// The destination; null for what is in quarantine.
    pub destination: Option<String>,
    /// What became of them: `dead`, `expired` or `quarantined`.
    pub state: ListState,
    /// The cause, as `--cause` takes it; null for all that is beyond the first thousand of causes.
    pub cause: Option<String>,
    /// How many they are.
    pub count: u64,
    /// When the first of them was received.
    pub oldest: At,
    /// When the last of them was received.
    pub newest: At,
    /// The position of one of them, the latest, or its number in quarantine.
    pub example: u64,
    /// What the handler said to that one, its first bytes.
    pub excerpt: Option<String>,
}

/// What a selector takes of the dead (unless it names another state), expired or quarantined, the largest group first.
///
/// # Errors
/// When the store cannot be read.
pub fn groups(kv: &dyn Kv, selector: &Selector) -> Result<Vec<GroupView>, KvError> {
    let filter = filter(selector, None);
    let names: Names = load(kv, keys::NAMES)?.unwrap_or_default();
    let mut found = Found::default();
    let state = selector.state.unwrap_or(ListState::Dead);
    if state == ListState::Quarantined && selector.destination.is_none() {
        rows::quarantined(kv, filter.from.unwrap_or_default().0, |number, record| {
            if filter.takes_quarantined(number, &record) {
                found.add(None, state, record.reason, record.at, number, None);
            }
            Ok(true)
        })?;
    }
    for (id, name) in names.names {
        if selector.destination.as_ref().is_some_and(|wanted| *wanted != name) {
            continue;
        }
        match state {
            ListState::Dead => rows::dead_letters(kv, id, filter.from.unwrap_or_default(), |_, dead, _| {
                if filter.takes_dead(&dead) {
                    let excerpt = dead.history.notes.last().map(|note| note.excerpt.clone());
                    let (cause, at) = (dead.death.cause(), dead.event.received_at);
                    found.add(Some(&name), state, cause, at, dead.seq.0, excerpt.filter(|words| !words.is_empty()));
                }
                Ok(true)
            })?,
            ListState::Expired => rows::expired(kv, id, Seq(0), |logged, mark| {
                let (seq, event) = (logged.queued.seq, log::event_record(logged));
                if filter.takes_expired(seq, &event, mark.at) {
                    found.add(Some(&name), state, Death::TooOld.cause(), event.received_at, seq.0, None);
                }
                Ok(true)
            })?,
            _ => {}
        }
    }
    let mut groups: Vec<GroupView> = found.0.into_values().collect();
    groups.sort_by_key(|group| std::cmp::Reverse(group.count));
    groups.truncate(selector.limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX)));
    Ok(groups)
}

#[derive(Default)]
struct Found(BTreeMap<(Option<String>, Option<String>), GroupView>);

impl Found {
    fn add(
        &mut self,
        destination: Option<&String>,
        state: ListState,
        cause: String,
        at: Moment,
        example: u64,
        excerpt: Option<String>,
    ) {
        let mut key = (destination.cloned(), Some(cause));
        if self.0.len() >= GROUPS && !self.0.contains_key(&key) {
            key.1 = None;
        }
        let (at, cause) = (At(at), key.1.clone());
        let group = self.0.entry(key).or_insert_with(|| GroupView {
            destination: destination.cloned(),
            state,
            cause,
            count: 0,
            oldest: at,
            newest: at,
            example,
            excerpt: None,
        });
        group.count += 1;
        (group.oldest, group.newest) = (group.oldest.min(at), group.newest.max(at));
        (group.example, group.excerpt) = (example, excerpt);
    }
}
