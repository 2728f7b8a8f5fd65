//! What the floors above hold of the outbox: ask the writer, read what is durable. Cheap to clone.
//!
//! Invariant: nobody reads at or past the durable head. This is the one file that calls `spawn_blocking`: reads of the
//! store may touch the disk. Deliberately absent: deciding anything.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};

use super::error::OutboxError;
use super::frame;
use super::inspect;
use super::keys::{self, DestinationId};
use super::kv::{Batch, Kv, KvError};
use super::log::{self, Chunk};
use super::open::{Lock, Store};
use super::records::{
    AsideRecord, Checkpoint, DestinationRecord, History, QuarantineRecord, ReplayFilter, ReplayRecord,
};
use super::requests::{Append, Appended, Reconverted, Settlement};
use super::rows::{self, AsideLane, DeadLetter};
use super::space::Space;
use super::state::State;
use super::upkeep::Upkeep;
use super::window::Window;
use super::writer::{REQUESTS, Request, Writer};
use crate::clock::Clock;
use crate::domain::event::Queued;
use crate::domain::ids::{DestinationName, GroupId, Lane, Seq};

/// How many bytes of the log one read brings, about.
const READ_BYTES: usize = 256 << 10;
/// How many updates in quarantine one read brings.
const QUARANTINE_ROWS: usize = 32;
/// After how many bytes a read of events that were moved aside ends.
const ASIDE_BYTES: usize = 64 << 10;

/// What the handles and the writer share.
pub(super) struct Shared {
    /// The store; another one after a copy has replaced it. A reader keeps the one that it began with.
    kv: RwLock<Arc<dyn Kv>>,
    pub(super) dir: PathBuf,
    pub(super) window: Window,
    /// Held until the last handle is gone, so that no other process opens the directory before.
    _lock: Option<Lock>,
}

impl Shared {
    /// The store as it is now.
    pub(super) fn kv(&self) -> Arc<dyn Kv> {
        Arc::clone(&self.kv.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts another store in its place, and gives it back.
    pub(super) fn replace(&self, kv: Arc<dyn Kv>) -> Arc<dyn Kv> {
        std::mem::replace(&mut *self.kv.write().unwrap_or_else(PoisonError::into_inner), kv)
    }
}

/// A running outbox.
#[derive(Clone)]
pub struct Outbox {
    shared: Arc<Shared>,
    requests: mpsc::Sender<Request>,
    head: watch::Receiver<Seq>,
    replays: watch::Receiver<u64>,
    relief: watch::Receiver<Seq>,
    space: watch::Receiver<Space>,
    failed: watch::Receiver<Option<OutboxError>>,
    destinations: Arc<HashMap<DestinationName, DestinationId>>,
    thread: Arc<Mutex<Option<JoinHandle<()>>>>,
}

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
    /// Starts the writer of a store that nobody else has open, and gives each destination its number and cursor.
    ///
    /// # Errors
    /// When the store is damaged or cannot be written.
    pub fn start(
        store: Store,
        settings: &super::Settings,
        names: &[DestinationName],
        clock: Clock,
    ) -> Result<Self, OutboxError> {
        let Store { kv, generations, lock, dir } = store;
        let told = |error: KvError| OutboxError::of_store(&dir, &error);
        let mut state = State::load(kv.as_ref(), settings.retention).map_err(told)?;
        let (space_sender, space) = watch::channel(Space::default());
        let mut upkeep = Upkeep::new(generations, settings.limits, space_sender);
        let shared = Shared { kv: RwLock::new(kv), dir: dir.clone(), window: Window::default(), _lock: lock };
        let shared = Arc::new(shared);
        upkeep.copy_suspect(&shared).map_err(told)?;
        let mut batch = Batch::default();
        let texts: Vec<String> = names.iter().map(|name| name.as_str().to_owned()).collect();
        state.register(&mut batch, &texts);
        state.seal(&mut batch);
        if let Err(error) = shared.kv().commit(&batch) {
            if error.is_suspect() {
                upkeep.suspect();
            }
            return Err(told(error));
        }
        state.committed();
        upkeep.committed(&batch, state.commits());
        // Before anything is asked for, it is known whether there is room.
        upkeep.tend(&shared, state.space.weights.sum(), clock.now()).map_err(told)?;
        let known = names.iter().filter_map(|name| Some((name.clone(), state.names.id_of(name.as_str())?))).collect();

        let (requests, inbox) = mpsc::channel(REQUESTS);
        let (head_sender, head) = watch::channel(state.head.next);
        let (relief_sender, relief) = watch::channel(Seq(0));
        let (replays_sender, replays) = watch::channel(0);
        let (failed_sender, failed) = watch::channel(None);
        let writer = Writer {
            shared: Arc::clone(&shared),
            state,
            upkeep,
            requests: inbox,
            relief: relief_sender,
            head: head_sender,
            replays: replays_sender,
            failed: failed_sender,
            clock,
        };
        let thread = writer.start().map_err(|error| told(error.into()))?;
        let thread = Arc::new(Mutex::new(Some(thread)));
        Ok(Self { shared, requests, head, replays, relief, space, failed, destinations: Arc::new(known), thread })
    }

    /// Opens the directory and starts its writer. Waits for the lock as long as `patience`.
    ///
    /// # Errors
    /// When the directory cannot be had, is damaged or cannot be written.
    pub async fn open(
        settings: super::Settings,
        names: Vec<DestinationName>,
        command: &'static str,
        patience: Duration,
        clock: Clock,
    ) -> Result<Self, OutboxError> {
        let open = move || {
            let store = Store::open_or_create(&settings.dir, command, patience)?;
            Self::start(store, &settings, &names, clock)
        };
        tokio::task::spawn_blocking(open).await.unwrap_or(Err(OutboxError::Closed))
    }

    /// The number of a destination that was named at the start.
    #[must_use]
    pub fn destination(&self, name: &DestinationName) -> Option<DestinationId> {
        self.destinations.get(name).copied()
    }

    /// The directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.shared.dir
    }

    /// Tells when the durable head has moved.
    #[must_use]
    pub fn watch_head(&self) -> watch::Receiver<Seq> {
        self.head.clone()
    }

    /// Tells when a replay has been asked for.
    #[must_use]
    pub fn watch_replays(&self) -> watch::Receiver<u64> {
        self.replays.clone()
    }

    /// Tells below which position workers are asked to move aside what they have pending, so that the log can be deleted.
    #[must_use]
    pub fn watch_relief(&self) -> watch::Receiver<Seq> {
        self.relief.clone()
    }

    /// Tells how it stands with room on the disk.
    #[must_use]
    pub fn watch_space(&self) -> watch::Receiver<Space> {
        self.space.clone()
    }

    /// Tells when a commit has failed: the process must stop taking events.
    #[must_use]
    pub fn watch_failure(&self) -> watch::Receiver<Option<OutboxError>> {
        self.failed.clone()
    }

    /// Commits what an answer of VK brought together with the ts that covers it. When this answers `Ok`, it is on disk.
    /// Cancel-safe in so far as the commit happens or not, whole.
    ///
    /// # Errors
    /// When it could not be made durable.
    pub async fn append(&self, append: Append) -> Result<Appended, OutboxError> {
        let (reply, answer) = oneshot::channel();
        self.ask(Request::Append(append, reply)).await?;
        answer.await.map_err(|_| OutboxError::Closed)?
    }

    /// Hands over what a worker settled; durable a little later.
    ///
    /// # Errors
    /// When the writer has ended.
    pub async fn settle(&self, settlement: Settlement) -> Result<(), OutboxError> {
        self.ask(Request::Settle(settlement, None)).await
    }

    /// Hands over what a worker settled and waits until it is durable.
    ///
    /// # Errors
    /// When it could not be made durable.
    pub async fn settle_durably(&self, settlement: Settlement) -> Result<(), OutboxError> {
        let (reply, answer) = oneshot::channel();
        self.ask(Request::Settle(settlement, Some(reply))).await?;
        answer.await.map_err(|_| OutboxError::Closed)?
    }

    /// Makes a replay of one destination's dead letters; returns its number.
    ///
    /// # Errors
    /// When it could not be made durable.
    pub async fn replay(
        &self,
        destination: DestinationId,
        filter: ReplayFilter,
        matched: u64,
    ) -> Result<u64, OutboxError> {
        let (reply, answer) = oneshot::channel();
        self.ask(Request::Replay { destination, filter, matched, reply }).await?;
        answer.await.map_err(|_| OutboxError::Closed)?
    }

    /// Commits what became of updates in quarantine.
    ///
    /// # Errors
    /// When it could not be made durable.
    pub async fn reconvert(&self, reconverted: Reconverted) -> Result<(), OutboxError> {
        let (reply, answer) = oneshot::channel();
        self.ask(Request::Reconvert(reconverted, reply)).await?;
        answer.await.map_err(|_| OutboxError::Closed)?
    }

    /// Takes updates out of quarantine for good, by their numbers; answers how many there were.
    ///
    /// # Errors
    /// When it could not be made durable.
    pub async fn discard_quarantined(&self, numbers: Vec<u64>) -> Result<u64, OutboxError> {
        let (reply, answer) = oneshot::channel();
        self.ask(Request::Discard(numbers, reply)).await?;
        answer.await.map_err(|_| OutboxError::Closed)?
    }

    async fn ask(&self, request: Request) -> Result<(), OutboxError> {
        self.requests.send(request).await.map_err(|_| match &*self.failed.borrow() {
            Some(error) => OutboxError::Poisoned(error.to_string()),
            None => OutboxError::Closed,
        })
    }

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
        let mut page = Page { events: Vec::new(), end: from };
        if let Some(chunks) = self.shared.window.read(from, READ_BYTES) {
            chunks.iter().for_each(|chunk| take(&mut page, chunk, id, from, limit));
        } else {
            let chunks = self.read_store(move |kv| log::read(kv, from, head, READ_BYTES)).await?;
            chunks.iter().for_each(|chunk| take(&mut page, chunk, id, from, limit));
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
        self.read_store(move |kv| Ok(rows::replays(kv)?.into_iter().filter(|(_, job)| job.destination == id).collect()))
            .await
    }

    /// The next updates in quarantine that a replay takes, after `after`.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn read_quarantine(
        &self,
        job: ReplayRecord,
        after: u64,
    ) -> Result<Vec<(u64, QuarantineRecord)>, OutboxError> {
        self.read_store(move |kv| {
            let mut found = Vec::new();
            rows::quarantined(kv, after.saturating_add(1), |number, record| {
                if number >= job.up_to.0 {
                    return Ok(false);
                }
                if job.filter.takes_quarantined(number, &record) {
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
    pub async fn read_replay(
        &self,
        number: u64,
        job: ReplayRecord,
        after: Seq,
    ) -> Result<Vec<DeadLetter>, OutboxError> {
        self.read_store(move |kv| rows::replayable(kv, number, &job, after)).await
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

    /// Commits what was asked for so far and ends the writer. Later requests answer [`OutboxError::Closed`].
    pub async fn close(&self) {
        // The writer may have ended by itself; then there is nothing to ask.
        let _ended = self.requests.send(Request::Close).await;
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            let _joined = tokio::task::spawn_blocking(move || thread.join()).await;
        }
    }
}

fn take(page: &mut Page, chunk: &Chunk, id: DestinationId, from: Seq, limit: Seq) {
    let inside = |seq: Seq| seq >= from && seq < limit;
    let ours = chunk.events.iter().filter(|logged| inside(logged.queued.seq) && logged.destinations.contains(&id));
    page.events.extend(ours.map(|logged| logged.queued.clone()));
    page.end = chunk.end().min(limit).max(page.end);
}
