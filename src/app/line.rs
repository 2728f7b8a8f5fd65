//! What a worker knows of its destination, bounded whatever the backlog, and what follows from each answer. It carries out
//! what `domain::lanes`, `domain::delivery` and `outbox::cursor` decide.
//!
//! Invariants: the cursor that is handed over never settles an event that was neither answered nor moved aside in the same
//! settlement; at most [`SETTLE_AFTER`] or [`SETTLE_EVENTS`] lie between an answer and its settlement.
//! Deliberately absent: sending and waiting (`worker`).

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::worker::Worker;
use crate::delivery::backoff;
use crate::domain::delivery::Outcome;
use crate::domain::event::Queued;
use crate::domain::ids::Seq;
use crate::domain::lanes::{Dispatch, Gate, LaneKey, Lanes};
use crate::domain::time::Moment;
use crate::outbox::records::{AttemptNote, History, OutageRecord, ReplayRecord};
use crate::outbox::{Change, Cursor, OutboxError, Place, Settlement};
use crate::status;

/// How long an answer may wait for its settlement.
const SETTLE_AFTER: Duration = Duration::from_millis(50);
/// How many answers are settled together at most.
const SETTLE_EVENTS: usize = 1000;
/// How long a cursor that passed events of others may wait to be stored.
const LOOKED_AFTER: Duration = Duration::from_secs(1);
/// How many events of live chats wait in memory at most.
const QUEUED_EVENTS: usize = 2048;
/// How many bytes of bodies they may have.
const QUEUED_BYTES: usize = 16 << 20;
/// How many chats of a destination may be aside; then reading waits.
const ASIDE_CHATS: usize = 10_000;
/// How many events of replays wait in memory, about.
const REPLAY_EVENTS: usize = 64;
/// How many attempts a history tells of, the latest ones.
const HISTORY_NOTES: usize = 10;

/// An attempt that is about to be made.
pub(super) struct Begun {
    pub(super) dispatch: Dispatch,
    pub(super) number: u32,
}

/// An attempt that is over.
pub(super) struct Done {
    pub(super) dispatch: Dispatch,
    pub(super) at: Moment,
    pub(super) outcome: Outcome,
    pub(super) latency: Duration,
}

/// A replay that is not done.
struct Job {
    number: u64,
    record: ReplayRecord,
    read_to: Seq,
    read_all: bool,
}

/// What the worker holds in memory; bounded whatever the backlog.
pub(super) struct Line<'a> {
    worker: &'a Worker,
    pub(super) lanes: Lanes,
    cursor: Cursor,
    histories: HashMap<(u64, Seq), History>,
    jobs: VecDeque<Job>,
    changes: Vec<Change>,
    /// When the oldest change came about.
    changed: Option<Instant>,
    /// When the cursor passed events without a change.
    looked: Option<Instant>,
    last_ok: Option<Moment>,
    outage: Option<OutageRecord>,
    last_error: Option<(Moment, String)>,
    jitter: StdRng,
}

impl<'a> Line<'a> {
    /// Goes on where the last process stopped.
    pub(super) async fn resume(worker: &'a Worker) -> Result<Self, OutboxError> {
        let resume = worker.outbox.resume(worker.id).await?;
        let record = resume.record;
        let known = Cursor::from_record(&record.cursor).ok_or_else(|| OutboxError::Damaged {
            dir: worker.outbox.dir().to_owned(),
            finding: format!("the cursor of {} contradicts itself", worker.name),
        })?;
        let mut line = Line {
            worker,
            lanes: Lanes::new(worker.concurrency),
            cursor: Cursor::at(known.floor()),
            histories: resume.histories.into_iter().map(|(seq, history)| ((0, seq), history)).collect(),
            jobs: VecDeque::new(),
            changes: Vec::new(),
            changed: None,
            looked: None,
            last_ok: record.last_ok,
            outage: record.outage,
            last_error: None,
            jitter: StdRng::seed_from_u64(worker.seed),
        };
        if let Some(outage) = &line.outage {
            line.last_error = Some((outage.since, outage.error.clone()));
            line.lanes.resume_outage(Instant::now());
        }
        for aside in resume.aside {
            line.lanes.resume_aside(aside.lane, aside.first, aside.last);
        }
        line.read_again(&known).await?;
        Ok(line)
    }

    /// Reads what the last process had read and not settled.
    async fn read_again(&mut self, known: &Cursor) -> Result<(), OutboxError> {
        while self.cursor.horizon() < known.horizon() {
            let page = self.worker.outbox.read(self.worker.id, self.cursor.horizon(), known.horizon()).await?;
            for event in page.events.into_iter().filter(|event| known.waits(event.seq)) {
                self.cursor.met(event.seq);
                self.offer(LaneKey::live(event.event.lane()), event);
            }
            self.cursor.looked(page.end);
        }
        Ok(())
    }

    fn offer(&mut self, key: LaneKey, event: Queued) {
        let not_before = self.not_before(key.replay, event.seq);
        self.lanes.offer(key, event, not_before);
    }

    /// When an event that was tried by an earlier process is due: as stored, but no later than its own interval from now.
    fn not_before(&mut self, replay: u64, seq: Seq) -> Option<Instant> {
        let history = self.histories.get(&(replay, seq))?;
        let next_try = history.next_try?;
        let rest = Duration::from_millis(u64::try_from(next_try.0 - self.worker.clock.now().0).unwrap_or(0));
        Some(Instant::now() + rest.min(backoff::interval(&self.worker.backoff, history.attempts)))
    }

    /// Reads what there is room for: events of the log, of chats aside, of replays.
    pub(super) async fn fill(&mut self) -> Result<(), OutboxError> {
        self.load_aside().await?;
        let head = self.worker.outbox.watch_head();
        while self.cursor.horizon() < *head.borrow() {
            let (events, bytes) = self.lanes.queued();
            if events >= QUEUED_EVENTS || bytes >= QUEUED_BYTES || self.cursor.horizon() >= self.cursor.limit() {
                let moved = self.lanes.move_blocked_aside(ASIDE_CHATS.saturating_sub(self.lanes.aside()));
                if moved.is_empty() {
                    break;
                }
                moved.into_iter().for_each(|event| self.move_aside(event));
                self.flush_durably().await?;
                continue;
            }
            self.read_page().await?;
        }
        self.fill_replays().await
    }

    /// Room on the disk is short: what is pending below `below` goes aside with its chats, so that the log can be deleted.
    pub(super) async fn relieve(&mut self, below: Seq) -> Result<(), OutboxError> {
        // An outage may have kept the reader from looking so far: what it has not seen cannot be moved.
        while self.cursor.horizon() < below && self.cursor.horizon() < self.cursor.limit() {
            self.read_page().await?;
        }
        let most = ASIDE_CHATS.saturating_sub(self.lanes.aside());
        let moved = self.lanes.move_old_aside(below, most);
        moved.into_iter().for_each(|event| self.move_aside(event));
        self.flush_durably().await
    }

    async fn read_page(&mut self) -> Result<(), OutboxError> {
        let page = self.worker.outbox.read(self.worker.id, self.cursor.horizon(), self.cursor.limit()).await?;
        let mut aside = false;
        for event in page.events {
            self.cursor.met(event.seq);
            let lane = event.event.lane();
            if self.lanes.is_aside(lane) {
                self.lanes.moved_aside(lane, event.seq);
                self.move_aside(event);
                aside = true;
            } else {
                self.offer(LaneKey::live(lane), event);
            }
        }
        self.cursor.looked(page.end);
        self.looked.get_or_insert_with(Instant::now);
        // Rows can be read back only once they are durable.
        if aside { self.flush_durably().await } else { Ok(()) }
    }

    fn move_aside(&mut self, event: Queued) {
        self.cursor.settle(event.seq);
        self.change(Change::MovedAside { event });
    }

    async fn load_aside(&mut self) -> Result<(), OutboxError> {
        while let Some((lane, after)) = self.lanes.to_load() {
            let events = self.worker.outbox.read_aside(self.worker.id, lane, after).await?;
            let not_before = events.first().and_then(|event| self.not_before(0, event.seq));
            if !self.lanes.loaded(lane, events, not_before) {
                let finding = format!("events of {lane} that were moved aside for {} are gone", self.worker.name);
                return Err(OutboxError::Damaged { dir: self.worker.outbox.dir().to_owned(), finding });
            }
        }
        Ok(())
    }

    pub(super) async fn take_replays(&mut self) -> Result<(), OutboxError> {
        for (number, record) in self.worker.outbox.replays(self.worker.id).await? {
            if self.jobs.iter().all(|job| job.number < number) {
                self.jobs.push_back(Job { number, record, read_to: Seq(0), read_all: false });
            }
        }
        Ok(())
    }

    async fn fill_replays(&mut self) -> Result<(), OutboxError> {
        while let Some(job) = self.jobs.front_mut() {
            if job.read_all {
                let number = job.number;
                if self.lanes.has_replay(number) {
                    return Ok(());
                }
                self.jobs.pop_front();
                self.change(Change::ReplayDone { replay: number });
                tracing::info!(destination = %self.worker.name, replay = number, "replay done");
                continue;
            }
            if self.lanes.replaying() >= REPLAY_EVENTS {
                return Ok(());
            }
            let letters = self.worker.outbox.read_replay(job.number, job.record.clone(), job.read_to).await?;
            job.read_all = letters.is_empty();
            let number = job.number;
            if let Some(last) = letters.last() {
                job.read_to = last.queued.seq;
            }
            for letter in letters {
                self.histories.insert((number, letter.queued.seq), History { next_try: None, ..letter.history });
                let key = LaneKey { replay: number, lane: letter.queued.event.lane() };
                self.offer(key, letter.queued);
            }
        }
        Ok(())
    }

    pub(super) fn begin(&self, dispatch: Dispatch) -> Begun {
        let history = self.histories.get(&(dispatch.key.replay, dispatch.event.seq));
        Begun { number: history.map_or(1, |history| history.attempts + 1), dispatch }
    }

    pub(super) fn finish(&mut self, done: Done) {
        let Done { dispatch, at, outcome, latency } = done;
        let (key, seq) = (dispatch.key, dispatch.event.seq);
        let latency_ms = u32::try_from(latency.as_millis()).unwrap_or(u32::MAX);
        let known = self.histories.remove(&(key.replay, seq));
        let from = if dispatch.aside { Place::Aside(key.lane) } else { Place::Log };
        let destination = &self.worker.name;
        match outcome {
            Outcome::Delivered { status } => {
                tracing::debug!(%destination, %seq, event_id = %dispatch.event.event.event_id, status, latency_ms, "delivered");
                self.last_ok = Some(at);
                self.change(match key.replay {
                    0 => Change::Delivered { seq, from, tried: known.is_some() },
                    _ => Change::ReplayDelivered { seq },
                });
                self.answered(&dispatch);
            }
            Outcome::Refused { status, excerpt } => {
                tracing::error!(%destination, %seq, event_id = %dispatch.event.event.event_id, status, latency_ms, "refused: dead letter");
                let reason = format!("the handler refused it with HTTP {status}");
                let note = AttemptNote { at, answer: format!("HTTP {status}"), latency_ms, excerpt };
                let history = tried(known, note, None);
                self.change(match key.replay {
                    0 => Change::Died { event: dispatch.event.clone(), from, at, reason, history },
                    replay => Change::ReplayRefused { seq, replay, at, reason, history },
                });
                self.answered(&dispatch);
            }
            Outcome::Failed { failure, excerpt, retry_after } => {
                let words = failure.to_string();
                let note = AttemptNote { at, answer: words.clone(), latency_ms, excerpt };
                let mut history = tried(known, note, None);
                let (settings, jitter) = (&self.worker.backoff, &mut self.jitter);
                let mut wait = |attempt| backoff::wait(settings, attempt, jitter.random::<f64>());
                let (pause, began) = self.lanes.failed(key, Instant::now(), history.attempts, retry_after, &mut wait);
                history.next_try = Some(self.worker.clock.now().plus(pause));
                let (attempt, error) = (history.attempts, words.as_str());
                tracing::warn!(%destination, %seq, event_id = %dispatch.event.event.event_id, attempt, error, latency_ms, "attempt failed");
                self.histories.insert((key.replay, seq), history.clone());
                if key.replay == 0 {
                    self.change(Change::Tried { seq, history });
                }
                if began {
                    tracing::error!(%destination, error, "destination is down: its events wait in the outbox");
                    self.outage = Some(OutageRecord { since: at, error: words.clone() });
                }
                self.last_error = Some((at, words));
            }
        }
    }

    /// The handler answered: the event is settled and an outage, if there was one, is over.
    fn answered(&mut self, dispatch: &Dispatch) {
        if dispatch.key.replay == 0 && !dispatch.aside {
            self.cursor.settle(dispatch.event.seq);
        }
        if self.lanes.answered(dispatch.key, Instant::now())
            && let Some(outage) = self.outage.take()
        {
            let since = outage.since.rfc3339();
            tracing::info!(destination = %self.worker.name, since, "destination answers again");
        }
    }

    fn change(&mut self, change: Change) {
        self.changes.push(change);
        self.changed.get_or_insert_with(Instant::now);
    }

    /// The next moment at which something is to be done without anything happening.
    pub(super) fn due(&self) -> Option<Instant> {
        let flush = self.changed.map(|since| since + SETTLE_AFTER);
        let looked = self.looked.map(|since| since + LOOKED_AFTER);
        [flush, looked, self.lanes.next_due()].into_iter().flatten().min()
    }

    pub(super) async fn flush_if_due(&mut self) -> Result<(), OutboxError> {
        let now = Instant::now();
        let late = |since: Option<Instant>, span| since.is_some_and(|since| since + span <= now);
        if self.changes.len() >= SETTLE_EVENTS || late(self.changed, SETTLE_AFTER) || late(self.looked, LOOKED_AFTER) {
            let settlement = self.settlement();
            self.worker.outbox.settle(settlement).await?;
        }
        Ok(())
    }

    pub(super) async fn flush_durably(&mut self) -> Result<(), OutboxError> {
        let settlement = self.settlement();
        self.worker.outbox.settle_durably(settlement).await
    }

    fn settlement(&mut self) -> Settlement {
        self.changed = None;
        self.looked = None;
        Settlement {
            destination: self.worker.id,
            cursor: self.cursor.clone(),
            changes: std::mem::take(&mut self.changes),
            last_ok: self.last_ok,
            outage: self.outage.clone(),
        }
    }

    pub(super) fn publish(&self, in_flight: usize) {
        let (now, wall) = (Instant::now(), self.worker.clock.now());
        let gate = self.lanes.gate(now);
        let next = match gate {
            Gate::Open => self.lanes.next_retry(),
            Gate::Held { until } => Some(until),
            Gate::Down { next_probe } => Some(next_probe),
        };
        let destination = status::Destination {
            in_flight,
            waiting_chats: self.lanes.waiting(),
            aside_chats: self.lanes.aside(),
            replaying: self.lanes.replaying(),
            gate: match gate {
                Gate::Open => status::Gate::Open,
                Gate::Held { .. } => status::Gate::Held,
                Gate::Down { .. } => status::Gate::Down,
            },
            next_try: next.map(|next| wall.plus(next.saturating_duration_since(now))),
            last_error: self.last_error.clone(),
        };
        self.worker.status.destination(&self.worker.name, destination);
    }
}

/// Adds an attempt to what was tried.
fn tried(known: Option<History>, note: AttemptNote, next_try: Option<Moment>) -> History {
    let mut history = known.unwrap_or_else(|| History { since: note.at, ..History::default() });
    history.attempts = history.attempts.saturating_add(1);
    history.next_try = next_try;
    if history.notes.len() == HISTORY_NOTES {
        history.notes.remove(0);
    }
    history.notes.push(note);
    history
}
