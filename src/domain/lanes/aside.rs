//! Chats whose events were moved aside: memory keeps the first of each, the rest is read back when its turn comes. What
//! comes for such a chat goes aside as well, until none of it is there. Deliberately absent: where the side is.

use std::collections::VecDeque;
use std::time::Instant;

use super::{Aside, LaneKey, Lanes, Phase, State};
use crate::domain::event::Queued;
use crate::domain::ids::{Lane, Seq};

impl Lanes {
    /// How many chats are aside.
    #[must_use]
    pub fn aside(&self) -> usize {
        self.aside
    }

    /// Whether what comes for this chat must go aside.
    #[must_use]
    pub fn is_aside(&self, lane: Lane) -> bool {
        self.lanes.get(&LaneKey::live(lane)).is_some_and(|state| state.aside.is_some())
    }

    /// Chooses the chats that wait for a retry, and hands out their events to be moved aside; memory keeps the first of
    /// each. At most `most` chats. In an outage none is moved: everything waits alike.
    pub fn move_blocked_aside(&mut self, most: usize) -> Vec<Queued> {
        if self.outage.is_some() {
            return Vec::new();
        }
        let blocked = self.waiting.iter().map(|(_, key)| *key).filter(|key| key.replay == 0).collect();
        self.move_aside(blocked, most)
    }

    /// Chooses the chats whose first event lies below `below`, outage or not, and hands out their events to be moved aside.
    /// A chat with an event in flight stays: it is asked again. At most `most` chats.
    pub fn move_old_aside(&mut self, below: Seq, most: usize) -> Vec<Queued> {
        let old = |(key, state): (&LaneKey, &State)| {
            let first = state.queue.front().filter(|event| event.seq < below && state.phase != Phase::InFlight);
            (key.replay == 0 && first.is_some()).then_some(*key)
        };
        let old = self.lanes.iter().filter_map(old).collect();
        self.move_aside(old, most)
    }

    fn move_aside(&mut self, chats: Vec<LaneKey>, most: usize) -> Vec<Queued> {
        let mut moved = Vec::new();
        let mut count = 0;
        for key in chats {
            let Some(state) = self.lanes.get_mut(&key).filter(|state| state.aside.is_none()) else { continue };
            let (Some(first), Some(last)) = (state.queue.front(), state.queue.back()) else { continue };
            if count == most {
                break;
            }
            count += 1;
            state.aside = Some(Aside { loaded: first.seq, last: last.seq });
            self.aside += 1;
            let rest = state.queue.split_off(1);
            let all: Vec<Queued> = state.queue.iter().cloned().chain(rest).collect();
            all.iter().for_each(|event| self.count(key, event, false));
            moved.extend(all);
        }
        moved
    }

    /// One more event of a chat that is aside went there.
    pub fn moved_aside(&mut self, lane: Lane, seq: Seq) {
        if let Some(aside) = self.lanes.get_mut(&LaneKey::live(lane)).and_then(|state| state.aside.as_mut()) {
            aside.last = seq;
        }
    }

    /// A chat that was aside when the last process ended.
    pub fn resume_aside(&mut self, lane: Lane, first: Seq, last: Seq) {
        let key = LaneKey::live(lane);
        self.aside += 1;
        let aside = Some(Aside { loaded: Seq(first.0.saturating_sub(1)), last });
        self.lanes.insert(
            key,
            State {
                queue: VecDeque::new(),
                phase: Phase::Loading,
                last_attempt: None,
                flying: 0,
                alone: 0,
                answers: None,
                aside,
            },
        );
        self.enlist(key, Phase::Loading);
    }

    /// A chat whose next events must be read from the side, and the position after which they lie.
    #[must_use]
    pub fn to_load(&self) -> Option<(Lane, Seq)> {
        let lane = *self.loading.first()?;
        let aside = self.lanes.get(&LaneKey::live(lane))?.aside?;
        Some((lane, aside.loaded))
    }

    /// The next events of a chat that is aside; the first waits until `not_before`, if that is given. Returns whether the
    /// chat was found as it should be: there must be at least one event.
    #[must_use]
    pub fn loaded(&mut self, lane: Lane, events: Vec<Queued>, not_before: Option<Instant>) -> bool {
        let key = LaneKey::live(lane);
        let Some(state) = self.lanes.get_mut(&key) else { return false };
        let (Some(aside), Some(last)) = (&mut state.aside, events.last()) else { return false };
        aside.loaded = last.seq;
        state.queue.extend(events);
        let phase = not_before.map_or(Phase::Ready, |until| Phase::Waiting { until, asked: false });
        state.phase = phase;
        self.loading.remove(&lane);
        self.enlist(key, phase);
        true
    }
}
