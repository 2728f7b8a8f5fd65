//! When VK is asked for a session, and what it means that it gives none. It limits how often it gives them, and ours is good
//! until there is another. Deliberately absent: asking (`ingest`).

use std::time::Duration;

use super::explain::explain;
use crate::delivery::{BackoffSettings, backoff};
use crate::domain::time::Moment;
use crate::vk::{CallError, ErrorClass, SessionBudget};

/// Between calls for a session that fail: VK limits this method.
const SESSION_BACKOFF: BackoffSettings = BackoffSettings {
    initial_interval: Duration::from_secs(2),
    multiplier: 2.0,
    max_interval: Duration::from_secs(60),
    randomization_factor: 0.5,
};
/// Between calls for a session that VK limits (29) or refuses (5, 15…).
const SLOW_BACKOFF: BackoffSettings = BackoffSettings {
    initial_interval: Duration::from_secs(60),
    multiplier: 2.0,
    max_interval: Duration::from_secs(600),
    randomization_factor: 0.2,
};
/// When a session is asked for.
pub(super) struct Asking {
    /// How often it may still be asked for.
    pub(super) budget: SessionBudget,
    /// Calls in a row that brought none.
    refusals: u32,
    /// When a new one is asked for, while there is one.
    due: Option<Moment>,
    /// VK has refused one: it is not asked before that moment, whatever polls bring.
    held: bool,
    /// It did so for a reason that a person must mend: that is trouble, although the session there is goes on.
    alarm: Option<String>,
}

impl Asking {
    /// Nothing was asked for yet.
    pub(super) fn new(now: Moment) -> Self {
        Self { budget: SessionBudget::new(now), refusals: 0, due: None, held: false, alarm: None }
    }

    /// Whether a new session is to be asked for.
    pub(super) fn is_due(&self, now: Moment) -> bool {
        self.due.is_some_and(|due| due <= now)
    }

    /// Not before that moment, unless polls bring nothing of sense.
    pub(super) fn put_off(&mut self, until: Moment) {
        self.due = Some(until);
    }

    /// Not before that moment, whatever they bring.
    pub(super) fn hold(&mut self, until: Moment) {
        (self.due, self.held) = (Some(until), true);
    }

    /// Polls bring nothing of sense: the server may have moved.
    pub(super) fn wish(&mut self, now: Moment) {
        if !self.held {
            self.due = Some(now);
        }
    }

    /// VK gave one, which is to be renewed at that moment.
    pub(super) fn given(&mut self, renewal: Moment) {
        (self.refusals, self.held, self.alarm) = (0, false, None);
        self.due = Some(renewal);
    }

    /// VK gave none; how long it is left alone. `draw` is from [0, 1).
    pub(super) fn refused(&mut self, error: &CallError, draw: f64) -> Duration {
        self.refusals = self.refusals.saturating_add(1);
        let class = if let CallError::Api(error) = error { Some(error.class()) } else { None };
        let alarms = matches!(class, Some(ErrorClass::Alarm | ErrorClass::NeverRetry));
        self.alarm =
            alarms.then(|| format!("VK gives no new session, and the one there is will end: {}", explain(error)));
        let slow = alarms || class == Some(ErrorClass::LongPause);
        backoff::wait(if slow { &SLOW_BACKOFF } else { &SESSION_BACKOFF }, self.refusals, draw)
    }

    /// What a person must mend, in words, and when VK is asked again.
    pub(super) fn alarm(&self) -> Option<(&str, Option<Moment>)> {
        self.alarm.as_deref().map(|words| (words, self.due))
    }
}
