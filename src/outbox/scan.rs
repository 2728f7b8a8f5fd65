//! Reading a whole store, sound or not: every record in key order with its parts put together, a page at a time; what cannot
//! be read is told as a hole and passed over. Deliberately absent: what records mean (`verify`, `salvage`).

use super::frame;
use super::keys;
use super::kv::{Kv, KvError, Pair};

/// How many keys are read at a time.
const PAGE_KEYS: usize = 32;
/// How many bytes of a key are looked at to find the end of a hole: more than any key has.
const PROBE_BYTES: usize = 32;
/// The longest key, with the number of a part.
const KEY_BYTES: usize = keys::ASIDE_LEN + 2;

/// What is found.
pub(super) enum Found<'a> {
    /// A record, checked, with what it weighs.
    Record {
        /// Its key.
        key: &'a [u8],
        /// Its bytes.
        bytes: Vec<u8>,
        /// What its keys and values take.
        weight: u64,
    },
    /// Something that cannot be read, in words.
    Hole(String),
}

/// Visits everything in `[from, to)`.
///
/// # Errors
/// [`KvError::Io`] when the disk refuses, and what the visitor answers.
pub(super) fn everything(
    kv: &dyn Kv,
    from: &[u8],
    to: &[u8],
    visit: &mut dyn FnMut(Found<'_>) -> Result<(), KvError>,
) -> Result<(), KvError> {
    let mut at = from.to_vec();
    let mut record: Option<Vec<u8>> = None;
    loop {
        let page = match kv.scan(&at, to, PAGE_KEYS) {
            Ok(page) => page,
            Err(KvError::Damaged(finding)) => {
                let (before, next) = around_hole(kv, &at, to)?;
                one_page(kv, &before, &mut record, visit)?;
                let start = before.last().map_or_else(|| at.clone(), |(key, _)| key.clone());
                let end = next.as_ref().map_or_else(|| "the end".to_owned(), |next| keys::readable(next));
                visit(Found::Hole(format!("after {} and before {end}: {finding}", keys::readable(&start))))?;
                match next {
                    Some(next) => at = next,
                    None => return Ok(()),
                }
                continue;
            }
            Err(error) => return Err(error),
        };
        one_page(kv, &page, &mut record, visit)?;
        match page.last() {
            Some((key, _)) if page.len() == PAGE_KEYS => at = [key.as_slice(), &[0]].concat(),
            _ => return Ok(()),
        }
    }
}

fn one_page(
    kv: &dyn Kv,
    page: &[Pair],
    record: &mut Option<Vec<u8>>,
    visit: &mut dyn FnMut(Found<'_>) -> Result<(), KvError>,
) -> Result<(), KvError> {
    for (key, value) in page {
        if let Some(owner) = keys::record_of_part(key) {
            // The parts of a record were read with it; one without its record is left over.
            if record.as_deref() != Some(owner) && !is_there(kv, owner)? {
                visit(Found::Hole(format!("{}: a part whose record is missing", keys::readable(key))))?;
            }
            continue;
        }
        *record = Some(key.clone());
        match frame::whole(kv, key, value) {
            Ok(bytes) => {
                let weight = frame::weight(key.len(), bytes.len());
                visit(Found::Record { key, bytes, weight })?;
            }
            // Deleted or replaced meanwhile.
            Err(KvError::Damaged(_)) if kv.get(key).is_ok_and(|now| now.as_ref() != Some(value)) => {}
            Err(KvError::Damaged(finding)) => visit(Found::Hole(finding))?,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Whether a record is there, as far as it can be told.
fn is_there(kv: &dyn Kv, key: &[u8]) -> Result<bool, KvError> {
    match kv.get(key) {
        Ok(value) => Ok(value.is_some()),
        Err(KvError::Damaged(_)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// What can still be read before a hole that begins somewhere behind `at`, and where reading goes on behind it.
fn around_hole(kv: &dyn Kv, at: &[u8], to: &[u8]) -> Result<(Vec<Pair>, Option<Vec<u8>>), KvError> {
    let mut before: Vec<Pair> = Vec::new();
    let mut at = at.to_vec();
    while before.len() < PAGE_KEYS {
        match kv.scan(&at, to, 1) {
            Ok(pairs) => match pairs.into_iter().next() {
                Some(pair) => {
                    at = [pair.0.as_slice(), &[0]].concat();
                    before.push(pair);
                }
                None => return Ok((before, None)),
            },
            Err(KvError::Damaged(_)) => break,
            Err(error) => return Err(error),
        }
    }
    // Ever longer jumps until something answers, then back to the shortest one that does. A jump of 2^bit is made in the
    // last places of the key first: what cannot be read is a page of the store, so what lies behind it answers again.
    let origin = wide(&at);
    let lowest = 8 * (PROBE_BYTES - KEY_BYTES);
    let reads = |target: &[u8]| match kv.scan(target, to, 1) {
        Ok(_) => Ok(true),
        Err(KvError::Damaged(_)) => Ok(false),
        Err(error) => Err(error),
    };
    let mut bit = lowest;
    let first = loop {
        let Some(target) = plus(&origin, bit).filter(|target| target.as_slice() < to) else {
            return Ok((before, None));
        };
        if reads(&target)? {
            break target;
        }
        bit += 1;
    };
    // Everything up to here fails; it is moved up, bit by bit, as far as it still does.
    let mut fails = if bit == lowest { origin } else { plus(&origin, bit - 1).unwrap_or(origin) };
    let mut answers = first;
    for smaller in (lowest..bit.saturating_sub(1)).rev() {
        let Some(target) = plus(&fails, smaller) else { break };
        if reads(&target)? { answers = target } else { fails = target }
    }
    // A page begins at a key that may be shorter than the place that was found.
    let written = answers.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    for length in written..PROBE_BYTES {
        if reads(&answers[..length])? {
            return Ok((before, Some(answers[..length].to_vec())));
        }
    }
    Ok((before, Some(answers.to_vec())))
}

/// The first bytes of a key, filled up with zeros.
fn wide(key: &[u8]) -> [u8; PROBE_BYTES] {
    let mut bytes = [0; PROBE_BYTES];
    let length = key.len().min(PROBE_BYTES);
    bytes[..length].copy_from_slice(&key[..length]);
    bytes
}

/// A key as a number, and 2^`bit` more; nothing when that is no key any more.
fn plus(key: &[u8; PROBE_BYTES], bit: usize) -> Option<[u8; PROBE_BYTES]> {
    let mut sum = *key;
    let mut place = PROBE_BYTES.checked_sub(1 + bit / 8)?;
    let mut carry = 1u16 << (bit % 8);
    loop {
        let total = u16::from(sum[place]) + carry;
        sum[place] = u8::try_from(total & 0xff).unwrap_or_default();
        carry = total >> 8;
        if carry == 0 {
            return Some(sum);
        }
        place = place.checked_sub(1)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbox::kv::{Batch, Disk};
    use crate::sim::kv::MemoryKv;

    /// A store in which a range of keys cannot be read.
    struct Torn {
        kv: MemoryKv,
        from: Vec<u8>,
        to: Vec<u8>,
    }

    impl Torn {
        /// As sled does: a scan fails when it begins in the torn page, or comes to it.
        fn meets(&self, start: &[u8], page: &[Pair]) -> Result<(), KvError> {
            let inside = |key: &[u8]| key >= self.from.as_slice() && key < self.to.as_slice();
            match inside(start) || page.iter().any(|(key, _)| inside(key)) {
                true => Err(KvError::Damaged("torn".to_owned())),
                false => Ok(()),
            }
        }
    }

    impl Kv for Torn {
        fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, KvError> {
            self.kv.get(key)
        }

        fn scan(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Pair>, KvError> {
            let page = self.kv.scan(from, to, limit)?;
            self.meets(from, &page)?;
            Ok(page)
        }

        fn last(&self, from: &[u8], to: &[u8]) -> Result<Option<Pair>, KvError> {
            self.kv.last(from, to)
        }

        fn apply(&self, batch: &Batch) -> Result<(), KvError> {
            self.kv.apply(batch)
        }

        fn sync(&self) -> Result<(), KvError> {
            self.kv.sync()
        }

        fn disk(&self) -> Result<Disk, KvError> {
            self.kv.disk()
        }
    }

    /// Whatever is torn, everything else is found, and one hole is told.
    fn found(all: &[Vec<u8>], torn: std::ops::Range<usize>) {
        let kv = MemoryKv::default();
        let mut batch = Batch::default();
        all.iter().for_each(|key| frame::put(&mut batch, key.clone(), &7u64));
        kv.commit(&batch).expect("committed");
        let torn_kv = Torn { kv, from: all[torn.start].clone(), to: all[torn.end].clone() };
        let (mut read, mut holes) = (Vec::new(), 0);
        everything(&torn_kv, &[], &[u8::MAX], &mut |found| {
            match found {
                Found::Record { key, .. } => read.push(key.to_vec()),
                Found::Hole(_) => holes += 1,
            }
            Ok(())
        })
        .expect("read");
        let kept: Vec<Vec<u8>> = all[..torn.start].iter().chain(&all[torn.end..]).cloned().collect();
        assert_eq!((read.len(), holes), (kept.len(), 1));
        assert_eq!(read, kept);
    }

    #[test]
    fn a_hole_in_chunks_is_passed_over_and_nothing_else() {
        let all: Vec<_> = (1..200u64).map(|seq| keys::chunk(crate::domain::ids::Seq(seq * 37))).collect();
        found(&all, 0..1);
        found(&all, 50..51);
        found(&all, 31..97);
    }

    #[test]
    fn a_hole_in_one_chat_does_not_take_the_chats_behind_it() {
        use crate::domain::ids::{Lane, LaneOf, Seq};
        let key = |number: u64| {
            let lane = Lane { group: 1, of: LaneOf::Peer(2_000_000_000 + (number / 10).cast_signed()) };
            keys::aside(1, lane, Seq(number))
        };
        let all: Vec<_> = (0..200).map(key).collect();
        found(&all, 13..14);
        found(&all, 15..35);
    }
}
