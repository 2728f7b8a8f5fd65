//! The latest events by their ids, so that what VK sends again is recognised. Best effort: a repeat from further back is
//! delivered again. Deliberately absent: any record of its own; the log's end is one.

use std::collections::{HashSet, VecDeque};
use std::hash::{Hash, Hasher};

use super::kv::{Kv, KvError};
use super::log;
use super::records::Head;
use crate::domain::ids::Seq;

/// How many of the latest events a repeat is recognised among.
const REPEAT_WINDOW: usize = 10_000;
/// How much of the log is read at a time to fill the window.
const FILL_BYTES: usize = 1 << 20;

/// An event, as it is remembered. VK's ids are the text of twenty bytes: those are kept, and nothing is allocated.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Known {
    Digest(i64, [u8; 20]),
    Text(i64, Box<str>),
}

impl Known {
    fn of(group: i64, id: &str) -> Self {
        match digest(id) {
            Some(digest) => Self::Digest(group, digest),
            None => Self::Text(group, Box::from(id)),
        }
    }
}

/// The id says it all: hardly ever have two communities the same one.
impl Hash for Known {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match self {
            Self::Digest(_, digest) => state.write(digest),
            Self::Text(_, text) => state.write(text.as_bytes()),
        }
    }
}

/// The value of each byte that is a digit in lower case; more than fifteen of all others.
const DIGITS: [u8; 256] = {
    let mut digits = [u8::MAX; 256];
    let mut value = 0;
    while value < 16 {
        digits[b"0123456789abcdef"[value as usize] as usize] = value;
        value += 1;
    }
    digits
};

/// The bytes of which an id is the text in lower case; no other text has the same.
fn digest(id: &str) -> Option<[u8; 20]> {
    let digits: &[u8; 40] = id.as_bytes().try_into().ok()?;
    let (mut bytes, mut met) = ([0; 20], 0);
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let (high, low) = (DIGITS[usize::from(pair[0])], DIGITS[usize::from(pair[1])]);
        *byte = high << 4 | low;
        met |= high | low;
    }
    (met < 16).then_some(bytes)
}

/// The window.
#[derive(Debug, Default)]
pub(super) struct Repeats {
    order: VecDeque<Known>,
    known: HashSet<Known>,
}

impl Repeats {
    /// Whether an event is not among the latest ones; it is from now on.
    pub(super) fn first_time(&mut self, group: i64, id: &str) -> bool {
        let key = Known::of(group, id);
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
        self.known.contains(&Known::of(group, id))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_that_differ_are_never_taken_for_one() {
        let sha = "8dd52b4d7c822b78db23db85bf351c7114e46b36";
        let upper = sha.to_uppercase();
        let all = [sha, &upper, &sha[..39], &format!("{sha}0"), "x", "8dd52b4d7c822b78db23db85bf351c7114e46b3g"];
        let mut repeats = Repeats::default();
        for group in [1, 2] {
            assert!(all.iter().all(|id| repeats.first_time(group, id)));
        }
        assert!(all.iter().all(|id| repeats.knows(1, id) && !repeats.first_time(2, id) && !repeats.knows(3, id)));
    }

    #[test]
    fn the_latest_are_known_and_no_more() {
        let mut repeats = Repeats::default();
        let id = |number: usize| format!("{number:040x}");
        assert!((0..=REPEAT_WINDOW).all(|number| repeats.first_time(1, &id(number))));
        assert!(!repeats.knows(1, &id(0)) && repeats.knows(1, &id(1)) && repeats.knows(1, &id(REPEAT_WINDOW)));
        assert_eq!((repeats.order.len(), repeats.known.len()), (REPEAT_WINDOW, REPEAT_WINDOW));
    }
}
