//! Whether sled may be let at a store: it mends a tear by forgetting what lies behind, and writes zeros over it. Before that
//! the part of the log that it would read is read without it.
//!
//! A process that was killed leaves a log that ends somewhere, perhaps with a write in it that came to its place before an
//! earlier one; nothing of that was acknowledged, and sled is right to forget it. What cannot be of that kind is told here.
//! Deliberately absent: reading the rest of the log, which sled reads only when it needs it.

use std::io;
use std::path::Path;

use super::page::{Data, Link, Node};
use super::{Contents, Kind, Log, Message, Piece, SEGMENT};
use crate::outbox::frame;
use crate::outbox::keys;
use crate::outbox::records::Space;

/// What of a store sled would lose by opening it, in words, given how many commits are known to be durable.
///
/// # Errors
/// When it cannot be read.
pub(in crate::outbox) fn finding(dir: &Path, durable: Option<u64>) -> io::Result<Option<String>> {
    let log = Log::open(dir)?;
    let end = log.end()?;
    let file = dir.join("db").display().to_string();
    if log.is_cut(end) {
        return Ok(Some(format!("the log of the store, {file}, ends before what was on disk when it was opened last")));
    }
    let (mut kept, mut behind) = (None, None);
    let mut torn: Vec<(u64, String)> = Vec::new();
    for segment in log.segments(log.snapshot / SEGMENT) {
        let start = segment.number * SEGMENT;
        let contents = log.read(segment)?;
        if !segment.headed && start < end.at && !contents.overwritten {
            torn.push((segment.number, format!("the head of the segment at byte {} cannot be read", segment.offset)));
        }
        for piece in &contents.pieces {
            match piece {
                Piece::Torn { at, until: Some(until) } if start + (*until as u64) < end.at => {
                    torn.push((
                        segment.number,
                        format!("a change at byte {} cannot be read", segment.offset + *at as u64),
                    ));
                }
                Piece::Torn { .. } => {}
                Piece::Message(message) => {
                    let Some(commits) = commits_told(&contents, message) else { continue };
                    if segment.headed && start + (message.at as u64) < end.at {
                        kept = kept.max(Some(commits));
                    } else {
                        behind = Some(behind.map_or(commits, |other: u64| other.min(commits)));
                    }
                }
            }
        }
    }
    // A segment is written over in any order: killed meanwhile, it is the one behind a full one.
    if end.full && torn.iter().all(|(number, _)| Some(*number) == torn.first().map(|(number, _)| *number)) {
        torn.clear();
    }
    let count = torn.len();
    if let Some((_, first)) = torn.into_iter().next() {
        let more = if count > 1 { format!(" (and {} more)", count - 1) } else { String::new() };
        return Ok(Some(format!("in the log of the store, {file}: {first}{more}")));
    }
    // From the beginning on, every commit tells its number.
    let none = || log.snapshot == 0;
    let lost = durable.filter(|durable| {
        behind.is_some_and(|behind| behind <= *durable) || kept.map_or_else(none, |kept| kept < *durable)
    });
    Ok(lost.map(|durable| {
        let last = kept.map_or_else(String::new, |kept| format!(" behind commit {kept}"));
        format!("in the log of the store, {file}: it breaks off{last}, while {durable} commits were on disk")
    }))
}

/// How many commits there were, if a message tells it.
fn commits_told(contents: &Contents, message: &Message) -> Option<u64> {
    let body = contents.body(message);
    let of = |value: &[u8]| {
        let (bytes, whole) = frame::first_part(value)?;
        let (space, rest) = frame::beginning::<Space>(bytes)?;
        (whole && rest.is_empty()).then_some(space.commits)
    };
    match message.kind {
        Kind::Link => match Link::read(body)? {
            Link::Set(key, value) if !key.is_empty() && keys::SPACE.ends_with(key) => of(value),
            _ => None,
        },
        Kind::Node => {
            let node = Node::read(body)?;
            let Data::Leaf(pairs) = node.data else { return None };
            let space = pairs.into_iter().find(|(key, _)| [node.prefix, key].concat() == keys::SPACE);
            space.and_then(|(_, value)| of(value))
        }
        _ => None,
    }
}
