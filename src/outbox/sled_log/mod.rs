//! sled's log file read without sled: its segments, and the messages in them whose check sum is right. sled mends by
//! forgetting, and writes where it only looks; this changes nothing.
//!
//! Source: sled 0.34.7, `pagecache/{logger,iterator,mod}.rs` and `serialization.rs`; its format is final. Deliberately
//! absent: which of the messages count (`recovery`), what they make up together (`pages`).

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

use self::pages::Place;
use super::sled_kv::SEGMENT_BYTES;

mod page;
pub(super) mod pages;
mod recovery;
mod remains;
mod snapshot;
mod told;
mod tree;

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

impl Message {
    /// All of its bytes.
    fn length(&self) -> usize {
        self.body.end - self.at
    }
}

/// What stands in a segment, in its order.
#[derive(Clone, Debug)]
pub(super) enum Piece {
    /// Something that can be read.
    Message(Message),
    /// Something that cannot.
    Torn(Torn),
}

/// Something in a segment that cannot be read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Torn {
    /// Where it begins and ends.
    pub(super) at: usize,
    pub(super) until: usize,
    /// Whether the segment goes on behind it.
    pub(super) goes_on: bool,
    /// Whether a later segment has begun to be written over this one: what cannot be read is nobody's any more.
    pub(super) overwritten: bool,
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
    /// The position up to which everything was stable when it was begun.
    stable: u64,
}

impl Segment {
    /// Where something is that begins at a place of this segment.
    fn place(&self, at: usize, length: usize) -> Place {
        let at = at as u64;
        Place { position: self.number * SEGMENT + at, offset: self.offset + at, length }
    }
}

/// A segment as it was read.
pub(super) struct Contents {
    /// Its bytes.
    pub(super) bytes: Vec<u8>,
    /// What stands in them.
    pub(super) pieces: Vec<Piece>,
}

/// A log file.
pub(super) struct Log {
    file: File,
    length: u64,
    headed: BTreeMap<u64, Segment>,
    /// Where the segments begin whose header cannot be read; most of them are free.
    headless: Vec<u64>,
    /// What says of itself that it is the same segment as another.
    twice: Vec<Segment>,
}

impl Log {
    /// Opens the log of the store in a directory and finds its segments.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(super) fn open(dir: &Path) -> io::Result<Self> {
        let file = File::open(dir.join("db"))?;
        let length = file.metadata()?.len();
        let mut log = Self { file, length, headed: BTreeMap::new(), headless: Vec::new(), twice: Vec::new() };
        for offset in (0..length).step_by(SEGMENT_BYTES) {
            let mut header = [0; SEGMENT_HEADER];
            let read = log.file.read_at(&mut header, offset)?;
            match head(&header).filter(|_| read == SEGMENT_HEADER) {
                Some((number, stable)) => {
                    let segment = Segment { number, offset, headed: true, stable };
                    log.twice.extend(log.headed.insert(number, segment));
                }
                None => log.headless.push(offset),
            }
        }
        Ok(log)
    }

    /// The segments that sled sees, from one number on, in the order of the log.
    pub(super) fn headed(&self, from: u64) -> impl Iterator<Item = Segment> + '_ {
        self.headed.range(from..).map(|(_, segment)| *segment)
    }

    /// All of them, in the order of the log.
    ///
    /// # Errors
    /// When they cannot be read.
    pub(super) fn all(&self) -> io::Result<Vec<Segment>> {
        let mut all = self.headed.clone();
        for offset in &self.headless {
            let bytes = self.segment(*offset)?;
            let number = (SEGMENT_HEADER..bytes.len()).find_map(|at| message(&bytes, at)).map(|found| found.number);
            if let Some(number) = number {
                all.entry(number).or_insert(Segment { number, offset: *offset, headed: false, stable: 0 });
            }
        }
        Ok(all.into_values().collect())
    }

    /// Those without a header that are not empty, in words.
    fn headless_with_something(&self) -> io::Result<Vec<String>> {
        let mut words = Vec::new();
        for offset in &self.headless {
            if self.segment(*offset)?.iter().any(|byte| *byte != 0) {
                words.push(format!("the head of the segment at byte {offset} of the log cannot be read"));
            }
        }
        Ok(words)
    }

    /// Whether a place lies in the file.
    fn holds(&self, place: &Place) -> bool {
        place.offset.checked_add(place.length as u64).is_some_and(|end| end <= self.length)
    }

    /// Reads a segment.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub(super) fn read(&self, segment: Segment) -> io::Result<Contents> {
        let bytes = self.segment(segment.offset)?;
        let mut read = Contents { bytes, pieces: Vec::new() };
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
            let goes_on = next.as_ref().is_some_and(|next| next.number == segment.number);
            let overwritten = next.as_ref().is_some_and(|next| next.number > segment.number);
            let until = next.map_or(read.bytes.len(), |next| next.at);
            read.pieces.push(Piece::Torn(Torn { at, until, goes_on, overwritten }));
            if !goes_on {
                break;
            }
            at = until;
        }
        Ok(read)
    }

    /// Reads some bytes of the file.
    ///
    /// # Errors
    /// When they cannot be read.
    pub(super) fn bytes(&self, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        if self.length.checked_sub(offset).is_none_or(|rest| rest < length as u64) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut bytes = vec![0; length];
        self.file.read_exact_at(&mut bytes, offset)?;
        Ok(bytes)
    }

    /// The bytes of a segment, as far as they are there.
    fn segment(&self, offset: u64) -> io::Result<Vec<u8>> {
        let rest = usize::try_from(self.length.saturating_sub(offset)).unwrap_or(SEGMENT_BYTES);
        self.bytes(offset, rest.min(SEGMENT_BYTES))
    }
}

impl Contents {
    /// The body of one of its messages.
    pub(super) fn body(&self, message: &Message) -> &[u8] {
        self.bytes.get(message.body.clone()).unwrap_or_default()
    }
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

/// What the bytes at a place of a segment say that is there, and its check sum. Its body may go on behind them.
fn announced(bytes: &[u8], at: usize) -> Option<(Message, u32)> {
    let (sum, mut rest) = bytes.get(at..)?.split_first_chunk::<4>()?;
    let kind = Kind::of(take(&mut rest, 1)?[0])?;
    let length = usize::try_from(number(&mut rest)?).ok()?;
    let (segment, page) = (number(&mut rest)?, number(&mut rest)?);
    let start = bytes.len() - rest.len();
    let body = start..start.checked_add(length)?;
    Some((Message { kind, page, number: segment, at, body }, u32::from_le_bytes(*sum)))
}

/// The message at a place of a segment, if there is one.
fn message(bytes: &[u8], at: usize) -> Option<Message> {
    let (found, sum) = announced(bytes, at).filter(|(found, _)| found.number <= u64::MAX / SEGMENT / 2)?;
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(bytes.get(found.body.clone())?);
    hasher.update(bytes.get(at + 4..found.body.start)?);
    (sum == !hasher.finalize()).then_some(found)
}

/// Whether there is a message at a place that goes on behind the end of the file.
fn is_cut_off(bytes: &[u8], at: usize) -> bool {
    announced(bytes, at).is_some_and(|(found, _)| found.body.end > bytes.len() && found.body.end <= SEGMENT_BYTES)
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
