//! What is asked and told about pauses of destinations. Deliberately absent: carrying them out (`operations`, the workers).

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::operator::bounded;
use super::records::PauseRecord;
use super::views::At;
use crate::domain::time::{Moment, span};

/// A pause as it is asked for; for a resume the name alone counts.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PauseAsked {
    /// The destination.
    pub destination: String,
    /// For so many seconds; without it, until it is resumed.
    #[serde(default)]
    pub for_seconds: Option<u64>,
    /// Why.
    #[serde(default)]
    pub reason: Option<String>,
}

impl PauseAsked {
    /// As the words of a command.
    #[must_use]
    pub fn words(&self) -> String {
        let words = |seconds| humantime::format_duration(Duration::from_secs(seconds)).to_string().replace(' ', "");
        let span = self.for_seconds.map_or_else(String::new, |seconds| format!(" --for {}", words(seconds)));
        format!("pause {}{span}", self.destination)
    }

    /// What is kept of it.
    #[must_use]
    pub fn record(&self, now: Moment) -> PauseRecord {
        let until = self.for_seconds.map(|seconds| now.plus(Duration::from_secs(seconds)));
        PauseRecord { since: now, until, reason: self.reason.as_deref().map(bounded) }
    }
}

/// What a pause, or its end, has come to.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PauseMade {
    /// The destination.
    pub destination: String,
    /// The pause it is in now, if it is in one.
    pub pause: Option<PauseView>,
}

/// A pause.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PauseView {
    /// When it began.
    pub since: At,
    /// When it ends by itself.
    pub until: Option<At>,
    /// Why.
    pub reason: Option<String>,
}

impl PauseView {
    /// What is told of a record.
    #[must_use]
    pub fn of(record: &PauseRecord) -> Self {
        Self { since: At(record.since), until: record.until.map(At), reason: record.reason.clone() }
    }

    /// In a sentence.
    #[must_use]
    pub fn words(&self, now: Moment) -> String {
        let reason = self.reason.as_ref().map_or_else(String::new, |reason| format!(": {reason}"));
        let end = match self.until {
            Some(At(until)) => format!("it ends by itself in {}", span(now.age(until))),
            None => "until `outbox resume`".to_owned(),
        };
        format!("paused by an operator for {}{reason}; {end}", span(self.since.0.age(now)))
    }
}
