//! How an interval is spread. Pure: the random number comes in. Deliberately absent: how intervals grow
//! (`delivery::backoff`).

use std::time::Duration;

/// Spreads `interval` by `factor`: with `jitter` from 0 to 1 the result lies in `[i * (1 - f), i * (1 + f)]`.
#[must_use]
pub fn spread(interval: Duration, factor: f64, jitter: f64) -> Duration {
    let factor = factor.clamp(0.0, 1.0);
    let jitter = jitter.clamp(0.0, 1.0);
    interval.mul_f64(1.0 - factor + 2.0 * factor * jitter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_is_spread_evenly_around_itself() {
        let check = |factor, jitter, expected| {
            assert_eq!(spread(Duration::from_millis(1000), factor, jitter), Duration::from_millis(expected));
        };
        check(0.5, 0.0, 500);
        check(0.5, 0.5, 1000);
        check(0.5, 1.0, 1500);
        check(0.0, 0.7, 1000);
        check(9.0, 0.0, 0);
    }
}
