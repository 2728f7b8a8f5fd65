//! When to leave a method alone that brought nothing: an API that is down must not cost every answer the wait for its names.
//! Pure: the moment comes in. Deliberately absent: what counts as a failure (`names`).

use std::time::{Duration, Instant};

/// How long a method is left alone after a failure; doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_secs(2);
/// The longest such pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// How long a method is left alone that VK limits (29) or refuses (15).
const LIMITED_PAUSE: Duration = Duration::from_secs(600);

/// What a failure says about the next call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hope {
    /// It may go well soon.
    Soon,
    /// It will not go well for a long time.
    Late,
}

/// Closed: calls are made. Open: they are not, until the pause ends.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    until: Option<Instant>,
    pause: Duration,
    /// Until when the answer of a call that was under way changes nothing.
    late: Option<Instant>,
}

impl Breaker {
    /// Whether calls are to be left out at `now`.
    pub(super) fn is_open(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| now < until)
    }

    /// A call brought nothing. The pause that begins with it, or nothing when one was on already: calls that were under
    /// way together fail together, and are one failure.
    pub(super) fn failed(&mut self, now: Instant, hope: Hope) -> Option<Duration> {
        if self.is_open(now) && hope == Hope::Soon {
            return None;
        }
        let pause = match hope {
            Hope::Soon => {
                self.pause = if self.pause.is_zero() { FIRST_PAUSE } else { (self.pause * 2).min(LONGEST_PAUSE) };
                self.pause
            }
            Hope::Late => {
                self.late = Some(now + LIMITED_PAUSE);
                LIMITED_PAUSE
            }
        };
        self.until = Some(now + pause);
        Some(pause)
    }

    /// A call went well: what was is forgotten, but for a limit that VK named while this call was under way.
    pub(super) fn answered(&mut self, now: Instant) {
        if self.late.is_none_or(|late| late <= now) {
            *self = Self::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_with_each_failure_and_an_answer_forgets_them() {
        let mut now = Instant::now();
        let mut breaker = Breaker::default();
        let mut fail = |hope, seconds| {
            assert!(!breaker.is_open(now));
            assert_eq!(breaker.failed(now, hope), Some(Duration::from_secs(seconds)));
            assert_eq!(breaker.failed(now, Hope::Soon), None, "what fails together is one failure");
            assert!(breaker.is_open(now + Duration::from_secs(seconds) - Duration::from_millis(1)));
            now += Duration::from_secs(seconds);
        };
        [2, 4, 8, 16, 32, 60, 60].into_iter().for_each(|seconds| fail(Hope::Soon, seconds));
        fail(Hope::Late, 600);
        fail(Hope::Soon, 60);
        breaker.answered(now + LIMITED_PAUSE);
        assert_eq!(breaker.failed(now, Hope::Soon), Some(FIRST_PAUSE));
        assert_eq!(breaker.failed(now, Hope::Late), Some(LIMITED_PAUSE), "a limit is known even during a pause");
        breaker.answered(now);
        assert!(breaker.is_open(now), "a call that was under way does not lift a limit");
        breaker.answered(now + LIMITED_PAUSE);
        assert!(!breaker.is_open(now));
    }
}
