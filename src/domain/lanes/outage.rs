//! A destination that is down: when that begins, who is asked with meanwhile, how traffic comes back (contract §3).
//! Deliberately absent: whose fault a failure is (`blame`).

use std::time::{Duration, Instant};

use super::{LaneKey, Lanes, Phase, State};

#[derive(Clone, Copy, Debug)]
pub(super) struct Outage {
    pub(super) probes: u32,
    pub(super) next_probe: Instant,
    pub(super) probing: Option<LaneKey>,
}

impl Lanes {
    /// Starts in an outage that the last process was in: the first probe is due at `next_probe`.
    pub fn resume_outage(&mut self, next_probe: Instant) {
        self.outage = Some(Outage { probes: 1, next_probe, probing: None });
    }

    /// In an outage: the chat that was never tried, else the one whose last attempt is longest ago; one of a replay only where
    /// no live one may be asked with.
    pub(super) fn next_probe(&mut self, now: Instant) -> Option<LaneKey> {
        let outage = self.outage.as_mut()?;
        if self.in_flight > 0 || outage.next_probe > now {
            return None;
        }
        let may = |state: &State| match state.phase {
            Phase::Ready => true,
            Phase::Waiting { until, asked } => !asked || until <= now,
            Phase::InFlight | Phase::Loading => false,
        };
        let may = self.lanes.iter().filter(|(_, state)| may(state));
        let first_seq = |state: &State| state.queue.front().map(|event| event.seq);
        let turn = |(key, state): &(&LaneKey, &State)| (key.replay > 0, state.last_attempt, first_seq(state));
        let key = may.min_by_key(turn).map(|(key, _)| *key)?;
        outage.probing = Some(key);
        if let Some(Phase::Waiting { until, .. }) = self.lanes.get(&key).map(|state| state.phase) {
            self.waiting.remove(&(until, key));
        } else {
            self.ready.retain(|other| *other != key);
            self.ready_replay.retain(|other| *other != key);
        }
        Some(key)
    }

    /// An attempt brought no answer: whether an outage began with it.
    pub(super) fn went_wrong(&mut self, key: LaneKey, now: Instant, wait: &mut dyn FnMut(u32) -> Duration) -> bool {
        match (&mut self.outage, self.failed) {
            (Some(outage), _) => {
                if outage.probing == Some(key) {
                    outage.probing = None;
                    outage.probes += 1;
                    outage.next_probe = now + wait(outage.probes);
                }
                false
            }
            (None, _) if key.replay > 0 => false,
            (None, Some(other)) if other != key.lane => {
                self.outage = Some(Outage { probes: 1, next_probe: now + wait(1), probing: None });
                true
            }
            (None, _) => {
                self.failed = Some(key.lane);
                false
            }
        }
    }

    /// After an outage every chat that only waited for it may go, the oldest event first.
    pub(super) fn wake_all(&mut self) {
        let mut woken = Vec::new();
        for (until, key) in std::mem::take(&mut self.waiting) {
            match self.lanes.get_mut(&key) {
                Some(state) if state.phase == (Phase::Waiting { until, asked: false }) => {
                    state.phase = Phase::Ready;
                    woken.push((state.queue.front().map(|event| event.seq), key));
                }
                _ => drop(self.waiting.insert((until, key))),
            }
        }
        woken.sort_unstable();
        woken.into_iter().for_each(|(_, key)| self.enlist(key, Phase::Ready));
    }
}
