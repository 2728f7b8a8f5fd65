//! Records that tell themselves where they live: with the page lost that a change belongs to, its key is known by its end
//! only. Deliberately absent: guessing; what does not say where it was stays lost.

use std::ops::Range;

use crate::domain::ids::Seq;
use crate::outbox::frame;
use crate::outbox::keys;
use crate::outbox::records::{
    AsideRecord, Checkpoint, ChunkRecord, DeadRecord, DestinationRecord, Head, Space, lane_of,
};

/// The key of a record, given the end of it and the value that was under it.
pub(super) fn key_told(end: &[u8], value: &[u8]) -> Option<Vec<u8>> {
    let (bytes, whole) = frame::first_part(value)?;
    let keys = if whole { keys_of(bytes) } else { vec![keys::chunk(frame::beginning::<Seq>(bytes)?.0)] };
    keys.into_iter().find(|key| key.ends_with(end))
}

/// The records in bytes whose order is lost, each by its own check sum: where their values are, and their keys, where they
/// leave no choice.
pub(super) fn records_in(bytes: &[u8]) -> Vec<(Range<usize>, Vec<u8>)> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
        let Some(value) = frame::value_at(rest) else {
            at += 1;
            continue;
        };
        let told = frame::first_part(value).map(|(bytes, _)| keys_of(bytes)).unwrap_or_default();
        if let Ok([key]) = <[_; 1]>::try_from(told) {
            found.push((at..at + value.len(), key));
        }
        at += value.len();
    }
    found
}

/// The keys that a whole record may have had, by what it reads as.
fn keys_of(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut keys = Vec::new();
    if let Some((chunk, [])) = frame::beginning::<ChunkRecord<'_>>(bytes)
        && !chunk.events.is_empty()
    {
        keys.push(keys::chunk(chunk.first));
    }
    if let Some((row, [])) = frame::beginning::<AsideRecord<'_>>(bytes)
        && let [id] = row.event.destinations[..]
    {
        keys.push(keys::aside(id, lane_of(&row.event), row.seq));
    }
    if let Some((row, [])) = frame::beginning::<DeadRecord<'_>>(bytes)
        && let [id] = row.event.destinations[..]
    {
        keys.push(keys::dead(id, row.seq));
    }
    keys
}

/// Whether a value reads as what tells how far the outbox, or a destination, is; its key may be unknown.
pub(super) fn is_a_count(value: &[u8]) -> bool {
    fn is<'a, T: serde::Deserialize<'a>>(bytes: &'a [u8]) -> bool {
        frame::beginning::<T>(bytes).is_some_and(|(_, rest)| rest.is_empty())
    }
    frame::first_part(value).is_some_and(|(bytes, whole)| {
        whole && (is::<Head>(bytes) || is::<Space>(bytes) || is::<Checkpoint>(bytes) || is::<DestinationRecord>(bytes))
    })
}
