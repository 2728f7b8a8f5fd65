//! How often a session is asked for: VK limits that method by itself (error 29), whatever else is called, and tells nowhere how
//! far. An hour needs one; a bad night must not use up what is left. Pure: the moment comes in. Deliberately absent: the pace
//! of all calls together (`client`).

use std::time::Duration;

use crate::domain::time::Moment;

/// So many at once.
const AT_ONCE: u32 = 20;
/// Then one in this time.
const EVERY: Duration = Duration::from_secs(15);

/// What is left of it.
#[derive(Clone, Copy, Debug)]
pub struct SessionBudget {
    left: u32,
    /// Until when `left` was counted.
    counted: Moment,
}

impl SessionBudget {
    /// All of it.
    #[must_use]
    pub fn new(now: Moment) -> Self {
        Self { left: AT_ONCE, counted: now }
    }

    /// Takes one out; how long to wait before it may be used.
    pub fn take(&mut self, now: Moment) -> Duration {
        let earned = self.counted.age(now).as_millis() / EVERY.as_millis();
        let earned = u32::try_from(earned).unwrap_or(u32::MAX);
        self.left = self.left.saturating_add(earned).min(AT_ONCE);
        self.counted = if self.left == AT_ONCE || now < self.counted { now } else { self.counted.plus(EVERY * earned) };
        if let Some(left) = self.left.checked_sub(1) {
            self.left = left;
            return Duration::ZERO;
        }
        let wait = EVERY.saturating_sub(self.counted.age(now));
        // The one that is earned then is this one.
        self.counted = self.counted.plus(EVERY);
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_burst_there_is_one_in_a_while_and_rest_earns_all_of_it_again() {
        let mut now = Moment(1_000_000);
        let mut budget = SessionBudget::new(now);
        for _ in 0..AT_ONCE {
            assert_eq!(budget.take(now), Duration::ZERO);
        }
        for _ in 0..3 {
            let wait = budget.take(now);
            assert!(wait > Duration::from_secs(14) && wait <= EVERY, "{wait:?}");
            now = now.plus(wait);
        }
        now = now.plus(EVERY * (AT_ONCE + 5));
        let at_once = (0..100).take_while(|_| budget.take(now).is_zero()).count();
        assert_eq!(at_once, 20);
    }

    #[test]
    fn a_clock_that_is_set_back_locks_nobody_out() {
        let mut budget = SessionBudget::new(Moment(1_000_000_000));
        let waits: Vec<Duration> = (0..AT_ONCE + 2).map(|_| budget.take(Moment(0))).collect();
        assert!(waits.iter().all(|wait| *wait <= EVERY * 2), "{waits:?}");
    }
}
