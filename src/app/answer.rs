//! What becomes of an answer of VK: events with who takes them, updates that nobody takes, updates in quarantine; in one piece
//! with the ts that covers them. Part of [`Ingest`]. Deliberately absent: polling, committing (`ingest`).

use super::ingest::Ingest;
use crate::domain::convert::{Quarantined, read_answer};
use crate::domain::event::Source;
use crate::domain::ids::{GroupId, Ts};
use crate::domain::time::Moment;
use crate::outbox::records::QuarantineRecord;
use crate::outbox::{Append, Heard};
use crate::vk::Commit;

impl Ingest {
    /// What is committed of an answer of VK: its updates, read and converted.
    pub(super) async fn append(&self, commit: &Commit, asked: &Ts, raw: &[&str]) -> Append {
        let read = read_answer(self.group, asked, raw);
        let book = self.converter.look_up(read.iter().flatten()).await;
        let at = self.clock.now();
        let mut append = Append {
            group: self.group,
            ts: commit.ts().clone(),
            events: Vec::with_capacity(read.len()),
            unrouted: 0,
            quarantined: Vec::new(),
            gap: commit.gap().cloned(),
            heard: self.backfill.then(Vec::new),
            // Only a gap tells of it; to look at the board is to copy it.
            last_answer: commit.gap().and_then(|_| self.status.board().polling.heard),
        };
        let mut writing = self.converter.writing(at, read.len());
        for update in read {
            match update {
                Ok(update) => {
                    let message = update.new_message();
                    let takers = self.converter.takers(&update);
                    if let (Some(heard), Some((peer, cmid))) = (&mut append.heard, message)
                        && update.group() == self.group
                    {
                        let event = (!takers.is_empty()).then_some(append.events.len());
                        heard.push(Heard { peer, cmid, event });
                    }
                    match takers.is_empty() {
                        // Nobody wants its body.
                        true => append.unrouted += 1,
                        false => append.events.push((update.into_event(&book, &mut writing), Source::Live, takers)),
                    }
                }
                Err(bad) => append.quarantined.push(quarantine(self.group, at, bad)),
            }
        }
        append
    }
}

fn quarantine(group: GroupId, at: Moment, bad: Quarantined) -> QuarantineRecord {
    tracing::warn!(event_id = %bad.event_id, reason = bad.reason, "an update could not be read: it is in quarantine");
    QuarantineRecord {
        group: group.get(),
        at,
        reason: bad.reason,
        event_id: bad.event_id.to_string(),
        raw: bad.raw.into(),
    }
}
