//! Where each record lives: the keys of the store, as laid out in the prose of [`super`]. Every key has a fixed length by
//! its prefix, so that a record's parts (key + part number) are told from the records beside it by length alone.
//! Deliberately absent: what the records hold (`records`).

use crate::domain::ids::{Lane, LaneOf, Seq};

/// A destination's number, never used twice; names map to it in `m/names`.
pub type DestinationId = u16;

/// Never given to a destination: a replay that names it converts what is in quarantine again.
pub const QUARANTINE: DestinationId = DestinationId::MAX;

/// The head of the log, its tail, and the counts that belong to it.
pub const HEAD: &[u8] = b"m/head";
/// Destinations' names and numbers.
pub const NAMES: &[u8] = b"m/names";
/// How many bytes of the store hold something.
pub const SPACE: &[u8] = b"m/space";
/// When which lowest floor was seen, for retention.
pub const RING: &[u8] = b"m/ring";

/// A chunk of the log that begins with `first`.
#[must_use]
pub fn chunk(first: Seq) -> Vec<u8> {
    numbered(b"e/", first.0)
}

/// The first sequence number in a chunk's key, unless the key is that of a part.
#[must_use]
pub fn chunk_first(key: &[u8]) -> Option<Seq> {
    last_number(key, CHUNK_LEN).map(Seq)
}

/// Length of a chunk's key.
pub const CHUNK_LEN: usize = 2 + 8;

/// The checkpoint of a community.
#[must_use]
pub fn checkpoint(group: i64) -> Vec<u8> {
    [b"c/".as_slice(), &sortable(group)].concat()
}

/// Length of the key of a destination.
const DESTINATION_LEN: usize = 2 + 2;

/// A destination's cursor and counters.
#[must_use]
pub fn destination(id: DestinationId) -> Vec<u8> {
    [b"d/".as_slice(), &id.to_be_bytes()].concat()
}

/// An event of a blocked chat, moved aside.
#[must_use]
pub fn aside(id: DestinationId, lane: Lane, seq: Seq) -> Vec<u8> {
    [aside_lane(id, lane).as_slice(), &seq.0.to_be_bytes()].concat()
}

/// Length of the key of an event moved aside.
pub const ASIDE_LEN: usize = 2 + 2 + 17 + 8;

/// What the keys of all events of a lane that were moved aside begin with.
#[must_use]
pub fn aside_lane(id: DestinationId, lane: Lane) -> Vec<u8> {
    let (tag, of) = match lane.of {
        LaneOf::Common => (0, 0),
        LaneOf::Peer(peer) => (1, peer),
        LaneOf::User(user) => (2, user),
    };
    [&aside_all(id), sortable(lane.group).as_slice(), &[tag], &sortable(of)].concat()
}

/// What the keys of all events moved aside for a destination begin with.
#[must_use]
pub fn aside_all(id: DestinationId) -> Vec<u8> {
    [b"p/".as_slice(), &id.to_be_bytes()].concat()
}

/// A dead letter.
#[must_use]
pub fn dead(id: DestinationId, seq: Seq) -> Vec<u8> {
    numbered(&dead_all(id), seq.0)
}

/// What the keys of a destination's dead letters begin with.
#[must_use]
pub fn dead_all(id: DestinationId) -> Vec<u8> {
    [b"x/".as_slice(), &id.to_be_bytes()].concat()
}

/// Why an event was settled although nobody took it.
#[must_use]
pub fn mark(id: DestinationId, seq: Seq) -> Vec<u8> {
    numbered(&[b"y/".as_slice(), &id.to_be_bytes()].concat(), seq.0)
}

/// The history of an event's attempts.
#[must_use]
pub fn history(id: DestinationId, seq: Seq) -> Vec<u8> {
    numbered(&history_all(id), seq.0)
}

/// What the keys of all histories of a destination begin with.
#[must_use]
pub fn history_all(id: DestinationId) -> Vec<u8> {
    [b"r/".as_slice(), &id.to_be_bytes()].concat()
}

/// Length of the keys of dead letters, marks and histories.
pub const ROW_LEN: usize = 2 + 2 + 8;

/// A gap record.
#[must_use]
pub fn gap(number: u64) -> Vec<u8> {
    numbered(b"g/", number)
}

/// A quarantined update.
#[must_use]
pub fn quarantine(number: u64) -> Vec<u8> {
    numbered(b"q/", number)
}

/// Where the messages of a chat stand.
#[must_use]
pub fn chat(group: i64, peer: i64) -> Vec<u8> {
    [chats(group).as_slice(), &sortable(peer)].concat()
}

/// What the keys of all chats of a community begin with.
#[must_use]
pub fn chats(group: i64) -> Vec<u8> {
    [b"k/".as_slice(), &sortable(group)].concat()
}

/// The peer in the key of a chat; nothing for the key of a part.
#[must_use]
pub fn chat_peer(key: &[u8]) -> Option<i64> {
    last_number(key, CHAT_LEN).map(unsorted)
}

/// Length of the key of a chat.
const CHAT_LEN: usize = 2 + 8 + 8;

/// A replay job.
#[must_use]
pub fn replay(number: u64) -> Vec<u8> {
    numbered(b"j/", number)
}

/// A change by an operator.
#[must_use]
pub fn audit(number: u64) -> Vec<u8> {
    numbered(b"a/", number)
}

/// Length of the keys that are a prefix and a number.
pub const NUMBERED_LEN: usize = 2 + 8;

/// The number at the end of a key of exactly `len` bytes; nothing for the key of a part.
#[must_use]
pub fn last_number(key: &[u8], len: usize) -> Option<u64> {
    if key.len() != len {
        return None;
    }
    key.last_chunk::<8>().map(|bytes| u64::from_be_bytes(*bytes))
}

/// The key of the record that a key is a part of; nothing for a record's own key.
#[must_use]
pub fn record_of_part(key: &[u8]) -> Option<&[u8]> {
    let length = record_len(key)?;
    if key.len() == length + 2 { key.get(..length) } else { None }
}

/// Whether a key is that of a record, or of a part of one.
#[must_use]
pub fn is_ours(key: &[u8]) -> bool {
    record_len(key).is_some_and(|length| key.len() == length || key.len() == length + 2)
}

/// How long the key of a record is that begins as this one does.
fn record_len(key: &[u8]) -> Option<usize> {
    Some(match key.first_chunk::<2>()? {
        b"e/" => CHUNK_LEN,
        b"p/" => ASIDE_LEN,
        b"x/" | b"r/" | b"y/" => ROW_LEN,
        b"a/" | b"c/" | b"g/" | b"q/" | b"j/" => NUMBERED_LEN,
        b"d/" => DESTINATION_LEN,
        b"k/" => CHAT_LEN,
        b"m/" => [HEAD, NAMES, RING, SPACE].into_iter().find(|name| key.starts_with(name))?.len(),
        _ => return None,
    })
}

/// A key as people can read it.
#[must_use]
pub fn readable(key: &[u8]) -> String {
    match key {
        [b'm', b'/', ..] | [] => String::from_utf8_lossy(key).into_owned(),
        [b'e', b'/', ..] if key.len() >= CHUNK_LEN => {
            let first = key.get(..CHUNK_LEN).and_then(chunk_first).unwrap_or_default();
            format!("e/{first}")
        }
        [a, b, rest @ ..] => {
            let prefix = String::from_utf8_lossy(&[*a, *b]).into_owned();
            rest.iter().fold(prefix, |words, byte| words + &format!("{byte:02x}"))
        }
        [one] => format!("{one:02x}"),
    }
}

/// The first key after all that begin with `prefix`.
#[must_use]
pub fn after(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return end;
        }
    }
    vec![u8::MAX; 64]
}

fn numbered(prefix: &[u8], number: u64) -> Vec<u8> {
    [prefix, &number.to_be_bytes()].concat()
}

/// The community in the key of a checkpoint.
#[must_use]
pub fn community(key: &[u8]) -> Option<i64> {
    last_number(key, NUMBERED_LEN).map(unsorted)
}

/// The destination in the key of its record, or of one of its rows.
#[must_use]
pub fn destination_of(key: &[u8]) -> Option<DestinationId> {
    key.get(2..)?.first_chunk::<2>().map(|bytes| DestinationId::from_be_bytes(*bytes))
}

/// The signed number that was made sortable.
#[must_use]
pub fn unsorted(number: u64) -> i64 {
    (number ^ (1 << 63)).cast_signed()
}

/// A signed number as bytes whose order is the numbers' order.
fn sortable(number: i64) -> [u8; 8] {
    (number.cast_unsigned() ^ (1 << 63)).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_sort_as_their_numbers_do() {
        assert!(chunk(Seq(255)) < chunk(Seq(256)));
        let lane = |peer| Lane { group: 1, of: LaneOf::Peer(peer) };
        assert!(aside_lane(1, lane(-5)) < aside_lane(1, lane(5)));
        assert!(aside(1, lane(5), Seq(9)) < aside(1, lane(5), Seq(10)));
        assert!(aside(1, lane(5), Seq(u64::MAX)) < aside(1, lane(6), Seq(0)));
    }

    #[test]
    fn after_a_prefix_comes_the_next_prefix() {
        assert_eq!(after(b"e/"), b"e0".to_vec());
        assert_eq!(after(&[1, 255]), vec![2]);
    }

    #[test]
    fn lengths_are_as_told() {
        let lane = Lane { group: 1, of: LaneOf::Common };
        assert_eq!(chunk(Seq(1)).len(), CHUNK_LEN);
        assert_eq!(aside(1, lane, Seq(1)).len(), ASIDE_LEN);
        assert_eq!(dead(1, Seq(1)).len(), ROW_LEN);
        assert_eq!(history(1, Seq(1)).len(), ROW_LEN);
        assert_eq!(gap(1).len(), NUMBERED_LEN);
    }
}
