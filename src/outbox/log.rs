//! The log: events packed into chunks, and chunks read back, checked for contiguity. Deliberately absent: who has settled
//! what (`cursor`), and any caching (`handle` keeps the window of recent chunks).

use std::borrow::Cow;

use bytes::Bytes;

use super::frame::{self, Encoded, PART_BYTES, damaged, whole};
use super::keys::{self, DestinationId};
use super::kv::{Kv, KvError};
use super::records::{ChunkRecord, EventRecord};
use crate::domain::event::{Event, Queued, Source, type_name};
use crate::domain::ids::{EventId, GroupId, Seq};

/// What an event costs in a chunk besides its body, id and type, at most.
const EVENT_OVERHEAD_BYTES: usize = 64;
/// How many keys are read at a time at most.
const PAGE_KEYS: usize = 64;

/// An event of the log with those who take it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logged {
    /// The event and its position.
    pub queued: Queued,
    /// Who takes it.
    pub destinations: Vec<DestinationId>,
}

/// Consecutive events that were written together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Position of the first.
    pub first: Seq,
    /// The events; the n-th is at `first + n`.
    pub events: Vec<Logged>,
}

impl Chunk {
    /// The position after the last.
    #[must_use]
    pub fn end(&self) -> Seq {
        Seq(self.first.0 + self.events.len() as u64)
    }
}

/// Cuts consecutive events into chunks: as many as fit one value, a larger event alone. Keys and encoded records.
#[must_use]
pub fn pack(events: &[Logged]) -> Vec<(Vec<u8>, Encoded)> {
    let mut chunks = Vec::new();
    let mut rest = events;
    while let Some(first) = rest.first() {
        let mut bytes = 0;
        let mut count = 0;
        for logged in rest {
            let more = cost(logged);
            if count > 0 && bytes + more > PART_BYTES {
                break;
            }
            bytes += more;
            count += 1;
        }
        let (now, later) = rest.split_at(count);
        let record = ChunkRecord { first: first.queued.seq, events: now.iter().map(event_record).collect() };
        chunks.push((keys::chunk(record.first), Encoded::new(&record, bytes)));
        rest = later;
    }
    chunks
}

fn cost(logged: &Logged) -> usize {
    let event = &logged.queued.event;
    event.body.len()
        + event.event_id.as_str().len()
        + event.event_type.len()
        + EVENT_OVERHEAD_BYTES
        + 3 * logged.destinations.len()
}

/// An event as it is stored.
#[must_use]
pub fn event_record(logged: &Logged) -> EventRecord<'_> {
    record_of(&logged.queued, &logged.destinations)
}

/// An event as it is stored in a row of one destination.
#[must_use]
pub fn record_of<'a>(queued: &'a Queued, destinations: impl Into<Cow<'a, [DestinationId]>>) -> EventRecord<'a> {
    let event = &queued.event;
    EventRecord {
        destinations: destinations.into(),
        received_at: event.received_at,
        group: event.group.get(),
        peer: event.peer_id,
        user: event.user_id,
        event_type: &event.event_type,
        event_id: event.event_id.as_str(),
        source: match queued.source {
            Source::Live => 0,
            Source::Backfill => 1,
        },
        body: &event.body,
    }
}

/// A stored event as it is worked with; its body shares `bytes`, which the record was read from.
///
/// # Errors
/// [`KvError::Damaged`] when an identifier is none.
pub fn queued_of(key: &[u8], seq: Seq, record: &EventRecord<'_>, bytes: &Bytes) -> Result<Queued, KvError> {
    let event = Event {
        group: GroupId::new(record.group).map_err(|error| damaged(key, &error.to_string()))?,
        event_id: EventId::parse(record.event_id).map_err(|error| damaged(key, &error.to_string()))?,
        event_type: type_name(record.event_type),
        user_id: record.user,
        peer_id: record.peer,
        received_at: record.received_at,
        body: bytes.slice_ref(record.body),
    };
    let source = if record.source == 1 { Source::Backfill } else { Source::Live };
    Ok(Queued { seq, source, event })
}

/// Reads chunks from the one that holds `from` on, until `max_bytes` have been read or `head` is reached.
///
/// # Errors
/// [`KvError::Damaged`] when the log is not contiguous or a chunk is not what was written.
pub fn read(kv: &dyn Kv, from: Seq, head: Seq, max_bytes: usize) -> Result<Vec<Chunk>, KvError> {
    let mut chunks: Vec<Chunk> = Vec::new();
    if from >= head {
        return Ok(chunks);
    }
    let Some(mut at) = chunk_holding(kv, from)? else {
        return Err(damaged(&keys::chunk(from), "no chunk of the log holds this position"));
    };
    let mut bytes = 0;
    // As many full chunks as are asked for; only where they turn out to be small, more of them.
    let mut page_keys = max_bytes / (2 * PART_BYTES);
    while at < head && bytes < max_bytes {
        page_keys = page_keys.clamp(1, PAGE_KEYS);
        let page = kv.scan(&keys::chunk(at), &keys::chunk(head), page_keys)?;
        page_keys *= 2;
        let before = at;
        for (key, value) in &page {
            let Some(first) = keys::chunk_first(key) else { continue };
            if first != at {
                return Err(damaged(key, &format!("the log goes on at {first} where {at} was due")));
            }
            let chunk = decode(kv, key, value, first)?;
            bytes += chunk.events.iter().map(|logged| logged.queued.event.body.len()).sum::<usize>() + value.len();
            at = chunk.end();
            chunks.push(chunk);
            if bytes >= max_bytes {
                break;
            }
        }
        if at == before {
            return Err(damaged(&keys::chunk(at), "the log ends here, before its head"));
        }
    }
    if chunks.first().is_none_or(|chunk| chunk.end() <= from) {
        return Err(damaged(&keys::chunk(from), "the chunk before this position ends before it"));
    }
    Ok(chunks)
}

/// Reads one chunk from its key and value.
///
/// # Errors
/// [`KvError::Damaged`] when it is not what was written.
pub fn decode(kv: &dyn Kv, key: &[u8], value: &[u8], first: Seq) -> Result<Chunk, KvError> {
    let bytes = Bytes::from(whole(kv, key, value)?);
    let record: ChunkRecord<'_> = frame::parse(key, &bytes)?;
    if record.first != first {
        return Err(damaged(key, &format!("the chunk says that it begins at {}", record.first)));
    }
    if record.events.is_empty() {
        return Err(damaged(key, "the chunk is empty"));
    }
    let mut events = Vec::with_capacity(record.events.len());
    let mut seq = first;
    for event in record.events {
        let queued = queued_of(key, seq, &event, &bytes)?;
        events.push(Logged { queued, destinations: event.destinations.into_owned() });
        seq = seq.next();
    }
    Ok(Chunk { first, events })
}

/// Where the chunk begins that holds `seq`, if the log reaches so far back.
///
/// # Errors
/// When the store cannot be read.
pub fn chunk_holding(kv: &dyn Kv, seq: Seq) -> Result<Option<Seq>, KvError> {
    let last = kv.last(&keys::chunk(Seq(0)), &keys::chunk(seq.next()))?;
    Ok(last.and_then(|(key, _)| key.get(..keys::CHUNK_LEN).and_then(keys::chunk_first)))
}

/// Reads one event of the log.
///
/// # Errors
/// When the store cannot be read.
pub fn one(kv: &dyn Kv, seq: Seq) -> Result<Option<Logged>, KvError> {
    let Some(first) = chunk_holding(kv, seq)? else { return Ok(None) };
    let key = keys::chunk(first);
    let Some(value) = kv.get(&key)? else { return Ok(None) };
    let chunk = decode(kv, &key, &value, first)?;
    Ok(chunk.events.into_iter().find(|logged| logged.queued.seq == seq))
}
