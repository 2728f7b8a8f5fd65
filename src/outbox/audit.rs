//! What operators have changed: written down with it, or before it where it takes many commits, with the time and their
//! reason. The latest ones are kept. Deliberately absent: doing it (`operations`), who asks (`operator`).

use serde::{Deserialize, Serialize};

use super::frame;
use super::keys;
use super::kv::{Batch, Kv, KvError};
use super::records::AuditRecord;
use super::rows;
use super::state::State;
use super::views::At;

/// How many are kept.
pub const KEPT: u64 = 1000;

/// A change by an operator, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditView {
    /// Its number.
    pub number: u64,
    /// When it was asked for.
    pub at: At,
    /// What, as the words of a command.
    pub what: String,
    /// Why, in the operator's words.
    pub reason: Option<String>,
    /// Whether the service was stopped at that time.
    pub offline: bool,
    /// How many rows or destinations it changed; null where it was not carried out to its end.
    pub changed: Option<u64>,
    /// The replays that it made.
    pub replays: Vec<u64>,
}

/// `outbox audit`: what operators have changed, the latest last.
///
/// # Errors
/// When the store cannot be read.
pub fn all(kv: &dyn Kv) -> Result<Vec<AuditView>, KvError> {
    let mut found = Vec::new();
    rows::pages(kv, b"a/", |key, value| {
        if let Some(number) = keys::last_number(key, keys::NUMBERED_LEN) {
            let record: AuditRecord = frame::parse(key, &frame::whole(kv, key, value)?)?;
            let AuditRecord { at, what, reason, offline, changed, replays } = record;
            found.push(AuditView { number, at: At(at), what, reason, offline, changed, replays });
        }
        Ok(true)
    })?;
    Ok(found)
}

impl State {
    /// Writes down what is about to be changed; answers the number of the record.
    ///
    /// # Errors
    /// When the oldest record cannot be read.
    pub(super) fn audit(&mut self, kv: &dyn Kv, batch: &mut Batch, record: &AuditRecord) -> Result<u64, KvError> {
        let number = self.head.next_audit;
        self.head.next_audit = number + 1;
        self.dirty.head = true;
        frame::put(batch, keys::audit(number), record);
        let old = keys::audit(number.saturating_sub(KEPT));
        if let Some(value) = batch.row(kv, &old)? {
            frame::delete(batch, &old, &value);
        }
        Ok(number)
    }
}

/// What was written down has changed so much.
///
/// # Errors
/// When the record cannot be read.
pub(super) fn complete(kv: &dyn Kv, batch: &mut Batch, number: u64, changed: u64) -> Result<u64, KvError> {
    let key = keys::audit(number);
    let Some(value) = batch.row(kv, &key)? else { return Ok(0) };
    let record: AuditRecord = frame::parse(&key, &frame::whole(kv, &key, &value)?)?;
    frame::put(batch, key, &AuditRecord { changed: Some(changed), ..record });
    Ok(1)
}
