//! sled's log file read without sled: its segments, and the messages in them whose check sum is right. sled mends by
//! forgetting, and writes where it only looks; this changes nothing.
//!
//! Source: sled 0.34.7, `pagecache/{logger,iterator,mod}.rs` and `serialization.rs`; its format is final. Deliberately
//! absent: what the messages make up together (`pages`), whether sled may be let at them (`tears`).

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::sled_kv::{SEGMENT_BYTES, SNAPSHOT};

mod page;
pub(super) mod pages;
mod tears;
mod told;
mod tree;

pub(super) use tears::finding;

/// Every segment begins with a check sum, its position, and how far the log was stable when it was begun.
const SEGMENT_HEADER: usize = 4 + 8 + 8;
/// No message begins so close to the end of its segment.
const MESSAGE_HEADER_MOST: usize = 32;
/// A segment in positions of the log.
pub(super) const SEGMENT: u64 = SEGMENT_BYTES as u64;

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Nothing: a write that was given up.
    Canceled,
    /// The rest of the segment is empty.
    Cap,
    /// What follows up to a position happens whole or not at all.
    Manifest,
    /// A page is free.
    Free,
    /// A page of sled's own.
    Counter,
    /// The names of the trees and their roots.
    Meta,
    /// A whole page.
    Node,
    /// A change of a page.
    Link,
    /// Something outside of the log: nothing of ours is.
    Blob,
}

impl Kind {
    fn of(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Canceled,
            2 => Self::Cap,
            3 => Self::Manifest,
            4 => Self::Free,
            5 => Self::Counter,
            6 => Self::Meta,
            8 => Self::Node,
            10 => Self::Link,
            7 | 9 | 11 => Self::Blob,
            _ => return None,
        })
    }
}

/// A message with the right check sum.
#[derive(Clone, Debug)]
pub(super) struct Message {
    pub(super) kind: Kind,
    /// The page that it is about.
    pub(super) page: u64,
    /// The number of the segment that it was written for.
    number: u64,
    /// Where it begins in its segment, and where its body is.
    pub(super) at: usize,
    pub(super) body: Range<usize>,
}

/// What stands in a segment, in its order.
#[derive(Clone, Debug)]
pub(super) enum Piece {
    /// Something that can be read.
    Message(Message),
    /// Something that cannot: from where, and where it goes on, if it does.
    Torn { at: usize, until: Option<usize> },
}

/// A segment of the log file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Segment {
    /// The how manieth of the log it is; its place in the file is another.
    pub(super) number: u64,
    /// Where it is in the file.
    pub(super) offset: u64,
    /// Whether its header can be read. sled does not see it otherwise.
    pub(super) headed: bool,
}

/// A segment as it was read.
pub(super) struct Contents {
    /// Its bytes.
    pub(super) bytes: Vec<u8>,
    /// What stands in them.
    pub(super) pieces: Vec<Piece>,
    /// Whether it is full, as far as can be seen: the log goes on in another one.
    pub(super) full: bool,
    /// Whether another segment has begun to be written over it: what cannot be read of it is nobody's any more.
    pub(super) overwritten: bool,
}

/// Where sled's reading ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct End {
    /// The position behind the last message without a tear before it.
    pub(super) at: u64,
    /// Whether that is the end of a segment.
    pub(super) full: bool,
    /// The first segment of which all must be there.
    pub(super) tail: u64,
}

/// A log file.
pub(super) struct Log {
    file: File,
    segments: BTreeMap<u64, Segment>,
    /// The position up to which sled's newest snapshot speaks: what comes before is not read again by opening.
    snapshot: u64,
    /// The position up to which everything is stable, as the headers and the snapshot say.
    stable: u64,
}

impl Log {
    /// Opens the log of the store in a directory and finds its segments.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(super) fn open(dir: &Path) -> io::Result<Self> {
        let file = File::open(dir.join("db"))?;
        let length = file.metadata()?.len();
        let snapshot = snapshot(dir)?;
        let mut log = Self { file, segments: BTreeMap::new(), snapshot, stable: snapshot / SEGMENT * SEGMENT };
        let mut headless = Vec::new();
        for offset in (0..length).step_by(SEGMENT_BYTES) {
            let mut header = [0; SEGMENT_HEADER];
            let read = log.file.read_at(&mut header, offset)?;
            match head(&header).filter(|_| read == SEGMENT_HEADER) {
                Some((number, stable)) => {
                    log.stable = log.stable.max(stable);
                    log.segments.insert(number, Segment { number, offset, headed: true });
                }
                None => headless.push(offset),
            }
        }
        for offset in headless {
            let bytes = log.bytes(offset)?;
            let number = (SEGMENT_HEADER..bytes.len()).find_map(|at| message(&bytes, at)).map(|found| found.number);
            if let Some(number) = number {
                log.segments.entry(number).or_insert(Segment { number, offset, headed: false });
            }
        }
        Ok(log)
    }

    /// The segments from one number on, in the order of the log.
    pub(super) fn segments(&self, from: u64) -> impl Iterator<Item = Segment> + '_ {
        self.segments.range(from..).map(|(_, segment)| *segment)
    }

    /// Reads a segment.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub(super) fn read(&self, segment: Segment) -> io::Result<Contents> {
        let bytes = self.bytes(segment.offset)?;
        let mut read = Contents { bytes, pieces: Vec::new(), full: false, overwritten: false };
        let mut at = SEGMENT_HEADER;
        while at + MESSAGE_HEADER_MOST <= SEGMENT_BYTES {
            if let Some(found) = message(&read.bytes, at).filter(|found| found.number == segment.number) {
                at = found.body.end;
                if found.kind == Kind::Cap {
                    break;
                }
                read.pieces.push(Piece::Message(found));
                continue;
            }
            let rest = read.bytes.get(at..).unwrap_or_default();
            let empty = rest.iter().all(|byte| *byte == 0);
            let next = (at + 1..read.bytes.len()).take_while(|_| !empty).find_map(|at| message(&read.bytes, at));
            read.overwritten = next.as_ref().is_some_and(|next| next.number != segment.number);
            let until = next.filter(|_| !read.overwritten).map(|next| next.at);
            read.pieces.push(Piece::Torn { at, until });
            match until {
                Some(until) => at = until,
                None => return Ok(read),
            }
        }
        read.full = true;
        Ok(read)
    }

    /// Reads some bytes of the file.
    ///
    /// # Errors
    /// When they cannot be read.
    pub(super) fn body(&self, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        self.file.read_exact_at(&mut bytes, offset)?;
        Ok(bytes)
    }

    /// Where sled's reading ends: behind what is stable everything must follow on what was before.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub(super) fn end(&self) -> io::Result<End> {
        let tail = self.stable / SEGMENT;
        let mut end = End { at: 0, full: false, tail };
        for (number, segment) in (tail..).zip(self.segments(tail)) {
            if segment.number != number || !segment.headed {
                break;
            }
            let contents = self.read(segment)?;
            let torn = contents.pieces.iter().find_map(|piece| match piece {
                Piece::Torn { at, .. } => Some(*at),
                Piece::Message(_) => None,
            });
            let at = torn.map_or(SEGMENT, |at| at as u64);
            end = End { at: number * SEGMENT + at, full: torn.is_none(), tail };
            if torn.is_some() {
                break;
            }
        }
        // A batch that is not whole does not count.
        for segment in self.segments(tail.saturating_sub(1)).take_while(|segment| segment.number * SEGMENT < end.at) {
            let contents = self.read(segment)?;
            for piece in &contents.pieces {
                let Piece::Message(found) = piece else { break };
                let begins = segment.number * SEGMENT + found.at as u64;
                if found.kind == Kind::Manifest && begins < end.at && batch_end(contents.body(found)) >= end.at {
                    return Ok(End { at: begins, full: false, tail });
                }
            }
        }
        Ok(end)
    }

    /// Whether the log ends before what was once stable.
    pub(super) fn is_cut(&self, end: End) -> bool {
        let Some(last) = self.stable.max(self.snapshot).checked_sub(1) else { return false };
        let there = self.segments.get(&(last / SEGMENT)).is_some_and(|segment| segment.headed);
        // Of the segment that begins there nothing may have been written yet.
        !there || (!self.snapshot.is_multiple_of(SEGMENT) && end.at < self.snapshot)
    }

    fn bytes(&self, offset: u64) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; SEGMENT_BYTES];
        let mut length = 0;
        loop {
            let rest = bytes.get_mut(length..).unwrap_or_default();
            match self.file.read_at(rest, offset + length as u64)? {
                0 => break,
                read => length += read,
            }
        }
        bytes.truncate(length);
        Ok(bytes)
    }
}

impl Contents {
    /// The body of one of its messages.
    pub(super) fn body(&self, message: &Message) -> &[u8] {
        self.bytes.get(message.body.clone()).unwrap_or_default()
    }
}

/// The position up to which sled's newest snapshot speaks; 0 where there is none that can be read.
fn snapshot(dir: &Path) -> io::Result<u64> {
    let mut newest = 0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(position) = name.strip_prefix(SNAPSHOT).and_then(|hex| u64::from_str_radix(hex, 16).ok()) else {
            continue;
        };
        let bytes = fs::read(entry.path())?;
        let sound = bytes.split_last_chunk::<4>().is_some_and(|(rest, sum)| {
            let said = rest.len().checked_sub(8).and_then(|length| rest.get(..length));
            said.is_some_and(|said| crc32fast::hash(said) == u32::from_le_bytes(*sum))
        });
        if sound {
            newest = newest.max(position);
        }
    }
    Ok(newest)
}

/// The position of the last message of a batch, as its manifest says.
pub(super) fn batch_end(body: &[u8]) -> u64 {
    body.first_chunk::<8>().map_or(u64::MAX, |bytes| u64::from_le_bytes(*bytes))
}

/// The number of the segment that a header begins, and the position that was stable then.
fn head(header: &[u8; SEGMENT_HEADER]) -> Option<(u64, u64)> {
    let (sum, rest) = header.split_first_chunk::<4>()?;
    let (position, stable) = rest.split_first_chunk::<8>()?;
    if u32::from_le_bytes(*sum) != !crc32fast::hash(rest) {
        return None;
    }
    let plain = |bytes: &[u8; 8]| u64::from_le_bytes(*bytes) ^ u64::MAX >> 1;
    let position = plain(position);
    // Before anything is stable that is told as a negative number.
    let stable = i64::try_from(plain(stable.first_chunk()?)).unwrap_or(0);
    (position % SEGMENT == 0).then_some((position / SEGMENT, stable.unsigned_abs()))
}

/// The message at a place of a segment, if there is one.
fn message(bytes: &[u8], at: usize) -> Option<Message> {
    let (sum, mut rest) = bytes.get(at..)?.split_first_chunk::<4>()?;
    let header = rest;
    let kind = Kind::of(take(&mut rest, 1)?[0])?;
    let length = usize::try_from(number(&mut rest)?).ok()?;
    let (segment, page) = (number(&mut rest)?, number(&mut rest)?);
    if length > rest.len() || segment > u64::MAX / SEGMENT / 2 {
        return None;
    }
    let head = header.len() - rest.len();
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&rest[..length]);
    hasher.update(&header[..head]);
    let start = at + 4 + head;
    let sound = u32::from_le_bytes(*sum) == !hasher.finalize();
    sound.then_some(Message { kind, page, number: segment, at, body: start..start + length })
}

/// The next bytes.
pub(super) fn take<'a>(rest: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(count)?;
    *rest = left;
    Some(taken)
}

/// The next number, which takes up one byte to nine.
pub(super) fn number(rest: &mut &[u8]) -> Option<u64> {
    let first = take(rest, 1)?[0];
    Some(match first {
        0..=240 => u64::from(first),
        241..=248 => 240 + 256 * (u64::from(first) - 241) + u64::from(take(rest, 1)?[0]),
        249 => 2288 + u64::from(u16::from_be_bytes(*take(rest, 2)?.first_chunk()?)),
        _ => {
            let mut wide = [0; 8];
            let bytes = take(rest, usize::from(first) - 247)?;
            wide.get_mut(..bytes.len())?.copy_from_slice(bytes);
            u64::from_le_bytes(wide)
        }
    })
}

/// The next bytes, behind their length.
pub(super) fn bytes<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(number(rest)?).ok()?;
    take(rest, length)
}
