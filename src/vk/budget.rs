//! How often a session is asked for: VK limits that method by itself (error 29), whatever else is called, and tells nowhere how
//! far. An hour needs one; a bad night must not use up what is left. Pure: the moment comes in. Deliberately absent: the pace
//! of all calls together (`client`).

use std::time::Duration;

use crate::domain::time::Moment;

/// So many at once.
const AT_ONCE: u32 = 20;
/// Then one in this time.
const EVERY: Duration = Duration::from_secs(5);

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

    /// How long to wait before one may be asked for.
    pub fn wait(&mut self, now: Moment) -> Duration {
        self.count(now);
        if self.left > 0 { Duration::ZERO } else { EVERY.saturating_sub(self.counted.age(now)) }
    }

    /// One is asked for.
    pub fn take(&mut self, now: Moment) {
        self.count(now);
        self.left = self.left.saturating_sub(1);
    }

    /// Adds what was earned since.
    fn count(&mut self, now: Moment) {
        let earned = u32::try_from(self.counted.age(now).as_millis() / EVERY.as_millis()).unwrap_or(u32::MAX);
        self.left = self.left.saturating_add(earned).min(AT_ONCE);
        let full = self.left == AT_ONCE || now < self.counted;
        self.counted = if full { now } else { self.counted.plus(EVERY.saturating_mul(earned)) };
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
            assert_eq!(budget.wait(now), Duration::ZERO);
            budget.take(now);
        }
        for _ in 0..3 {
            let wait = budget.wait(now);
            assert!(wait > Duration::from_secs(4) && wait <= EVERY, "{wait:?}");
            assert_eq!(budget.wait(now), wait, "a look takes nothing");
            now = now.plus(wait);
            assert_eq!(budget.wait(now), Duration::ZERO);
            budget.take(now);
        }
        now = now.plus(EVERY * (AT_ONCE + 5));
        let mut at_once = 0;
        while budget.wait(now).is_zero() {
            budget.take(now);
            at_once += 1;
        }
        assert_eq!(at_once, 20);
    }

    #[test]
    fn a_clock_that_is_set_back_locks_nobody_out() {
        let mut budget = SessionBudget::new(Moment(1_000_000_000));
        for _ in 0..AT_ONCE + 2 {
            assert!(budget.wait(Moment(0)) <= EVERY);
            budget.take(Moment(0));
        }
    }
}
