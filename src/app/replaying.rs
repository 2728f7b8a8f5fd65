//! How a worker carries out replays, one after the other and beside live traffic: takes up what is asked for, reads it bit by
//! bit, no faster than it may, lets go of what is cancelled. Part of [`Line`]. Deliberately absent: which rows are meant
//! (`outbox::replay`), what follows from an answer (`line`), how many places replays get (`domain::lanes`).

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};

use super::line::Line;
use crate::domain::ids::Seq;
use crate::domain::lanes::{Gate, LaneKey};
use crate::outbox::records::{History, ReplayRecord};
use crate::outbox::rows::DeadLetter;
use crate::outbox::{Change, OutboxError};

/// How many events of replays wait in memory, about.
const REPLAY_EVENTS: usize = 64;

/// A replay that is not over.
pub(super) struct Job {
    number: u64,
    record: ReplayRecord,
    read_to: Seq,
    read_all: bool,
    /// What was read and has not its turn yet.
    letters: VecDeque<DeadLetter>,
    /// Holds first attempts back, if anything does.
    pace: Option<DefaultDirectRateLimiter>,
    /// When the next of them has its turn, if time alone brings it.
    due: Option<Instant>,
}

impl Job {
    fn new(number: u64, record: ReplayRecord) -> Self {
        let quota = Quota::with_period(Duration::from_micros(record.order.interval_us));
        let (read_to, read_all, letters, due) = (Seq(0), false, VecDeque::new(), None);
        Self { number, record, read_to, read_all, letters, pace: quota.map(RateLimiter::direct), due }
    }
}

impl Line<'_> {
    /// Takes up the replays that are asked for, and lets go of those that are cancelled.
    pub(super) async fn take_replays(&mut self) -> Result<(), OutboxError> {
        let asked = self.worker.outbox.replays(self.worker.id).await?;
        let known: Vec<u64> = self.jobs.iter().map(|job| job.number).collect();
        for number in known.iter().filter(|known| asked.iter().all(|(number, _)| number != *known)) {
            self.jobs.retain(|job| job.number != *number);
            self.forget(*number);
            tracing::info!(destination = %self.worker.name, replay = number, "replay cancelled");
        }
        let fresh = asked.into_iter().filter(|(number, _)| known.last().is_none_or(|last| last < number));
        self.jobs.extend(fresh.map(|(number, record)| Job::new(number, record)));
        Ok(())
    }

    /// What waits of a replay is not sent, and what is in flight not again.
    fn forget(&mut self, replay: u64) {
        self.lanes.cancel(replay);
        self.histories.retain(|(number, _), _| *number != replay);
    }

    /// After a failure: what belongs to a replay that is cancelled is not tried again.
    pub(super) fn forget_if_cancelled(&mut self, key: LaneKey) {
        if key.replay > 0 && self.jobs.iter().all(|job| job.number != key.replay) {
            self.forget(key.replay);
        }
    }

    /// When the next event of a replay has its turn, if time alone brings it.
    pub(super) fn replay_due(&self) -> Option<Instant> {
        self.jobs.front()?.due
    }

    /// Brings in what there is room for, and has its turn.
    pub(super) async fn fill_replays(&mut self) -> Result<(), OutboxError> {
        while let Some(job) = self.jobs.front_mut() {
            job.due = None;
            if self.lanes.replaying() >= REPLAY_EVENTS {
                return Ok(());
            }
            let number = job.number;
            if !job.letters.is_empty() {
                if let Some(pace) = &job.pace {
                    // What is not sent now would go out at once later.
                    match self.lanes.gate(Instant::now()) {
                        Gate::Open if !self.paused => {}
                        Gate::Held { until } => {
                            job.due = Some(until);
                            return Ok(());
                        }
                        Gate::Open | Gate::Down { .. } => return Ok(()),
                    }
                    if let Err(too_early) = pace.check() {
                        job.due = Some(too_early.earliest_possible());
                        return Ok(());
                    }
                }
                let Some(DeadLetter { queued, history }) = job.letters.pop_front() else { continue };
                self.histories.insert((number, queued.seq), History { next_try: None, counted: 0, ..history });
                self.offer(LaneKey { replay: number, lane: queued.event.lane() }, queued);
            } else if !job.read_all {
                job.letters = self.worker.outbox.read_replay(number, job.record.clone(), job.read_to).await?.into();
                job.read_all = job.letters.is_empty();
                job.read_to = job.letters.back().map_or(job.read_to, |last| last.queued.seq);
            } else if self.lanes.has_replay(number) {
                return Ok(());
            } else {
                self.jobs.pop_front();
                self.change(Change::ReplayDone { replay: number, at: self.worker.clock.now() });
                // The next replay must not find what this one has delivered.
                self.flush_durably().await?;
                tracing::info!(destination = %self.worker.name, replay = number, "replay done");
            }
        }
        Ok(())
    }
}
