//! Updates in quarantine, converted again when an operator asks: after an upgrade that can read them. A durable job: it goes
//! on after a restart, and an update leaves quarantine in the commit that puts its event into the log. Deliberately absent:
//! deciding which (`outbox::replay`).

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::converter::Converter;
use crate::clock::Clock;
use crate::domain::convert::read_again;
use crate::domain::event::Source;
use crate::domain::ids::{EventId, GroupId};
use crate::outbox::keys::QUARANTINE;
use crate::outbox::records::{QuarantineRecord, ReplayRecord};
use crate::outbox::{Outbox, OutboxError, Reconverted};

/// What the task is made of.
pub(super) struct Reconvert {
    /// Makes events of updates.
    pub(super) converter: Arc<Converter>,
    /// Where they are, and go.
    pub(super) outbox: Outbox,
    /// What time it is.
    pub(super) clock: Clock,
}

impl Reconvert {
    /// Converts what is asked for, until `stop`.
    ///
    /// # Errors
    /// When the outbox takes or gives nothing any more.
    pub(super) async fn run(self, stop: CancellationToken) -> Result<(), OutboxError> {
        let all = async {
            let mut asked = self.outbox.watch_replays();
            loop {
                asked.mark_unchanged();
                // Bit by bit: one that is cancelled meanwhile is not found again.
                match self.outbox.replays(QUARANTINE).await?.first() {
                    Some((number, job)) => self.convert(*number, job).await?,
                    None if asked.changed().await.is_err() => return Ok(()),
                    None => {}
                }
            }
        };
        tokio::select! {
            () = stop.cancelled() => Ok(()),
            ended = all => ended,
        }
    }

    /// Converts the next bit of what a replay takes.
    async fn convert(&self, replay: u64, job: &ReplayRecord) -> Result<(), OutboxError> {
        let rows = self.outbox.read_quarantine(job.clone()).await?;
        let next = rows.last().map(|(number, _)| number + 1);
        let mut page = Reconverted { events: Vec::new(), unreadable: Vec::new(), replay, next };
        for (number, record) in rows {
            self.one(number, &record, &mut page).await;
        }
        let (converted, unreadable) = (page.events.len(), page.unreadable.len());
        self.outbox.reconvert(page).await?;
        tracing::info!(
            replay,
            converted,
            unreadable,
            over = next.is_none(),
            "updates in quarantine were converted again"
        );
        Ok(())
    }

    async fn one(&self, number: u64, record: &QuarantineRecord, page: &mut Reconverted) {
        let raw = String::from_utf8_lossy(&record.raw);
        let (Ok(group), Ok(made)) = (GroupId::new(record.group), EventId::parse(&record.event_id)) else {
            page.unreadable.push((number, "the record names no community, or no id".to_owned()));
            return;
        };
        match read_again(group, &made, &raw) {
            Ok(update) => {
                let fetched = update.new_message().map(|(peer, cmid)| EventId::fetched(group, peer, cmid));
                let book = self.converter.look_up(std::iter::once(&update)).await;
                let mut writing = self.converter.writing(self.clock.now(), 1);
                let (event, takers) = self.converter.event(update, &book, &mut writing);
                let source = if fetched.as_ref() == Some(&event.event_id) { Source::Backfill } else { Source::Live };
                page.events.push((number, event, source, takers));
            }
            Err(reason) => page.unreadable.push((number, reason)),
        }
    }
}
