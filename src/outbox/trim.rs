//! What makes room in the log: deleting from its front what every destination settled, and moving aside what holds the front
//! when room is short. Part of the writer's state. Deliberately absent: when room is short (`space`).

use std::collections::hash_map::Entry;

use super::changes::apply;
use super::cursor::Cursor;
use super::frame::{self, damaged};
use super::keys::{self, DestinationId};
use super::kv::{Batch, Kv, KvError};
use super::log::{self, Chunk, Logged};
use super::records::DestinationRecord;
use super::requests::Change;
use super::rows;
use super::space::Space;
use super::state::State;
use crate::domain::ids::Seq;
use crate::domain::time::Moment;

/// How many pairs the ring of floors holds.
const RING_PAIRS: u32 = 256;
/// How many keys of the log one commit deletes at most.
const TRIM_KEYS: usize = 64;
/// How many chats of a detached destination may be aside: who resumes it holds the first event of each in memory.
const ASIDE_CHATS: usize = 10_000;

/// What trimming did not finish.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Left {
    /// There is more to delete at once.
    pub(super) more: bool,
    /// Workers are asked to move aside what they have pending below this.
    pub(super) relief: Option<Seq>,
}

impl State {
    /// Deletes from the front of the log what every destination settled longer than `retention` ago, a bounded bit at a
    /// time; whatever is settled, when room is short; and then moves aside what holds the front.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub(super) fn trim(&mut self, kv: &dyn Kv, batch: &mut Batch, space: &Space, now: Moment) -> Result<Left, KvError> {
        let lowest = self.lowest_floor();
        let ripe = self.ripe(lowest, now);
        let goal = if space.gave_way || space.relieve { lowest } else { ripe.min(lowest) };
        let before = self.head.tail;
        let more = self.trim_to(kv, batch, goal)?;
        if more || self.head.tail > before || !space.relieve {
            return Ok(Left { more, relief: None });
        }
        self.relieve(kv, batch)
    }

    /// The lowest floor of those that have something in the log.
    fn lowest_floor(&self) -> Seq {
        let holders = self.destinations.iter().filter(|(id, _)| !self.is_idle(**id));
        holders.map(|(_, record)| record.cursor.floor).min().unwrap_or(self.stored)
    }

    /// Whether a destination has no worker, and nothing in the log waits for one.
    fn is_idle(&self, id: DestinationId) -> bool {
        !self.configured.contains(&id)
            && self.destinations.get(&id).is_some_and(|record| record.pending(self.head.routed_to(id)) == record.aside)
    }

    /// Up to where everything was settled longer than `retention` ago.
    fn ripe(&mut self, lowest: Seq, now: Moment) -> Seq {
        let grain = self.retention / RING_PAIRS;
        let newest = self.ring.0.last();
        if newest.is_none_or(|(at, floor)| lowest > *floor && at.age(now) >= grain) && lowest > self.head.tail {
            self.ring.0.push((now, lowest));
            self.dirty.ring = true;
        }
        let Some(ripe) = self.ring.0.iter().rposition(|(at, _)| at.age(now) >= self.retention && *at <= now) else {
            return self.head.tail;
        };
        if ripe > 0 {
            self.ring.0.drain(..ripe);
            self.dirty.ring = true;
        }
        self.ring.0.first().map_or(self.head.tail, |(_, floor)| *floor)
    }

    /// Deletes whole chunks that end at or below `goal`.
    fn trim_to(&mut self, kv: &dyn Kv, batch: &mut Batch, goal: Seq) -> Result<bool, KvError> {
        let until = goal.min(self.stored);
        if self.head.tail >= until {
            return Ok(false);
        }
        let page = kv.scan(&keys::chunk(self.head.tail), &keys::chunk(until), TRIM_KEYS)?;
        let chunks: Vec<_> =
            page.iter().filter_map(|(key, value)| Some((keys::chunk_first(key)?, key, value))).collect();
        if chunks.is_empty() {
            return Err(damaged(&keys::chunk(self.head.tail), "no chunk of the log begins here, where one was due"));
        }
        let before = self.head.tail;
        for (place, (first, key, value)) in chunks.iter().enumerate() {
            if *first != self.head.tail {
                return Err(damaged(key, &format!("the log goes on here where {} was due", self.head.tail)));
            }
            let end = match chunks.get(place + 1) {
                Some((next, _, _)) => *next,
                None => self.chunk_end(kv, *first)?,
            };
            if end > goal {
                break;
            }
            self.check_idle(kv, key, value, *first, end)?;
            frame::delete(batch, key, value);
            self.head.tail = end;
            self.dirty.head = true;
        }
        if self.head.tail > before {
            self.idle_ones_follow();
            // Each event that goes has one mark a destination at most; what a salvage brought may lie before them.
            let gone = usize::try_from(self.head.tail.0 - before.0).unwrap_or(usize::MAX);
            for id in self.destinations.keys() {
                let (from, to) = (keys::mark(*id, Seq(0)), keys::mark(*id, self.head.tail));
                kv.scan(&from, &to, gone.saturating_add(TRIM_KEYS))?.into_iter().for_each(|(key, _)| batch.delete(key));
            }
        }
        Ok(self.head.tail < goal && self.head.tail > before)
    }

    /// That nothing waits for a destination without a worker is what its counters say: it is looked before a chunk goes.
    fn check_idle(&self, kv: &dyn Kv, key: &[u8], value: &[u8], first: Seq, end: Seq) -> Result<(), KvError> {
        for (id, record) in self.destinations.iter().filter(|(_, record)| record.cursor.floor < end) {
            let cursor = Cursor::stored(*id, &record.cursor)?;
            if let Some(logged) = waiting(&log::decode(kv, key, value, first)?, &cursor, *id).next() {
                let (name, seq) = (self.names.name_of(*id), logged.queued.seq);
                return Err(damaged(key, &format!("event {seq} waits for {name}, whose counters say that none does")));
            }
        }
        Ok(())
    }

    /// A cursor never lies outside the log, not even one that nobody moves.
    fn idle_ones_follow(&mut self) {
        let (tail, next) = (self.head.tail, self.head.next);
        let behind: Vec<_> =
            self.destinations.iter().filter(|(_, record)| record.cursor.floor < tail).map(|(id, _)| *id).collect();
        for id in behind {
            if let Some(record) = self.destinations.get_mut(&id) {
                record.cursor = Cursor::at(next).record();
                self.dirty.destinations.insert(id);
            }
        }
    }

    /// Where the chunk ends that begins at `first`: its parts lie between its key and the next chunk's.
    fn chunk_end(&self, kv: &dyn Kv, first: Seq) -> Result<Seq, KvError> {
        let mut next = kv.scan(&keys::chunk(first.next()), &keys::chunk(self.stored), 1)?.into_iter();
        Ok(next.next().and_then(|(key, _)| keys::chunk_first(&key)).unwrap_or(self.stored))
    }

    /// Moves aside what is pending in the front chunk, if under half of what the log holds is pending (docs/decisions/0002):
    /// for detached destinations here, for the others their workers are asked to.
    fn relieve(&mut self, kv: &dyn Kv, batch: &mut Batch) -> Result<Left, KvError> {
        let pending = |(id, record): (&DestinationId, &DestinationRecord)| {
            record.pending(self.head.routed_to(*id)).saturating_sub(record.aside)
        };
        if self.destinations.iter().map(pending).sum::<u64>() * 2 >= self.head.next.0 - self.head.tail.0 {
            return Ok(Left::default());
        }
        let Some(chunk) = log::read(kv, self.head.tail, self.stored, 1)?.into_iter().next() else {
            return Ok(Left::default());
        };
        let mut holders = Vec::new();
        for (id, record) in &self.destinations {
            if record.cursor.floor >= chunk.end() || self.is_idle(*id) {
                continue;
            }
            holders.push((*id, Cursor::stored(*id, &record.cursor)?));
        }
        let mut left = Left::default();
        for (id, cursor) in holders {
            if self.configured.contains(&id) {
                left.relief = Some(chunk.end());
            } else {
                left.more |= self.move_detached_aside(kv, batch, id, cursor, &chunk)?;
            }
        }
        Ok(left)
    }

    fn move_detached_aside(
        &mut self,
        kv: &dyn Kv,
        batch: &mut Batch,
        id: DestinationId,
        mut cursor: Cursor,
        chunk: &Chunk,
    ) -> Result<bool, KvError> {
        let lanes = match self.aside.entry(id) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(unknown) => {
                unknown.insert(rows::aside_lanes(kv, id)?.into_iter().map(|aside| aside.lane).collect())
            }
        };
        let moving: Vec<_> = waiting(chunk, &cursor, id).map(|logged| logged.queued.clone()).collect();
        lanes.extend(moving.iter().map(|event| event.event.lane()));
        if lanes.len() > ASIDE_CHATS {
            return Ok(false);
        }
        let Some(record) = self.destinations.get_mut(&id) else { return Ok(false) };
        for event in moving {
            cursor.pass(event.seq);
            apply(kv, batch, id, record, Change::MovedAside { event }, 0)?;
        }
        cursor.looked(chunk.end());
        record.cursor = cursor.record();
        self.dirty.destinations.insert(id);
        Ok(true)
    }
}

/// The events of a chunk that a destination takes and has not settled.
pub(super) fn waiting<'a>(chunk: &'a Chunk, cursor: &'a Cursor, id: DestinationId) -> impl Iterator<Item = &'a Logged> {
    chunk.events.iter().filter(move |logged| logged.destinations.contains(&id) && cursor.waits(logged.queued.seq))
}
