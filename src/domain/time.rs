//! Moments as values. Deliberately absent: reading a clock (see `clock.rs`, which only the loops hold).

use std::time::Duration;

use chrono::{DateTime, FixedOffset, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};

/// A moment of wall-clock time, in milliseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Moment(pub i64);

impl Moment {
    /// Whole seconds since the epoch, as `ts` and `webhook-timestamp` carry them.
    #[must_use]
    pub fn unix_seconds(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// How long before `now` this was; zero when it lies ahead (a clock that was set back).
    #[must_use]
    pub fn age(self, now: Self) -> Duration {
        Duration::from_millis(u64::try_from(now.0.saturating_sub(self.0)).unwrap_or(0))
    }

    /// This moment moved ahead by `span`.
    #[must_use]
    pub fn plus(self, span: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(span.as_millis()).unwrap_or(i64::MAX)))
    }

    /// RFC 3339 in UTC with milliseconds, as `--json` shows moments.
    #[must_use]
    pub fn rfc3339(self) -> String {
        self.utc().to_rfc3339_opts(SecondsFormat::Millis, true)
    }

    /// `YYYY-MM-DD HH:MM:SS` at `offset`, as an event's `datetime` shows its `ts`.
    #[must_use]
    pub fn local(self, offset: FixedOffset) -> String {
        self.utc().with_timezone(&offset).format("%Y-%m-%d %H:%M:%S").to_string()
    }

    /// Reads RFC 3339.
    ///
    /// # Errors
    /// When the text is no RFC 3339 moment.
    pub fn parse_rfc3339(text: &str) -> Result<Self, chrono::ParseError> {
        DateTime::parse_from_rfc3339(text).map(|moment| Self(moment.timestamp_millis()))
    }

    fn utc(self) -> DateTime<Utc> {
        DateTime::from_timestamp_millis(self.0).unwrap_or_default()
    }
}

/// A span in its two largest units: `3s`, `4m 10s`, `2h 5m`, `3d 4h`.
#[must_use]
pub fn span(span: Duration) -> String {
    let seconds = span.as_secs();
    let two = |large: u64, large_name: &str, small: u64, small_name: &str| match small {
        0 => format!("{large}{large_name}"),
        _ => format!("{large}{large_name} {small}{small_name}"),
    };
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => two(seconds / 60, "m", seconds % 60, "s"),
        3600..86_400 => two(seconds / 3600, "h", seconds % 3600 / 60, "m"),
        _ => two(seconds / 86_400, "d", seconds % 86_400 / 3600, "h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_shows_its_two_largest_units() {
        for (seconds, expected) in [
            (0, "0s"),
            (59, "59s"),
            (60, "1m"),
            (250, "4m 10s"),
            (7500, "2h 5m"),
            (7200, "2h"),
            (273_600, "3d 4h"),
            (86_400, "1d"),
        ] {
            assert_eq!(span(Duration::from_secs(seconds)), expected);
        }
    }

    #[test]
    fn a_moment_shows_moscow_time_as_the_contract_does() {
        let moscow = FixedOffset::east_opt(3 * 3600).expect("an offset");
        assert_eq!(Moment(1_709_107_923_000).local(moscow), "2024-02-28 11:12:03");
    }

    #[test]
    fn a_moment_survives_its_text() {
        let moment = Moment(1_709_107_923_456);
        assert_eq!(Moment::parse_rfc3339(&moment.rfc3339()), Ok(moment));
    }

    #[test]
    fn an_age_is_never_negative() {
        assert_eq!(Moment(10).age(Moment(5)), Duration::ZERO);
    }
}
