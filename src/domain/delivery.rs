//! What an attempt came to. Pure: status and header in, verdict out (contract §3). Deliberately absent: sending, waiting.

use std::fmt;
use std::time::{Duration, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::time::Moment;

/// How much of an answer's body is kept, in bytes.
pub const EXCERPT_BYTES: usize = 512;
/// The longest that a handler may ask us to wait.
pub const MAX_RETRY_AFTER: Duration = Duration::from_secs(3600);

/// What an attempt came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A 2xx: the handler has it.
    Delivered {
        /// Its status.
        status: u16,
    },
    /// The handler refuses this event for good.
    Refused {
        /// Its status.
        status: u16,
        /// The first bytes of its body.
        excerpt: String,
    },
    /// Anything else: try again.
    Failed {
        /// What happened.
        failure: Failure,
        /// The first bytes of the body, if there was one.
        excerpt: String,
        /// How long the handler asked us to wait.
        retry_after: Option<RetryAfter>,
    },
}

/// Why an attempt failed without being refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// An answer with a status that is neither success nor refusal.
    Status(u16),
    /// No answer in time.
    Timeout,
    /// No connection.
    Connect(String),
    /// A connection that broke, or an answer that is none.
    Broken(String),
}

impl Failure {
    /// The status, when there was an answer.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Status(status) => Some(*status),
            Self::Timeout | Self::Connect(_) | Self::Broken(_) => None,
        }
    }

    /// Whether the handler answered, and with a status that speaks of no outage: neither overloaded nor a gateway's word.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        matches!(self, Self::Status(status) if !matches!(status, 429 | 502 | 503 | 504))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => write!(f, "HTTP {status}"),
            Self::Timeout => f.write_str("no answer in time"),
            Self::Connect(why) => write!(f, "no connection: {why}"),
            Self::Broken(why) => write!(f, "connection broke: {why}"),
        }
    }
}

/// Why an event will not be sent again by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Death {
    /// The handler refused it with this status.
    Refused(u16),
    /// So many failures counted against it.
    GivenUp {
        /// How many.
        counted: u32,
        /// The last one, in words.
        last: String,
    },
    /// It was older than `max_age` when it would have been sent.
    TooOld,
}

impl Death {
    /// What it has in common with others: dead letters are grouped by it.
    #[must_use]
    pub fn cause(&self) -> String {
        match self {
            Self::Refused(status) => format!("refused: HTTP {status}"),
            Self::GivenUp { last, .. } => format!("given up: {last}"),
            Self::TooOld => "older than max_age".to_owned(),
        }
    }
}

impl fmt::Display for Death {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(status) => write!(f, "the handler refused it with HTTP {status}"),
            Self::GivenUp { counted, last } => {
                write!(f, "{counted} failures counted against it while others were answered; the last: {last}")
            }
            Self::TooOld => f.write_str("it was older than max_age when it would have been sent"),
        }
    }
}

/// A wait that the handler asked for, and what it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryAfter {
    /// Only this chat.
    Chat(Duration),
    /// The whole destination.
    Destination(Duration),
}

/// What a status means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Delivered.
    Success,
    /// Dead at once.
    Refusal,
    /// Try again.
    Retry,
}

/// Judges a status; `reject_on` are the statuses of a refusal.
#[must_use]
pub fn judge(status: u16, reject_on: &[u16]) -> Verdict {
    match status {
        200..=299 => Verdict::Success,
        _ if reject_on.contains(&status) => Verdict::Refusal,
        _ => Verdict::Retry,
    }
}

/// Reads a `Retry-After`: seconds or a date, at most an hour. With 429 and 503 it holds the destination.
#[must_use]
pub fn retry_after(status: u16, header: &str, now: Moment) -> Option<RetryAfter> {
    let header = header.trim();
    let wait = match header.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let date = httpdate::parse_http_date(header).ok()?;
            let now = UNIX_EPOCH + Duration::from_millis(u64::try_from(now.0).ok()?);
            date.duration_since(now.min(date)).unwrap_or_default()
        }
    };
    let wait = wait.min(MAX_RETRY_AFTER);
    Some(if matches!(status, 429 | 503) { RetryAfter::Destination(wait) } else { RetryAfter::Chat(wait) })
}

/// The first bytes of a body, as text.
#[must_use]
pub fn excerpt(body: &[u8]) -> String {
    let cut = body.get(..EXCERPT_BYTES).unwrap_or(body);
    let text = String::from_utf8_lossy(cut);
    let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    text.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_success_refusal_or_another_try() {
        let reject_on = [400, 406, 413, 415, 422];
        for (status, verdict) in [
            (200, Verdict::Success),
            (202, Verdict::Success),
            (299, Verdict::Success),
            (400, Verdict::Refusal),
            (422, Verdict::Refusal),
            (301, Verdict::Retry),
            (401, Verdict::Retry),
            (404, Verdict::Retry),
            (408, Verdict::Retry),
            (425, Verdict::Retry),
            (429, Verdict::Retry),
            (500, Verdict::Retry),
            (503, Verdict::Retry),
        ] {
            assert_eq!(judge(status, &reject_on), verdict, "{status}");
        }
    }

    #[test]
    fn a_retry_after_is_seconds_or_a_date_and_at_most_an_hour() {
        let now = Moment(1_700_000_000_000);
        let check = |status, header: &str, expected| assert_eq!(retry_after(status, header, now), expected, "{header}");
        check(503, "7", Some(RetryAfter::Destination(Duration::from_secs(7))));
        check(429, " 7 ", Some(RetryAfter::Destination(Duration::from_secs(7))));
        check(500, "7", Some(RetryAfter::Chat(Duration::from_secs(7))));
        check(503, "999999", Some(RetryAfter::Destination(MAX_RETRY_AFTER)));
        check(503, "Tue, 14 Nov 2023 22:13:30 GMT", Some(RetryAfter::Destination(Duration::from_secs(10))));
        check(503, "Tue, 14 Nov 2023 22:13:10 GMT", Some(RetryAfter::Destination(Duration::ZERO)));
        check(503, "soon", None);
        check(503, "-1", None);
    }

    #[test]
    fn an_excerpt_is_bounded_text() {
        assert_eq!(excerpt(b" no\nsuch chat \xff "), "no such chat \u{fffd}");
        assert!(excerpt(&[b'x'; 4096]).len() == EXCERPT_BYTES);
    }
}
