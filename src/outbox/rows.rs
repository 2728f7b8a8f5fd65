//! Rows of one destination read back: histories, chats moved aside, dead letters, replays. Reads only; every scan is in
//! pages. Deliberately absent: the log (`log`), people's views (`inspect`).

use std::collections::HashMap;

use bytes::Bytes;

use super::filter::Filter;
use super::frame::{self, damaged};
use super::keys::{self, DestinationId};
use super::kv::{Kv, KvError, Pair, Weights};
use super::log::{self, Logged};
use super::records::{
    AsideRecord, DeadRecord, EventRecord, GapRecord, History, Mark, MarkRecord, QuarantineRecord, ReplayRecord,
};
use crate::domain::event::Queued;
use crate::domain::ids::{Lane, LaneOf, Seq};

/// How many keys are read at a time.
const PAGE_KEYS: usize = 64;
/// How many dead letters one read for a replay brings at most, and how many it looks at.
const REPLAY_ROWS: usize = 64;
const LOOKED_ROWS: usize = 512;

/// A chat with events that were moved aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AsideLane {
    /// The chat.
    pub lane: Lane,
    /// The first of its events.
    pub first: Seq,
    /// The last of its events.
    pub last: Seq,
}

/// A dead letter to be delivered again.
#[derive(Clone, Debug)]
pub struct DeadLetter {
    /// The event.
    pub queued: Queued,
    /// What was tried before.
    pub history: History,
}

/// Dead letters that one read for a replay brings.
#[derive(Clone, Debug)]
pub struct Letters {
    /// They, in order.
    pub letters: Vec<DeadLetter>,
    /// After which position it goes on; nothing when these were the last.
    pub next: Option<Seq>,
}

/// Every stored history of a destination.
///
/// # Errors
/// When the store cannot be read.
pub fn histories(kv: &dyn Kv, id: DestinationId) -> Result<HashMap<Seq, History>, KvError> {
    let mut found = HashMap::new();
    pages(kv, &keys::history_all(id), |key, value| {
        if let Some(seq) = keys::last_number(key, keys::ROW_LEN) {
            found.insert(Seq(seq), frame::parse(key, &frame::whole(kv, key, value)?)?);
        }
        Ok(true)
    })?;
    Ok(found)
}

/// Every chat of a destination that has events aside; two look-ups a chat.
///
/// # Errors
/// When the store cannot be read.
pub fn aside_lanes(kv: &dyn Kv, id: DestinationId) -> Result<Vec<AsideLane>, KvError> {
    let mut lanes = Vec::new();
    let mut from = keys::aside_all(id);
    let end = keys::after(&from);
    while let Some((key, _)) = kv.scan(&from, &end, 1)?.into_iter().next() {
        let (lane, first) = aside_key(&key)?;
        let all = keys::aside_lane(id, lane);
        from = keys::after(&all);
        let last = kv.last(&all, &from)?.ok_or_else(|| damaged(&key, "the row went while it was read"))?;
        let last = last.0.get(..keys::ASIDE_LEN).ok_or_else(|| damaged(&last.0, "the key is too short"))?;
        lanes.push(AsideLane { lane, first, last: aside_key(last)?.1 });
    }
    Ok(lanes)
}

/// The lane and position in the key of an event moved aside.
fn aside_key(key: &[u8]) -> Result<(Lane, Seq), KvError> {
    let number = |at: usize| {
        key.get(at..at + 8).and_then(|bytes| bytes.first_chunk::<8>()).map(|bytes| u64::from_be_bytes(*bytes))
    };
    let parts = (number(4), key.get(12), number(13), keys::last_number(key, keys::ASIDE_LEN));
    let (Some(group), Some(tag), Some(of), Some(seq)) = parts else {
        return Err(damaged(key, "no key of an event moved aside"));
    };
    let of = match tag {
        0 => LaneOf::Common,
        1 => LaneOf::Peer(keys::unsorted(of)),
        2 => LaneOf::User(keys::unsorted(of)),
        _ => return Err(damaged(key, "no lane in the key")),
    };
    Ok((Lane { group: keys::unsorted(group), of }, Seq(seq)))
}

/// Every replay that is kept, oldest first.
///
/// # Errors
/// When the store cannot be read.
pub fn replays(kv: &dyn Kv) -> Result<Vec<(u64, ReplayRecord)>, KvError> {
    let mut found = Vec::new();
    pages(kv, b"j/", |key, value| {
        if let Some(number) = keys::last_number(key, keys::NUMBERED_LEN) {
            found.push((number, frame::parse(key, &frame::whole(kv, key, value)?)?));
        }
        Ok(true)
    })?;
    Ok(found)
}

/// The next dead letters after `after` that a replay takes and has not tried.
///
/// # Errors
/// When the store cannot be read.
pub fn replayable(kv: &dyn Kv, number: u64, job: &ReplayRecord, after: Seq) -> Result<Letters, KvError> {
    let (mut letters, mut looked, mut next) = (Vec::new(), 0, None);
    let filter = &job.order.filter;
    let mut go_on = |seq, letter: Option<DeadLetter>| {
        letters.extend(letter);
        looked += 1;
        if letters.len() == REPLAY_ROWS || looked == LOOKED_ROWS {
            next = Some(seq);
        }
        next.is_none()
    };
    // What was still pending when the replay was made is not meant, even if it has died or expired since.
    if job.order.expired {
        expired(kv, job.order.destination, after.next(), |logged, mark| {
            let (seq, event) = (logged.queued.seq, log::event_record(logged));
            let meant = mark.replay < number && filter.takes_expired(seq, &event, mark.at);
            let letter = || DeadLetter { queued: logged.queued.clone(), history: History::default() };
            Ok(go_on(seq, meant.then(letter)))
        })?;
    } else {
        dead_letters(kv, job.order.destination, after.next(), |key, dead, bytes| {
            let meant = dead.replay < number && filter.takes_dead(&dead);
            let seq = dead.seq;
            let letter = match meant {
                true => {
                    let queued = log::queued_of(key, seq, &dead.event, bytes)?;
                    Some(DeadLetter { queued, history: dead.history })
                }
                false => None,
            };
            Ok(go_on(seq, letter))
        })?;
    }
    Ok(Letters { letters, next })
}

/// Visits the updates in quarantine from a number on, until the visitor says no.
///
/// # Errors
/// When the store cannot be read.
pub fn quarantined(
    kv: &dyn Kv,
    from: u64,
    mut visit: impl FnMut(u64, QuarantineRecord) -> Result<bool, KvError>,
) -> Result<(), KvError> {
    walk(kv, keys::quarantine(from), b"q0", |key, value| match keys::last_number(key, keys::NUMBERED_LEN) {
        Some(number) => visit(number, frame::parse(key, &frame::whole(kv, key, value)?)?),
        None => Ok(true),
    })
}

/// How many dead letters of a destination a filter takes.
///
/// # Errors
/// When the store cannot be read.
pub fn count_dead(kv: &dyn Kv, id: DestinationId, filter: &Filter) -> Result<u64, KvError> {
    let mut count = 0;
    dead_letters(kv, id, Seq(0), |_, dead, _| {
        count += u64::from(filter.takes_dead(&dead));
        Ok(true)
    })?;
    Ok(count)
}

/// How many expired events of a destination a filter takes.
///
/// # Errors
/// When the store cannot be read.
pub fn count_expired(kv: &dyn Kv, id: DestinationId, filter: &Filter) -> Result<u64, KvError> {
    let mut count = 0;
    expired(kv, id, Seq(0), |logged, mark| {
        count += u64::from(filter.takes_expired(logged.queued.seq, &log::event_record(logged), mark.at));
        Ok(true)
    })?;
    Ok(count)
}

/// Visits the expired events of a destination that are in the log still, from `from` on, until the visitor says no.
///
/// # Errors
/// When the store cannot be read.
pub fn expired(
    kv: &dyn Kv,
    id: DestinationId,
    from: Seq,
    mut visit: impl FnMut(&Logged, &MarkRecord) -> Result<bool, KvError>,
) -> Result<(), KvError> {
    walk(kv, keys::mark(id, from), &keys::mark(id, Seq(u64::MAX)), |key, value| {
        let Some(seq) = keys::last_number(key, keys::ROW_LEN) else { return Ok(true) };
        let mark: MarkRecord = frame::parse(key, &frame::whole(kv, key, value)?)?;
        if mark.what != Mark::Expired {
            return Ok(true);
        }
        log::one(kv, Seq(seq))?.map_or(Ok(true), |logged| visit(&logged, &mark))
    })
}

/// Visits the dead letters of a destination from `from` on, until the visitor says no.
///
/// # Errors
/// When the store cannot be read.
pub fn dead_letters(
    kv: &dyn Kv,
    id: DestinationId,
    from: Seq,
    mut visit: impl FnMut(&[u8], DeadRecord<'_>, &Bytes) -> Result<bool, KvError>,
) -> Result<(), KvError> {
    walk(kv, keys::dead(id, from), &keys::after(&keys::dead_all(id)), |key, value| {
        if key.len() != keys::ROW_LEN {
            return Ok(true);
        }
        let bytes = Bytes::from(frame::whole(kv, key, value)?);
        visit(key, frame::parse(key, &bytes)?, &bytes)
    })
}

/// Visits the events of a destination that were moved aside, chat by chat, until the visitor says no.
///
/// # Errors
/// When the store cannot be read.
pub fn aside_events(
    kv: &dyn Kv,
    id: DestinationId,
    mut visit: impl FnMut(Seq, EventRecord<'_>) -> Result<bool, KvError>,
) -> Result<(), KvError> {
    pages(kv, &keys::aside_all(id), |key, value| {
        if key.len() != keys::ASIDE_LEN {
            return Ok(true);
        }
        let bytes = frame::whole(kv, key, value)?;
        let record: AsideRecord<'_> = frame::parse(key, &bytes)?;
        visit(record.seq, record.event)
    })
}

/// How many bytes of the store hold something, counted one by one.
///
/// # Errors
/// When the store cannot be read.
pub fn weigh(kv: &dyn Kv) -> Result<Weights<u64>, KvError> {
    let mut weights = Weights::default();
    for prefix in [b"e/", b"p/", b"x/", b"q/"] {
        pages(kv, prefix, |key, value| {
            weights.add(key, (key.len() + value.len()) as u64);
            Ok(true)
        })?;
    }
    Ok(weights)
}

/// The gaps of a community whose messages are still to be fetched back, oldest first.
///
/// # Errors
/// When the store cannot be read.
pub fn gaps_to_fill(kv: &dyn Kv, group: i64) -> Result<Vec<u64>, KvError> {
    let mut found = Vec::new();
    pages(kv, b"g/", |key, value| {
        let record: GapRecord = frame::parse(key, &frame::whole(kv, key, value)?)?;
        if record.group == group && record.backfill.is_some_and(|backfill| backfill.finished.is_none()) {
            found.extend(keys::last_number(key, keys::NUMBERED_LEN));
        }
        Ok(true)
    })?;
    Ok(found)
}

/// Visits every pair whose key begins with `prefix`, parts included, a page at a time, until the visitor says no.
///
/// # Errors
/// When the store cannot be read.
pub fn pages(
    kv: &dyn Kv,
    prefix: &[u8],
    visit: impl FnMut(&[u8], &[u8]) -> Result<bool, KvError>,
) -> Result<(), KvError> {
    walk(kv, prefix.to_vec(), &keys::after(prefix), visit)
}

/// Visits every pair from a key on and before another, a page at a time, until the visitor says no.
pub(super) fn walk(
    kv: &dyn Kv,
    mut from: Vec<u8>,
    end: &[u8],
    mut visit: impl FnMut(&[u8], &[u8]) -> Result<bool, KvError>,
) -> Result<(), KvError> {
    loop {
        let page: Vec<Pair> = kv.scan(&from, end, PAGE_KEYS)?;
        for (key, value) in &page {
            if !visit(key, value)? {
                return Ok(());
            }
        }
        match page.last() {
            Some((key, _)) if page.len() == PAGE_KEYS => from = [key.as_slice(), &[0]].concat(),
            _ => return Ok(()),
        }
    }
}
