//! `outbox verify`: reads everything and checks it, with bounded memory. Every record against its check sum, the log for
//! contiguity, every count against what is there. Deliberately absent: mending (`salvage`).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::chats::ChatRecord;
use super::frame::{self, damaged};
use super::inspect::Books;
use super::keys::{self, DestinationId};
use super::kv::{Kv, KvError, Weights};
use super::records::{
    AsideRecord, AuditRecord, Checkpoint, ChunkRecord, DeadRecord, EventRecord, GapRecord, History, Mark, MarkRecord,
    QuarantineRecord, ReplayRecord, Ring, Space,
};
use super::scan::{Found, everything};
use crate::domain::ids::Seq;

/// How many findings are kept; more are only counted.
const FINDINGS: usize = 100;

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verified {
    /// Whether everything is as it was written.
    pub sound: bool,
    /// What is not, in words; the first hundred.
    pub findings: Vec<String>,
    /// How many findings there are.
    pub found: u64,
    /// Whether the counts were compared with what is there: not when the service wrote meanwhile.
    pub recounted: bool,
    /// Records read.
    pub records: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Chunks of the log.
    pub chunks: u64,
    /// Events in the log.
    pub events: u64,
    /// Events of chats that were moved aside.
    pub aside: u64,
    /// Dead letters.
    pub dead: u64,
    /// Updates in quarantine.
    pub quarantined: u64,
    /// Gap records.
    pub gaps: u64,
}

impl Verified {
    fn finding(&mut self, words: String) {
        self.found += 1;
        if self.findings.len() < FINDINGS {
            self.findings.push(words);
        }
    }

    /// Adds what was found where this does not look: the first words of it, and how much it is.
    pub(super) fn more(&mut self, words: &[String], found: u64) {
        words.iter().for_each(|words| self.finding(words.clone()));
        self.found += found.saturating_sub(words.len() as u64);
        self.sound = self.found == 0;
    }
}

/// What was counted of one destination.
#[derive(Default)]
struct Counted {
    log: u64,
    aside: u64,
    dead: u64,
    expired: u64,
}

struct Verifier<'a> {
    books: &'a Books,
    told: Verified,
    /// Where the log goes on.
    due: Seq,
    counted: BTreeMap<DestinationId, Counted>,
    weights: Weights<u64>,
}

/// Reads and checks everything. `progress` is told how many bytes have been read, of about how many.
///
/// # Errors
/// [`KvError::Io`] when the disk refuses. Damage is a finding.
pub fn verify(kv: &dyn Kv, progress: &mut dyn FnMut(u64, u64)) -> Result<Verified, KvError> {
    let books = match Books::read(kv) {
        Ok(books) => books,
        Err(KvError::Damaged(finding)) => {
            return Ok(Verified { found: 1, findings: vec![finding], ..Verified::default() });
        }
        Err(error) => return Err(error),
    };
    let space: Option<Space> = frame::load(kv, keys::SPACE)?;
    let all = space.unwrap_or_default().weights.sum();
    let told = Verified::default();
    let (due, counted) = (books.head.tail, BTreeMap::new());
    let mut verifier = Verifier { books: &books, told, due, counted, weights: Weights::default() };
    everything(kv, &[], &[u8::MAX], &mut |found| {
        match found {
            Found::Hole(words) => verifier.told.finding(words),
            Found::Record { key, bytes, weight } => {
                verifier.told.records += 1;
                verifier.told.bytes += weight;
                verifier.weights.add(key, weight);
                progress(verifier.told.bytes, all);
                match verifier.record(kv, key, &bytes) {
                    Err(KvError::Damaged(finding)) => verifier.told.finding(finding),
                    other => other?,
                }
            }
        }
        Ok(())
    })?;
    let Verifier { mut told, counted, weights, due, .. } = verifier;
    let after = Books::read(kv)?;
    // A running service may have deleted the rest meanwhile.
    if due.max(after.head.tail) < books.head.next {
        told.finding(format!("m/head: the log ends at {due}, its head is at {}", books.head.next));
    }
    // Whatever is written counts one commit more.
    told.recounted = frame::load::<Space>(kv, keys::SPACE)? == space;
    if told.recounted {
        recount(&books, &counted, &mut told);
        if let Some(written) = space.map(|space| space.weights).filter(|written| *written != weights) {
            let kinds = [
                ("the log", written.log, weights.log),
                ("events moved aside", written.aside, weights.aside),
                ("dead letters", written.dead, weights.dead),
                ("quarantine", written.quarantined, weights.quarantined),
            ];
            for (what, written, found) in kinds.into_iter().filter(|(_, written, found)| written != found) {
                told.finding(format!("{what}: {written} bytes were written, {found} are there"));
            }
        }
    }
    told.sound = told.found == 0;
    Ok(told)
}

impl Verifier<'_> {
    fn record(&mut self, kv: &dyn Kv, key: &[u8], bytes: &[u8]) -> Result<(), KvError> {
        match key.first_chunk::<2>() {
            Some(b"e/") => self.chunk(kv, key, frame::parse(key, bytes)?),
            Some(b"p/") => {
                let record: AsideRecord<'_> = frame::parse(key, bytes)?;
                self.told.aside += 1;
                self.row(key, record.seq, &record.event, |counted| counted.aside += 1)
            }
            Some(b"x/") => {
                let record: DeadRecord<'_> = frame::parse(key, bytes)?;
                self.told.dead += 1;
                self.row(key, record.seq, &record.event, |counted| counted.dead += 1)
            }
            Some(b"q/") => {
                self.told.quarantined += 1;
                frame::parse::<QuarantineRecord>(key, bytes).map(drop)
            }
            Some(b"g/") => {
                self.told.gaps += 1;
                frame::parse::<GapRecord>(key, bytes).map(drop)
            }
            Some(b"c/") => frame::parse::<Checkpoint>(key, bytes).map(drop),
            Some(b"k/") => frame::parse::<ChatRecord>(key, bytes).map(drop),
            Some(b"r/") => frame::parse::<History>(key, bytes).map(drop),
            Some(b"y/") => {
                let record: MarkRecord = frame::parse(key, bytes)?;
                let id = keys::destination_of(key).filter(|id| self.books.destinations.contains_key(id));
                let id = id.ok_or_else(|| damaged(key, "a mark of a destination that has no name"))?;
                self.counted.entry(id).or_default().expired += u64::from(record.what == Mark::Expired);
                Ok(())
            }
            Some(b"a/") => frame::parse::<AuditRecord>(key, bytes).map(drop),
            Some(b"j/") => frame::parse::<ReplayRecord>(key, bytes).map(drop),
            // What the books were read from.
            Some(b"d/") => Ok(()),
            Some(b"m/") => match key {
                keys::HEAD | keys::NAMES | keys::SPACE => Ok(()),
                keys::RING => frame::parse::<Ring>(key, bytes).map(drop),
                _ => Err(damaged(key, "nobody knows this record")),
            },
            _ => Err(damaged(key, "nobody knows this key")),
        }
    }

    fn chunk(&mut self, kv: &dyn Kv, key: &[u8], record: ChunkRecord<'_>) -> Result<(), KvError> {
        let first = record.first;
        if keys::chunk_first(key) != Some(first) {
            return Err(damaged(key, &format!("the chunk says that it begins at {first}")));
        }
        if first < self.books.head.tail || first >= self.books.head.next {
            // A running service has appended meanwhile.
            return match Books::read(kv)?.head {
                head if first >= head.tail && first < head.next => Ok(()),
                head => Err(damaged(key, &format!("a chunk outside the log [{}, {})", head.tail, head.next))),
            };
        }
        let due = self.due;
        self.due = Seq(first.0 + record.events.len() as u64);
        self.told.chunks += 1;
        for (seq, event) in (first.0..).map(Seq).zip(&record.events) {
            self.told.events += 1;
            check_event(key, event)?;
            for id in event.destinations.iter() {
                let Some((_, cursor)) = self.books.destinations.get(id) else {
                    return Err(damaged(key, &format!("event {seq} is for destination {id}, which has no name")));
                };
                if cursor.waits(seq) {
                    self.counted.entry(*id).or_default().log += 1;
                }
            }
        }
        // A running service may have deleted what was due.
        if first != due && Books::read(kv)?.head.tail < first {
            return Err(damaged(key, &format!("the log goes on here where {due} was due")));
        }
        Ok(())
    }

    fn row(
        &mut self,
        key: &[u8],
        seq: Seq,
        event: &EventRecord<'_>,
        count: impl FnOnce(&mut Counted),
    ) -> Result<(), KvError> {
        let id = keys::destination_of(key).filter(|id| self.books.destinations.contains_key(id));
        let id = id.ok_or_else(|| damaged(key, "a row of a destination that has no name"))?;
        count(self.counted.entry(id).or_default());
        if key.last_chunk::<8>() != Some(&seq.0.to_be_bytes()) {
            return Err(damaged(key, &format!("the row says that its position is {seq}")));
        }
        check_event(key, event)
    }
}

/// Whether a body is the JSON that it was, with the id that it is sent under.
fn check_event(key: &[u8], event: &EventRecord<'_>) -> Result<(), KvError> {
    #[derive(Deserialize)]
    struct Told<'a> {
        #[serde(borrow)]
        event_id: std::borrow::Cow<'a, str>,
    }
    match serde_json::from_slice::<Told<'_>>(event.body) {
        Ok(told) if told.event_id == event.event_id => Ok(()),
        Ok(told) => Err(damaged(key, &format!("the body of event {} says {}", event.event_id, told.event_id))),
        Err(error) => {
            Err(damaged(key, &format!("the body of event {} is not what was written: {error}", event.event_id)))
        }
    }
}

fn recount(books: &Books, counted: &BTreeMap<DestinationId, Counted>, told: &mut Verified) {
    let nothing = Counted::default();
    for (id, (record, cursor)) in &books.destinations {
        let name = books.names.name_of(*id);
        let there = counted.get(id).unwrap_or(&nothing);
        let routed = books.head.routed_to(*id);
        let mut compare = |what: &str, written: u64, found: u64| {
            if written != found {
                told.finding(format!("{name}: {written} {what} were written, {found} are there"));
            }
        };
        compare("dead letters", record.dead, there.dead);
        compare("events moved aside", record.aside, there.aside);
        compare("pending events", record.pending(routed), there.log + there.aside);
        if there.expired > record.expired {
            told.finding(format!(
                "{name}: {} expired events were counted, {} are marked",
                record.expired, there.expired
            ));
        }
        let settled = record.delivered + record.dead + record.expired + record.discarded;
        if settled > routed {
            told.finding(format!("{name}: {settled} events are settled of {routed} that were routed to it"));
        }
        let (floor, horizon) = (cursor.floor(), cursor.horizon());
        if floor < books.head.tail || horizon > books.head.next {
            let (tail, next) = (books.head.tail, books.head.next);
            told.finding(format!("{name}: the cursor [{floor}, {horizon}) leaves the log [{tail}, {next})"));
        }
    }
    if books.head.quarantined != told.quarantined {
        let (written, found) = (books.head.quarantined, told.quarantined);
        told.finding(format!("m/head: {written} updates in quarantine were written, {found} are there"));
    }
    if books.head.next_gap - 1 != told.gaps {
        let (written, found) = (books.head.next_gap - 1, told.gaps);
        told.finding(format!("m/head: {written} gap records were written, {found} are there"));
    }
}
