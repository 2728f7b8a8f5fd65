//! Reading a whole store, sound or not: every record in key order with its parts put together, a page at a time; what cannot
//! be read is told as a hole and passed over. Deliberately absent: what records mean (`verify`, `salvage`).

use super::frame;
use super::keys;
use super::kv::{Kv, KvError, Pair};

/// How many keys are read at a time.
const PAGE_KEYS: usize = 32;
/// How many bytes of a key are looked at to find the end of a hole.
const PROBE_BYTES: usize = 16;

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
            if record.as_deref() != Some(owner) {
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
            Err(KvError::Damaged(_)) if kv.get(key)?.as_ref() != Some(value) => {} // deleted or replaced meanwhile
            Err(KvError::Damaged(finding)) => visit(Found::Hole(finding))?,
            Err(error) => return Err(error),
        }
    }
    Ok(())
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
    // Ever longer jumps until something answers, then back to the shortest one that does.
    let origin = number(&at);
    let mut jump = 1u128;
    let last = loop {
        let Some(target) = origin.checked_add(jump).filter(|target| bytes(*target).as_slice() < to) else {
            return Ok((before, None));
        };
        match kv.scan(&bytes(target), to, 1) {
            Ok(_) => break jump,
            Err(KvError::Damaged(_)) => jump = jump.saturating_mul(2),
            Err(error) => return Err(error),
        }
    };
    let (mut fails, mut answers) = (last / 2, last);
    while answers - fails > 1 {
        let middle = fails + (answers - fails) / 2;
        match kv.scan(&bytes(origin + middle), to, 1) {
            Ok(_) => answers = middle,
            Err(KvError::Damaged(_)) => fails = middle,
            Err(error) => return Err(error),
        }
    }
    Ok((before, Some(bytes(origin + answers))))
}

/// The first bytes of a key as a number, so that keys can be jumped over.
fn number(key: &[u8]) -> u128 {
    let mut bytes = [0; PROBE_BYTES];
    let length = key.len().min(PROBE_BYTES);
    bytes[..length].copy_from_slice(&key[..length]);
    u128::from_be_bytes(bytes)
}

fn bytes(number: u128) -> Vec<u8> {
    number.to_be_bytes().to_vec()
}
