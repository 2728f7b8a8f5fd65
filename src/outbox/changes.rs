//! What each change of a settlement does to the rows and counters of its destination. Part of the writer's state. Deliberately
//! absent: the cursor and the rest of a settlement (`state`).

use super::frame::{self, damaged};
use super::keys::{self, DestinationId};
use super::kv::{Batch, Kv, KvError};
use super::log;
use super::records::{AsideRecord, DeadRecord, DestinationRecord, History, Mark, MarkRecord};
use super::requests::{Change, Place};
use crate::domain::delivery::Death;
use crate::domain::ids::Seq;
use crate::domain::time::Moment;

/// What a change means for a replay.
pub(super) enum Replayed {
    /// A row of it is delivered.
    Succeeded,
    /// A row of it is dead once more.
    Failed,
    /// All of it is done, at that moment.
    Over(Moment),
}

/// Does one change; answers what it means for which replay. `replay` is the last one that was made.
pub(super) fn apply(
    kv: &dyn Kv,
    batch: &mut Batch,
    id: DestinationId,
    record: &mut DestinationRecord,
    change: Change,
    replay: u64,
) -> Result<Option<(u64, Replayed)>, KvError> {
    match change {
        Change::Delivered { seq, from, tried } => {
            record.delivered += 1;
            leave(kv, batch, id, record, seq, from)?;
            if tried {
                batch.delete(keys::history(id, seq));
            }
        }
        Change::Died { event, from, at, death, history } => {
            record.dead += 1;
            leave(kv, batch, id, record, event.seq, from)?;
            batch.delete(keys::history(id, event.seq));
            let dead =
                DeadRecord { seq: event.seq, at, death, history, replay, event: log::record_of(&event, vec![id]) };
            frame::add(batch, keys::dead(id, event.seq), &dead);
        }
        Change::Tried { seq, history } => frame::put(batch, keys::history(id, seq), &history),
        Change::MovedAside { event } => {
            record.aside += 1;
            let aside = AsideRecord { seq: event.seq, event: log::record_of(&event, vec![id]) };
            frame::add(batch, keys::aside(id, event.event.lane(), event.seq), &aside);
        }
        Change::Discarded { seq, from, at } => {
            record.discarded += 1;
            leave(kv, batch, id, record, seq, from)?;
            batch.delete(keys::history(id, seq));
            if from == Place::Log || log::one(kv, seq)?.is_some() {
                let what = Mark::Discarded { was: "pending".to_owned() };
                frame::put(batch, keys::mark(id, seq), &MarkRecord { at, replay, what });
            }
        }
        Change::Expired { event, from, at } => {
            leave(kv, batch, id, record, event.seq, from)?;
            batch.delete(keys::history(id, event.seq));
            if from == Place::Log {
                record.expired += 1;
                frame::put(batch, keys::mark(id, event.seq), &MarkRecord { at, replay, what: Mark::Expired });
            } else {
                // The log may delete it soon: retention counts from when it went aside.
                record.dead += 1;
                let (seq, death, history) = (event.seq, Death::TooOld, History::default());
                let dead = DeadRecord { seq, at, death, history, replay, event: log::record_of(&event, vec![id]) };
                frame::add(batch, keys::dead(id, seq), &dead);
            }
        }
        Change::ReplayDelivered { seq, replay } => {
            let key = keys::dead(id, seq);
            if let Some(value) = batch.row(kv, &key)? {
                frame::delete(batch, &key, &value);
                record.dead = less(&key, record.dead)?;
            } else if !unmark_expired(kv, batch, id, record, seq)? {
                return Ok(None);
            }
            record.delivered += 1;
            return Ok(Some((replay, Replayed::Succeeded)));
        }
        Change::ReplayRefused { seq, replay, at, death, history } => {
            let key = keys::dead(id, seq);
            if let Some(value) = batch.row(kv, &key)? {
                let bytes = frame::whole(kv, &key, &value)?;
                let dead: DeadRecord<'_> = frame::parse(&key, &bytes)?;
                frame::delete(batch, &key, &value);
                frame::add(batch, key, &DeadRecord { at, death, history, replay, ..dead });
            } else if let Some(logged) = log::one(kv, seq)?
                && unmark_expired(kv, batch, id, record, seq)?
            {
                record.dead += 1;
                let event = log::record_of(&logged.queued, vec![id]);
                frame::add(batch, key, &DeadRecord { seq, at, death, history, replay, event });
            } else {
                return Ok(None);
            }
            return Ok(Some((replay, Replayed::Failed)));
        }
        Change::ReplayDone { replay, at } => return Ok(Some((replay, Replayed::Over(at)))),
    }
    Ok(None)
}

/// Takes an event from those that have expired; answers whether it was one.
pub(super) fn unmark_expired(
    kv: &dyn Kv,
    batch: &mut Batch,
    id: DestinationId,
    record: &mut DestinationRecord,
    seq: Seq,
) -> Result<bool, KvError> {
    let key = keys::mark(id, seq);
    let Some(value) = batch.row(kv, &key)? else { return Ok(false) };
    let bytes = frame::whole(kv, &key, &value)?;
    if frame::parse::<MarkRecord>(&key, &bytes)?.what != Mark::Expired {
        return Ok(false);
    }
    frame::delete(batch, &key, &value);
    record.expired = less(&key, record.expired)?;
    Ok(true)
}

/// Deletes the row of an event that was moved aside; one in the log is left by the cursor alone.
fn leave(
    kv: &dyn Kv,
    batch: &mut Batch,
    id: DestinationId,
    record: &mut DestinationRecord,
    seq: Seq,
    from: Place,
) -> Result<(), KvError> {
    let Place::Aside(lane) = from else { return Ok(()) };
    let key = keys::aside(id, lane, seq);
    let value = batch.row(kv, &key)?.ok_or_else(|| damaged(&key, "an event that was moved aside is gone"))?;
    frame::delete(batch, &key, &value);
    record.aside = less(&key, record.aside)?;
    Ok(())
}

/// A count of rows after one of them went.
pub(super) fn less(key: &[u8], count: u64) -> Result<u64, KvError> {
    count.checked_sub(1).ok_or_else(|| damaged(key, "there are more of these rows than were counted"))
}
