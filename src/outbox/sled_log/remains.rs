//! For a salvage: everything in the log that can be read at all. Of a batch that is not whole nothing is believed that tells how
//! far the outbox is; where the log is torn, records are found by their own check sums. Deliberately absent: what sled would
//! open (`recovery`).

use super::page::{Data, Link, Node, root};
use super::pages::{Page, Pages, Place};
use super::told::{is_a_count, records_in};
use super::{Kind, Message, Piece, SEGMENT, Segment, batch_end};
use crate::outbox::keys;
use crate::outbox::kv::KvError;

impl Pages {
    /// Goes through the log in its order, and takes what can be read.
    pub(super) fn replay(&mut self) -> Result<(), KvError> {
        let segments = self.log.all()?;
        let last = segments.last().map_or(0, |segment| segment.number);
        let mut batch = InBatch::default();
        let mut due = None;
        for segment in segments {
            let start = segment.number * SEGMENT;
            let contents = self.log.read(segment)?;
            let overwritten =
                contents.pieces.iter().any(|piece| matches!(piece, Piece::Torn(torn) if torn.overwritten));
            if !segment.headed && !overwritten {
                self.finding(format!("the head of the segment at byte {} of the log cannot be read", segment.offset));
            }
            // Where a segment is missing, a batch may be missing a part.
            if due.is_some_and(|due| due < segment.number) {
                (batch.torn, batch.torn_to) = (true, start);
            }
            due = Some(segment.number + 1);
            for piece in &contents.pieces {
                match piece {
                    Piece::Torn(torn) => {
                        let position = start + torn.at as u64;
                        if batch.until.is_some_and(|until| until < position) {
                            self.apply_batch(&mut batch)?;
                        }
                        batch.torn = true;
                        batch.torn_to = start + if torn.goes_on { torn.until as u64 } else { SEGMENT };
                        if !torn.overwritten {
                            let bytes = contents.bytes.get(torn.at..torn.until).unwrap_or_default();
                            self.keep_torn(segment, torn.at, bytes);
                        }
                        if torn.goes_on || (!torn.overwritten && segment.number < last) {
                            let at = segment.offset + torn.at as u64;
                            self.finding(format!("a change at byte {at} of the log cannot be read"));
                        }
                    }
                    Piece::Message(message) => {
                        let place = segment.place(message.at, message.length());
                        self.read(message, contents.body(message), place, &mut batch)?;
                    }
                }
            }
        }
        self.apply_batch(&mut batch)
    }

    /// Keeps the records that stand where the log is torn.
    fn keep_torn(&mut self, segment: Segment, at: usize, bytes: &[u8]) {
        for (value, key) in records_in(bytes) {
            self.torn.insert(key, segment.place(at + value.start, value.len()));
        }
    }

    fn read(&mut self, message: &Message, body: &[u8], place: Place, batch: &mut InBatch) -> Result<(), KvError> {
        if batch.until.is_some_and(|until| place.position > until) || message.kind == Kind::Manifest {
            self.apply_batch(batch)?;
        }
        match message.kind {
            Kind::Manifest => *batch = InBatch { until: Some(batch_end(body)), ..InBatch::default() },
            Kind::Node | Kind::Link | Kind::Free => batch.changes.push((message.kind, message.page, place)),
            Kind::Meta => self.root = root(body).or(self.root),
            Kind::Blob => self.finding("something was kept outside of the log".to_owned()),
            Kind::Canceled | Kind::Cap | Kind::Counter => {}
        }
        // What belongs to no batch waits for nothing.
        if batch.until.is_none() {
            self.apply_batch(batch)?;
        }
        Ok(())
    }

    fn apply_batch(&mut self, batch: &mut InBatch) -> Result<(), KvError> {
        for (kind, page, place) in std::mem::take(&mut batch.changes) {
            // Without an older one, rather this than none: what is not there is found missing then.
            let older = self.pages.get(&page).is_some_and(|page| page.base.is_some());
            let speaks = || Ok::<_, KvError>(self.body(place)?.is_some_and(|body| speaks_of_all(kind, &body)));
            if batch.torn && older && kind != Kind::Free && speaks()? {
                continue;
            }
            match kind {
                Kind::Free => drop(self.pages.remove(&page)),
                Kind::Node => drop(self.pages.insert(page, Page { base: Some(place), links: Vec::new() })),
                _ => self.pages.entry(page).or_default().links.push(place),
            }
        }
        if let Some(until) = batch.until.take() {
            // What a tear reaches behind the batch lasts until the next one begins: its manifest may be in it.
            batch.torn = batch.torn_to > until;
        }
        Ok(())
    }
}

/// The changes since the last manifest, which are applied together: whether one of them is lost is known at the end.
#[derive(Default)]
struct InBatch {
    until: Option<u64>,
    torn: bool,
    torn_to: u64,
    changes: Vec<(Kind, u64, Place)>,
}

/// Whether a change tells how far the outbox, or a destination, is. Of a batch that is not whole none of that is believed:
/// the events that it speaks of may be what is missing.
fn speaks_of_all(kind: Kind, body: &[u8]) -> bool {
    let is = |key: &[u8]| key == keys::HEAD || key == keys::SPACE || key.starts_with(b"c/") || key.starts_with(b"d/");
    match kind {
        Kind::Node => Node::read(body).is_some_and(|node| match node.data {
            Data::Leaf(pairs) => pairs.iter().any(|(key, _)| is(&[node.prefix, key].concat())),
            Data::Index(_) => false,
        }),
        _ => matches!(Link::read(body), Some(Link::Set(_, value)) if is_a_count(value)),
    }
}
