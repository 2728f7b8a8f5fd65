//! Chats whose events were moved aside: memory keeps the first of each, the rest is read back when its turn comes. A chat goes
//! aside because it is blocked, because room is short, or because it is so busy that others would wait for it to be read. What
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
            let Some(state) = self.lanes.get_mut(&key).filter(|state| state.own > 0) else { continue };
            let (Some(first), Some(last)) = (state.queue.front(), state.queue.back()) else { continue };
            let new = state.aside.is_none();
            if new && count == most {
                break;
            }
            let last = state.aside.map_or(last.seq, |aside| aside.last);
            state.aside = Some(Aside { loaded: first.seq, last });
            let all: Vec<Queued> = state.queue.iter().take(state.own).cloned().collect();
            state.queue.truncate(1);
            state.own = 0;
            (self.aside, count) = (self.aside + usize::from(new), count + usize::from(new));
            all.iter().for_each(|event| self.count(key, event, false));
            moved.extend(all);
        }
        moved
    }

    /// Chooses the chat that has most events here, if that is over `many`, and hands out all but its first `keep` to be moved
    /// aside: others are not to wait for it to be read.
    pub fn move_longest_aside(&mut self, many: usize, keep: usize) -> Vec<Queued> {
        let long = self.lanes.iter().filter(|(key, state)| key.replay == 0 && state.aside.is_none());
        let longest = long.max_by_key(|(_, state)| state.queue.len()).filter(|(_, state)| state.queue.len() > many);
        let Some(key) = longest.map(|(key, _)| *key) else { return Vec::new() };
        let Some(state) = self.lanes.get_mut(&key) else { return Vec::new() };
        let tail: Vec<Queued> = state.queue.split_off(keep.max(state.flying).max(1).min(state.queue.len())).into();
        let (Some(loaded), Some(last)) = (state.queue.back(), tail.last()) else { return Vec::new() };
        state.aside = Some(Aside { loaded: loaded.seq, last: last.seq });
        state.own = state.queue.len();
        self.aside += 1;
        tail.iter().for_each(|event| self.count(key, event, false));
        tail
    }

    /// One more event of a chat that is aside went there. After a restart it may lie before those that were there already:
    /// what a busy chat had kept in the log.
    pub fn moved_aside(&mut self, lane: Lane, seq: Seq) {
        let Some(state) = self.lanes.get_mut(&LaneKey::live(lane)) else { return };
        let Some(aside) = &mut state.aside else { return };
        aside.last = aside.last.max(seq);
        if state.queue.is_empty() {
            aside.loaded = aside.loaded.min(Seq(seq.0.saturating_sub(1)));
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
                own: 0,
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
        // What was tried before goes alone.
        state.alone = state.alone.max(usize::from(not_before.is_some()));
        let phase = not_before.map_or(Phase::Ready, |until| Phase::Waiting { until, asked: false });
        state.phase = phase;
        self.loading.remove(&lane);
        self.enlist(key, phase);
        true
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet, HashMap};
    use std::time::Duration;

    use proptest::prelude::*;

    use super::super::rig::{chats, event, lane};
    use super::*;

    use crate::domain::lanes::{Dispatch, Withdrawn};

    /// Lanes, and what the outbox would keep: the log and the side.
    struct World {
        lanes: Lanes,
        now: Instant,
        log: BTreeSet<u64>,
        side: HashMap<Lane, BTreeMap<u64, Queued>>,
        settled: HashMap<Lane, Vec<u64>>,
        flying: Vec<Vec<Dispatch>>,
        peers: HashMap<u64, i64>,
    }

    impl World {
        fn come(&mut self, seq: u64, peer: i64) {
            self.peers.insert(seq, peer);
            let (event, lane) = (event(seq, peer), lane(peer));
            if self.lanes.is_aside(lane) {
                self.lanes.moved_aside(lane, event.seq);
                self.side.entry(lane).or_default().insert(seq, event);
            } else {
                self.log.insert(seq);
                self.lanes.offer(LaneKey::live(lane), event, None);
            }
        }

        fn moved(&mut self, moved: Vec<Queued>) {
            for event in moved {
                assert!(self.log.remove(&event.seq.0), "{} was not in the log", event.seq);
                self.side.entry(event.event.lane()).or_default().insert(event.seq.0, event);
            }
        }

        fn load(&mut self) {
            while let Some((lane, after)) = self.lanes.to_load() {
                let rows = self.side.get(&lane).into_iter().flat_map(|rows| rows.range(after.0 + 1..));
                let events: Vec<Queued> = rows.take(2).map(|(_, event)| event.clone()).collect();
                assert!(self.lanes.loaded(lane, events, None), "the side of {lane} is empty");
            }
        }

        fn send(&mut self, most: usize) {
            self.load();
            if let Some(first) = self.lanes.next(self.now) {
                let along = self.lanes.along(&first, most, 1000, &|_| true);
                self.flying.push(std::iter::once(first).chain(along).collect());
            }
        }

        fn gone(&mut self, lane: Lane, seq: u64, aside: bool) {
            let was = if aside {
                self.side.get_mut(&lane).is_some_and(|rows| rows.remove(&seq).is_some())
            } else {
                self.log.remove(&seq)
            };
            assert!(was, "{seq} of {lane} is not where it is said to be (aside: {aside})");
            self.settled.entry(lane).or_default().push(seq);
        }

        fn land(&mut self, place: usize, fine: bool) {
            let batch = self.flying.swap_remove(place);
            let keys = chats(&batch);
            if fine {
                batch.iter().for_each(|one| self.gone(one.key.lane, one.event.seq.0, one.aside));
                self.lanes.answered(keys[0], self.now);
                keys[1..].iter().for_each(|key| self.lanes.went_along(*key, self.now));
            } else if batch.len() > 1 {
                self.lanes.scattered(&keys, self.now, false, None, &mut |_| Duration::from_millis(1));
            } else {
                self.lanes.failed(keys[0], self.now, 1, None, &mut |_| Duration::from_millis(1));
            }
        }
    }

    /// What the outbox still has of a chat, given back to lanes that know nothing, as after a restart.
    fn restarted(world: &mut World) {
        let mut lanes = Lanes::new(3);
        for (lane, rows) in &world.side {
            if let (Some(first), Some(last)) = (rows.keys().next(), rows.keys().next_back()) {
                lanes.resume_aside(*lane, Seq(*first), Seq(*last));
            }
        }
        world.lanes = lanes;
        world.flying.clear();
        for seq in std::mem::take(&mut world.log) {
            world.come(seq, world.peers[&seq]);
        }
    }

    proptest! {
        /// Whatever moves aside, fails, is taken out or sent together: each event is where it is said to be when it is settled,
        /// each is settled once, and each chat keeps its order.
        #[test]
        fn each_event_is_where_it_is_said_to_be_and_each_chat_keeps_its_order(
            most in 0usize..4,
            steps in prop::collection::vec((0u8..12, 0i64..3, any::<bool>()), 1..300),
        ) {
            let lanes = Lanes::new(3);
            let mut world = World {
                lanes, now: Instant::now(), log: BTreeSet::new(), side: HashMap::new(), settled: HashMap::new(), flying: Vec::new(), peers: HashMap::new(),
            };
            let (mut seq, mut offered) = (0, HashMap::<Lane, Vec<u64>>::new());
            for (kind, peer, fine) in steps {
                match kind {
                    0..=3 => {
                        seq += 1;
                        world.come(seq, peer);
                        offered.entry(lane(peer)).or_default().push(seq);
                    }
                    4 => world.send(most),
                    5 if !world.flying.is_empty() => {
                        let place = peer.unsigned_abs() as usize % world.flying.len();
                        world.land(place, fine);
                    }
                    6 => {
                        let moved = world.lanes.move_blocked_aside(2);
                        world.moved(moved);
                    }
                    7 => {
                        let moved = world.lanes.move_longest_aside(2, 1);
                        world.moved(moved);
                    }
                    8 => {
                        let moved = world.lanes.move_old_aside(Seq(seq / 2), 2);
                        world.moved(moved);
                    }
                    9 => {
                        let wanted = seq.saturating_sub(peer.unsigned_abs());
                        if let Withdrawn::Taken { lane, aside } = world.lanes.withdraw(Seq(wanted), world.now) {
                            world.gone(lane, wanted, aside);
                            // It is not sent; what is offered is counted without it.
                            world.settled.get_mut(&lane).expect("settled").pop();
                            offered.get_mut(&lane).expect("offered").retain(|seq| *seq != wanted);
                        }
                    }
                    10 => restarted(&mut world),
                    _ => world.now += Duration::from_millis(3),
                }
            }
            for _ in 0..2000 {
                world.now += Duration::from_millis(3);
                world.send(most);
                if !world.flying.is_empty() {
                    world.land(0, true);
                }
            }
            offered.retain(|_, seqs| !seqs.is_empty());
            world.settled.retain(|_, seqs| !seqs.is_empty());
            prop_assert_eq!(offered, world.settled);
            prop_assert!(world.log.is_empty() && world.side.values().all(BTreeMap::is_empty));
            prop_assert_eq!((world.lanes.queued(), world.lanes.in_flight(), world.lanes.aside()), ((0, 0), 0, 0));
        }
    }
}
