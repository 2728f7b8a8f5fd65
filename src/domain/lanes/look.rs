//! What can be seen of the lanes from outside. Deliberately absent: changing them.

use std::time::Instant;

use super::{Gate, Lanes};

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
}
