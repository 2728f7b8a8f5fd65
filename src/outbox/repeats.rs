//! The latest events by their ids, so that what VK sends again is recognised. Best effort: a repeat from further back is
//! delivered again. Deliberately absent: any record of its own; the log's end is one.

use std::collections::{HashSet, VecDeque};

use super::kv::{Kv, KvError};
use super::log;
use super::records::Head;
use crate::domain::ids::Seq;

/// How many of the latest events a repeat is recognised among.
const REPEAT_WINDOW: usize = 10_000;
/// How much of the log is read at a time to fill the window.
const FILL_BYTES: usize = 1 << 20;

/// The window.
#[derive(Debug, Default)]
pub(super) struct Repeats {
    order: VecDeque<(i64, Box<str>)>,
    known: HashSet<(i64, Box<str>)>,
}

impl Repeats {
    /// Whether an event is not among the latest ones; it is from now on.
    pub(super) fn first_time(&mut self, group: i64, id: &str) -> bool {
        let key = (group, Box::from(id));
        if !self.known.insert(key.clone()) {
            return false;
        }
        self.order.push_back(key);
        if self.order.len() > REPEAT_WINDOW
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        true
    }

    /// Whether an event is among the latest ones.
    pub(super) fn knows(&self, group: i64, id: &str) -> bool {
        self.known.contains(&(group, Box::from(id)))
    }

    /// Fills the window from the end of the log.
    pub(super) fn fill(&mut self, kv: &dyn Kv, head: &Head) -> Result<(), KvError> {
        let mut from = Seq(head.next.0.saturating_sub(REPEAT_WINDOW as u64)).max(head.tail);
        while from < head.next {
            for chunk in log::read(kv, from, head.next, FILL_BYTES)? {
                for logged in chunk.events.iter().filter(|logged| logged.queued.seq >= from) {
                    let event = &logged.queued.event;
                    self.first_time(event.group.get(), event.event_id.as_str());
                }
                from = chunk.end();
            }
        }
        Ok(())
    }
}
