//! What the floors above hold of the outbox: it is opened and closed here, and its writer is asked. Cheap to clone.
//! Deliberately absent: reading (`reads`), deciding anything.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc, oneshot, watch};

use super::error::OutboxError;
use super::keys::DestinationId;
use super::kv::{Batch, Kv, KvError};
use super::lock::Lock;
use super::open::Store;
use super::records::PauseRecord;
use super::requests::{Append, Appended, Filled, Operation, Reconverted, Settlement};
use super::space::Space;
use super::state::State;
use super::upkeep::Upkeep;
use super::window::Window;
use super::writer::{Pauses, REQUESTS, Request, Writer};
use crate::clock::Clock;
use crate::domain::ids::{DestinationName, GroupId, Seq};
use crate::metrics::Commits;

/// How many looks that may read all of the outbox are taken at once.
const SCANS: usize = 3;

/// What the handles and the writer share.
pub(super) struct Shared {
    /// The store; another one after a copy has replaced it. A reader keeps the one that it began with.
    kv: RwLock<Arc<dyn Kv>>,
    pub(super) dir: PathBuf,
    pub(super) window: Window,
    /// Places for those who may read all of it.
    pub(super) scans: Arc<Semaphore>,
    /// Where it is told how long commits take, if anybody wants to know.
    pub(super) commits: OnceLock<Commits>,
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
    pub(super) shared: Arc<Shared>,
    requests: mpsc::Sender<Request>,
    pub(super) head: watch::Receiver<Seq>,
    replays: watch::Receiver<u64>,
    gaps: watch::Receiver<u64>,
    pauses: watch::Receiver<Pauses>,
    relief: watch::Receiver<Seq>,
    space: watch::Receiver<Space>,
    failed: watch::Receiver<Option<OutboxError>>,
    destinations: Arc<HashMap<DestinationName, DestinationId>>,
    thread: Arc<Mutex<Option<JoinHandle<()>>>>,
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
        let shared = Shared {
            kv: RwLock::new(kv),
            dir: dir.clone(),
            window: Window::default(),
            scans: Arc::new(Semaphore::new(SCANS)),
            commits: OnceLock::new(),
            _lock: lock,
        };
        let shared = Arc::new(shared);
        upkeep.copy_suspect(&shared, state.space.weights.sum()).map_err(told)?;
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
        state.last_heard().into_iter().for_each(|heard| upkeep.last_heard(heard));
        let known = names.iter().filter_map(|name| Some((name.clone(), state.names.id_of(name.as_str())?))).collect();

        let (requests, inbox) = mpsc::channel(REQUESTS);
        let (head_sender, head) = watch::channel(state.head.next);
        let (relief_sender, relief) = watch::channel(Seq(0));
        let (replays_sender, replays) = watch::channel(0);
        let (gaps_sender, gaps) = watch::channel(state.head.next_gap);
        let (pauses_sender, pauses) = watch::channel(state.pauses());
        let (failed_sender, failed) = watch::channel(None);
        let writer = Writer {
            shared: Arc::clone(&shared),
            state,
            upkeep,
            requests: inbox,
            relief: relief_sender,
            head: head_sender,
            replays: replays_sender,
            gaps: gaps_sender,
            pauses: pauses_sender,
            failed: failed_sender,
            clock,
        };
        let thread = writer.start().map_err(|error| told(error.into()))?;
        let thread = Arc::new(Mutex::new(Some(thread)));
        Ok(Self {
            shared,
            requests,
            head,
            replays,
            gaps,
            pauses,
            relief,
            space,
            failed,
            destinations: Arc::new(known),
            thread,
        })
    }

    /// Tells from now on how long commits take; the first who asks is told.
    pub fn measure(&self, commits: Commits) {
        let _told_already = self.shared.commits.set(commits);
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

    /// Tells when a replay has been asked for or cancelled, and how many times dead letters were discarded.
    #[must_use]
    pub fn watch_replays(&self) -> watch::Receiver<u64> {
        self.replays.clone()
    }

    /// Tells when a gap has been recorded.
    #[must_use]
    pub fn watch_gaps(&self) -> watch::Receiver<u64> {
        self.gaps.clone()
    }

    /// Tells which destinations an operator has paused; a pause that is over may be among them.
    #[must_use]
    pub fn watch_pauses(&self) -> watch::Receiver<BTreeMap<DestinationId, PauseRecord>> {
        self.pauses.clone()
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
        self.answered(|reply| Request::Append(append, reply)).await
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
        self.answered(|reply| Request::Settle(settlement, Some(reply))).await
    }

    /// Commits what became of updates in quarantine.
    ///
    /// # Errors
    /// When it could not be made durable.
    pub async fn reconvert(&self, reconverted: Reconverted) -> Result<(), OutboxError> {
        self.answered(|reply| Request::Reconvert(reconverted, reply)).await
    }

    /// Commits what became of messages that a gap has swallowed.
    ///
    /// # Errors
    /// When it could not be made durable.
    pub async fn fill(&self, filled: Filled) -> Result<(), OutboxError> {
        self.answered(|reply| Request::Fill(filled, reply)).await
    }

    /// Forgets where the messages of a community stand, and gives up what gaps of it were still to be filled.
    ///
    /// # Errors
    /// When the store cannot be read, or that could not be made durable.
    pub async fn forget_chats(&self, group: GroupId) -> Result<(), OutboxError> {
        while self.keeps_chats(group).await? {
            self.fill(Filled::Off(group)).await?;
        }
        Ok(())
    }

    /// Does what an operator asks for, in one commit; answers for each how many rows, or destinations, it changed, or the number
    /// of what it made.
    ///
    /// # Errors
    /// When it could not be made durable.
    pub async fn operate(&self, operations: Vec<Operation>) -> Result<Vec<u64>, OutboxError> {
        self.answered(|reply| Request::Operate(operations, reply)).await
    }

    /// Asks the writer and waits until what was asked for is durable.
    async fn answered<T>(
        &self,
        request: impl FnOnce(oneshot::Sender<Result<T, OutboxError>>) -> Request,
    ) -> Result<T, OutboxError> {
        let (reply, answer) = oneshot::channel();
        self.ask(request(reply)).await?;
        answer.await.map_err(|_| OutboxError::Closed)?
    }

    async fn ask(&self, request: Request) -> Result<(), OutboxError> {
        self.requests.send(request).await.map_err(|_| match &*self.failed.borrow() {
            Some(error) => OutboxError::Poisoned(error.to_string()),
            None => OutboxError::Closed,
        })
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
