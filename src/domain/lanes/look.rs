//! What can be seen of the lanes from outside. Deliberately absent: changing them.

use std::time::Instant;

use super::{Gate, Lanes, Phase};

impl Lanes {
    /// What stands in the way.
    #[must_use]
    pub fn gate(&self, now: Instant) -> Gate {
        match (self.hold_until, &self.outage) {
            (Some(until), _) if until > now => Gate::Held { until },
            (_, Some(outage)) => Gate::Down { next_probe: outage.next_probe },
            _ => Gate::Open,
        }
    }

    /// Whether the destination is down.
    #[must_use]
    pub fn is_down(&self) -> bool {
        self.outage.is_some()
    }

    /// How many events wait in memory, and the bytes of their bodies; those of lanes aside not counted.
    #[must_use]
    pub fn queued(&self) -> (usize, usize) {
        (self.queued, self.queued_bytes)
    }

    /// Requests in flight.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Chats that wait for their retry.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.iter().filter(|(_, key)| key.replay == 0).count()
    }

    /// When the first chat that waits is tried again.
    #[must_use]
    pub fn next_retry(&self) -> Option<Instant> {
        self.waiting.first().map(|(until, _)| *until)
    }

    /// Whether a replay has events here.
    #[must_use]
    pub fn has_replay(&self, replay: u64) -> bool {
        self.lanes.keys().any(|key| key.replay == replay)
    }

    /// How many events of replays wait or are in flight.
    #[must_use]
    pub fn replaying(&self) -> usize {
        self.replaying
    }

    /// When [`Lanes::next`] is worth asking again, if time alone can change its answer.
    #[must_use]
    pub fn next_due(&self) -> Option<Instant> {
        let due = match &self.outage {
            Some(_) if self.in_flight > 0 => None,
            Some(outage) => self
                .lanes
                .iter()
                .filter(|(key, _)| key.replay == 0)
                .filter_map(|(_, state)| match state.phase {
                    Phase::Ready | Phase::Waiting { asked: false, .. } => Some(outage.next_probe),
                    Phase::Waiting { until, asked: true } => Some(outage.next_probe.max(until)),
                    Phase::InFlight | Phase::Loading => None,
                })
                .min(),
            // What is ready and was not sent although there is room waits for the hold alone.
            None if self.in_flight < self.width
                && !(self.ready.is_empty() && (self.ready_replay.is_empty() || self.replays_are_many())) =>
            {
                self.hold_until
            }
            None => self.waiting.first().map(|(until, _)| *until),
        }?;
        Some(self.hold_until.map_or(due, |until| due.max(until)))
    }
}
