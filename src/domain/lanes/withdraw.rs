//! Events that leave their chat without an answer: given up, too old, taken out by an operator. The rest goes on without them.
//! Deliberately absent: when to give up, how old is too old, who may take out, what is kept of them.

use std::time::{Duration, Instant};

use super::{LaneKey, Lanes, Phase, State};
use crate::domain::delivery::RetryAfter;
use crate::domain::ids::{Lane, Seq};

/// What came of taking an event out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Withdrawn {
    /// It is out.
    Taken {
        /// Its chat.
        lane: Lane,
        /// Whether it had been moved aside.
        aside: bool,
    },
    /// It is being sent.
    InFlight,
    /// It does not wait here.
    Unknown,
}

impl Lanes {
    /// The attempt of `key` failed and its event is given up: its chat goes on with the next one. Returns whether an outage
    /// began with it.
    pub fn given_up(
        &mut self,
        key: LaneKey,
        now: Instant,
        asked: Option<RetryAfter>,
        wait: &mut dyn FnMut(u32) -> Duration,
    ) -> bool {
        self.landed(key);
        self.blame_for(key);
        if let Some(RetryAfter::Destination(span)) = asked {
            self.hold_until = self.hold_until.max(Some(now + span));
        }
        self.leave(key, now);
        self.went_wrong(key, now, wait)
    }

    /// The event that [`Lanes::next`] has given is not sent: it is done with, and says nothing about the destination.
    pub fn passed_over(&mut self, key: LaneKey, now: Instant) {
        self.landed(key);
        self.leave(key, now);
        if let Some(outage) = &mut self.outage
            && outage.probing == Some(key)
        {
            outage.probing = None;
        }
    }

    /// Requests of replays are sent no faster than this from now on.
    pub fn pace_replays(&mut self, interval: Duration) {
        (self.replay_interval, self.replay_from) = (interval, None);
    }

    /// A replay is cancelled, or read again: what waits of it goes; what is in flight stays until its attempt is over.
    pub fn cancel(&mut self, replay: u64) {
        let keys: Vec<LaneKey> = self.lanes.keys().filter(|key| key.replay == replay).copied().collect();
        for key in keys {
            let Some(mut state) = self.lanes.remove(&key) else { continue };
            let stays = if state.phase == Phase::InFlight { state.flying } else { 0 };
            state.queue.drain(stays..).for_each(|event| self.count(key, &event, false));
            state.own = stays;
            match state.phase {
                Phase::Waiting { until, .. } => drop(self.waiting.remove(&(until, key))),
                Phase::Ready => self.ready_replay.retain(|other| *other != key),
                Phase::InFlight => drop(self.lanes.insert(key, state)),
                Phase::Loading => {}
            }
        }
    }

    /// Takes an event out that waits here, for good, unless it is in flight. Answers it, and whether it was aside.
    pub fn withdraw(&mut self, seq: Seq, now: Instant) -> Withdrawn {
        let holds = |state: &State| state.queue.iter().position(|event| event.seq == seq);
        let found = self.lanes.iter().filter(|(key, _)| key.replay == 0);
        let found = found.filter_map(|(key, state)| Some((*key, holds(state)?, state.phase, state.flying))).next();
        let Some((key, place, phase, flying)) = found else { return Withdrawn::Unknown };
        if phase == Phase::InFlight && place < flying {
            return Withdrawn::InFlight;
        }
        let Some(state) = self.lanes.get_mut(&key) else { return Withdrawn::Unknown };
        let (event, aside) = (state.queue[place].clone(), place >= state.own);
        if place > 0 {
            state.queue.remove(place);
            state.alone -= usize::from(place < state.alone);
            if !aside {
                state.own -= 1;
                self.count(key, &event, false);
            }
        } else {
            match phase {
                Phase::Waiting { until, .. } => drop(self.waiting.remove(&(until, key))),
                Phase::Ready => self.ready.retain(|other| *other != key),
                Phase::InFlight | Phase::Loading => {}
            }
            self.leave(key, now);
        }
        Withdrawn::Taken { lane: key.lane, aside }
    }
}

#[cfg(test)]
mod tests {
    use super::super::rig::{event, lane, offer};
    use super::*;

    #[test]
    fn replays_go_one_after_the_other_in_their_time_retries_included_and_live_traffic_beside_them() {
        let (mut lanes, start) = (Lanes::new(8), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        lanes.pace_replays(Duration::from_secs(10));
        for seq in 1..=3 {
            lanes.offer(LaneKey { replay: 7, lane: lane(seq) }, event(seq.unsigned_abs(), seq), None);
        }
        let first = lanes.next(at(0)).expect("the first has its turn at once");
        assert_eq!((lanes.next(at(9)).is_none(), lanes.next_due()), (true, Some(at(10))));
        lanes.failed(first.key, at(9), 1, None, &mut |_| Duration::from_secs(1));
        offer(&mut lanes, 9, 9);
        assert_eq!(lanes.next(at(9)).map(|live| live.event.seq), Some(Seq(9)));
        let later: Vec<u64> =
            [10, 11, 20, 29, 30].into_iter().filter_map(|t| lanes.next(at(t))).map(|one| one.event.seq.0).collect();
        // The retry was due at 10 and stands behind the others.
        assert_eq!((later, lanes.next_due()), (vec![2, 3, 1], None));
    }

    #[test]
    fn an_outage_is_asked_with_a_replay_where_nothing_live_waits() {
        let (mut lanes, now) = (Lanes::new(4), Instant::now());
        let wait = &mut |_| Duration::from_secs(1);
        for peer in [1, 2] {
            offer(&mut lanes, peer, i64::try_from(peer).expect("small"));
        }
        let (one, two) = (lanes.next(now).expect("sent"), lanes.next(now).expect("sent"));
        lanes.failed(one.key, now, 1, None, wait);
        assert!(lanes.failed(two.key, now, 1, None, wait).1, "two chats failed: down");
        lanes.offer(LaneKey { replay: 7, lane: lane(3) }, event(3, 3), None);
        let later = now + Duration::from_secs(1);
        let probe = lanes.next(later).expect("live first");
        assert_eq!(probe.key.replay, 0);
        lanes.passed_over(probe.key, later);
        let probe = lanes.next(later).expect("live still");
        lanes.passed_over(probe.key, later);
        let probe = lanes.next(later).expect("nothing else waits");
        assert_eq!((probe.key.replay, lanes.next(later).is_none()), (7, true));
        lanes.failed(probe.key, later, 1, None, wait);
        assert_eq!((lanes.next(later).is_none(), lanes.next_due()), (true, Some(later + Duration::from_secs(1))));
        let probe = lanes.next(later + Duration::from_secs(1)).expect("asked again");
        assert!(lanes.answered(probe.key, later), "the outage is over");
    }

    #[test]
    fn of_a_cancelled_replay_nothing_more_is_sent_and_live_traffic_goes_on() {
        let (mut lanes, now) = (Lanes::new(4), Instant::now());
        let wait = &mut |_| Duration::from_secs(60);
        for seq in 1..=6 {
            let peer = seq.min(3);
            lanes.offer(LaneKey { replay: 7, lane: lane(peer) }, event(seq.unsigned_abs(), peer), None);
        }
        offer(&mut lanes, 9, 3);
        let live = lanes.next(now).expect("live first");
        let (flying, failed) = (lanes.next(now).expect("sent"), lanes.next(now).expect("sent"));
        lanes.failed(failed.key, now, 1, None, wait);
        lanes.cancel(7);
        assert_eq!((lanes.replaying(), lanes.waiting(), lanes.in_flight()), (1, 0, 2));
        assert!(lanes.next(now).is_none() && lanes.next_retry().is_none());
        // What was in flight and fails waits; it is cancelled again.
        lanes.failed(flying.key, now, 1, None, wait);
        lanes.cancel(7);
        assert_eq!((lanes.replaying(), lanes.queued().0), (0, 1));
        lanes.answered(live.key, now);
        assert_eq!((lanes.queued().0, lanes.in_flight()), (0, 0));
    }

    #[test]
    fn what_is_taken_out_unblocks_its_chat_and_what_is_in_flight_stays() {
        let (mut lanes, now) = (Lanes::new(4), Instant::now());
        let lane = lane(1);
        for seq in 1..=4 {
            offer(&mut lanes, seq, 1);
        }
        let first = lanes.next(now).expect("sent");
        assert_eq!(lanes.withdraw(Seq(1), now), Withdrawn::InFlight);
        assert_eq!(lanes.withdraw(Seq(9), now), Withdrawn::Unknown);
        assert_eq!(lanes.withdraw(Seq(3), now), Withdrawn::Taken { lane, aside: false });
        lanes.failed(first.key, now, 1, None, &mut |_| Duration::from_secs(60));
        assert!(lanes.next(now).is_none());
        assert_eq!(lanes.withdraw(Seq(1), now), Withdrawn::Taken { lane, aside: false });
        assert_eq!(lanes.next_retry(), None);
        let second = lanes.next(now).expect("the next one goes at once");
        assert_eq!((second.event.seq, lanes.queued().0), (Seq(2), 2));
        lanes.answered(second.key, now);
        assert_eq!(lanes.withdraw(Seq(4), now), Withdrawn::Taken { lane, aside: false });
        assert_eq!((lanes.queued(), lanes.next(now).is_none()), ((0, 0), true));
    }
}
