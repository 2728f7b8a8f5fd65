//! How much of the disk the outbox uses, and what follows from it: when retention gives way, when polling stops and when it
//! goes on. Pure. Deliberately absent: measuring, deleting.

use super::kv::Disk;
use crate::domain::time::Moment;

/// Polling goes on when use is below so many hundredths of `max_bytes`, and the room above as many more of
/// `min_free_bytes`. Retention gives way there too, so that polling never stops for what is delivered already.
const EASY_PERCENT: u64 = 90;
/// A rewritten record is for a while on disk twice: what is live takes at most so many times its bytes, but for what sled
/// will use again.
const LIVE_FACTOR: u64 = 2;
/// What a store may hold without need, even when room is short: sled takes disk in pieces of 2 MiB.
const SLACK_BYTES: u64 = 8 << 20;
/// VK does not say how long it keeps events. It was never seen to forget within this time of their happening.
pub const VK_KEEPS_MS: i64 = 3_600_000;

/// `max_bytes` and `min_free_bytes`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Use at which polling stops.
    pub max_bytes: u64,
    /// Room on the volume at which polling stops.
    pub min_free_bytes: u64,
}

/// What was measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// The store's files, and what the volume has left.
    pub disk: Disk,
    /// Bytes of the store that hold something, by our own count.
    pub live: u64,
}

impl Usage {
    /// Bytes in use: what the files hold beyond that is used again, or given back by a copy.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.disk.file.min(self.live.saturating_mul(LIVE_FACTOR))
    }

    /// Whether a copy would give back so much that it is worth it when room is short.
    #[must_use]
    pub fn holds_slack(&self) -> bool {
        self.disk.file > self.live.saturating_mul(LIVE_FACTOR) + SLACK_BYTES
    }
}

/// Why polling has stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Full {
    /// In a sentence, with what to do.
    pub why: String,
    /// Since when.
    pub since: Moment,
}

impl Full {
    /// For people: what has stopped, why, and what becomes of it.
    #[must_use]
    pub fn words(&self) -> String {
        format!(
            "stopped for want of room: {}; VK may forget what was not taken from {} on; delivery goes on, and polling will by itself",
            self.why,
            forgets_at(self.since).rfc3339()
        )
    }
}

/// The state of affairs; nothing is remembered of it on disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Space {
    /// What was measured last.
    pub usage: Usage,
    /// The limit that it was compared with.
    pub max_bytes: u64,
    /// What the volume is to keep free.
    pub min_free_bytes: u64,
    /// Polling has stopped.
    pub full: Option<Full>,
    /// Delivered events are not kept for `retention` any more.
    pub gave_way: bool,
    /// Retention has given way and that is not enough yet: what holds the front of the log is moved aside.
    pub relieve: bool,
}

impl Space {
    /// What follows from a new measurement.
    pub fn measured(&mut self, usage: Usage, limits: &Limits, now: Moment) {
        self.usage = usage;
        self.max_bytes = limits.max_bytes;
        self.min_free_bytes = limits.min_free_bytes;
        // What the files hold without need does not count as room: sled comes back to it later than it takes new disk
        // (docs/decisions/0003). A copy gives it back.
        let (used, room) = (usage.used(), usage.disk.free);
        let tight =
            used >= limits.max_bytes / 100 * EASY_PERCENT || room <= limits.min_free_bytes / 100 * (200 - EASY_PERCENT);
        let why = if used >= limits.max_bytes {
            Some(format!(
                "the outbox uses {}, of outbox.max_bytes = {}: bring the handlers back, discard what nobody needs, or raise outbox.max_bytes",
                people(used),
                people(limits.max_bytes)
            ))
        } else if room <= limits.min_free_bytes {
            Some(format!(
                "the volume has room for {} more, outbox.min_free_bytes is {}: free some space on it",
                people(room),
                people(limits.min_free_bytes)
            ))
        } else {
            None
        };
        self.full = match (why, self.full.take()) {
            (Some(why), full) => Some(Full { why, since: full.map_or(now, |full| full.since) }),
            (None, full) if tight => full,
            (None, _) => None,
        };
        self.gave_way = tight;
        self.relieve = tight || (self.relieve && used > limits.max_bytes / 2);
    }
}

/// When VK may begin to forget what was not taken since `since`, as far as anybody knows.
#[must_use]
pub fn forgets_at(since: Moment) -> Moment {
    Moment(since.0.saturating_add(VK_KEEPS_MS))
}

/// Bytes as people read them.
#[must_use]
pub fn people(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let unit = UNITS.iter().zip([0, 10, 20, 30, 40]).rev().find(|(_, shift)| bytes >> shift > 0);
    let (name, shift) = unit.unwrap_or((&"B", 0));
    let tenths = (u128::from(bytes) * 10) >> shift;
    if tenths % 10 == 0 { format!("{} {name}", tenths / 10) } else { format!("{}.{} {name}", tenths / 10, tenths % 10) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { max_bytes: 1000, min_free_bytes: 100 };

    fn usage(file: u64, live: u64, free: u64) -> Usage {
        Usage { disk: Disk { file, free }, live }
    }

    #[test]
    fn what_the_files_hold_without_need_is_not_in_use() {
        assert_eq!((usage(700, 10, 50).used(), usage(700, 600, 50).used()), (20, 700));
        assert!(usage(9 << 20, 100, 0).holds_slack() && !usage(9 << 20, 1 << 20, 0).holds_slack());
    }

    #[test]
    fn polling_stops_at_the_limit_and_goes_on_well_below_it() {
        let mut space = Space::default();
        let mut at = |file, live, free| {
            space.measured(usage(file, live, free), &LIMITS, Moment(i64::try_from(file).expect("small")));
            (space.full.clone().map(|full| full.since.0), space.gave_way, space.relieve)
        };
        assert_eq!(at(899, 899, 5000), (None, false, false));
        assert_eq!(at(900, 900, 5000), (None, true, true), "retention gives way before polling stops");
        assert_eq!(at(1000, 900, 5000), (Some(1000), true, true));
        assert_eq!(at(950, 900, 5000), (Some(1000), true, true), "not yet");
        assert_eq!(at(899, 800, 5000), (None, false, true), "it goes on; there is still more than half to win back");
        assert_eq!(at(500, 400, 5000), (None, false, false));
    }

    #[test]
    fn a_volume_without_room_stops_polling_too() {
        let mut space = Space::default();
        let mut full = |free| {
            space.measured(usage(50, 50, free), &LIMITS, Moment(1));
            space.full.as_ref().map(|full| full.why.clone())
        };
        assert_eq!(full(101), None);
        assert!(full(100).is_some_and(|why| why.contains("min_free_bytes is 100 B")));
        assert!(full(110).is_some());
        assert_eq!(full(111), None);
    }

    #[test]
    fn bytes_read_well() {
        let all = [0, 1023, 1024, 1536, 8 << 30, (1 << 20) - 1].map(people);
        assert_eq!(all, ["0 B", "1023 B", "1 KiB", "1.5 KiB", "8 GiB", "1023.9 KiB"]);
    }
}
