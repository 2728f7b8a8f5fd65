//! Which rows an operator means: dead letters, expired events, updates in quarantine. Pure, and part of a replay's record.
//! Deliberately absent: finding them (`rows`), the words of a command line (`cli::args`).

use serde::{Deserialize, Serialize};

use super::records::{DeadRecord, EventRecord, QuarantineRecord};
use crate::domain::delivery::Death;
use crate::domain::ids::Seq;
use crate::domain::time::Moment;

/// Which rows are meant; what is absent does not matter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filter {
    /// Exactly one event.
    pub event_id: Option<String>,
    /// From here on.
    pub from: Option<Seq>,
    /// Up to and with this.
    pub to: Option<Seq>,
    /// Of this type.
    pub event_type: Option<String>,
    /// In this conversation.
    pub peer: Option<i64>,
    /// By this user.
    pub user: Option<i64>,
    /// Received no earlier.
    pub since: Option<Moment>,
    /// Received no later.
    pub until: Option<Moment>,
    /// Dead or expired by then: what an operator has seen.
    pub died_by: Option<Moment>,
    /// For this cause, in the words that groups have.
    pub cause: Option<String>,
}

impl Filter {
    /// Whether an event is meant, whatever has become of it.
    #[must_use]
    pub fn takes(&self, seq: Seq, event: &EventRecord<'_>) -> bool {
        self.event_id.as_ref().is_none_or(|id| id == event.event_id)
            && self.from.is_none_or(|from| seq >= from)
            && self.to.is_none_or(|to| seq <= to)
            && self.event_type.as_ref().is_none_or(|wanted| wanted == event.event_type)
            && self.peer.is_none_or(|peer| event.peer == Some(peer))
            && self.user.is_none_or(|user| event.user == Some(user))
            && self.since.is_none_or(|since| event.received_at >= since)
            && self.until.is_none_or(|until| event.received_at <= until)
    }

    /// Whether a dead letter is meant.
    #[must_use]
    pub fn takes_dead(&self, dead: &DeadRecord<'_>) -> bool {
        self.takes(dead.seq, &dead.event) && self.died_by(dead.at) && self.is_caused_by(|| dead.death.cause())
    }

    /// Whether an event that has expired at this moment is meant.
    #[must_use]
    pub fn takes_expired(&self, seq: Seq, event: &EventRecord<'_>, at: Moment) -> bool {
        self.takes(seq, event) && self.died_by(at) && self.is_caused_by(|| Death::TooOld.cause())
    }

    /// Whether an update in quarantine is meant; `from` and `to` are its number. It has no type, peer or user.
    #[must_use]
    pub fn takes_quarantined(&self, number: u64, record: &QuarantineRecord) -> bool {
        self.event_id.as_ref().is_none_or(|id| *id == record.event_id)
            && self.from.is_none_or(|from| number >= from.0)
            && self.to.is_none_or(|to| number <= to.0)
            && self.event_type.is_none()
            && self.peer.is_none()
            && self.user.is_none()
            && self.since.is_none_or(|since| record.at >= since)
            && self.until.is_none_or(|until| record.at <= until)
            && self.is_caused_by(|| record.reason.clone())
    }

    fn died_by(&self, at: Moment) -> bool {
        self.died_by.is_none_or(|last| at <= last)
    }

    fn is_caused_by(&self, cause: impl FnOnce() -> String) -> bool {
        self.cause.as_ref().is_none_or(|wanted| *wanted == cause())
    }
}
