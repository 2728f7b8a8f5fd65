//! What a worker knows of its destination, bounded whatever the backlog, and what follows from each answer. It carries out
//! what `domain::lanes`, `domain::delivery` and `outbox::cursor` decide.
//!
//! Invariants: the cursor that is handed over never settles an event that was neither answered nor moved aside in the same
//! settlement; at most [`SETTLE_AFTER`] or [`SETTLE_EVENTS`] lie between an answer and its settlement.
//! Deliberately absent: sending and waiting (`worker`), reading from the outbox (`reading`), what is told of it (`told`).

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::replaying::Job;
use super::told::Made;
use super::worker::Worker;
use crate::delivery::backoff;
use crate::domain::delivery::{Death, Outcome};
use crate::domain::event::Queued;
use crate::domain::ids::Seq;
use crate::domain::lanes::{Dispatch, Gate, LaneKey, Lanes, Withdrawn};
use crate::domain::time::Moment;
use crate::outbox::records::{AttemptNote, History, OutageRecord};
use crate::outbox::{Change, Cursor, Discard, OutboxError, Place, Settlement};
use crate::status;

/// How long an answer may wait for its settlement.
const SETTLE_AFTER: Duration = Duration::from_millis(50);
/// How many answers are settled together at most.
const SETTLE_EVENTS: usize = 1000;
/// How long a cursor that passed events of others may wait to be stored.
const LOOKED_AFTER: Duration = Duration::from_secs(1);
/// How much of an error a history tells of: all of it fits one value of the store.
pub(super) const NOTE_CHARS: usize = 300;
/// How many bytes of bodies go into one request of several events, but for the first one's.
const BATCH_BYTES: usize = 1 << 20;
/// How many attempts a history tells of, the latest ones.
const HISTORY_NOTES: usize = 10;

/// An attempt that is about to be made.
pub(super) struct Begun {
    pub(super) dispatch: Dispatch,
    /// What goes along with it.
    pub(super) along: Vec<Dispatch>,
    pub(super) number: u32,
}

/// An attempt that is over.
pub(super) struct Done {
    pub(super) dispatch: Dispatch,
    /// What went along with it.
    pub(super) along: Vec<Dispatch>,
    pub(super) at: Moment,
    pub(super) outcome: Outcome,
    pub(super) latency: Duration,
}

/// What the worker holds in memory; bounded whatever the backlog.
pub(super) struct Line<'a> {
    pub(super) worker: &'a Worker,
    pub(super) lanes: Lanes,
    pub(super) cursor: Cursor,
    pub(super) histories: HashMap<(u64, Seq), History>,
    pub(super) jobs: VecDeque<Job>,
    /// How many dead letters operators had discarded when that was last looked at.
    pub(super) discards: u64,
    pub(super) changes: Vec<Change>,
    /// When the oldest change came about.
    changed: Option<Instant>,
    /// When the cursor passed events without a change.
    pub(super) looked: Option<Instant>,
    pub(super) last_ok: Option<Moment>,
    outage: Option<OutageRecord>,
    pub(super) last_error: Option<(Moment, String)>,
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
            discards: 0,
            changes: Vec::new(),
            changed: None,
            looked: None,
            last_ok: record.last_ok,
            outage: record.outage,
            last_error: None,
            jitter: StdRng::seed_from_u64(worker.seed),
        };
        // What was tried before is the last that is known, until something is tried again.
        let notes = line.histories.values().filter_map(|history| history.notes.last());
        line.last_error = notes.max_by_key(|note| note.at).map(|note| (note.at, note.answer.clone()));
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

    /// An event is about to be sent, and with it what may go along.
    pub(super) fn begin(&mut self, dispatch: Dispatch) -> Begun {
        let history = self.histories.get(&(dispatch.key.replay, dispatch.event.seq));
        let number = history.map_or(1, |history| history.attempts + 1);
        let room = BATCH_BYTES.saturating_sub(dispatch.event.event.body.len());
        let worker = self.worker;
        let along = self.lanes.along(&dispatch, worker.batch_max - 1, room, &|event| !is_too_old(worker, event));
        Begun { dispatch, along, number }
    }

    /// Whether an event is too old to be sent; what is replayed never is.
    pub(super) fn is_expired(&self, dispatch: &Dispatch) -> bool {
        dispatch.key.replay == 0 && is_too_old(self.worker, &dispatch.event)
    }

    /// An event is too old: it is not sent.
    pub(super) fn expire(&mut self, dispatch: Dispatch) {
        self.lanes.passed_over(dispatch.key, Instant::now());
        self.settle(&dispatch);
        self.histories.remove(&(0, dispatch.event.seq));
        let at = self.worker.clock.now();
        self.tell_expired(&dispatch, at);
        let from = place_of(&dispatch);
        self.change(Change::Expired { event: dispatch.event, from, at });
    }

    pub(super) fn finish(&mut self, done: Done) {
        if !done.along.is_empty() {
            return self.finish_batch(done);
        }
        let Done { dispatch, at, outcome, latency, .. } = done;
        let (key, seq) = (dispatch.key, dispatch.event.seq);
        let latency_ms = u32::try_from(latency.as_millis()).unwrap_or(u32::MAX);
        let known = self.histories.remove(&(key.replay, seq));
        let from = place_of(&dispatch);
        let made = Made::of(&dispatch, known.as_ref(), 1, at, latency_ms);
        match outcome {
            Outcome::Delivered { status } => {
                self.tell_delivered(&made, status);
                self.time(&dispatch, at, latency);
                self.last_ok = Some(at);
                self.change(match key.replay {
                    0 => Change::Delivered { seq, from, tried: known.is_some() },
                    _ => Change::ReplayDelivered { seq, replay: key.replay },
                });
                self.answered(&dispatch);
            }
            Outcome::Refused { status, excerpt } => {
                let death = Death::Refused(status);
                let note = AttemptNote { at, answer: format!("HTTP {status}"), latency_ms, excerpt };
                let history = tried(known, note, None);
                self.tell_refused(&made, status, &death, &history);
                self.change(death_of(&dispatch, at, death, history));
                self.answered(&dispatch);
            }
            Outcome::Failed { failure, excerpt, retry_after } => {
                let words = failure.to_string();
                let answer = words.chars().take(NOTE_CHARS).collect();
                let note = AttemptNote { at, answer, latency_ms, excerpt };
                let mut history = tried(known, note, None);
                let counts = match key.replay {
                    0 => self.lanes.counts(key, history.counted > 0, failure.is_plain()),
                    // It is dead already: that nobody else is answered keeps it from nothing.
                    _ => failure.is_plain() && !self.lanes.is_down(),
                };
                history.counted = history.counted.saturating_add(u32::from(counts));
                let counted = history.counted;
                let (settings, jitter) = (&self.worker.backoff, &mut self.jitter);
                let mut wait = |attempt| backoff::wait(settings, attempt, jitter.random::<f64>());
                let began = if counts && counted >= self.worker.max_attempts {
                    let began = self.lanes.given_up(key, Instant::now(), retry_after, &mut wait);
                    let death = Death::GivenUp { counted, last: words.chars().take(NOTE_CHARS).collect() };
                    self.tell_given_up(&made, &failure, &death, &history);
                    self.settle(&dispatch);
                    self.change(death_of(&dispatch, at, death, history));
                    began
                } else {
                    let (pause, began) =
                        self.lanes.failed(key, Instant::now(), history.attempts, retry_after, &mut wait);
                    history.next_try = Some(self.worker.clock.now().plus(pause));
                    self.tell_failed(&made, &failure, &history);
                    self.histories.insert((key.replay, seq), history.clone());
                    match key.replay {
                        0 => self.change(Change::Tried { seq, history }),
                        _ => self.forget_if_cancelled(key),
                    }
                    began
                };
                if let Some(outage) = &mut self.outage {
                    outage.error.clone_from(&words);
                }
                if began {
                    let (destination, error) = (&self.worker.name, words.as_str());
                    tracing::error!(%destination, error, "destination is down: its events wait in the outbox");
                    self.outage = Some(OutageRecord { since: at, error: words.clone() });
                }
                self.last_error = Some((at, words));
            }
        }
    }

    /// How long an event took from its receipt to its 2xx; of what is replayed that would tell nothing.
    pub(super) fn time(&self, dispatch: &Dispatch, at: Moment, latency: Duration) {
        if dispatch.key.replay == 0 {
            self.worker.attempting.delivered(dispatch.event.event.received_at.age(at) + latency);
        }
    }

    /// The handler answered: the event is settled and an outage, if there was one, is over.
    fn answered(&mut self, dispatch: &Dispatch) {
        self.settle(dispatch);
        self.outage_over(dispatch.key);
    }

    /// A random number for the spread of a wait.
    pub(super) fn draw(&mut self) -> f64 {
        self.jitter.random::<f64>()
    }

    /// The handler answered a request that began with this chat.
    pub(super) fn outage_over(&mut self, key: LaneKey) {
        if self.lanes.answered(key, Instant::now()) {
            self.answers_again();
        }
    }

    /// An outage is over.
    pub(super) fn answers_again(&mut self) {
        if let Some(outage) = self.outage.take() {
            let since = outage.since.rfc3339();
            tracing::info!(destination = %self.worker.name, since, "destination answers again");
        }
    }

    /// An operator takes a pending event out.
    pub(super) async fn discard(&mut self, order: Discard) -> Result<(), OutboxError> {
        let (seq, at) = (order.seq, self.worker.clock.now());
        let answer = match self.lanes.withdraw(seq, Instant::now()) {
            Withdrawn::Taken { lane, aside } => {
                if !aside {
                    self.cursor.settle(seq);
                }
                self.histories.remove(&(0, seq));
                let from = if aside { Place::Aside(lane) } else { Place::Log };
                self.change(Change::Discarded { seq, from, at });
                self.flush_durably().await?;
                tracing::warn!(destination = %self.worker.name, %seq, "discarded by an operator");
                Ok(())
            }
            Withdrawn::InFlight => {
                Err("it is being sent at this moment; ask again when the attempt is over".to_owned())
            }
            Withdrawn::Unknown => {
                Err("the worker has not come to it yet, or it is settled: discard what blocks its chat".to_owned())
            }
        };
        // Who asked may have gone.
        let _gone = order.reply.send(answer);
        Ok(())
    }

    /// The event is done with, as far as the log is concerned.
    pub(super) fn settle(&mut self, dispatch: &Dispatch) {
        if dispatch.key.replay == 0 && !dispatch.aside {
            self.cursor.settle(dispatch.event.seq);
        }
    }

    pub(super) fn change(&mut self, change: Change) {
        self.changes.push(change);
        self.changed.get_or_insert_with(Instant::now);
    }

    /// The next moment at which something is to be done without anything happening, given when something is to be sent.
    pub(super) fn due(&self, send: Option<Instant>) -> Option<Instant> {
        let flush = self.changed.map(|since| since + SETTLE_AFTER);
        let looked = self.looked.map(|since| since + LOOKED_AFTER);
        [flush, looked, send].into_iter().flatten().min()
    }

    /// Whether as much is to be settled as goes into one settlement.
    pub(super) fn is_full(&self) -> bool {
        self.changes.len() >= SETTLE_EVENTS
    }

    pub(super) async fn flush_if_due(&mut self) -> Result<(), OutboxError> {
        let now = Instant::now();
        let late = |since: Option<Instant>, span| since.is_some_and(|since| since + span <= now);
        if self.is_full() || late(self.changed, SETTLE_AFTER) || late(self.looked, LOOKED_AFTER) {
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

/// Whether an event is older than its destination takes.
fn is_too_old(worker: &Worker, event: &Queued) -> bool {
    worker.max_age.is_some_and(|most| event.event.received_at.age(worker.clock.now()) > most)
}

/// Where an event that was sent is kept.
pub(super) fn place_of(dispatch: &Dispatch) -> Place {
    if dispatch.aside { Place::Aside(dispatch.key.lane) } else { Place::Log }
}

/// An event will not be sent again, or not by this replay.
fn death_of(dispatch: &Dispatch, at: Moment, death: Death, history: History) -> Change {
    match dispatch.key.replay {
        0 => Change::Died { event: dispatch.event.clone(), from: place_of(dispatch), at, death, history },
        replay => Change::ReplayRefused { seq: dispatch.event.seq, replay, at, death, history },
    }
}

/// Adds an attempt to what was tried.
pub(super) fn tried(known: Option<History>, note: AttemptNote, next_try: Option<Moment>) -> History {
    let mut history = known.unwrap_or_else(|| History { since: note.at, ..History::default() });
    history.attempts = history.attempts.saturating_add(1);
    history.next_try = next_try;
    if history.notes.len() == HISTORY_NOTES {
        history.notes.remove(0);
    }
    history.notes.push(note);
    history
}
