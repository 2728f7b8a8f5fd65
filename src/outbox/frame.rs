//! How a record becomes bytes and comes back. Every record carries a version, its length and a check sum; one that does
//! not fit a value is cut into parts.
//!
//! Invariant: no value written here exceeds [`PART_BYTES`] plus the frame, so sled never puts one into `blobs/`, which it
//! does not sync. Deliberately absent: what records hold (`records`) and where they live (`keys`).

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::kv::{Batch, Kv, KvError};

/// Version of the frame and of the layouts in `records`.
const VERSION: u8 = 1;
/// Version, number of further parts, length of all, CRC-32 of all.
const FRAME_BYTES: usize = 1 + 2 + 4 + 4;
/// The most bytes of a record that go into one value.
pub const PART_BYTES: usize = 16 << 10;

/// A record as bytes, behind the room that its frame takes.
#[derive(Debug)]
pub struct Encoded(Vec<u8>);

impl Encoded {
    /// Of a record that takes about so many `bytes`.
    #[must_use]
    pub fn new(record: &impl Serialize, bytes: usize) -> Self {
        let mut value = Vec::with_capacity(FRAME_BYTES + bytes);
        value.resize(FRAME_BYTES, 0);
        Self(postcard::to_extend(record, value).expect("invariant: our records have no shape that postcard refuses"))
    }

    fn of(bytes: &[u8]) -> Self {
        Self([&[0; FRAME_BYTES], bytes].concat())
    }

    fn length(&self) -> usize {
        self.0.len() - FRAME_BYTES
    }
}

/// Puts a record into a batch under `key`, in parts where it is large.
pub fn put(batch: &mut Batch, key: Vec<u8>, record: &impl Serialize) {
    put_encoded(batch, key, Encoded::new(record, 0));
}

/// Puts a record that counts as use of the disk, where none is.
pub fn add(batch: &mut Batch, key: Vec<u8>, record: &impl Serialize) {
    add_encoded(batch, key, Encoded::new(record, 0));
}

/// Puts what is encoded and counts as use of the disk, where none is.
pub fn add_encoded(batch: &mut Batch, key: Vec<u8>, record: Encoded) {
    batch.weigh(&key, weight(key.len(), record.length()).cast_signed());
    put_encoded(batch, key, record);
}

/// Puts encoded bytes that count as use of the disk, where none are.
pub fn add_bytes(batch: &mut Batch, key: Vec<u8>, bytes: &[u8]) {
    add_encoded(batch, key, Encoded::of(bytes));
}

/// What a record of `length` bytes takes with its frame, its parts and their keys.
pub(super) fn weight(key: usize, length: usize) -> u64 {
    let parts = length.saturating_sub(1) / PART_BYTES;
    (key * (1 + parts) + 2 * parts + FRAME_BYTES + length) as u64
}

/// A record as bytes, without its frame.
#[must_use]
pub fn encode(record: &impl Serialize) -> Vec<u8> {
    postcard::to_stdvec(record).expect("invariant: our records have no shape that postcard refuses")
}

/// Puts encoded bytes into a batch, framed, in parts where they are many.
pub(super) fn put_bytes(batch: &mut Batch, key: Vec<u8>, bytes: &[u8]) {
    put_encoded(batch, key, Encoded::of(bytes));
}

fn put_encoded(batch: &mut Batch, key: Vec<u8>, record: Encoded) {
    let length = record.length();
    let further = length.saturating_sub(1) / PART_BYTES;
    let parts = u16::try_from(further).expect("invariant: a record is far below a gigabyte");
    let length = u32::try_from(length).expect("invariant: a record is far below a gigabyte");
    let Encoded(mut value) = record;
    let (frame, bytes) = value.split_at_mut(FRAME_BYTES);
    let sum = crc32fast::hash(bytes).to_be_bytes();
    let head = [&[VERSION][..], &parts.to_be_bytes(), &length.to_be_bytes(), &sum].concat();
    frame.copy_from_slice(&head);
    for (number, part) in (1..=parts).zip(bytes.chunks(PART_BYTES).skip(1)) {
        batch.put(part_key(&key, number), part.to_vec());
    }
    value.truncate(FRAME_BYTES + PART_BYTES);
    if parts > 0 {
        value.shrink_to_fit();
    }
    batch.put(key, value);
}

/// Deletes a record that counts, with all its parts, given the value under its key.
pub fn delete(batch: &mut Batch, key: &[u8], value: &[u8]) {
    batch.gone(key);
    if let Some(frame) = frame(value) {
        batch.weigh(key, -weight(key.len(), frame.length).cast_signed());
        for number in 1..=frame.parts {
            batch.delete(part_key(key, number));
        }
    }
    batch.delete(key.to_vec());
}

/// Reads a record, if it is there.
///
/// # Errors
/// [`KvError::Damaged`] when it is not what was written.
pub fn load<T: DeserializeOwned>(kv: &dyn Kv, key: &[u8]) -> Result<Option<T>, KvError> {
    match kv.get(key)? {
        None => Ok(None),
        Some(value) => parse(key, &whole(kv, key, &value)?).map(Some),
    }
}

/// Reads a record out of its bytes.
///
/// # Errors
/// [`KvError::Damaged`] when they are none.
pub fn parse<'a, T: Deserialize<'a>>(key: &[u8], bytes: &'a [u8]) -> Result<T, KvError> {
    postcard::from_bytes(bytes).map_err(|error| damaged(key, &format!("the record cannot be read: {error}")))
}

/// The bytes of a record, put together and checked, given the value under its key.
///
/// # Errors
/// [`KvError::Damaged`] when a part is missing, the length or the check sum is wrong, or the version is newer.
pub fn whole(kv: &dyn Kv, key: &[u8], value: &[u8]) -> Result<Vec<u8>, KvError> {
    let frame = frame(value).ok_or_else(|| damaged(key, "the record is shorter than its frame"))?;
    if frame.version != VERSION {
        return Err(damaged(key, &format!("the record has version {}, known is {VERSION}", frame.version)));
    }
    let mut bytes = value.get(FRAME_BYTES..).unwrap_or_default().to_vec();
    for number in 1..=frame.parts {
        let part = kv.get(&part_key(key, number))?;
        bytes.extend_from_slice(&part.ok_or_else(|| damaged(key, &format!("part {number} is missing")))?);
    }
    if bytes.len() != frame.length {
        return Err(damaged(key, &format!("{} bytes where {} were written", bytes.len(), frame.length)));
    }
    if crc32fast::hash(&bytes) != frame.crc {
        return Err(damaged(key, "the check sum is wrong"));
    }
    Ok(bytes)
}

/// The bytes of a record that begin in a value, and whether they are all of it: then they fit their check sum.
pub(super) fn first_part(value: &[u8]) -> Option<(&[u8], bool)> {
    let frame = frame(value).filter(|frame| frame.version == VERSION)?;
    let bytes = value.get(FRAME_BYTES..)?;
    let whole = bytes.len() == frame.length && crc32fast::hash(bytes) == frame.crc;
    let begins = frame.parts > 0 && bytes.len() == PART_BYTES && frame.length > PART_BYTES;
    (whole || begins).then_some((bytes, whole))
}

/// The value at the beginning of some bytes, if it is a whole record by its own length and check sum.
pub(super) fn value_at(bytes: &[u8]) -> Option<&[u8]> {
    let frame = frame(bytes).filter(|frame| frame.version == VERSION && frame.parts == 0)?;
    let value = bytes.get(..FRAME_BYTES.checked_add(frame.length)?)?;
    (frame.length <= PART_BYTES).then_some(value).filter(|value| first_part(value).is_some_and(|(_, whole)| whole))
}

/// What stands at the beginning of some bytes, and what is behind it.
pub(super) fn beginning<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Option<(T, &'a [u8])> {
    postcard::take_from_bytes(bytes).ok()
}

/// Says that a record is damaged, with its key in readable form.
#[must_use]
pub fn damaged(key: &[u8], finding: &str) -> KvError {
    KvError::Damaged(format!("{}: {finding}", super::keys::readable(key)))
}

struct Frame {
    version: u8,
    parts: u16,
    length: usize,
    crc: u32,
}

fn frame(value: &[u8]) -> Option<Frame> {
    let (&version, rest) = value.split_first()?;
    let (parts, rest) = rest.split_first_chunk::<2>()?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let (crc, _) = rest.split_first_chunk::<4>()?;
    Some(Frame {
        version,
        parts: u16::from_be_bytes(*parts),
        length: u32::from_be_bytes(*length) as usize,
        crc: u32::from_be_bytes(*crc),
    })
}

fn part_key(key: &[u8], number: u16) -> Vec<u8> {
    [key, &number.to_be_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::kv::MemoryKv;

    fn written(bytes: &[u8]) -> MemoryKv {
        let kv = MemoryKv::default();
        let mut batch = Batch::default();
        put_bytes(&mut batch, b"e/key".to_vec(), bytes);
        kv.commit(&batch).expect("committed");
        kv
    }

    fn read(kv: &MemoryKv) -> Result<Vec<u8>, KvError> {
        let value = kv.get(b"e/key")?.expect("there");
        whole(kv, b"e/key", &value)
    }

    #[test]
    fn a_record_of_any_size_comes_back_and_no_value_is_large() {
        for size in [0, 1, PART_BYTES - 1, PART_BYTES, PART_BYTES + 1, 8 << 20] {
            let bytes: Vec<u8> = (0..size).map(|n| (n % 251) as u8).collect();
            let kv = written(&bytes);
            assert_eq!(read(&kv).expect("read"), bytes, "{size}");
            let values = kv.scan(&[], &[0xff], usize::MAX).expect("scanned");
            assert!(values.iter().all(|(_, value)| value.len() <= PART_BYTES + FRAME_BYTES));
            let value = kv.get(b"e/key").expect("read").expect("there");
            let mut batch = Batch::default();
            delete(&mut batch, b"e/key", &value);
            kv.commit(&batch).expect("committed");
            assert!(kv.scan(&[], &[0xff], 1).expect("scanned").is_empty(), "{size}");
        }
    }

    #[test]
    fn any_flipped_bit_and_any_missing_part_is_found() {
        let bytes: Vec<u8> = (0..40_000u32).map(|n| (n % 253) as u8).collect();
        let kv = written(&bytes);
        for (key, value) in kv.scan(&[], &[0xff], usize::MAX).expect("scanned") {
            for place in [0, 1, 3, 7, FRAME_BYTES, value.len() - 1] {
                let kv = written(&bytes);
                let mut flipped = value.clone();
                flipped[place] ^= 1;
                let mut batch = Batch::default();
                batch.put(key.clone(), flipped);
                kv.commit(&batch).expect("committed");
                assert!(matches!(read(&kv), Err(KvError::Damaged(_))), "{key:?} {place}");
            }
            if key != b"e/key" {
                let kv = written(&bytes);
                let mut batch = Batch::default();
                batch.delete(key);
                kv.commit(&batch).expect("committed");
                assert!(read(&kv).expect_err("refused").to_string().contains("is missing"));
            }
        }
    }
}
