//! What the writer does for the disk between commits: measures, says when room is short, and replaces a store that has
//! grown far beyond what is live by a copy. Deliberately absent: deleting (`trim`), the copy's form (`generations`).

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::copying::Copying;
use super::generations::Generations;
use super::handle::Shared;
use super::kv::{Batch, Kv, KvError};
use super::space::{self, Limits, Space, Usage};
use crate::domain::time::Moment;

/// How often the volume is asked while there are commits.
const MEASURE_EVERY: Duration = Duration::from_millis(250);
/// It is asked at once when what is live has changed by this part of the limit, or by that part of what was free.
const MEASURE_STEPS: u64 = 128;
const FREE_STEPS: u64 = 16;
/// With less left than this it is asked after every commit: the store may take several times what is committed.
const NEAR_FULL_BYTES: u64 = 256 << 20;
/// A store smaller than this is never copied.
const COPY_ABOVE_BYTES: u64 = 64 << 20;
/// A store is copied when its files are so many times what is live.
const COPY_FACTOR: u64 = 4;
/// Room that a copy needs besides what is live: the old store goes on growing meanwhile.
const COPY_ROOM_BYTES: u64 = 1 << 20;
/// How long no copy is begun after one has failed, or has given little back.
const COPY_REST: Duration = Duration::from_secs(600);

/// The writer's helper.
pub(super) struct Upkeep {
    generations: Box<dyn Generations>,
    limits: Limits,
    space: watch::Sender<Space>,
    measured: Option<Instant>,
    copying: Option<Copying>,
    /// The store that was replaced, until the last reader has left it.
    old: Option<Arc<dyn Kv>>,
    rests_until: Option<Instant>,
    /// What the files had when the last copy was begun, until it is known what it gave back.
    before: Option<u64>,
}

impl Upkeep {
    pub(super) fn new(generations: Box<dyn Generations>, limits: Limits, space: watch::Sender<Space>) -> Self {
        Self { generations, limits, space, measured: None, copying: None, old: None, rests_until: None, before: None }
    }

    /// How it stands with room.
    pub(super) fn space(&self) -> Space {
        self.space.borrow().clone()
    }

    /// The service starts without room: VK was last heard before, and that is what counts.
    pub(super) fn last_heard(&self, heard: Moment) {
        self.space.send_modify(|space| {
            if let Some(full) = &mut space.full {
                full.since = full.since.min(heard);
            }
        });
    }

    /// Whether there is something to do at once.
    pub(super) fn is_busy(&self) -> bool {
        self.copying.is_some()
    }

    /// A batch was committed to the store, the one with this number: that is noted, and the copy gets it as well.
    pub(super) fn committed(&mut self, batch: &Batch, commits: u64) {
        if let Err(error) = self.generations.witness(commits) {
            tracing::warn!(%error, "how many commits are durable could not be noted beside the store");
        }
        if let Some(copying) = &mut self.copying
            && let Err(error) = copying.mirror(batch)
        {
            self.give_up(&error);
        }
    }

    /// A bounded bit of work; `live` is what the store holds.
    ///
    /// # Errors
    /// When it is not certain any more which store is opened next.
    pub(super) fn tend(&mut self, shared: &Shared, live: u64, now: Moment) -> Result<(), KvError> {
        let last = self.space.borrow().usage;
        let step = (self.limits.max_bytes / MEASURE_STEPS).min(last.disk.free / FREE_STEPS);
        let grown = live.abs_diff(last.live) > step;
        let near = last.disk.free < NEAR_FULL_BYTES;
        if near || grown || self.measured.is_none_or(|at| at.elapsed() >= MEASURE_EVERY) {
            match shared.kv().disk() {
                Ok(disk) => self.measure(Usage { disk, live }, now),
                Err(error) => tracing::warn!(%error, "the room on the volume cannot be measured"),
            }
        }
        self.remove_old();
        if let Some(copying) = &mut self.copying {
            match copying.slice(shared.kv().as_ref()) {
                Ok(false) => {}
                Ok(true) => self.finish(shared)?,
                Err(error) => self.give_up(&error),
            }
        }
        Ok(())
    }

    fn measure(&mut self, usage: Usage, now: Moment) {
        self.measured = Some(Instant::now());
        let mut space = self.space();
        let before = space.full.is_some();
        space.measured(usage, &self.limits, now);
        match (&space.full, before) {
            (Some(full), false) => {
                let forgets = space::forgets_at(full.since).rfc3339();
                tracing::error!(
                    reason = full.why,
                    vk_may_forget_from = forgets,
                    "polling stops: no room; delivery goes on"
                );
            }
            (None, true) => tracing::info!("there is room again: polling goes on"),
            _ => {}
        }
        self.space.send_if_modified(|told| {
            let news = *told != space;
            *told = space.clone();
            news
        });
        if self.copying.is_none()
            && let Some(before) = self.before.take()
            && usage.disk.file > before / 2
        {
            // What is live is not all that there is: to copy it again at once would give as little back.
            self.rests_until = Some(Instant::now() + COPY_REST);
        }
        let rests = self.rests_until.is_some_and(|until| until > Instant::now());
        let Usage { disk, live } = usage;
        if !space.gave_way
            && let Err(error) = self.generations.lay_by(disk.free.saturating_sub(self.limits.min_free_bytes))
        {
            tracing::warn!(%error, "nothing can be kept in reserve for a full volume");
        }
        let grown = disk.file > COPY_ABOVE_BYTES && disk.file > live.saturating_mul(COPY_FACTOR);
        let grown = grown || (space.gave_way && usage.holds_slack());
        let fits = disk.free > live.saturating_mul(2) + COPY_ROOM_BYTES;
        if grown && fits && !rests && self.copying.is_none() && self.old.is_none() {
            self.before = Some(disk.file);
            self.begin();
        }
    }

    fn begin(&mut self) {
        match self.generations.begin() {
            Ok(to) => self.copying = Some(Copying::new(to)),
            Err(error) => self.give_up(&error),
        }
    }

    /// The copy is whole: from now on it is the store.
    fn finish(&mut self, shared: &Shared) -> Result<(), KvError> {
        let Some(copying) = self.copying.take() else { return Ok(()) };
        let pause = Instant::now();
        if let Err(error) = copying.to.sync() {
            drop(copying);
            self.give_up(&error);
            return Ok(());
        }
        if !self.generations.switch()? {
            drop(copying);
            self.give_up(&KvError::Io(std::io::Error::other("CURRENT could not be written")));
            return Ok(());
        }
        self.old = Some(shared.replace(copying.to));
        self.measured = None;
        let millis = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        tracing::info!(
            bytes = copying.bytes,
            took_ms = millis(copying.began.elapsed()),
            pause_ms = millis(pause.elapsed()),
            "the outbox was copied to give disk back"
        );
        Ok(())
    }

    /// The copy could not be made: the store stays as it is, and it is tried again later.
    fn give_up(&mut self, error: &KvError) {
        tracing::warn!(%error, "the outbox could not be copied to give disk back; it is tried again later");
        self.copying = None;
        self.generations.abandon();
        self.rests_until = Some(Instant::now() + COPY_REST);
    }

    /// The store that was replaced goes when nobody reads it any more.
    fn remove_old(&mut self) {
        match self.old.take() {
            Some(old) if Arc::strong_count(&old) > 1 => self.old = Some(old),
            Some(old) => {
                drop(old);
                if let Err(error) = self.generations.remove_old() {
                    tracing::warn!(%error, "the old copy of the outbox is still there; the next start removes it");
                }
            }
            None => {}
        }
    }

    /// After a failed commit: the next start must not trust what it reads back until it has copied it.
    pub(super) fn suspect(&mut self) {
        if let Err(error) = self.generations.suspect() {
            tracing::error!(%error, "that a commit failed could not be written down");
        }
    }

    /// Copies everything at once, if a commit failed in the last process.
    ///
    /// # Errors
    /// When there is no room for it, or the store cannot be read.
    pub(super) fn copy_suspect(&mut self, shared: &Shared, live: u64) -> Result<(), KvError> {
        if !self.generations.is_suspect() {
            return Ok(());
        }
        tracing::warn!("the last process could not be sure of its last commit: the outbox is copied first");
        let copied = self.copy_whole(shared.kv().as_ref());
        let to = copied.map_err(|error| {
            self.generations.abandon();
            match error {
                KvError::Io(error) | KvError::Unsynced(error) => {
                    let need = space::people(live.saturating_mul(2));
                    let words = format!("a commit of an earlier process failed, so the outbox is copied before it is trusted, which needs {need} on the volume: {error}");
                    KvError::Io(std::io::Error::new(error.kind(), words))
                }
                damaged => damaged,
            }
        })?;
        if !self.generations.switch()? {
            return Err(KvError::Io(std::io::Error::other("CURRENT could not be written")));
        }
        self.old = Some(shared.replace(to));
        Ok(())
    }

    fn copy_whole(&mut self, from: &dyn Kv) -> Result<Arc<dyn Kv>, KvError> {
        let mut copying = Copying::new(self.generations.begin()?);
        while !copying.slice(from)? {}
        copying.to.sync()?;
        Ok(copying.to)
    }
}
