//! Exponential intervals: the only file that names the `backoff` crate. It has no time limit of its own and no randomness;
//! `domain::retry` spreads what comes out. Deliberately absent: waiting.

use std::time::Duration;

use ::backoff::ExponentialBackoffBuilder;
use ::backoff::backoff::Backoff;

use super::settings::BackoffSettings;
use crate::domain::retry::spread;

/// Enough steps for any interval to have reached its limit.
const MAX_STEPS: u32 = 128;

/// The interval after the `attempt`-th failed attempt (from 1), before it is spread.
#[must_use]
pub fn interval(settings: &BackoffSettings, attempt: u32) -> Duration {
    let mut steps = ExponentialBackoffBuilder::new()
        .with_initial_interval(settings.initial_interval)
        .with_multiplier(settings.multiplier)
        .with_max_interval(settings.max_interval)
        .with_randomization_factor(0.0)
        .with_max_elapsed_time(None)
        .build();
    let mut interval = settings.initial_interval;
    for _ in 0..attempt.clamp(1, MAX_STEPS) {
        interval = steps.next_backoff().unwrap_or(settings.max_interval);
        if interval >= settings.max_interval {
            return settings.max_interval;
        }
    }
    interval
}

/// The interval after the `attempt`-th failed attempt, spread by `jitter` (0 to 1).
#[must_use]
pub fn wait(settings: &BackoffSettings, attempt: u32, jitter: f64) -> Duration {
    spread(interval(settings, attempt), settings.randomization_factor, jitter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_grow_by_the_factor_up_to_the_limit() {
        let settings = BackoffSettings {
            initial_interval: Duration::from_millis(500),
            multiplier: 2.0,
            max_interval: Duration::from_secs(60),
            randomization_factor: 0.5,
        };
        let check =
            |attempt, expected| assert_eq!(interval(&settings, attempt), Duration::from_millis(expected), "{attempt}");
        check(1, 500);
        check(2, 1000);
        check(3, 2000);
        check(7, 32_000);
        check(8, 60_000);
        check(1_000_000, 60_000);
        assert_eq!(wait(&settings, 1, 0.0), Duration::from_millis(250));
        let flat = BackoffSettings { multiplier: 1.0, ..settings };
        assert_eq!(interval(&flat, 1_000_000), Duration::from_millis(500));
    }
}
