//! Events that go along in one request (contract §3, batches): more of the same chat, and of other chats that are ready. An order
//! within a chat is never broken. A batch that fails blames nobody: its events are sent again alone. Deliberately absent: what
//! a request of several looks like (`delivery`).

use std::time::{Duration, Instant};

use super::{Dispatch, LaneKey, Lanes, Phase};
use crate::domain::delivery::RetryAfter;
use crate::domain::event::Queued;

impl Lanes {
    /// What goes along with an event that [`Lanes::next`] has just given: at most so many events and bytes, as long as they
    /// are `fit` to be sent. Nothing while the destination is down, with what is replayed, or with what is to be sent alone.
    pub fn along(
        &mut self,
        first: &Dispatch,
        mut events: usize,
        mut bytes: usize,
        fit: &dyn Fn(&Queued) -> bool,
    ) -> Vec<Dispatch> {
        let is_alone = self.lanes.get(&first.key).is_none_or(|state| state.alone > 0);
        if self.outage.is_some() || first.key.replay > 0 || is_alone {
            return Vec::new();
        }
        let mut found = Vec::new();
        let answers = self.blame.answers();
        let mut passed = Vec::new();
        let mut next = Some(first.key);
        while let Some(key) = next {
            let before = found.len();
            if let Some(state) = self.lanes.get_mut(&key).filter(|state| state.alone == 0) {
                for (place, event) in state.queue.iter().enumerate().skip(state.flying) {
                    let size = event.event.body.len();
                    if events == 0 || size > bytes || !fit(event) {
                        break;
                    }
                    (events, bytes) = (events - 1, bytes - size);
                    found.push(Dispatch { key, event: event.clone(), aside: place >= state.own });
                }
                if found.len() > before {
                    state.phase = Phase::InFlight;
                    state.flying += found.len() - before;
                    state.answers.get_or_insert(answers);
                }
            }
            if key != first.key && found.len() == before {
                passed.push(key);
            }
            next = if events > 0 { self.ready.pop_front() } else { None };
        }
        for key in passed.into_iter().rev() {
            self.ready.push_front(key);
        }
        found
    }

    /// A batch was taken: those that went along with its first event are settled, as that one is by [`Lanes::answered`].
    pub fn went_along(&mut self, key: LaneKey, now: Instant) {
        self.blame.note(key.lane, true);
        self.leave(key, now);
    }

    /// A batch brought no success: its events wait and are sent again, each alone. `keys` are its chats, that of its first
    /// event first; `refused` is whether the handler has answered so, which no outage does. Returns the wait, and
    /// whether an outage ended with it.
    pub fn scattered(
        &mut self,
        keys: &[LaneKey],
        now: Instant,
        refused: bool,
        asked: Option<RetryAfter>,
        wait: &mut dyn FnMut(u32) -> Duration,
    ) -> (Duration, bool) {
        let mut pause = wait(1);
        match asked {
            Some(RetryAfter::Destination(span)) => self.hold_until = self.hold_until.max(Some(now + span)),
            Some(RetryAfter::Chat(span)) => pause = pause.max(span),
            None => {}
        }
        if let Some(first) = keys.first() {
            self.landed(*first);
        }
        let by_handler = matches!(asked, Some(RetryAfter::Chat(_)));
        let phase = Phase::Waiting { until: now + pause, asked: by_handler };
        let answers = Some(self.blame.answers());
        for key in keys {
            if let Some(state) = self.lanes.get_mut(key) {
                state.alone = state.alone.max(state.flying);
                state.flying = 0;
                state.last_attempt = Some(now);
                state.answers = answers;
                state.phase = phase;
                self.enlist(*key, phase);
            }
        }
        if refused {
            self.failed = None;
        }
        let ended = refused && self.outage.take().is_some();
        if ended {
            self.width = 1;
            self.wake_all();
        }
        (pause, ended)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::super::rig::{chats, lane, offer};
    use super::*;

    use crate::domain::ids::Seq;

    fn batch(lanes: &mut Lanes, now: Instant, most: usize) -> Vec<Dispatch> {
        let Some(first) = lanes.next(now) else { return Vec::new() };
        let more = lanes.along(&first, most - 1, 1000, &|_| true);
        std::iter::once(first).chain(more).collect()
    }

    fn seqs(batch: &[Dispatch]) -> Vec<u64> {
        batch.iter().map(|dispatch| dispatch.event.seq.0).collect()
    }

    fn taken(lanes: &mut Lanes, batch: &[Dispatch], now: Instant) {
        let keys = chats(batch);
        lanes.answered(keys[0], now);
        keys[1..].iter().for_each(|key| lanes.went_along(*key, now));
    }

    #[test]
    fn a_batch_takes_more_of_its_chat_then_other_chats_and_keeps_their_order() {
        let (mut lanes, now) = (Lanes::new(4), Instant::now());
        for (seq, peer) in [(1, 1), (2, 2), (3, 1), (4, 2), (5, 3), (6, 1)] {
            offer(&mut lanes, seq, peer);
        }
        let first = batch(&mut lanes, now, 4);
        assert_eq!(seqs(&first), [1, 3, 6, 2]);
        // The other chats go on meanwhile; what is in flight does not go twice.
        let second = batch(&mut lanes, now, 4);
        assert_eq!((seqs(&second), batch(&mut lanes, now, 4).len()), (vec![5], 0));
        taken(&mut lanes, &first, now);
        assert_eq!(seqs(&batch(&mut lanes, now, 4)), [4]);
        assert_eq!(lanes.in_flight(), 2);
    }

    #[test]
    fn what_failed_together_is_sent_again_alone_and_blames_nobody() {
        let (mut lanes, now) = (Lanes::new(4), Instant::now());
        for (seq, peer) in [(1, 1), (2, 2), (3, 1)] {
            offer(&mut lanes, seq, peer);
        }
        let all = batch(&mut lanes, now, 9);
        assert_eq!(seqs(&all), [1, 3, 2]);
        let second = Duration::from_secs(1);
        assert_eq!(lanes.scattered(&chats(&all), now, false, None, &mut |_| second), (second, false));
        assert!(batch(&mut lanes, now, 9).is_empty() && lanes.in_flight() == 0);
        let later = now + second;
        let (one, two) = (batch(&mut lanes, later, 9), batch(&mut lanes, later, 9));
        assert_eq!((seqs(&one), seqs(&two)), (vec![1], vec![2]));
        taken(&mut lanes, &one, later);
        assert_eq!(seqs(&batch(&mut lanes, later, 9)), [3], "the second of its chat as well");
        taken(&mut lanes, &two, later);
        offer(&mut lanes, 7, 2);
        offer(&mut lanes, 8, 2);
        assert_eq!(seqs(&batch(&mut lanes, later, 9)), [7, 8], "then they go together again");
    }

    /// What was answered while a batch flew says nothing about its events: an outage may have begun meanwhile.
    #[test]
    fn an_answer_of_while_a_batch_flew_blames_none_of_its_events() {
        let (mut lanes, now) = (Lanes::new(4), Instant::now());
        for (seq, peer) in [(1, 1), (2, 1)] {
            offer(&mut lanes, seq, peer);
        }
        let flies = batch(&mut lanes, now, 9);
        offer(&mut lanes, 3, 2);
        let other = batch(&mut lanes, now, 9);
        taken(&mut lanes, &other, now);
        let second = Duration::from_secs(1);
        lanes.scattered(&chats(&flies), now, false, None, &mut |_| second);
        let alone = batch(&mut lanes, now + second, 9);
        assert_eq!(seqs(&alone), [1]);
        assert!(!lanes.counts(alone[0].key, false, true));
    }

    /// A refusal is an answer: it ends an outage, and a wait that the handler asked for is kept by a probe.
    #[test]
    fn a_batch_that_is_refused_ends_an_outage_and_a_wait_that_was_asked_for_is_kept() {
        let (mut lanes, now) = (Lanes::new(4), Instant::now());
        for (seq, peer) in [(1, 1), (2, 1), (3, 2), (4, 3)] {
            offer(&mut lanes, seq, peer);
        }
        let flies = batch(&mut lanes, now, 2);
        let (b, c) = (batch(&mut lanes, now, 1), batch(&mut lanes, now, 1));
        let second = Duration::from_secs(1);
        for one in [&b, &c] {
            lanes.failed(one[0].key, now, 1, None, &mut |_| second);
        }
        assert!(lanes.is_down());
        let asked = Some(RetryAfter::Chat(9 * second));
        assert_eq!(lanes.scattered(&chats(&flies), now, true, asked, &mut |_| second), (9 * second, true));
        let later = now + 2 * second;
        assert!(!lanes.is_down() && !seqs(&batch(&mut lanes, later, 1)).contains(&1));
    }

    #[test]
    fn a_batch_has_a_bound_and_ends_at_what_is_not_fit() {
        let (mut lanes, now) = (Lanes::new(4), Instant::now());
        (1..=5).for_each(|seq| offer(&mut lanes, seq, 1));
        offer(&mut lanes, 6, 2);
        let first = lanes.next(now).expect("sent");
        let more = lanes.along(&first, 9, 25, &|event| event.seq != Seq(6));
        assert_eq!(seqs(&more), [2, 3], "ten bytes each");
        assert_eq!(seqs(&batch(&mut lanes, now, 1)), [6], "what did not go along goes by itself");
    }

    proptest! {
        #[test]
        fn whatever_is_answered_each_chat_keeps_its_order_and_each_event_is_settled_once(
            most in 1usize..7,
            steps in prop::collection::vec((0u8..6, 0i64..4, any::<bool>()), 1..300),
        ) {
            let mut lanes = Lanes::new(3);
            let mut now = Instant::now();
            let (mut seq, mut flying) = (0, Vec::<Vec<Dispatch>>::new());
            let mut offered: HashMap<LaneKey, Vec<u64>> = HashMap::new();
            let mut settled: HashMap<LaneKey, Vec<u64>> = HashMap::new();
            let mut finish = |lanes: &mut Lanes, batch: Vec<Dispatch>, fine: bool, now: Instant| {
                if fine {
                    for dispatch in &batch {
                        settled.entry(dispatch.key).or_default().push(dispatch.event.seq.0);
                    }
                    taken(lanes, &batch, now);
                } else if batch.len() > 1 {
                    lanes.scattered(&chats(&batch), now, false, None, &mut |_| Duration::from_millis(1));
                } else {
                    lanes.failed(batch[0].key, now, 1, None, &mut |_| Duration::from_millis(1));
                }
            };
            for (kind, peer, fine) in steps {
                match kind {
                    0..=2 => {
                        seq += 1;
                        offer(&mut lanes, seq, peer);
                        offered.entry(LaneKey::live(lane(peer))).or_default().push(seq);
                    }
                    3 => flying.extend(Some(batch(&mut lanes, now, most)).filter(|batch| !batch.is_empty())),
                    4 if !flying.is_empty() => {
                        let one = flying.swap_remove(peer.unsigned_abs() as usize % flying.len());
                        finish(&mut lanes, one, fine, now);
                    }
                    _ => now += Duration::from_millis(3),
                }
            }
            for _ in 0..2000 {
                now += Duration::from_millis(3);
                flying.extend(Some(batch(&mut lanes, now, most)).filter(|batch| !batch.is_empty()));
                if let Some(one) = flying.pop() {
                    finish(&mut lanes, one, true, now);
                }
            }
            prop_assert_eq!(offered, settled);
            prop_assert_eq!((lanes.queued(), lanes.in_flight()), ((0, 0), 0));
        }
    }
}
