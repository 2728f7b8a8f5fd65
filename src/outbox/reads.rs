//! Reading of a running outbox: what is durable, off the runtime's threads.
//!
//! Invariant: nobody reads at or past the durable head. Reads of the store may touch the disk: they are made with
//! `spawn_blocking`. Deliberately absent: what is read for people (`inspect`, `lookup`).

use std::collections::HashMap;
use std::sync::Arc;

use super::chats::{ChatRecord, Wanted};
use super::error::OutboxError;
use super::frame;
use super::handle::Outbox;
use super::inspect;
use super::keys::{self, DestinationId};
use super::kv::{Kv, KvError};
use super::log::{self, Logged};
use super::records::{
    AsideRecord, BackfillRecord, Checkpoint, DestinationRecord, GapRecord, History, QuarantineRecord, ReplayRecord,
};
use super::rows::{self, AsideLane, Letters};
use crate::domain::event::Queued;
use crate::domain::ids::{GroupId, Lane, Seq};

/// How many bytes of the log one read brings, about.
const READ_BYTES: usize = 256 << 10;
/// How many updates in quarantine one read brings.
const QUARANTINE_ROWS: usize = 32;
/// After how many bytes a read of events that were moved aside ends.
const ASIDE_BYTES: usize = 64 << 10;

/// Events of the log that one destination takes.
#[derive(Debug)]
pub struct Page {
    /// The events, in order.
    pub events: Vec<Queued>,
    /// Everything below this has been looked at.
    pub end: Seq,
}

/// What a worker needs to go on where the last process stopped.
#[derive(Debug)]
pub struct Resume {
    /// Cursor, counters, outage.
    pub record: DestinationRecord,
    /// What was tried of events that wait.
    pub histories: HashMap<Seq, History>,
    /// Chats with events that were moved aside.
    pub aside: Vec<AsideLane>,
}

impl Outbox {
    /// The checkpoint of a community, as it is on disk.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn checkpoint(&self, group: GroupId) -> Result<Option<Checkpoint>, OutboxError> {
        self.read_store(move |kv| frame::load(kv, &keys::checkpoint(group.get()))).await
    }

    /// Where a destination's worker goes on.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn resume(&self, id: DestinationId) -> Result<Resume, OutboxError> {
        self.read_store(move |kv| {
            let key = keys::destination(id);
            let record = frame::load(kv, &key)?.ok_or_else(|| frame::damaged(&key, "the destination is gone"))?;
            Ok(Resume { record, histories: rows::histories(kv, id)?, aside: rows::aside_lanes(kv, id)? })
        })
        .await
    }

    /// The events at `from` and above, and below `limit` and the head, that `id` takes: about as many as are useful at a
    /// time.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn read(&self, id: DestinationId, from: Seq, limit: Seq) -> Result<Page, OutboxError> {
        let head = *self.head.borrow();
        let limit = limit.min(head);
        if from >= limit {
            return Ok(Page { events: Vec::new(), end: from });
        }
        let ours = |logged: &Logged| (from..limit).contains(&logged.queued.seq) && logged.destinations.contains(&id);
        let mut page = Page { events: Vec::new(), end: from };
        if let Some(chunks) = self.shared.window.read(from, READ_BYTES) {
            for chunk in chunks {
                page.end = chunk.end().min(limit).max(page.end);
                page.events.extend(chunk.events.iter().filter(|one| ours(one)).map(|one| one.queued.clone()));
            }
        } else {
            for chunk in self.read_store(move |kv| log::read(kv, from, head, READ_BYTES)).await? {
                page.end = chunk.end().min(limit).max(page.end);
                page.events.extend(chunk.events.into_iter().filter(ours).map(|one| one.queued));
            }
        }
        Ok(page)
    }

    /// The next events of a chat that were moved aside, after `after`, in order: at most `rows`, and about as many as are
    /// useful at a time.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn read_aside(
        &self,
        id: DestinationId,
        lane: Lane,
        after: Seq,
        rows: usize,
    ) -> Result<Vec<Queued>, OutboxError> {
        self.read_store(move |kv| {
            let end = keys::after(&keys::aside_lane(id, lane));
            let mut found: Vec<Queued> = Vec::new();
            let mut read = 0;
            for (key, value) in kv.scan(&keys::aside(id, lane, after.next()), &end, rows)? {
                if key.len() != keys::ASIDE_LEN || read >= ASIDE_BYTES {
                    continue;
                }
                let bytes = bytes::Bytes::from(frame::whole(kv, &key, &value)?);
                let record: AsideRecord<'_> = frame::parse(&key, &bytes)?;
                found.push(log::queued_of(&key, record.seq, &record.event, &bytes)?);
                read += bytes.len();
            }
            Ok(found)
        })
        .await
    }

    /// The replays of a destination that are not done, oldest first.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn replays(&self, id: DestinationId) -> Result<Vec<(u64, ReplayRecord)>, OutboxError> {
        self.read_store(move |kv| {
            Ok(rows::replays(kv)?
                .into_iter()
                .filter(|(_, job)| job.order.destination == id && job.ended.is_none())
                .collect())
        })
        .await
    }

    /// The next updates in quarantine that a replay takes.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn read_quarantine(&self, job: ReplayRecord) -> Result<Vec<(u64, QuarantineRecord)>, OutboxError> {
        self.read_store(move |kv| {
            let (filter, mut found) = (&job.order.filter, Vec::new());
            rows::quarantined(kv, filter.from.unwrap_or_default().0, |number, record| {
                if number >= job.up_to.0 {
                    return Ok(false);
                }
                if filter.takes_quarantined(number, &record) {
                    found.push((number, record));
                }
                Ok(found.len() < QUARANTINE_ROWS)
            })?;
            Ok(found)
        })
        .await
    }

    /// The next dead letters that a replay has not tried yet, after `after`.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn read_replay(&self, number: u64, job: ReplayRecord, after: Seq) -> Result<Letters, OutboxError> {
        self.read_store(move |kv| rows::replayable(kv, number, &job, after)).await
    }

    /// The gaps of a community whose messages are still to be fetched back, oldest first.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn gaps_to_fill(&self, group: GroupId) -> Result<Vec<u64>, OutboxError> {
        self.read_store(move |kv| rows::gaps_to_fill(kv, group.get())).await
    }

    /// What was fetched back of each of these gaps.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn backfills(&self, gaps: Vec<u64>) -> Result<Vec<(u64, BackfillRecord)>, OutboxError> {
        self.read_store(move |kv| {
            let mut found = Vec::new();
            for gap in &gaps {
                let record: Option<GapRecord> = frame::load(kv, &keys::gap(*gap))?;
                found.extend(record.and_then(|record| record.backfill).map(|backfill| (*gap, backfill)));
            }
            Ok(found)
        })
        .await
    }

    /// The first chat after `after` and up to `until` in which gaps up to `gap` have swallowed something that is still to be
    /// asked for.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn next_to_fill(
        &self,
        group: GroupId,
        after: Option<i64>,
        until: i64,
        gap: u64,
    ) -> Result<Option<(i64, Wanted)>, OutboxError> {
        self.read_store(move |kv| {
            let all = keys::chats(group.get());
            let start = after.map_or_else(|| all.clone(), |peer| [&keys::chat(group.get(), peer), &[0][..]].concat());
            let mut found = None;
            let end = keys::after(&keys::chat(group.get(), until));
            rows::walk(kv, start, &end, |key, value| {
                let record: ChatRecord = frame::parse(key, &frame::whole(kv, key, value)?)?;
                found = keys::chat_peer(key).zip(record.wanted(gap));
                Ok(found.is_none())
            })?;
            Ok(found)
        })
        .await
    }

    /// Whether anything is kept of where messages of a community stand, or a gap of it is to be filled.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn keeps_chats(&self, group: GroupId) -> Result<bool, OutboxError> {
        self.read_store(move |kv| {
            let chats = keys::chats(group.get());
            let any = !kv.scan(&chats, &keys::after(&chats), 1)?.is_empty();
            Ok(any || !rows::gaps_to_fill(kv, group.get())?.is_empty())
        })
        .await
    }

    /// What is still to be asked for in one chat.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn to_fill(&self, group: GroupId, peer: i64, gap: u64) -> Result<Option<Wanted>, OutboxError> {
        self.read_store(move |kv| {
            let record: Option<ChatRecord> = frame::load(kv, &keys::chat(group.get(), peer))?;
            Ok(record.and_then(|record| record.wanted(gap)))
        })
        .await
    }

    /// As [`Outbox::read_store`], for what may read all of it: few do so at once, whether whoever asked still waits or not.
    ///
    /// # Errors
    /// What the look answers.
    pub async fn scan_store<T: Send + 'static>(
        &self,
        look: impl Fn(&dyn Kv) -> Result<T, KvError> + Send + 'static,
    ) -> Result<T, OutboxError> {
        let place = Arc::clone(&self.shared.scans).acquire_owned().await.map_err(|_| OutboxError::Closed)?;
        self.read_store(move |kv| {
            let _kept_to_the_end = &place;
            look(kv)
        })
        .await
    }

    /// Runs a look at what is durable, off the runtime's threads.
    ///
    /// # Errors
    /// What the look answers.
    pub async fn read_store<T: Send + 'static>(
        &self,
        look: impl Fn(&dyn Kv) -> Result<T, KvError> + Send + 'static,
    ) -> Result<T, OutboxError> {
        let shared = Arc::clone(&self.shared);
        let outcome = tokio::task::spawn_blocking(move || inspect::steady(shared.kv().as_ref(), look)).await;
        match outcome {
            Ok(result) => result.map_err(|error| OutboxError::of_store(&self.shared.dir, &error)),
            Err(_) => Err(OutboxError::Closed),
        }
    }
}
