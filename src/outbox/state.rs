//! What the writer knows and how each request changes it. Synchronous: `(state, request, now)` to changes in a batch; the
//! thread in `writer` commits them. Reads the store only for rows that a request rewrites or deletes.
//!
//! Invariants: the log is exactly `[tail, next)`; a floor never passes an event that is neither settled nor moved aside
//! in the same batch; for each destination routed = pending + delivered + dead + expired + discarded.
//! Deliberately absent: threads, the commit, the clock.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::Duration;

use super::changes::{Replayed, apply};
use super::chats::ChatRecord;
use super::cursor::Cursor;
use super::frame::{self, damaged};
use super::keys::{self, DestinationId};
use super::kv::{Batch, Kv, KvError};
use super::log::{self, Logged};
use super::records::{
    BackfillRecord, Checkpoint, DestinationRecord, Ended, GapRecord, Head, Names, QuarantineRecord, ReplayRecord, Ring,
    Space,
};
use super::repeats::Repeats;
use super::requests::{Append, Appended, Settlement};
use super::rows;
use crate::domain::event::{Event, Queued, Source};
use crate::domain::ids::{GroupId, Lane, Seq, Ts};
use crate::domain::time::Moment;

/// Everything the writer holds in memory; its size does not depend on the backlog.
#[derive(Debug)]
pub struct State {
    pub(super) head: Head,
    pub(super) names: Names,
    /// The head as it is on disk: an append in this batch cannot be read yet.
    pub(super) stored: Seq,
    pub(super) space: Space,
    pub(super) ring: Ring,
    checkpoints: BTreeMap<i64, Checkpoint>,
    pub(super) destinations: BTreeMap<DestinationId, DestinationRecord>,
    /// Those that have a worker; the others are detached.
    pub(super) configured: BTreeSet<DestinationId>,
    /// The chats of detached destinations that are aside, once it was looked.
    pub(super) aside: HashMap<DestinationId, HashSet<Lane>>,
    /// Those that are not over, and the latest of those that are.
    pub(super) replays: BTreeMap<u64, ReplayRecord>,
    pub(super) repeats: Repeats,
    pub(super) retention: Duration,
    pub(super) dirty: Dirty,
}

#[derive(Debug, Default)]
pub(super) struct Dirty {
    pub(super) head: bool,
    pub(super) ring: bool,
    pub(super) destinations: HashSet<DestinationId>,
    /// Records of chats and gaps, by their keys.
    pub(super) chats: BTreeMap<Vec<u8>, ChatRecord>,
    pub(super) gaps: BTreeMap<Vec<u8>, GapRecord>,
    pub(super) replays: BTreeSet<u64>,
}

impl State {
    /// Puts into a batch what makes an empty store an outbox.
    pub fn found(batch: &mut Batch) {
        frame::put(batch, keys::HEAD.to_vec(), &Head::fresh());
    }

    /// Reads the state of a store.
    ///
    /// # Errors
    /// When a record is not what was written, or records contradict each other.
    pub fn load(kv: &dyn Kv, retention: Duration) -> Result<Self, KvError> {
        let head: Head = frame::load(kv, keys::HEAD)?.ok_or_else(|| damaged(keys::HEAD, "the store has no head"))?;
        let names: Names = frame::load(kv, keys::NAMES)?.unwrap_or_default();
        let ring = frame::load(kv, keys::RING)?.unwrap_or_default();
        let mut state = Self {
            stored: head.next,
            head,
            names,
            space: Space::default(),
            ring,
            checkpoints: BTreeMap::new(),
            destinations: BTreeMap::new(),
            configured: BTreeSet::new(),
            aside: HashMap::new(),
            replays: rows::replays(kv)?.into_iter().collect(),
            repeats: Repeats::default(),
            retention,
            dirty: Dirty::default(),
        };
        for (key, value) in kv.scan(b"c/", b"c0", usize::from(u16::MAX))? {
            let checkpoint: Checkpoint = frame::parse(&key, &frame::whole(kv, &key, &value)?)?;
            let group = keys::community(&key).ok_or_else(|| damaged(&key, "no community in the key"))?;
            state.checkpoints.insert(group, checkpoint);
        }
        for (id, _) in &state.names.names {
            let key = keys::destination(*id);
            let record: DestinationRecord =
                frame::load(kv, &key)?.ok_or_else(|| damaged(&key, "a destination has a name and no cursor"))?;
            state.destinations.insert(*id, record);
        }
        state.space = match frame::load(kv, keys::SPACE)? {
            Some(space) => space,
            // An outbox of before it was counted: that is done once.
            None => Space { commits: 0, weights: rows::weigh(kv)? },
        };
        state.check(kv)?;
        state.repeats.fill(kv, &state.head)?;
        Ok(state)
    }

    /// Cheap contradictions: the ends of the log, and every cursor.
    fn check(&self, kv: &dyn Kv) -> Result<(), KvError> {
        let Head { tail, next, .. } = self.head;
        if tail > next {
            return Err(damaged(keys::HEAD, &format!("the log ends at {next}, before it begins at {tail}")));
        }
        let first = kv.scan(&keys::chunk(Seq(0)), &keys::chunk(Seq(u64::MAX)), 1)?;
        let first = first.first().and_then(|(key, _)| keys::chunk_first(key)).unwrap_or(next);
        if first != tail {
            return Err(damaged(keys::HEAD, &format!("the log begins at {first} where {tail} was written")));
        }
        if tail < next {
            log::read(kv, Seq(next.0 - 1), next, 1)?;
            if kv.last(&keys::chunk(next), &keys::chunk(Seq(u64::MAX)))?.is_some() {
                return Err(damaged(keys::HEAD, &format!("the log goes on behind its head {next}")));
            }
        }
        for (id, record) in &self.destinations {
            let cursor = Cursor::stored(*id, &record.cursor)?;
            if cursor.floor() < tail || cursor.horizon() > next {
                let (floor, horizon) = (cursor.floor(), cursor.horizon());
                let finding = format!("the cursor [{floor}, {horizon}) leaves the log [{tail}, {next})");
                return Err(damaged(&keys::destination(*id), &finding));
            }
        }
        Ok(())
    }

    /// What was put into the last batch is durable.
    pub fn committed(&mut self) {
        self.stored = self.head.next;
    }

    /// How many commits there were.
    #[must_use]
    pub fn commits(&self) -> u64 {
        self.space.commits
    }

    /// The checkpoint of a community.
    #[must_use]
    pub fn checkpoint(&self, group: GroupId) -> Option<&Checkpoint> {
        self.checkpoints.get(&group.get())
    }

    /// When VK was last heard, of any community.
    #[must_use]
    pub fn last_heard(&self) -> Option<Moment> {
        self.checkpoints.values().map(|checkpoint| checkpoint.heard).max()
    }

    /// Gives each name a number; a new destination begins at the head and gets no older event.
    pub fn register(&mut self, batch: &mut Batch, names: &[String]) {
        for name in names {
            if let Some(id) = self.names.id_of(name) {
                self.configured.insert(id);
                continue;
            }
            let id = self.names.next;
            self.names.next = id
                .checked_add(1)
                .filter(|next| *next < keys::QUARANTINE)
                .expect("invariant: fewer than 65535 names are ever used");
            self.names.names.push((id, name.clone()));
            let record =
                DestinationRecord { cursor: Cursor::at(self.head.next).record(), ..DestinationRecord::default() };
            self.destinations.insert(id, record);
            self.configured.insert(id);
            self.dirty.destinations.insert(id);
            frame::put(batch, keys::NAMES.to_vec(), &self.names);
        }
        self.dirty.head = true;
    }

    /// Takes in what an answer brought; gives the events their numbers and returns those that are new.
    ///
    /// # Errors
    /// When the record of a chat cannot be read.
    pub fn append(
        &mut self,
        kv: &dyn Kv,
        batch: &mut Batch,
        mut append: Append,
        now: Moment,
    ) -> Result<(Appended, Vec<Logged>), KvError> {
        let group = append.group.get();
        let before = self.checkpoints.get(&group);
        let heard = before.map(|before| before.heard).max(append.last_answer);
        let mut gap = before.map_or(0, |before| before.gap);
        if let Some((from, cause)) = append.gap.take() {
            let jump = Ts::jump(&from, &append.ts);
            let backfill = append.heard.is_some().then(BackfillRecord::default);
            if backfill.is_some() {
                gap = self.head.next_gap;
            }
            let record = GapRecord { group, from, to: append.ts.clone(), jump, at: now, heard, cause, backfill };
            self.dirty.gaps.insert(keys::gap(self.head.next_gap), record);
            self.head.next_gap += 1;
        }
        let checkpoint = Checkpoint { ts: append.ts.clone(), at: now, heard: now, gap };
        frame::put(batch, keys::checkpoint(group), &checkpoint);
        self.checkpoints.insert(group, checkpoint);
        let copies = match append.heard.take() {
            Some(heard) => self.hear(kv, &mut append, &heard)?,
            None => 0,
        };
        let (mut done, logged) = self.take_in(batch, append.events);
        done.repeats += copies;
        self.head.repeats += copies;
        append.quarantined.iter().for_each(|record| self.quarantine(batch, record));
        self.head.unrouted += append.unrouted;
        Ok((done, logged))
    }

    /// Keeps an update that could not be read.
    pub(super) fn quarantine(&mut self, batch: &mut Batch, record: &QuarantineRecord) {
        frame::add(batch, keys::quarantine(self.head.next_quarantined), record);
        self.head.next_quarantined += 1;
        self.head.quarantined += 1;
    }

    /// Gives events their numbers and puts them into the log; drops repeats.
    pub(super) fn take_in(
        &mut self,
        batch: &mut Batch,
        events: Vec<(Event, Source, Vec<DestinationId>)>,
    ) -> (Appended, Vec<Logged>) {
        let mut done = Appended::default();
        let mut logged = Vec::with_capacity(events.len());
        for (event, source, destinations) in events {
            if !self.repeats.first_time(event.group.get(), event.event_id.as_str()) {
                done.repeats += 1;
                continue;
            }
            for id in &destinations {
                self.count_routed(*id);
            }
            let seq = self.head.next;
            self.head.next = seq.next();
            logged.push(Logged { queued: Queued { seq, source, event }, destinations });
        }
        done.appended = logged.len() as u64;
        for (key, record) in log::pack(&logged) {
            frame::add_encoded(batch, key, record);
        }
        self.head.repeats += done.repeats;
        self.dirty.head = true;
        (done, logged)
    }

    fn count_routed(&mut self, id: DestinationId) {
        match self.head.routed.iter_mut().find(|(other, _)| *other == id) {
            Some((_, count)) => *count += 1,
            None => self.head.routed.push((id, 1)),
        }
    }

    /// Takes in what a worker settled.
    ///
    /// # Errors
    /// When a row that must be rewritten cannot be read.
    pub fn settle(&mut self, kv: &dyn Kv, batch: &mut Batch, settlement: Settlement) -> Result<(), KvError> {
        let id = settlement.destination;
        let record = self.destinations.get_mut(&id).expect("invariant: a worker's destination is registered");
        assert!(settlement.cursor.floor() >= record.cursor.floor, "invariant: a floor never goes back");
        assert!(settlement.cursor.horizon() <= self.head.next, "invariant: a horizon never passes the head");
        record.cursor = settlement.cursor.record();
        record.last_ok = settlement.last_ok.or(record.last_ok);
        record.outage = settlement.outage;
        let mut replayed = Vec::new();
        for change in settlement.changes {
            replayed.extend(apply(kv, batch, id, record, change, self.head.next_replay - 1)?);
        }
        self.dirty.destinations.insert(id);
        for (number, came) in replayed {
            match came {
                Replayed::Succeeded => self.in_replay(number, |job| job.succeeded += 1),
                Replayed::Failed => self.in_replay(number, |job| job.failed += 1),
                Replayed::Over(at) => _ = self.end_replay(number, Ended { at, cancelled: false }),
            }
        }
        Ok(())
    }

    /// Puts what changed of the state itself into the batch; the last step before a commit.
    pub fn seal(&mut self, batch: &mut Batch) {
        let dirty = std::mem::take(&mut self.dirty);
        if dirty.head {
            frame::put(batch, keys::HEAD.to_vec(), &self.head);
        }
        if dirty.ring {
            frame::put(batch, keys::RING.to_vec(), &self.ring);
        }
        dirty.chats.into_iter().for_each(|(key, record)| frame::put(batch, key, &record));
        dirty.gaps.into_iter().for_each(|(key, record)| frame::put(batch, key, &record));
        for number in dirty.replays {
            match self.replays.get(&number) {
                Some(job) => frame::put(batch, keys::replay(number), job),
                None => batch.delete(keys::replay(number)),
            }
        }
        for id in dirty.destinations {
            if let Some(record) = self.destinations.get(&id) {
                frame::put(batch, keys::destination(id), record);
            }
        }
        if !batch.is_empty() {
            self.space.commits += 1;
            self.space.weights.change(batch.weights());
            frame::put(batch, keys::SPACE.to_vec(), &self.space);
        }
    }
}
