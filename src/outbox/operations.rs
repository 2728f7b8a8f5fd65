//! What an operator changes, as changes in a batch. Part of the writer's state. Deliberately absent: who may (the socket's
//! mode), what is asked before (`operator`).

use std::collections::BTreeMap;
use std::time::Duration;

use super::audit::complete;
use super::changes::{apply, less, unmark_expired};
use super::cursor::Cursor;
use super::frame;
use super::inspect::READ_BYTES;
use super::keys::{self, DestinationId};
use super::kv::{Batch, Kv, KvError};
use super::log;
use super::open::Store;
use super::records::{AuditRecord, DeadRecord, Ended, Mark, MarkRecord, PauseRecord, lane_of};
use super::requests::{Change, Operation, Place};
use super::rows;
use super::state::State;
use super::trim::waiting;
use crate::domain::ids::{Lane, Seq};
use crate::domain::time::Moment;

/// How many rows one commit discards at most.
pub const AT_ONCE: usize = 256;

/// Does what an operator asks for in an outbox that no service runs, as [`State::operate`] does. `state` is loaded when there is
/// none yet.
///
/// # Errors
/// When the store cannot be read or written.
pub fn operate(
    store: &mut Store,
    state: &mut Option<State>,
    operations: Vec<Operation>,
    now: Moment,
) -> Result<Vec<u64>, KvError> {
    let state = match state {
        Some(state) => state,
        None => state.insert(State::load(store.kv.as_ref(), Duration::ZERO)?),
    };
    let mut batch = Batch::default();
    let done = state.operate(store.kv.as_ref(), &mut batch, operations, now)?;
    store.commit(state, batch)?;
    Ok(done)
}

impl State {
    /// Does what an operator asks for, in one batch; answers for each how many rows, or destinations, it changed, or the number
    /// of what it made.
    ///
    /// # Errors
    /// When a row cannot be read.
    pub fn operate(
        &mut self,
        kv: &dyn Kv,
        batch: &mut Batch,
        operations: Vec<Operation>,
        now: Moment,
    ) -> Result<Vec<u64>, KvError> {
        let (mut done, mut changed, mut replays) = (Vec::new(), None, Vec::new());
        for operation in operations {
            let count = match operation {
                Operation::Audit(record) => {
                    let changed = record.changed.or(changed.take());
                    let record = AuditRecord { changed, replays: std::mem::take(&mut replays), ..record };
                    done.push(self.audit(kv, batch, &record)?);
                    continue;
                }
                Operation::Replay(order) => {
                    *changed.get_or_insert(0) += order.matched;
                    let number = self.replay(order, now);
                    replays.push(number);
                    done.push(number);
                    continue;
                }
                Operation::Audited(number, changed) => complete(kv, batch, number, changed)?,
                Operation::CancelReplay(number) => {
                    u64::from(self.end_replay(number, Ended { at: now, cancelled: true }))
                }
                Operation::DiscardDead(id, seqs) => self.discard_dead(kv, batch, id, &seqs, now)?,
                Operation::DiscardPending(id, seq) => self.discard_pending(kv, batch, id, seq, now)?,
                Operation::DiscardDetached(id) => self.discard_detached(kv, batch, id, now)?,
                Operation::Pause(id, pause) => self.set_pause(id, Some(pause)),
                Operation::Resume(id) => self.set_pause(id, None),
                Operation::DiscardQuarantined(numbers) => self.discard_quarantined(kv, batch, &numbers)?,
            };
            *changed.get_or_insert(0) += count;
            done.push(count);
        }
        Ok(done)
    }

    /// Dead letters and expired events go; those that were delivered meanwhile are none any more.
    fn discard_dead(
        &mut self,
        kv: &dyn Kv,
        batch: &mut Batch,
        id: DestinationId,
        seqs: &[Seq],
        now: Moment,
    ) -> Result<u64, KvError> {
        let mut count = 0;
        for seq in seqs {
            let key = keys::dead(id, *seq);
            let Some(record) = self.destinations.get_mut(&id) else { continue };
            let was = if let Some(value) = batch.row(kv, &key)? {
                let bytes = frame::whole(kv, &key, &value)?;
                let was = format!("dead: {}", frame::parse::<DeadRecord<'_>>(&key, &bytes)?.death);
                frame::delete(batch, &key, &value);
                record.dead = less(&key, record.dead)?;
                was
            } else if unmark_expired(kv, batch, id, record, *seq)? {
                "expired".to_owned()
            } else {
                continue;
            };
            record.discarded += 1;
            if *seq >= self.head.tail {
                frame::put(
                    batch,
                    keys::mark(id, *seq),
                    &MarkRecord { at: now, replay: 0, what: Mark::Discarded { was } },
                );
            }
            count += 1;
        }
        self.dirty.destinations.insert(id);
        Ok(count)
    }

    /// One pending event goes, if it is pending still and no worker keeps its cursor.
    fn discard_pending(
        &mut self,
        kv: &dyn Kv,
        batch: &mut Batch,
        id: DestinationId,
        seq: Seq,
        at: Moment,
    ) -> Result<u64, KvError> {
        let next = self.head.next;
        let Some(record) = self.destinations.get_mut(&id).filter(|_| !self.configured.contains(&id)) else {
            return Ok(0);
        };
        let mut cursor = Cursor::stored(id, &record.cursor)?;
        let from = match aside_lane(kv, id, seq)? {
            Some(lane) if batch.row(kv, &keys::aside(id, lane, seq))?.is_none() => return Ok(0),
            Some(lane) => Place::Aside(lane),
            None if seq < next && seq < cursor.limit() && cursor.waits(seq) => {
                look_past(kv, &mut cursor, id, seq, next)?;
                // What is not for it is not met, and so does not wait.
                if !cursor.waits(seq) {
                    return Ok(0);
                }
                cursor.settle(seq);
                Place::Log
            }
            None => return Ok(0),
        };
        record.cursor = cursor.record();
        apply(kv, batch, id, record, Change::Discarded { seq, from, at }, 0)?;
        self.dirty.destinations.insert(id);
        Ok(1)
    }

    /// Some of what is pending for a destination without a worker goes: what was moved aside, then what is in the log. Zero
    /// when nothing is left.
    fn discard_detached(
        &mut self,
        kv: &dyn Kv,
        batch: &mut Batch,
        id: DestinationId,
        at: Moment,
    ) -> Result<u64, KvError> {
        let (next, mut count) = (self.head.next, 0);
        self.aside.remove(&id);
        let Some(record) = self.destinations.get_mut(&id).filter(|_| !self.configured.contains(&id)) else {
            return Ok(0);
        };
        let mut aside = Vec::new();
        rows::aside_events(kv, id, |seq, event| {
            aside.push((seq, lane_of(&event)));
            Ok(aside.len() < AT_ONCE)
        })?;
        for (seq, lane) in aside {
            if batch.row(kv, &keys::aside(id, lane, seq))?.is_none() {
                // Another operator's, in this very commit.
                continue;
            }
            apply(kv, batch, id, record, Change::Discarded { seq, from: Place::Aside(lane), at }, 0)?;
            count += 1;
        }
        let mut cursor = Cursor::stored(id, &record.cursor)?;
        while count == 0 && cursor.floor() < next {
            let from = cursor.floor();
            for chunk in log::read(kv, from, next, READ_BYTES)? {
                for seq in waiting(&chunk, &cursor, id).map(|logged| logged.queued.seq).collect::<Vec<_>>() {
                    cursor.pass(seq);
                    apply(kv, batch, id, record, Change::Discarded { seq, from: Place::Log, at }, 0)?;
                    count += 1;
                }
                cursor.looked(chunk.end());
            }
        }
        record.cursor = cursor.record();
        self.dirty.destinations.insert(id);
        Ok(count)
    }

    fn set_pause(&mut self, id: DestinationId, pause: Option<PauseRecord>) -> u64 {
        let Some(record) = self.destinations.get_mut(&id).filter(|record| record.pause != pause) else { return 0 };
        record.pause = pause;
        self.dirty.destinations.insert(id);
        1
    }

    /// Every pause, whether it lasts or is over.
    pub(super) fn pauses(&self) -> BTreeMap<DestinationId, PauseRecord> {
        self.destinations.iter().filter_map(|(id, record)| Some((*id, record.pause.clone()?))).collect()
    }
}

/// The chat of an event that was moved aside.
fn aside_lane(kv: &dyn Kv, id: DestinationId, wanted: Seq) -> Result<Option<Lane>, KvError> {
    let mut found = None;
    rows::aside_events(kv, id, |seq, event| {
        found = (seq == wanted).then(|| lane_of(&event));
        Ok(found.is_none())
    })?;
    Ok(found)
}

/// Looks at the log up to and with `seq`, as a worker would.
fn look_past(kv: &dyn Kv, cursor: &mut Cursor, id: DestinationId, seq: Seq, next: Seq) -> Result<(), KvError> {
    let limit = cursor.limit();
    while cursor.horizon() <= seq {
        let from = cursor.horizon();
        for chunk in log::read(kv, from, next, READ_BYTES)? {
            let ours = chunk.events.iter().filter(|logged| logged.destinations.contains(&id));
            for seq in ours.map(|logged| logged.queued.seq).filter(|seq| *seq >= from && *seq < limit) {
                cursor.met(seq);
            }
            cursor.looked(chunk.end().min(limit));
        }
    }
    Ok(())
}
