//! What sled takes for the store when it opens it: the pages of its snapshot, and what the log says since, up to a tear.
//! Behind the tear it forgets everything, and what cannot be read before it it passes over, to the next segment. Both are
//! right after a kill or a power cut, and wrong when the disk has lost what was written; which of them it is, is judged
//! by what comes of it. Source: sled 0.34.7, `pagecache/{iterator,snapshot}.rs`.
//!
//! Deliberately absent: judging (`soundness`); what pages hold (`pages`).

use std::collections::{HashMap, HashSet};
use std::io;

use super::pages::{Page, Place};
use super::snapshot::Snapshot;
use super::{
    Kind, Log, MESSAGE_HEADER_MOST, Message, SEGMENT, SEGMENT_HEADER, Segment, batch_end, is_cut_off, message,
};
use crate::outbox::sled_kv::SEGMENT_BYTES;

/// What sled would find.
#[derive(Debug, Default)]
pub(super) struct Recovered {
    pub(super) pages: HashMap<u64, Page>,
    /// What it would pass over, in words. It may be remains of a segment that is being written over.
    pub(super) doubts: Vec<String>,
    /// What is damage whatever comes of it, in words.
    pub(super) damage: Vec<String>,
    free: HashSet<u64>,
}

/// What is come by on the way.
enum Step<'a> {
    Message(&'a Message),
    Torn(usize),
}

/// Goes through the log as sled does.
///
/// # Errors
/// When the file cannot be read.
pub(super) fn recover(log: &Log, snapshot: Snapshot) -> io::Result<Recovered> {
    let from = snapshot.stable / SEGMENT;
    let segments: Vec<Segment> = log.headed(from).collect();
    let stable = segments.iter().map(|segment| segment.stable).max().unwrap_or_default().max(from * SEGMENT);
    let mut found = Recovered { pages: snapshot.pages, free: snapshot.free, ..Recovered::default() };
    if !snapshot.stable.is_multiple_of(SEGMENT) && segments.is_empty() {
        found.damage.push("the log ends before what was on disk when the store was opened last".to_owned());
    }
    let twice = log.twice.iter().filter(|segment| segment.number >= from);
    let twice = twice.map(|segment| format!("the segment at byte {} of the log is there twice", segment.offset));
    found.damage.extend(twice);
    found.doubts.extend(log.headless_with_something()?);
    let Some(last) = end(log, &segments, stable)?.and_then(|end| end.checked_sub(1)) else {
        return found.looked_over(log);
    };
    let reached = walk(log, &segments, Some(last), true, &mut |segment, step| match step {
        Step::Torn(at) => {
            let at = segment.offset + at as u64;
            found.doubts.push(format!("a change at byte {at} of the log cannot be read"));
        }
        Step::Message(message) => {
            let place = segment.place(message.at, message.length());
            if place.position >= snapshot.stable {
                found.apply(message, place);
            }
        }
    })?;
    if reached.is_some_and(|reached| reached < snapshot.stable) {
        // Then sled does without its snapshots.
        return recover(log, Snapshot::default());
    }
    found.looked_over(log)
}

/// Where the log ends: behind what is stable every segment follows on the one before, without a tear.
fn end(log: &Log, segments: &[Segment], stable: u64) -> io::Result<Option<u64>> {
    let first = stable / SEGMENT;
    let tail = &segments[segments.partition_point(|segment| segment.number < first)..];
    let missing = (first..).zip(tail).position(|(due, segment)| due != segment.number);
    let contiguous = &tail[..missing.unwrap_or(tail.len())];
    walk(log, contiguous, missing.map(|at| (first + at as u64) * SEGMENT), false, &mut |_, _| {})
}

/// Goes through segments up to a position. Answers where it stopped. At the last stage what cannot be read ends its segment,
/// before it ends everything.
fn walk(
    log: &Log,
    segments: &[Segment],
    last: Option<u64>,
    last_stage: bool,
    visit: &mut dyn FnMut(Segment, Step<'_>),
) -> io::Result<Option<u64>> {
    let mut reached = None;
    'segments: for segment in segments {
        let start = segment.number * SEGMENT;
        if last.is_some_and(|last| start > last) {
            break;
        }
        let bytes = log.segment(segment.offset)?;
        let mut at = SEGMENT_HEADER;
        while at + MESSAGE_HEADER_MOST <= SEGMENT_BYTES {
            let position = start + at as u64;
            reached = Some(position);
            if last.is_some_and(|last| position > last) {
                return Ok(reached);
            }
            let Some(found) = message(&bytes, at).filter(|found| found.number == segment.number) else {
                if !last_stage || is_cut_off(&bytes, at) {
                    return Ok(reached);
                }
                visit(*segment, Step::Torn(at));
                continue 'segments;
            };
            match found.kind {
                Kind::Cap => continue 'segments,
                Kind::Manifest => {
                    let ends = batch_end(bytes.get(found.body.clone()).unwrap_or_default());
                    if last.is_some_and(|last| ends > last) {
                        return Ok(reached);
                    }
                }
                _ => visit(*segment, Step::Message(&found)),
            }
            at = found.body.end;
        }
        reached = Some(start + at as u64);
    }
    Ok(reached)
}

impl Recovered {
    fn apply(&mut self, message: &Message, place: Place) {
        match message.kind {
            Kind::Free => {
                self.pages.remove(&message.page);
                self.free.insert(message.page);
            }
            Kind::Link => {
                if let Some(page) = self.pages.get_mut(&message.page)
                    && page.newest() < place.position
                {
                    page.links.push(place);
                }
            }
            Kind::Counter | Kind::Meta | Kind::Node | Kind::Blob => {
                self.free.remove(&message.page);
                self.pages.insert(message.page, Page { base: Some(place), links: Vec::new() });
            }
            Kind::Canceled | Kind::Cap | Kind::Manifest => {}
        }
    }

    /// Looks for what sled cannot open at all: a page that is nowhere, or lies behind the end of the file.
    fn looked_over(mut self, log: &Log) -> io::Result<Self> {
        let last = self.pages.keys().chain(&self.free).max().copied();
        let known = (self.pages.len() + self.free.len()) as u64;
        if last.is_some_and(|last| known != last + 1) {
            self.damage.push("a page of the store is nowhere in its log".to_owned());
        }
        let cut = |page: &Page| !page.base.iter().chain(&page.links).all(|place| log.holds(place));
        if self.pages.values().any(cut) {
            self.damage.push("the file of the log ends before what is in it".to_owned());
        }
        Ok(self)
    }
}
