//! The copy that a salvage makes: a first reading finds where the log can be read, a second brings everything over and counts
//! it anew. Deliberately absent: finding what can be read at all (`salvage`).

use std::collections::{BTreeMap, BTreeSet};

use super::cursor::Cursor;
use super::frame;
use super::keys::{self, DestinationId};
use super::kv::{Batch, Kv, KvError};
use super::log::{self, Chunk, Logged};
use super::records::{
    AsideRecord, Checkpoint, DeadRecord, DestinationRecord, GapRecord, Head, Names, QuarantineRecord, Space, lane_of,
};
use super::salvage::{Missing, Salvaged};
use super::scan::{Found, everything};
use crate::domain::ids::{Seq, Ts, TsJump};
use crate::domain::time::Moment;

/// How many bytes go into one commit.
const COMMIT_BYTES: usize = 1 << 20;
/// How many holes are told; more are only counted.
const HOLES_TOLD: usize = 100;

/// What the first reading found: the small records, and where the log can be read.
pub(super) struct Salvage {
    told: Salvaged,
    head: Option<Head>,
    names: Names,
    destinations: BTreeMap<DestinationId, DestinationRecord>,
    /// Where the log that is kept begins and ends.
    tail: Seq,
    next: Seq,
    /// The readable events of the log, in pieces without holes, as first and end.
    pieces: Vec<(Seq, Seq)>,
    /// The highest numbers that are in use: none of them is given again.
    last_seq: Seq,
    last_quarantined: u64,
    /// The gap records that were brought over, and the highest number that anything speaks of.
    gaps: BTreeSet<u64>,
    last_gap: u64,
    last_replay: u64,
    last_audit: u64,
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

    fn hole(&mut self, words: String) {
        self.told.holes_found += 1;
        if self.told.holes.len() < HOLES_TOLD {
            self.told.holes.push(words);
        }
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
        to: &dyn Kv,
        now: Moment,
        progress: &mut dyn FnMut(u64),
    ) -> Result<(Salvaged, u64), KvError> {
        let cursors = self.cursors();
        let mut pages = Pages { to, batch: Batch::default(), bytes: 0, space: Space::default() };
        let mut counted: BTreeMap<DestinationId, (u64, u64, u64)> = BTreeMap::new();
        let mut holes = Vec::new();
        everything(kv, &[], &[u8::MAX], &mut |found| {
            let Found::Record { key, bytes, weight } = found else { return Ok(()) };
            progress(weight);
            match self.copy_record(kv, key, &bytes, &cursors, &mut counted, &mut pages) {
                Err(KvError::Damaged(words)) => holes.push(words),
                other => other?,
            }
            pages.turn(false)
        })?;
        // They were told by the first look; what only the second cannot read is told now.
        for words in holes {
            if !self.told.holes.contains(&words) {
                self.hole(words);
            }
        }
        self.write_books(&cursors, &counted, now, &mut pages.batch);
        pages.turn(true)?;
        Ok((self.told, pages.space.commits))
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
        counted: &mut BTreeMap<DestinationId, (u64, u64, u64)>,
        pages: &mut Pages<'_>,
    ) -> Result<(), KvError> {
        let start = Cursor::at(Seq(1));
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
                        // Where the cursor is lost, a row tells that an event has left the log.
                        if !kept && self.is_lost(*id) && has_row(kv, *id, logged)? {
                            continue;
                        }
                        let count = counted.entry(*id).or_default();
                        if kept {
                            count.0 += 1;
                        } else {
                            count.1 += 1;
                            let event = log::record_of(&logged.queued, vec![*id]);
                            let key = keys::aside(*id, lane_of(&event), logged.queued.seq);
                            pages.add(key, &frame::encode(&AsideRecord { seq: logged.queued.seq, event }));
                        }
                    }
                }
                if kept {
                    pages.add(key.to_vec(), bytes);
                }
            }
            Some(b"p/") => {
                let record: AsideRecord<'_> = frame::parse(key, bytes)?;
                if self.comes_again(keys::destination_of(key).unwrap_or_default(), record.seq) {
                    return Ok(());
                }
                counted.entry(keys::destination_of(key).unwrap_or_default()).or_default().1 += 1;
                pages.add(key.to_vec(), bytes);
            }
            Some(b"x/") => {
                let record: DeadRecord<'_> = frame::parse(key, bytes)?;
                if self.comes_again(keys::destination_of(key).unwrap_or_default(), record.seq) {
                    return Ok(());
                }
                counted.entry(keys::destination_of(key).unwrap_or_default()).or_default().2 += 1;
                self.told.dead += 1;
                pages.add(key.to_vec(), bytes);
            }
            Some(b"q/") => {
                frame::parse::<QuarantineRecord>(key, bytes)?;
                self.told.quarantined += 1;
                self.last_quarantined = keys::last_number(key, keys::NUMBERED_LEN).unwrap_or_default();
                pages.add(key.to_vec(), bytes);
            }
            Some(b"c/") => {
                let checkpoint: Checkpoint = frame::parse(key, bytes)?;
                let group = keys::community(key).unwrap_or_default();
                self.last_gap = self.last_gap.max(checkpoint.gap);
                self.told.checkpoints.push((group, checkpoint.ts.as_str().to_owned()));
                pages.put(key.to_vec(), bytes);
            }
            Some(b"g/") => {
                let number = keys::last_number(key, keys::NUMBERED_LEN).unwrap_or_default();
                self.told.gaps += 1;
                self.gaps.insert(number);
                self.last_gap = self.last_gap.max(number);
                pages.put(key.to_vec(), bytes);
            }
            Some(prefix @ (b"a/" | b"j/")) => {
                let last = if prefix == b"j/" { &mut self.last_replay } else { &mut self.last_audit };
                *last = (*last).max(keys::last_number(key, keys::NUMBERED_LEN).unwrap_or_default());
                pages.put(key.to_vec(), bytes);
            }
            // Its log is sent again: nothing of it is marked.
            Some(b"y/") if self.is_lost(keys::destination_of(key).unwrap_or_default()) => {}
            Some(b"r/" | b"k/" | b"y/") => pages.put(key.to_vec(), bytes),
            _ => {}
        }
        Ok(())
    }

    /// Whether a destination's cursor cannot be read: all of the log is sent to it again.
    fn is_lost(&self, id: DestinationId) -> bool {
        self.destinations.get(&id).is_none_or(|record| Cursor::from_record(&record.cursor).is_none())
    }

    /// Whether a row's event is sent again from the log that is kept: then it needs no row.
    fn comes_again(&self, id: DestinationId, seq: Seq) -> bool {
        let in_log = seq >= self.tail && self.pieces.iter().any(|(first, end)| seq >= *first && seq < *end);
        in_log && self.is_lost(id)
    }

    /// Head, names and destinations, their counts as they are now.
    fn write_books(
        &mut self,
        cursors: &BTreeMap<DestinationId, Cursor>,
        counted: &BTreeMap<DestinationId, (u64, u64, u64)>,
        now: Moment,
        batch: &mut Batch,
    ) {
        let mut head = self.head.clone().unwrap_or_else(Head::fresh);
        let mut names = std::mem::take(&mut self.names);
        (head.tail, head.next) = (self.tail, self.next);
        head.quarantined = self.told.quarantined;
        head.routed.clear();
        for id in cursors.keys().chain(counted.keys()).copied().collect::<BTreeSet<_>>() {
            if !names.names.iter().any(|(known, _)| *known == id) {
                names.names.push((id, format!("salvaged-{id}-{}", now.unix_seconds())));
            }
            names.next = names.next.max(id.saturating_add(1));
            let (log, aside, dead) = counted.get(&id).copied().unwrap_or_default();
            let mut record = self.destinations.get(&id).cloned().unwrap_or_default();
            let cursor = cursors.get(&id).cloned().unwrap_or_else(|| Cursor::at(Seq(1)));
            record.cursor = within(&cursor, self.tail, self.next).record();
            (record.dead, record.aside) = (dead, aside);
            let routed = record.delivered + dead + record.expired + record.discarded + log + aside;
            head.routed.push((id, routed));
            self.told.aside += aside;
            frame::put(batch, keys::destination(id), &record);
        }
        head.next_gap = head.next_gap.max(self.last_gap + 1);
        // Chats refer to gaps by their numbers: none of them is given again.
        for number in (1..head.next_gap).filter(|number| !self.gaps.contains(number)) {
            frame::put(batch, keys::gap(number), &lost_gap(now));
        }
        head.next_quarantined = head.next_quarantined.max(self.last_quarantined + 1);
        head.next_replay = head.next_replay.max(self.last_replay + 1);
        head.next_audit = head.next_audit.max(self.last_audit + 1);
        frame::put(batch, keys::HEAD.to_vec(), &head);
        frame::put(batch, keys::NAMES.to_vec(), &names);
    }
}

/// Stands for a gap record that cannot be read.
fn lost_gap(at: Moment) -> GapRecord {
    let nowhere = || Ts::parse("?").expect("invariant: one printable character is a ts");
    let cause = "the record of this gap was lost to damage of the outbox".to_owned();
    let (group, jump) = (0, TsJump::Unknown);
    GapRecord { group, from: nowhere(), to: nowhere(), jump, at, heard: None, cause, backfill: None }
}

/// A cursor cut to the log that is kept.
fn within(cursor: &Cursor, tail: Seq, next: Seq) -> Cursor {
    let mut cut = Cursor::at(tail.max(cursor.floor()).min(next));
    let start = cut.horizon();
    for seq in cursor.unsettled_ones().filter(|seq| *seq >= start && *seq < next) {
        cut.met(seq);
    }
    cut.looked(cursor.horizon().min(next));
    cut
}

/// Whether an event that a destination takes was moved aside, or is dead.
fn has_row(kv: &dyn Kv, id: DestinationId, logged: &Logged) -> Result<bool, KvError> {
    let (lane, seq) = (logged.queued.event.lane(), logged.queued.seq);
    Ok(kv.get(&keys::aside(id, lane, seq))?.is_some() || kv.get(&keys::dead(id, seq))?.is_some())
}

fn chunk_of(kv: &dyn Kv, key: &[u8]) -> Result<Chunk, KvError> {
    let first = keys::chunk_first(key).ok_or_else(|| frame::damaged(key, "no position in the key"))?;
    let value = kv.get(key)?.ok_or_else(|| frame::damaged(key, "the chunk went while it was read"))?;
    let chunk = log::decode(kv, key, &value, first)?;
    let sound =
        |logged: &Logged| serde_json::from_slice::<&serde_json::value::RawValue>(&logged.queued.event.body).is_ok();
    if chunk.events.iter().all(sound) { Ok(chunk) } else { Err(frame::damaged(key, "a body is no JSON")) }
}

/// Writes into the new store, a bounded batch at a time.
struct Pages<'a> {
    to: &'a dyn Kv,
    batch: Batch,
    bytes: usize,
    space: Space,
}

impl Pages<'_> {
    fn add(&mut self, key: Vec<u8>, bytes: &[u8]) {
        self.bytes += bytes.len();
        frame::add_bytes(&mut self.batch, key, bytes);
    }

    fn put(&mut self, key: Vec<u8>, bytes: &[u8]) {
        self.bytes += bytes.len();
        frame::put_bytes(&mut self.batch, key, bytes);
    }

    fn turn(&mut self, last: bool) -> Result<(), KvError> {
        if !last && self.bytes < COMMIT_BYTES {
            return Ok(());
        }
        let mut batch = std::mem::take(&mut self.batch);
        self.bytes = 0;
        self.space.commits += 1;
        self.space.weights.change(batch.weights());
        frame::put(&mut batch, keys::SPACE.to_vec(), &self.space);
        self.to.commit(&batch)
    }
}
