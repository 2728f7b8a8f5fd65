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
            Some(outage) => {
                let due = self.lanes.values().filter_map(|state| match state.phase {
                    Phase::Ready | Phase::Waiting { asked: false, .. } => Some(outage.next_probe),
                    Phase::Waiting { until, asked: true } => Some(outage.next_probe.max(until)),
                    Phase::InFlight | Phase::Loading => None,
                });
                due.min()
            }
            None => {
                let room = self.in_flight < self.width;
                let replays = room && !self.ready_replay.is_empty() && !self.replays_are_many();
                match self.replay_from.filter(|_| replays) {
                    // What is ready and was not sent although there is room waits for the hold alone.
                    _ if room && !self.ready.is_empty() => self.hold_until,
                    None if replays => self.hold_until,
                    from => from.into_iter().chain(self.waiting.first().map(|(until, _)| *until)).min(),
                }
            }
        }?;
        Some(self.hold_until.map_or(due, |until| due.max(until)))
    }
}
