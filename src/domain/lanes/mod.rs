//! Which event is sent next to one destination. Pure: moments and waits come in. Each chat is a lane: its events wait in
//! order, one of them at a time is in flight; lanes do not wait for each other.
//!
//! Invariants: at most one request of a lane is in flight; a lane's events leave in the order they were offered; while the
//! destination is down one request at a time is sent (contract §3). A replay's lanes stand beside the live ones, go after
//! them, begin no outage, and are sent in one only if there is nothing live to ask with. Deliberately absent: sending, storing, what was tried of an event.

mod aside;
mod batch;
mod blame;
mod look;
mod outage;
mod withdraw;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::{Duration, Instant};

use self::blame::Blame;
use self::outage::Outage;
pub use self::withdraw::Withdrawn;
use super::delivery::RetryAfter;
use super::event::Queued;
use super::ids::{Lane, Seq};

/// A lane of live traffic (`replay` 0) or of a replay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LaneKey {
    /// 0, or the number of the replay.
    pub replay: u64,
    /// The chat.
    pub lane: Lane,
}

impl LaneKey {
    /// The live lane of a chat.
    #[must_use]
    pub fn live(lane: Lane) -> Self {
        Self { replay: 0, lane }
    }
}

/// An event to be sent now.
#[derive(Clone, Debug)]
pub struct Dispatch {
    /// Its lane, to be named when the attempt is over.
    pub key: LaneKey,
    /// The event.
    pub event: Queued,
    /// Whether it is kept aside rather than in the log.
    pub aside: bool,
}

/// Why nothing or little is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// Nothing is in the way.
    Open,
    /// The handler asked for a pause of the whole destination.
    Held {
        /// Until when.
        until: Instant,
    },
    /// The destination is down: one request at a time.
    Down {
        /// When the next one is sent.
        next_probe: Instant,
    },
}

/// How late a timer may be without replays being slower than they may.
const LATE: Duration = Duration::from_millis(5);

/// All lanes of one destination.
#[derive(Debug)]
pub struct Lanes {
    concurrency: usize,
    /// How many may be in flight now: less than `concurrency` only while traffic comes back after an outage.
    width: usize,
    lanes: HashMap<LaneKey, State>,
    ready: VecDeque<LaneKey>,
    ready_replay: VecDeque<LaneKey>,
    waiting: BTreeSet<(Instant, LaneKey)>,
    loading: BTreeSet<Lane>,
    in_flight: usize,
    replays_in_flight: usize,
    queued: usize,
    queued_bytes: usize,
    replaying: usize,
    /// The least time between two requests of replays, and when the next one may be sent.
    replay_interval: Duration,
    replay_from: Option<Instant>,
    aside: usize,
    hold_until: Option<Instant>,
    /// The chat that failed since the last answer, if one did.
    failed: Option<Lane>,
    outage: Option<Outage>,
    blame: Blame,
}

#[derive(Debug)]
struct State {
    queue: VecDeque<Queued>,
    phase: Phase,
    last_attempt: Option<Instant>,
    /// How many of its first events are not aside; what follows them is.
    own: usize,
    /// How many of its first events are in flight.
    flying: usize,
    /// How many of its first events are sent alone: a batch with them has failed.
    alone: usize,
    /// How many attempts of all chats had been answered when its first event was last tried; nothing before that.
    answers: Option<u64>,
    aside: Option<Aside>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Ready,
    InFlight,
    /// `asked`: the handler asked for this wait, so not even a recovery cuts it.
    Waiting {
        until: Instant,
        asked: bool,
    },
    /// Its next event must be read from the side.
    Loading,
}

/// A lane whose events were moved aside: memory holds a prefix of them.
#[derive(Clone, Copy, Debug)]
struct Aside {
    loaded: Seq,
    last: Seq,
}

impl Lanes {
    /// No lanes yet; at most `concurrency` requests in flight.
    #[must_use]
    pub fn new(concurrency: usize) -> Self {
        let concurrency = concurrency.max(1);
        Self {
            concurrency,
            width: concurrency,
            lanes: HashMap::new(),
            ready: VecDeque::new(),
            ready_replay: VecDeque::new(),
            waiting: BTreeSet::new(),
            loading: BTreeSet::new(),
            in_flight: 0,
            replays_in_flight: 0,
            queued: 0,
            queued_bytes: 0,
            replaying: 0,
            replay_interval: Duration::ZERO,
            replay_from: None,
            aside: 0,
            hold_until: None,
            failed: None,
            outage: None,
            blame: Blame::default(),
        }
    }

    /// Adds an event to the end of its lane. A lane that begins with it waits until `not_before`, if that is given.
    pub fn offer(&mut self, key: LaneKey, event: Queued, not_before: Option<Instant>) {
        self.count(key, &event, true);
        if let Some(state) = self.lanes.get_mut(&key) {
            debug_assert!(state.aside.is_none(), "invariant: what a lane aside is offered goes aside");
            state.queue.push_back(event);
            state.own += 1;
            return;
        }
        let phase = not_before.map_or(Phase::Ready, |until| Phase::Waiting { until, asked: false });
        self.lanes.insert(
            key,
            State {
                queue: VecDeque::from([event]),
                phase,
                last_attempt: None,
                own: 1,
                flying: 0,
                alone: usize::from(not_before.is_some()),
                answers: None,
                aside: None,
            },
        );
        self.enlist(key, phase);
    }

    /// The next event to be sent, if one may be sent now.
    pub fn next(&mut self, now: Instant) -> Option<Dispatch> {
        if self.hold_until.is_some_and(|until| until > now) {
            return None;
        }
        self.hold_until = None;
        let key = if self.outage.is_some() { self.next_probe(now)? } else { self.next_ready(now)? };
        let state = self.lanes.get_mut(&key)?;
        let event = state.queue.front().cloned().expect("invariant: a lane that may be sent has an event");
        state.phase = Phase::InFlight;
        state.flying = 1;
        // An answer of before its first attempt says nothing about it.
        state.answers.get_or_insert(self.blame.answers());
        self.in_flight += 1;
        self.replays_in_flight += usize::from(key.replay > 0);
        if key.replay > 0 && !self.replay_interval.is_zero() {
            // A timer that fires late must not make it slower than asked.
            let late = now.checked_sub(LATE).unwrap_or(now);
            self.replay_from = Some(self.replay_from.unwrap_or(now).max(late) + self.replay_interval);
        }
        Some(Dispatch { key, event, aside: state.own == 0 })
    }

    fn next_ready(&mut self, now: Instant) -> Option<LaneKey> {
        while let Some(&(until, key)) = self.waiting.first()
            && until <= now
        {
            self.waiting.pop_first();
            if let Some(state) = self.lanes.get_mut(&key) {
                state.phase = Phase::Ready;
                self.enlist(key, Phase::Ready);
            }
        }
        if self.in_flight >= self.width {
            return None;
        }
        if let Some(key) = self.ready.pop_front() {
            return Some(key);
        }
        let early = self.replay_from.is_some_and(|from| from > now);
        if early || self.replays_are_many() { None } else { self.ready_replay.pop_front() }
    }

    /// A replay never takes more than half of the places from live traffic.
    fn replays_are_many(&self) -> bool {
        self.replays_in_flight >= (self.width / 2).max(1)
    }

    /// The attempt of `key` is over and its event is settled: taken or refused. Returns whether an outage ended with it.
    pub fn answered(&mut self, key: LaneKey, now: Instant) -> bool {
        self.landed(key);
        self.blame.note(key.lane, true);
        self.failed = None;
        self.leave(key, now);
        let ended = self.outage.take().is_some();
        if ended {
            self.width = 1;
            self.wake_all();
        } else {
            self.width = (self.width + 1).min(self.concurrency);
        }
        ended
    }

    /// The attempt of `key` is over and its event waits. `wait` gives the (spread) interval before attempt n + 1; `tried`
    /// is how many attempts this event has had. Returns the wait of this chat, and whether an outage began with it.
    pub fn failed(
        &mut self,
        key: LaneKey,
        now: Instant,
        tried: u32,
        asked: Option<RetryAfter>,
        wait: &mut dyn FnMut(u32) -> Duration,
    ) -> (Duration, bool) {
        self.landed(key);
        self.blame_for(key);
        let mut pause = wait(tried);
        let mut by_handler = false;
        match asked {
            Some(RetryAfter::Destination(span)) => self.hold_until = self.hold_until.max(Some(now + span)),
            Some(RetryAfter::Chat(span)) => {
                by_handler = true;
                pause = pause.max(span);
            }
            None => {}
        }
        let phase = Phase::Waiting { until: now + pause, asked: by_handler };
        let answers = Some(self.blame.answers());
        if let Some(state) = self.lanes.get_mut(&key) {
            state.last_attempt = Some(now);
            state.answers = answers;
            // What has failed by itself takes no other with it.
            state.alone = state.alone.max(state.flying);
            state.flying = 0;
            state.phase = phase;
        }
        self.enlist(key, phase);
        (pause, self.went_wrong(key, now, wait))
    }

    /// That what is dead fails once more says nothing about the others.
    fn blame_for(&mut self, key: LaneKey) {
        if key.replay == 0 {
            self.blame.note(key.lane, false);
        }
    }

    /// The event at the front of a lane is done with.
    fn leave(&mut self, key: LaneKey, now: Instant) {
        let Some(mut state) = self.lanes.remove(&key) else { return };
        // What is taken out of a waiting chat does not fly.
        let gone = state.flying.max(1);
        for event in state.queue.drain(..gone.min(state.queue.len())) {
            if state.own > 0 {
                state.own -= 1;
                self.count(key, &event, false);
            }
        }
        state.flying = 0;
        state.alone = state.alone.saturating_sub(gone);
        state.last_attempt = Some(now);
        state.answers = None;
        let phase = match (state.queue.is_empty(), state.aside) {
            (false, _) => Some(Phase::Ready),
            (true, Some(aside)) if aside.loaded < aside.last => Some(Phase::Loading),
            (true, _) => None,
        };
        self.aside -= usize::from(phase.is_none() && state.aside.is_some());
        if let Some(phase) = phase {
            state.phase = phase;
            self.lanes.insert(key, state);
            self.enlist(key, phase);
        }
    }

    fn enlist(&mut self, key: LaneKey, phase: Phase) {
        match phase {
            Phase::Ready if key.replay > 0 => self.ready_replay.push_back(key),
            Phase::Ready => self.ready.push_back(key),
            Phase::Waiting { until, .. } => drop(self.waiting.insert((until, key))),
            Phase::Loading => drop(self.loading.insert(key.lane)),
            Phase::InFlight => {}
        }
    }

    /// Counts an event in or out; those of replays and of chats aside have bounds of their own.
    fn count(&mut self, key: LaneKey, event: &Queued, comes: bool) {
        let step = |count: &mut usize, by: usize| *count = if comes { *count + by } else { *count - by };
        if key.replay > 0 {
            step(&mut self.replaying, 1);
        } else {
            step(&mut self.queued, 1);
            step(&mut self.queued_bytes, event.event.body.len());
        }
    }

    fn landed(&mut self, key: LaneKey) {
        self.in_flight -= 1;
        self.replays_in_flight -= usize::from(key.replay > 0);
    }
}

#[cfg(test)]
mod rig;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::rig::{event, lane, offer};
    use super::*;

    fn fail(lanes: &mut Lanes, dispatch: &Dispatch, now: Instant) -> bool {
        lanes.failed(dispatch.key, now, 1, None, &mut |n| Duration::from_secs(u64::from(n))).1
    }

    fn sent(lanes: &mut Lanes, now: Instant) -> Vec<u64> {
        std::iter::from_fn(|| lanes.next(now)).map(|dispatch| dispatch.event.seq.0).collect()
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_chat_waits_for_its_own_event_and_no_other_chat_does() {
        let (mut lanes, now) = (Lanes::new(8), Instant::now());
        for (seq, peer) in [(1, 1), (2, 1), (3, 2)] {
            offer(&mut lanes, seq, peer);
        }
        assert_eq!(sent(&mut lanes, now), [1, 3]);
        lanes.answered(LaneKey::live(lane(1)), now);
        assert_eq!(sent(&mut lanes, now), [2]);
    }

    #[test]
    fn no_more_than_the_concurrency_is_in_flight_and_a_quiet_chat_is_not_starved() {
        let (mut lanes, now) = (Lanes::new(1), Instant::now());
        for seq in 1..=5 {
            offer(&mut lanes, seq, 1);
        }
        offer(&mut lanes, 6, 2);
        assert_eq!(sent(&mut lanes, now), [1]);
        lanes.answered(LaneKey::live(lane(1)), now);
        assert_eq!(sent(&mut lanes, now), [6]);
    }

    #[test]
    fn one_failing_chat_waits_alone_and_holds_no_slot() {
        let (mut lanes, now) = (Lanes::new(1), Instant::now());
        offer(&mut lanes, 1, 1);
        offer(&mut lanes, 2, 2);
        let first = lanes.next(now).expect("sent");
        assert!(!fail(&mut lanes, &first, now));
        let second = lanes.next(now).expect("another chat goes on");
        assert_eq!(second.event.seq, Seq(2));
        lanes.answered(second.key, now);
        assert_eq!((lanes.next(now).map(|d| d.event.seq), lanes.next_due()), (None, Some(now + SECOND)));
        assert_eq!(sent(&mut lanes, now + SECOND), [1]);
    }

    #[test]
    fn two_failing_chats_are_an_outage_and_one_request_at_a_time_goes_to_the_one_least_tried() {
        let (mut lanes, now) = (Lanes::new(2), Instant::now());
        for peer in 1..=4i64 {
            offer(&mut lanes, peer.cast_unsigned(), peer);
        }
        let (a, b) = (lanes.next(now).expect("sent"), lanes.next(now).expect("sent"));
        assert!(!fail(&mut lanes, &a, now));
        assert!(fail(&mut lanes, &b, now), "the second chat begins the outage");
        assert!(lanes.next(now).is_none());
        let mut at = now;
        for (due, seq) in [(1, 3), (2, 4), (3, 1), (4, 2), (5, 3)] {
            at += Duration::from_secs(due);
            assert_eq!(lanes.next_due(), Some(at));
            let probe = lanes.next(at).expect("a probe");
            assert_eq!((probe.event.seq, lanes.next(at).is_none()), (Seq(seq), true));
            assert!(!fail(&mut lanes, &probe, at));
        }
    }

    #[test]
    fn any_answer_ends_an_outage_and_traffic_comes_back_step_by_step() {
        let (mut lanes, now) = (Lanes::new(4), Instant::now());
        for seq in 1..=16 {
            offer(&mut lanes, seq, (seq % 8).cast_signed());
        }
        let (a, b) = (lanes.next(now).expect("sent"), lanes.next(now).expect("sent"));
        fail(&mut lanes, &a, now);
        fail(&mut lanes, &b, now);
        let probe = lanes.next(now + SECOND).expect("a probe");
        assert!(lanes.answered(probe.key, now + SECOND));
        let width = |lanes: &mut Lanes| std::iter::from_fn(|| lanes.next(now + SECOND)).collect::<Vec<_>>();
        let mut seen = Vec::new();
        for expected in [1, 2, 4, 4] {
            let batch = width(&mut lanes);
            assert_eq!(batch.len(), expected);
            seen.extend(batch.iter().map(|dispatch| dispatch.event.seq.0));
            batch.iter().for_each(|dispatch| assert!(!lanes.answered(dispatch.key, now + SECOND)));
        }
        assert!(seen.contains(&1) && seen.contains(&2), "the chats that failed went at once: {seen:?}");
    }

    #[test]
    fn a_retry_after_holds_the_chat_or_the_destination() {
        let (mut lanes, now) = (Lanes::new(4), Instant::now());
        offer(&mut lanes, 1, 1);
        offer(&mut lanes, 2, 2);
        let a = lanes.next(now).expect("sent");
        lanes.failed(a.key, now, 1, Some(RetryAfter::Chat(9 * SECOND)), &mut |_| SECOND);
        let b = lanes.next(now).expect("the other chat goes on");
        lanes.answered(b.key, now);
        assert!(lanes.next(now + 8 * SECOND).is_none());
        let a = lanes.next(now + 9 * SECOND).expect("sent");
        lanes.failed(a.key, now + 9 * SECOND, 2, Some(RetryAfter::Destination(30 * SECOND)), &mut |_| SECOND);
        offer(&mut lanes, 3, 3);
        assert!(lanes.next(now + 20 * SECOND).is_none());
        assert_eq!(lanes.next_due(), Some(now + 39 * SECOND));
        assert_eq!(sent(&mut lanes, now + 39 * SECOND).len(), 2);
    }

    #[test]
    fn a_replay_goes_after_live_traffic_and_begins_no_outage() {
        let (mut lanes, now) = (Lanes::new(4), Instant::now());
        for peer in 1..=3i64 {
            lanes.offer(LaneKey { replay: 7, lane: lane(peer) }, event(peer.cast_unsigned(), peer), None);
        }
        offer(&mut lanes, 9, 1);
        let first = lanes.next(now).expect("sent");
        assert_eq!(first.event.seq, Seq(9));
        let (a, b) = (lanes.next(now).expect("sent"), lanes.next(now).expect("sent"));
        assert!(lanes.next(now).is_none(), "half of the places at most");
        assert!(!fail(&mut lanes, &a, now) && !fail(&mut lanes, &b, now));
        assert_eq!(lanes.gate(now), Gate::Open);
    }

    #[test]
    fn a_blocked_chat_moves_aside_and_comes_back_in_order() {
        let (mut lanes, now) = (Lanes::new(4), Instant::now());
        for seq in 1..=3 {
            offer(&mut lanes, seq, 1);
        }
        let a = lanes.next(now).expect("sent");
        assert!(lanes.move_blocked_aside(10).is_empty(), "what is in flight stays");
        fail(&mut lanes, &a, now);
        let moved: Vec<u64> = lanes.move_blocked_aside(10).iter().map(|event| event.seq.0).collect();
        assert_eq!((moved, lanes.queued().0), (vec![1, 2, 3], 0));
        assert!(lanes.is_aside(lane(1)));
        lanes.moved_aside(lane(1), Seq(8));
        let a = lanes.next(now + SECOND).expect("its first event is still known");
        assert!(a.aside);
        lanes.answered(a.key, now + SECOND);
        assert_eq!(lanes.to_load(), Some((lane(1), Seq(1))));
        assert!(lanes.loaded(lane(1), vec![event(2, 1), event(3, 1), event(8, 1)], None));
        for seq in [2, 3, 8] {
            let next = lanes.next(now + SECOND).expect("sent");
            assert_eq!((next.event.seq.0, next.aside), (seq, true));
            lanes.answered(next.key, now + SECOND);
        }
        assert!(!lanes.is_aside(lane(1)) && lanes.to_load().is_none());
    }

    proptest! {
        #[test]
        fn any_interleaving_of_answers_keeps_order_per_chat(
            concurrency in 1usize..5,
            steps in prop::collection::vec((0u8..5, 0i64..4, any::<bool>()), 1..400),
        ) {
            let mut lanes = Lanes::new(concurrency);
            let mut now = Instant::now();
            let mut seq = 0;
            let mut offered: HashMap<Lane, Vec<u64>> = HashMap::new();
            let mut delivered: HashMap<Lane, Vec<u64>> = HashMap::new();
            let mut flying: Vec<Dispatch> = Vec::new();
            let mut finish = |lanes: &mut Lanes, dispatch: Dispatch, fine: bool, now: Instant| {
                if fine {
                    delivered.entry(dispatch.key.lane).or_default().push(dispatch.event.seq.0);
                    lanes.answered(dispatch.key, now);
                } else {
                    lanes.failed(dispatch.key, now, 1, None, &mut |n| Duration::from_millis(u64::from(n)));
                }
            };
            for (kind, peer, fine) in steps {
                match kind {
                    0 | 1 => {
                        seq += 1;
                        offer(&mut lanes, seq, peer);
                        offered.entry(lane(peer)).or_default().push(seq);
                    }
                    2 | 3 => flying.extend(lanes.next(now)),
                    _ if !flying.is_empty() => {
                        let place = peer.unsigned_abs() as usize % flying.len();
                        finish(&mut lanes, flying.swap_remove(place), fine, now);
                    }
                    _ => now += Duration::from_millis(3),
                }
                prop_assert!(flying.len() <= concurrency);
            }
            for _ in 0..10_000 {
                now += SECOND;
                flying.extend(std::iter::from_fn(|| lanes.next(now)));
                flying.drain(..).for_each(|dispatch| finish(&mut lanes, dispatch, true, now));
                if lanes.queued().0 == 0 {
                    break;
                }
            }
            prop_assert_eq!(delivered, offered);
        }
    }
}
