//! How a worker carries out replays, one after the other and beside live traffic: takes up what is asked for, reads it bit by
//! bit, lets go of what is cancelled or discarded. Part of [`Line`]. Deliberately absent: which rows are meant
//! (`outbox::replay`), what follows from an answer (`line`), how many places replays get and how fast they go
//! (`domain::lanes`).

use std::time::Duration;

use super::line::Line;
use crate::domain::ids::Seq;
use crate::domain::lanes::LaneKey;
use crate::outbox::records::{History, ReplayRecord};
use crate::outbox::{Change, OutboxError};

/// How many events of replays wait in memory, about.
const REPLAY_EVENTS: usize = 64;

/// A replay that is not over.
pub(super) struct Job {
    number: u64,
    record: ReplayRecord,
    /// Nothing of it is here, and it is read from its beginning: what is settled is not found there.
    unread: bool,
    read_to: Seq,
    read_all: bool,
}

impl Line<'_> {
    /// Takes up the replays that are asked for, and lets go of those that are cancelled, and of what was discarded.
    pub(super) async fn take_replays(&mut self, discards: u64) -> Result<(), OutboxError> {
        let asked = self.worker.outbox.replays(self.worker.id).await?;
        let known: Vec<u64> = self.jobs.iter().map(|job| job.number).collect();
        for number in known.iter().filter(|known| asked.iter().all(|(number, _)| number != *known)) {
            self.jobs.retain(|job| job.number != *number);
            self.forget(*number);
            tracing::info!(destination = %self.worker.name, replay = number, "replay cancelled");
        }
        let fresh = asked.into_iter().filter(|(number, _)| known.last().is_none_or(|last| last < number));
        let job = |(number, record)| Job { number, record, unread: true, read_to: Seq(0), read_all: false };
        self.jobs.extend(fresh.map(job));
        if std::mem::replace(&mut self.discards, discards) != discards
            && let Some(job) = self.jobs.front_mut()
        {
            // What it holds may be among what was discarded.
            (job.unread, job.read_to, job.read_all) = (true, Seq(0), false);
            let number = job.number;
            self.forget(number);
        }
        Ok(())
    }

    /// What waits of a replay is not sent, and what is in flight not again.
    fn forget(&mut self, replay: u64) {
        self.lanes.cancel(replay);
        self.histories.retain(|(number, _), _| *number != replay);
    }

    /// After a failure: what belongs to a replay that is cancelled, or that is read again, is not tried again.
    pub(super) fn forget_if_cancelled(&mut self, key: LaneKey) {
        if self.jobs.iter().all(|job| job.number != key.replay || job.unread) {
            self.forget(key.replay);
        }
    }

    /// Brings in what there is room for. Answers whether there is more to be read at once.
    pub(super) async fn fill_replays(&mut self) -> Result<bool, OutboxError> {
        while let Some(job) = self.jobs.front() {
            let (number, here) = (job.number, self.lanes.replaying());
            if job.unread {
                // What is in flight, or delivered and not yet settled, must not be found once more.
                if here > 0 {
                    return Ok(false);
                }
                self.lanes.pace_replays(Duration::from_micros(job.record.order.interval_us));
                self.flush_durably().await?;
                self.jobs.iter_mut().take(1).for_each(|job| job.unread = false);
            } else if job.read_all && here == 0 {
                self.jobs.pop_front();
                self.change(Change::ReplayDone { replay: number, at: self.worker.clock.now() });
                self.flush_durably().await?;
                tracing::info!(destination = %self.worker.name, replay = number, "replay done");
            } else if job.read_all || here >= REPLAY_EVENTS {
                return Ok(false);
            } else {
                let page = self.worker.outbox.read_replay(number, job.record.clone(), job.read_to).await?;
                let nothing = page.letters.is_empty() && page.next.is_some();
                if let Some(job) = self.jobs.front_mut() {
                    (job.read_to, job.read_all) = (page.next.unwrap_or(job.read_to), page.next.is_none());
                }
                for letter in page.letters {
                    let history = History { next_try: None, counted: 0, ..letter.history };
                    self.histories.insert((number, letter.queued.seq), history);
                    self.offer(LaneKey { replay: number, lane: letter.queued.event.lane() }, letter.queued);
                }
                if nothing {
                    // Answers are looked after meanwhile.
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }
}
