//! Fetches back the messages that a gap has swallowed: chat by chat, at most a hundred a call, behind live traffic. A durable
//! job: what is still to be asked for stands in the outbox, and each answer is committed with what it settles, so that it
//! goes on after a restart and no message comes twice.
//!
//! Chats that were never heard before the gap, button presses, reactions, edits and everything that is no message cannot be
//! fetched: VK has no way to ask for them. Deliberately absent: what is missing (`outbox::chats`).

use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::time::{Interval, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::converter::Converter;
use crate::clock::Clock;
use crate::delivery::{BackoffSettings, backoff};
use crate::domain::convert::{Item, Update, item, read_again, update_of};
use crate::domain::ids::{EventId, GroupId};
use crate::outbox::chats::Wanted;
use crate::outbox::records::QuarantineRecord;
use crate::outbox::{Fetched, FetchedAs, Filled, Outbox, OutboxError, Turned};
use crate::vk::{CallError, Client, ErrorClass};

/// How many messages a call asks for: VK's limit.
const MESSAGES_A_CALL: i64 = 100;
/// Between two calls: half of what VK allows is left to names and sessions.
const BETWEEN_CALLS: Duration = Duration::from_millis(100);
/// How many calls a chat gets for one gap.
const CALLS_A_CHAT: u32 = 10;
/// How many calls there are for one gap in all: an hour of them.
const CALLS_IN_ALL: u32 = 36_000;
/// How often VK may answer an error that goes by itself before it counts as a refusal of this chat.
const TRIES: u32 = 8;
/// Between calls that fail.
const BACKOFF: BackoffSettings = BackoffSettings {
    initial_interval: Duration::from_secs(2),
    multiplier: 2.0,
    max_interval: Duration::from_secs(300),
    randomization_factor: 0.5,
};
/// Between calls that VK limits (29), or refuses for the sake of the token.
const SLOW_BACKOFF: BackoffSettings = BackoffSettings { initial_interval: Duration::from_secs(60), ..BACKOFF };

/// What the task is made of.
pub(super) struct Backfill {
    /// Calls VK.
    pub(super) client: Client,
    /// Makes events of messages.
    pub(super) converter: Arc<Converter>,
    /// Where gaps are recorded, and events go.
    pub(super) outbox: Outbox,
    /// The community.
    pub(super) group: GroupId,
    /// What time it is.
    pub(super) clock: Clock,
    /// Seed of the jitter.
    pub(super) seed: u64,
}

impl Backfill {
    /// Fetches what gaps have swallowed, until `stop`.
    ///
    /// # Errors
    /// When the outbox takes or gives nothing any more.
    pub(super) async fn run(self, stop: CancellationToken) -> Result<(), OutboxError> {
        let all = async {
            let mut recorded = self.outbox.watch_gaps();
            let mut pace = interval(BETWEEN_CALLS);
            pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let mut job = Job { of: &self, pace, calls: 0, jitter: StdRng::seed_from_u64(self.seed) };
            loop {
                recorded.mark_unchanged();
                let gaps = self.outbox.gaps_to_fill(self.group).await?;
                if let Some(latest) = gaps.last() {
                    job.fill(*latest).await?;
                    self.outbox.fill(Filled::Over(gaps.clone())).await?;
                    self.tell(gaps).await?;
                } else if recorded.changed().await.is_err() {
                    return Ok(());
                }
            }
        };
        tokio::select! {
            () = stop.cancelled() => Ok(()),
            ended = all => ended,
        }
    }

    async fn tell(&self, gaps: Vec<u64>) -> Result<(), OutboxError> {
        for (gap, told) in self.outbox.backfills(gaps).await? {
            let (recovered, absent, refused, left) = (told.recovered, told.absent, told.refused, told.left);
            let refusal = told.refusal.unwrap_or_default();
            tracing::warn!(
                gap,
                recovered,
                absent,
                refused,
                left,
                refusal,
                "messages that a gap swallowed were fetched back; buttons, reactions and edits cannot be"
            );
        }
        Ok(())
    }

    /// Waits while the outbox has no room.
    async fn wait_for_room(&self) {
        // A writer that has ended is told of by the next request.
        let mut space = self.outbox.watch_space();
        let _room = space.wait_for(|space| space.full.is_none()).await;
    }
}

/// One pass over the chats.
struct Job<'a> {
    of: &'a Backfill,
    pace: Interval,
    calls: u32,
    jitter: StdRng,
}

impl Job<'_> {
    /// Gives every chat its turn, for all gaps up to this one.
    async fn fill(&mut self, up_to: u64) -> Result<(), OutboxError> {
        let (of, mut after) = (self.of, None);
        self.calls = 0;
        let replies = self.replies_are_on().await;
        while let Some((peer, wanted)) = of.outbox.next_to_fill(of.group, after, up_to).await? {
            self.chat(peer, wanted, up_to, replies).await?;
            after = Some(peer);
        }
        Ok(())
    }

    /// Whether the community's own messages come live; unless VK says so they do not.
    async fn replies_are_on(&mut self) -> bool {
        self.pace.tick().await;
        let told = self.of.client.long_poll_settings().await;
        told.is_ok_and(|told| told.events.get("message_reply").is_some_and(|flag| flag.0))
    }

    /// Asks for one chat until nothing is wanted any more.
    async fn chat(&mut self, peer: i64, first: Wanted, up_to: u64, replies: bool) -> Result<(), OutboxError> {
        let (of, mut wanted, mut calls) = (self.of, Some(first), 0);
        while let Some(now) = wanted {
            let turn = if calls == CALLS_A_CHAT || self.calls >= CALLS_IN_ALL {
                Turned::Left
            } else {
                calls += 1;
                let last = now.from.saturating_add(MESSAGES_A_CALL - 1);
                self.ask(peer, now.from, now.to.map_or(last, |to| to.min(last)), replies).await
            };
            of.wait_for_room().await;
            of.outbox.fill(Filled::Chat { group: of.group, peer, gap: now.gap, up_to, turn }).await?;
            wanted = of.outbox.to_fill(of.group, peer, up_to).await?;
        }
        Ok(())
    }

    /// Asks until there is an answer, or a refusal.
    async fn ask(&mut self, peer: i64, from: i64, to: i64, replies: bool) -> Turned {
        let (mut failures, mut answers) = (0, 0);
        loop {
            self.pace.tick().await;
            self.calls = self.calls.saturating_add(1);
            let error = match self.of.client.messages(peer, from..=to).await {
                Ok(raw) => {
                    return Turned::Asked { from, to, messages: self.of.convert(peer, from, to, &raw, replies).await };
                }
                Err(error) => error,
            };
            let slow = match &error {
                CallError::Api(api) => match (api.code, api.class()) {
                    (7 | 15, _) | (_, ErrorClass::NoData | ErrorClass::NeverRetry) => {
                        return Turned::Refused(error.to_string());
                    }
                    (_, ErrorClass::Transient) => {
                        answers += 1;
                        if answers == TRIES {
                            return Turned::Refused(error.to_string());
                        }
                        false
                    }
                    (_, ErrorClass::LongPause | ErrorClass::Alarm) => true,
                },
                _ => false,
            };
            failures += 1;
            let settings = if slow { &SLOW_BACKOFF } else { &BACKOFF };
            let pause = backoff::wait(settings, failures, self.jitter.random::<f64>());
            tracing::warn!(%error, pause_s = pause.as_secs(), "messages cannot be fetched back now; they are asked for again");
            self.of.clock.sleep(pause).await;
        }
    }
}

impl Backfill {
    /// What VK had of what it was asked for, in order.
    async fn convert(
        &self,
        peer: i64,
        from: i64,
        to: i64,
        raw: &[Box<serde_json::value::RawValue>],
        replies: bool,
    ) -> Vec<Fetched> {
        let mut items: Vec<_> = raw.iter().filter_map(|raw| item(self.group, raw)).collect();
        items.retain(|item| (from..=to).contains(&item.cmid));
        items.sort_by_key(|item| item.cmid);
        items.dedup_by_key(|item| item.cmid);
        let texts: Vec<String> = items.iter().map(|item| update_of(self.group, peer, item)).collect();
        let made = |cmid| EventId::fetched(self.group, peer, cmid);
        let read = items.iter().zip(&texts).map(|(item, text)| read_again(self.group, &made(item.cmid), text));
        let read: Vec<Result<Update<'_>, String>> = read.collect();
        let book = self.converter.look_up(read.iter().flatten()).await;
        let at = self.clock.now();
        let became = |(item, text, read): (&Item<'_>, &String, Result<Update<'_>, String>)| match read {
            _ if item.ours && !replies => FetchedAs::SwitchedOff,
            Ok(update) => {
                let (event, takers) = self.converter.event(update, &book, at);
                FetchedAs::Event(event, takers)
            }
            Err(reason) => FetchedAs::Unreadable(QuarantineRecord {
                group: self.group.get(),
                at,
                reason,
                event_id: made(item.cmid).to_string(),
                raw: text.clone().into(),
            }),
        };
        let all = items.iter().zip(&texts).zip(read);
        all.map(|((item, text), read)| Fetched { cmid: item.cmid, became: became((item, text, read)) }).collect()
    }
}
