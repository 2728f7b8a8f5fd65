//! How often a simulated VK may be called: so many calls in a second, and so many sessions in a minute, which VK counts apart.
//! The time comes in as a value. Deliberately absent: answers (`vk_errors`), limits of polls, of which VK has none that is known.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::vk_server::Settings;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// The calls of the last while that were taken.
#[derive(Debug, Default)]
pub(super) struct Limits {
    calls: VecDeque<Instant>,
    sessions: VecDeque<Instant>,
}

impl Limits {
    /// The error for a call that comes now; nothing when it is taken, and counted.
    pub(super) fn refuse(&mut self, settings: &Settings, method: &str, now: Instant) -> Option<i64> {
        let since = |list: &mut VecDeque<Instant>, span: Duration| {
            while list.front().is_some_and(|at| now.duration_since(*at) >= span) {
                list.pop_front();
            }
            list.len()
        };
        let session = method == "groups.getLongPollServer";
        if settings.calls_a_second.is_some_and(|most| since(&mut self.calls, SECOND) >= most) {
            return Some(6);
        }
        let sessions = since(&mut self.sessions, MINUTE) as u64;
        if session && settings.sessions_a_minute.is_some_and(|most| sessions >= most) {
            return Some(29);
        }
        self.calls.extend(settings.calls_a_second.map(|_| now));
        self.sessions.extend((session && settings.sessions_a_minute.is_some()).then_some(now));
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_over_the_limit_are_refused_until_a_second_has_passed() {
        let settings = Settings { calls_a_second: Some(2), sessions_a_minute: Some(1), ..Settings::default() };
        let (mut limits, start) = (Limits::default(), Instant::now());
        let mut check = |method: &str, millis: u64, expected: Option<i64>| {
            let told = limits.refuse(&settings, method, start + Duration::from_millis(millis));
            assert_eq!(told, expected, "{method} at {millis} ms");
        };
        check("users.get", 0, None);
        check("groups.getLongPollServer", 500, None);
        check("users.get", 999, Some(6));
        check("users.get", 1000, None);
        check("users.get", 1499, Some(6));
        check("groups.getLongPollServer", 1500, Some(29));
        check("users.get", 2100, None);
        check("groups.getLongPollServer", 60_499, Some(29));
        check("groups.getLongPollServer", 60_500, None);
    }
}
