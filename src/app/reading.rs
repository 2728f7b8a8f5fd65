//! How a worker reads: the log from its cursor on, chats that were moved aside; as much as there is room for in memory. Part
//! of [`Line`]. Deliberately absent: what follows from an answer (`line`), replays (`replaying`).

use std::time::{Duration, Instant};

use super::line::Line;
use crate::delivery::backoff;
use crate::domain::event::Queued;
use crate::domain::ids::Seq;
use crate::domain::lanes::LaneKey;
use crate::outbox::{Change, Cursor, OutboxError};

/// How many events of live chats wait in memory at most.
const QUEUED_EVENTS: usize = 2048;
/// How many of them a chat keeps that has more than half of them.
const KEPT_EVENTS: usize = 256;
/// How many bytes of bodies they may have.
const QUEUED_BYTES: usize = 16 << 20;
/// How many chats of a destination may be aside; then reading waits.
const ASIDE_CHATS: usize = 10_000;
/// How many pages of the log, and how many chats aside, are read before answers are looked after again.
const FILL_PAGES: usize = 8;
const FILL_CHATS: usize = 256;
/// How many events of chats aside wait in memory, about, but for the first of each; and of one chat at most.
const ASIDE_EVENTS: usize = 2048;
const ASIDE_ROWS: usize = 32;

impl Line<'_> {
    /// Reads what the last process had read and not settled.
    pub(super) async fn read_again(&mut self, known: &Cursor) -> Result<(), OutboxError> {
        while self.cursor.horizon() < known.horizon() {
            let page = self.worker.outbox.read(self.worker.id, self.cursor.horizon(), known.horizon()).await?;
            for event in page.events.into_iter().filter(|event| known.waits(event.seq)) {
                self.take_in(event);
            }
            self.cursor.looked(page.end);
        }
        // Not before all is read: a cursor that has looked less far would forget what is settled above it.
        if self.changes.is_empty() { Ok(()) } else { self.flush_durably().await }
    }

    /// An event of the log, for the first time: it waits in its lane, or goes aside with the rest of its chat. Answers
    /// whether it did; rows can be read back only once they are durable.
    fn take_in(&mut self, event: Queued) -> bool {
        self.cursor.met(event.seq);
        let lane = event.event.lane();
        let aside = self.lanes.is_aside(lane);
        if aside {
            self.lanes.moved_aside(lane, event.seq);
            self.move_aside(event);
        } else {
            self.offer(LaneKey::live(lane), event);
        }
        aside
    }

    pub(super) fn offer(&mut self, key: LaneKey, event: Queued) {
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
    /// Answers whether there is more to be read at once: requests in flight must be looked after meanwhile.
    pub(super) async fn fill(&mut self) -> Result<bool, OutboxError> {
        let mut more = self.load_aside().await?;
        let head = self.worker.outbox.watch_head();
        let mut pages = 0;
        while self.cursor.horizon() < *head.borrow() {
            if pages == FILL_PAGES {
                more = true;
                break;
            }
            pages += 1;
            let (events, bytes) = self.lanes.queued();
            if events >= QUEUED_EVENTS || bytes >= QUEUED_BYTES || self.cursor.horizon() >= self.cursor.limit() {
                let room = ASIDE_CHATS.saturating_sub(self.lanes.aside());
                let mut moved = self.lanes.move_blocked_aside(room);
                if moved.is_empty() && room > 0 && !self.lanes.is_down() {
                    moved = self.lanes.move_longest_aside(QUEUED_EVENTS / 2, KEPT_EVENTS);
                }
                if moved.is_empty() {
                    break;
                }
                moved.into_iter().for_each(|event| self.move_aside(event));
                self.flush_durably().await?;
                continue;
            }
            self.read_page().await?;
        }
        more |= self.fill_replays().await?;
        Ok(more)
    }

    /// Room on the disk is short: what is pending below `below` goes aside with its chats, so that the log can be deleted.
    pub(super) async fn relieve(&mut self, below: Seq) -> Result<(), OutboxError> {
        // An outage may have kept the reader from looking so far: what it has not seen cannot be moved.
        while self.cursor.horizon() < below && self.cursor.horizon() < self.cursor.limit() {
            self.read_page().await?;
        }
        let most = ASIDE_CHATS.saturating_sub(self.lanes.aside());
        let moved = self.lanes.move_old_aside(below, most);
        if moved.is_empty() {
            return Ok(());
        }
        moved.into_iter().for_each(|event| self.move_aside(event));
        self.flush_durably().await
    }

    async fn read_page(&mut self) -> Result<(), OutboxError> {
        let page = self.worker.outbox.read(self.worker.id, self.cursor.horizon(), self.cursor.limit()).await?;
        let mut aside = false;
        for event in page.events {
            aside |= self.take_in(event);
        }
        self.cursor.looked(page.end);
        self.looked.get_or_insert_with(Instant::now);
        if aside { self.flush_durably().await } else { Ok(()) }
    }

    fn move_aside(&mut self, event: Queued) {
        self.cursor.settle(event.seq);
        self.change(Change::MovedAside { event });
    }

    async fn load_aside(&mut self) -> Result<bool, OutboxError> {
        // The fewer chats there are, the more of each is read at a time.
        let rows = (ASIDE_EVENTS / self.lanes.aside().max(1)).clamp(1, ASIDE_ROWS);
        for _ in 0..FILL_CHATS {
            let Some((lane, after)) = self.lanes.to_load() else { return Ok(false) };
            let events = self.worker.outbox.read_aside(self.worker.id, lane, after, rows).await?;
            let not_before = events.first().and_then(|event| self.not_before(0, event.seq));
            if !self.lanes.loaded(lane, events, not_before) {
                let finding = format!("events of {lane} that were moved aside for {} are gone", self.worker.name);
                return Err(OutboxError::Damaged { dir: self.worker.outbox.dir().to_owned(), finding });
            }
        }
        Ok(true)
    }
}
