//! The copy that a salvage makes: a first reading finds where the log can be read, a second brings everything over and counts
//! it anew. Deliberately absent: finding what can be read at all (`salvage`).

use std::collections::{BTreeMap, BTreeSet};

use super::cursor::Cursor;
use super::frame;
use super::keys::{self, DestinationId};
use super::kv::{Kv, KvError};
use super::log::{self, Chunk, Logged};
use super::records::{AsideRecord, Checkpoint, DeadRecord, DestinationRecord, Head, Names, QuarantineRecord, lane_of};
use super::salvage::{Missing, Salvaged};
use super::scan::{Found, everything};
use super::unfinished::Unfinished;
use crate::domain::ids::Seq;
use crate::domain::time::Moment;

/// How many holes are told; more are only counted.
const HOLES_TOLD: usize = 100;

/// What the first reading found: the small records, and where the log can be read.
pub(super) struct Salvage {
    pub(super) told: Salvaged,
    pub(super) head: Option<Head>,
    pub(super) names: Names,
    pub(super) destinations: BTreeMap<DestinationId, DestinationRecord>,
    /// Where the log that is kept begins and ends.
    pub(super) tail: Seq,
    pub(super) next: Seq,
    /// The readable events of the log, in pieces without holes, as first and end.
    pieces: Vec<(Seq, Seq)>,
    /// The highest numbers that are in use: none of them is given again.
    pub(super) last_seq: Seq,
    pub(super) last_quarantined: u64,
    /// The gap records that were brought over, and the highest number that anything speaks of.
    pub(super) gaps: BTreeSet<u64>,
    pub(super) last_gap: u64,
    pub(super) last_replay: u64,
    pub(super) last_audit: u64,
}

/// What was brought over for a destination.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Count {
    /// Events that wait in the log.
    pub(super) log: u64,
    /// Events that had been moved aside.
    pub(super) aside: u64,
    /// Events of the log that are moved aside now.
    pub(super) moved: u64,
    /// Dead letters.
    pub(super) dead: u64,
    /// Rows of events that come again from the log: moved aside, and dead letters.
    pub(super) again: (u64, u64),
}

impl Salvage {
    pub(super) fn read(kv: &dyn Kv, told: Salvaged) -> Result<Self, KvError> {
        let mut salvage = Self {
            told,
            head: None,
            names: Names::default(),
            destinations: BTreeMap::new(),
            tail: Seq(1),
            next: Seq(1),
            pieces: Vec::new(),
            last_seq: Seq(0),
            last_quarantined: 0,
            gaps: BTreeSet::new(),
            last_gap: 0,
            last_replay: 0,
            last_audit: 0,
        };
        let mut times: Vec<(Moment, Moment)> = Vec::new();
        everything(kv, &[], &[u8::MAX], &mut |found| {
            match found {
                Found::Hole(words) => salvage.hole(words),
                Found::Record { key, bytes, .. } => {
                    if let Err(KvError::Damaged(words)) = salvage.first_look(kv, key, &bytes, &mut times) {
                        salvage.hole(words);
                    }
                }
            }
            Ok(())
        })?;
        if salvage.head.is_none() {
            salvage.hole("m/head: what the outbox counted, and where its log begins and ends".to_owned());
        }
        salvage.settle_ends(&times);
        Ok(salvage)
    }

    pub(super) fn hole(&mut self, words: String) {
        self.told.holes_found += 1;
        if self.told.holes.len() < HOLES_TOLD {
            self.told.holes.push(words);
        }
    }

    /// What could not be read below the records: the first words of it, and how much it is.
    pub(super) fn holes(&mut self, words: &[String], found: u64) {
        words.iter().for_each(|words| self.hole(words.clone()));
        self.told.holes_found += found.saturating_sub(words.len() as u64);
    }

    /// How many commits are known to have been durable and cannot be read.
    pub(super) fn commits_missing(&mut self, count: u64) {
        self.told.commits_missing = count;
    }

    fn first_look(
        &mut self,
        kv: &dyn Kv,
        key: &[u8],
        bytes: &[u8],
        times: &mut Vec<(Moment, Moment)>,
    ) -> Result<(), KvError> {
        match (key, key.first_chunk::<2>()) {
            (keys::HEAD, _) => self.head = Some(frame::parse(key, bytes)?),
            (keys::NAMES, _) => self.names = frame::parse(key, bytes)?,
            (_, Some(b"d/")) => {
                if let Some(id) = keys::destination_of(key) {
                    let record: DestinationRecord = frame::parse(key, bytes)?;
                    self.last_seq = self.last_seq.max(Seq(record.cursor.horizon.0.saturating_sub(1)));
                    self.destinations.insert(id, record);
                }
            }
            (_, Some(b"e/")) => {
                let chunk = chunk_of(kv, key)?;
                let (first, end) = (chunk.first, chunk.end());
                let time = |logged: Option<&Logged>| logged.map(|logged| logged.queued.event.received_at);
                let (Some(from), Some(to)) = (time(chunk.events.first()), time(chunk.events.last())) else {
                    return Ok(());
                };
                match (self.pieces.last_mut(), times.last_mut()) {
                    (Some(piece), Some(time)) if piece.1 == first => {
                        piece.1 = end;
                        time.1 = to;
                    }
                    _ => {
                        self.pieces.push((first, end));
                        times.push((from, to));
                    }
                }
            }
            (_, Some(b"p/" | b"x/" | b"r/")) => {
                let seq = key.last_chunk::<8>().map_or(0, |bytes| u64::from_be_bytes(*bytes));
                self.last_seq = self.last_seq.max(Seq(seq));
                if key.starts_with(b"x/") {
                    let dead: DeadRecord<'_> = frame::parse(key, bytes)?;
                    self.last_replay = self.last_replay.max(dead.replay);
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Where the log that is kept begins and ends, and what of it is missing.
    fn settle_ends(&mut self, times: &[(Moment, Moment)]) {
        let (first, last) = (self.pieces.first().map(|piece| piece.0), self.pieces.last().map(|piece| piece.1));
        let head = self.head.clone().unwrap_or_default();
        let known = head.next.max(last.unwrap_or(Seq(1)));
        // Without a head the log ends where it can be read; its numbers go on behind all that are in use.
        self.next = if self.head.is_some() { known } else { known.max(self.last_seq.next()) };
        let begin = if self.head.is_some() { head.tail } else { first.unwrap_or(self.next) };
        let mut at = begin;
        let mut before: Option<Moment> = None;
        let mut holes = Vec::new();
        for ((from, end), (start, stop)) in self.pieces.iter().zip(times) {
            if *from > at {
                holes.push((at, Seq(from.0 - 1), before, Some(*start)));
            }
            (at, before) = ((*end).max(at), Some(*stop));
        }
        if self.next > at {
            holes.push((at, Seq(self.next.0 - 1), before, None));
        }
        self.tail = match holes.last() {
            Some((_, to, ..)) => to.next(),
            None => begin,
        };
        let time = |moment: Option<Moment>| moment.map(Moment::rfc3339);
        let missing = |(from, to, after, before): (Seq, Seq, Option<Moment>, Option<Moment>)| Missing {
            from: from.0,
            to: to.0,
            after: time(after),
            before: time(before),
        };
        self.told.missing = holes.into_iter().map(missing).collect();
    }

    pub(super) fn copy(
        mut self,
        kv: &dyn Kv,
        target: &mut Unfinished,
        now: Moment,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Salvaged, KvError> {
        let cursors = self.cursors();
        let mut counted = BTreeMap::new();
        everything(kv, &[], &[u8::MAX], &mut |found| {
            let Found::Record { key, bytes, weight } = found else { return Ok(()) };
            progress(weight);
            match self.copy_record(kv, key, &bytes, &cursors, &mut counted, target) {
                // The first look has told it.
                Err(KvError::Damaged(_)) if is_looked_into(key) => {}
                Err(KvError::Damaged(words)) => self.hole(words),
                other => other?,
            }
            target.turn(false)
        })?;
        self.write_books(&cursors, &counted, now, target);
        target.turn(true)?;
        Ok(self.told)
    }

    /// The cursors as they will be: within the log that is kept. One that cannot be read settles nothing.
    fn cursors(&self) -> BTreeMap<DestinationId, Cursor> {
        let ids = self.names.names.iter().map(|(id, _)| *id).chain(self.destinations.keys().copied());
        let of = |id: DestinationId| {
            let record = self.destinations.get(&id);
            let cursor = record.and_then(|record| Cursor::from_record(&record.cursor));
            (id, cursor.unwrap_or_else(|| Cursor::at(Seq(1))))
        };
        ids.map(of).collect()
    }

    fn copy_record(
        &mut self,
        kv: &dyn Kv,
        key: &[u8],
        bytes: &[u8],
        cursors: &BTreeMap<DestinationId, Cursor>,
        counted: &mut BTreeMap<DestinationId, Count>,
        target: &mut Unfinished,
    ) -> Result<(), KvError> {
        let start = Cursor::at(Seq(1));
        let id = keys::destination_of(key).unwrap_or_default();
        match key.first_chunk::<2>() {
            Some(b"e/") => {
                let chunk = chunk_of(kv, key)?;
                let kept = chunk.first >= self.tail;
                for logged in &chunk.events {
                    self.told.events += u64::from(kept);
                    for id in &logged.destinations {
                        let seq = logged.queued.seq;
                        if !cursors.get(id).unwrap_or(&start).waits(seq) {
                            continue;
                        }
                        // Where the cursor is lost, or older, a row tells that an event has left the log.
                        if !kept && has_row(kv, *id, logged)? {
                            continue;
                        }
                        let count = counted.entry(*id).or_default();
                        if kept {
                            count.log += 1;
                        } else {
                            count.moved += 1;
                            let event = log::record_of(&logged.queued, vec![*id]);
                            let key = keys::aside(*id, lane_of(&event), logged.queued.seq);
                            target.add(key, &frame::encode(&AsideRecord { seq: logged.queued.seq, event }));
                        }
                    }
                }
                if kept {
                    target.add(key.to_vec(), bytes);
                }
            }
            Some(b"p/") => {
                let record: AsideRecord<'_> = frame::parse(key, bytes)?;
                let count = counted.entry(id).or_default();
                if self.comes_again(cursors.get(&id), record.seq) {
                    count.again.0 += 1;
                    return Ok(());
                }
                count.aside += 1;
                target.add(key.to_vec(), bytes);
            }
            Some(b"x/") => {
                let record: DeadRecord<'_> = frame::parse(key, bytes)?;
                let count = counted.entry(id).or_default();
                if self.comes_again(cursors.get(&id), record.seq) {
                    count.again.1 += 1;
                    return Ok(());
                }
                count.dead += 1;
                self.told.dead += 1;
                target.add(key.to_vec(), bytes);
            }
            Some(b"q/") => {
                frame::parse::<QuarantineRecord>(key, bytes)?;
                self.told.quarantined += 1;
                self.last_quarantined = keys::last_number(key, keys::NUMBERED_LEN).unwrap_or_default();
                target.add(key.to_vec(), bytes);
            }
            Some(b"c/") => {
                let checkpoint: Checkpoint = frame::parse(key, bytes)?;
                let group = keys::community(key).unwrap_or_default();
                self.last_gap = self.last_gap.max(checkpoint.gap);
                self.told.checkpoints.push((group, checkpoint.ts.as_str().to_owned()));
                target.put(key.to_vec(), bytes);
            }
            Some(b"g/") => {
                let number = keys::last_number(key, keys::NUMBERED_LEN).unwrap_or_default();
                self.told.gaps += 1;
                self.gaps.insert(number);
                self.last_gap = self.last_gap.max(number);
                target.put(key.to_vec(), bytes);
            }
            Some(prefix @ (b"a/" | b"j/")) => {
                let last = if prefix == b"j/" { &mut self.last_replay } else { &mut self.last_audit };
                *last = (*last).max(keys::last_number(key, keys::NUMBERED_LEN).unwrap_or_default());
                target.put(key.to_vec(), bytes);
            }
            // A mark lasts as long as its event is in the log, and one that comes again has none.
            Some(b"y/") if last_seq(key) < self.tail || cursors.get(&id).is_none_or(|at| at.waits(last_seq(key))) => {}
            Some(b"r/" | b"k/" | b"y/") => target.put(key.to_vec(), bytes),
            _ => {}
        }
        Ok(())
    }

    /// Whether an event is sent again from the log that is kept: then it needs no row. One commit moves the cursor and makes
    /// the row; of a commit that is not whole the cursor is not believed.
    fn comes_again(&self, cursor: Option<&Cursor>, seq: Seq) -> bool {
        let in_log = seq >= self.tail && self.pieces.iter().any(|(first, end)| seq >= *first && seq < *end);
        in_log && cursor.is_none_or(|cursor| cursor.waits(seq))
    }
}

/// Whether an event that a destination takes was moved aside, or is dead, as far as that can be read.
fn has_row(kv: &dyn Kv, id: DestinationId, logged: &Logged) -> Result<bool, KvError> {
    let (lane, seq) = (logged.queued.event.lane(), logged.queued.seq);
    let is_there = |key: Vec<u8>| match kv.get(&key) {
        Err(KvError::Damaged(_)) => Ok(false),
        other => other.map(|value| value.is_some()),
    };
    Ok(is_there(keys::aside(id, lane, seq))? || is_there(keys::dead(id, seq))?)
}

/// Whether the first look goes into a record.
fn is_looked_into(key: &[u8]) -> bool {
    matches!(key.first_chunk::<2>(), Some(b"m/" | b"d/" | b"e/" | b"x/"))
}

/// The position at the end of a row's key.
fn last_seq(key: &[u8]) -> Seq {
    Seq(keys::last_number(key, keys::ROW_LEN).unwrap_or_default())
}

fn chunk_of(kv: &dyn Kv, key: &[u8]) -> Result<Chunk, KvError> {
    let first = keys::chunk_first(key).ok_or_else(|| frame::damaged(key, "no position in the key"))?;
    let value = kv.get(key)?.ok_or_else(|| frame::damaged(key, "the chunk went while it was read"))?;
    let chunk = log::decode(kv, key, &value, first)?;
    let sound =
        |logged: &Logged| serde_json::from_slice::<&serde_json::value::RawValue>(&logged.queued.event.body).is_ok();
    if chunk.events.iter().all(sound) { Ok(chunk) } else { Err(frame::damaged(key, "a body is no JSON")) }
}
