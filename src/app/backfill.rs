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
use serde_json::value::RawValue;
use tokio::sync::watch;
use tokio::time::{Interval, MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use super::converter::Converter;
use crate::clock::Clock;
use crate::delivery::{BackoffSettings, backoff};
use crate::domain::convert::{Item, Nameless, Update, item, read_again};
use crate::domain::event::CHAT_BASE;
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
const CALLS_A_CHAT: u32 = 21;
/// How many calls there are for one gap in all: an hour of them.
const CALLS_IN_ALL: u32 = 36_000;
/// How often a call may fail before it is looked whether VK answers at all: if it does, this chat is left for later, and while
/// that goes on the next ones have one try each.
const TRIES: u32 = 8;
/// How often those are asked again, with [`BACKOFF`] between: for some six hours. Then VK refuses them.
const ROUNDS: u32 = 80;
/// How long live polling may take to catch up before fetching begins beside it.
const CATCH_UP: Duration = Duration::from_secs(30);
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
    /// Tells when polling has caught up with VK.
    pub(super) caught_up: watch::Receiver<()>,
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
            let jitter = StdRng::seed_from_u64(self.seed);
            let mut job = Job { of: &self, pace, calls: 0, tries: TRIES, jitter };
            loop {
                recorded.mark_unchanged();
                let gaps = self.outbox.gaps_to_fill(self.group).await?;
                if let Some(latest) = gaps.last() {
                    self.let_live_go_first().await;
                    let left = job.fill(*latest).await?;
                    self.outbox.fill(Filled::Over { gaps: gaps.clone(), left }).await?;
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
            let switched_off = told.switched_off;
            let refusal = told.refusal.unwrap_or_default();
            tracing::warn!(
                gap,
                recovered,
                absent,
                refused,
                left,
                switched_off,
                refusal,
                "messages that a gap swallowed were fetched back; buttons, reactions and edits cannot be"
            );
        }
        Ok(())
    }

    /// Waits until polling has caught up with VK, for a while: what is still to come live is not fetched.
    async fn let_live_go_first(&self) {
        let mut caught_up = self.caught_up.clone();
        caught_up.mark_unchanged();
        // Where events never stop, or VK does not answer, fetching begins all the same: no message comes twice.
        let _late = timeout(CATCH_UP, caught_up.changed()).await;
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
    /// How often the next call may fail.
    tries: u32,
    jitter: StdRng,
}

/// Which messages would have come live.
#[derive(Clone, Copy)]
struct Wants {
    new: bool,
    replies: bool,
}

impl Job<'_> {
    /// Gives every chat its turn, for all gaps up to this one, group chats before dialogs; how many had none.
    async fn fill(&mut self, up_to: u64) -> Result<u64, OutboxError> {
        let of = self.of;
        self.calls = 0;
        let wants = self.wants().await;
        let (mut left, mut later) = (0, Vec::new());
        for (first, last) in [(Some(CHAT_BASE), i64::MAX), (None, CHAT_BASE)] {
            let mut after = first;
            while let Some((peer, wanted)) = of.outbox.next_to_fill(of.group, after, last, up_to).await? {
                if self.calls >= CALLS_IN_ALL {
                    left += 1;
                } else if !self.chat(peer, wanted, up_to, wants, false).await? {
                    later.push(peer);
                }
                after = Some(peer);
            }
        }
        for round in 1..=ROUNDS {
            if later.is_empty() {
                break;
            }
            let pause = backoff::wait(&BACKOFF, round, self.jitter.random::<f64>());
            tracing::warn!(
                chats = later.len(),
                pause_s = pause.as_secs(),
                "VK tells nothing of some chats; they are asked for again"
            );
            of.clock.sleep(pause).await;
            let mut still = Vec::new();
            for peer in later {
                if let Some(wanted) = of.outbox.to_fill(of.group, peer, up_to).await?
                    && !self.chat(peer, wanted, up_to, wants, round == ROUNDS).await?
                {
                    still.push(peer);
                }
            }
            later = still;
        }
        Ok(left)
    }

    /// Which types the community has on. Where VK refuses to say, all that it tells is wanted.
    async fn wants(&mut self) -> Wants {
        let mut failures = 0;
        loop {
            self.pace.tick().await;
            match self.of.client.long_poll_settings().await {
                Ok(told) => {
                    let is_on = |name| told.events.get(name).is_some_and(|flag| flag.0);
                    return Wants { new: is_on("message_new"), replies: is_on("message_reply") };
                }
                Err(CallError::Api(error))
                    if matches!(error.class(), ErrorClass::Alarm | ErrorClass::NeverRetry | ErrorClass::NoData)
                        || failures >= TRIES =>
                {
                    return Wants { new: true, replies: true };
                }
                Err(error) => {
                    let slow = matches!(&error, CallError::Api(api) if api.class() == ErrorClass::LongPause);
                    self.wait(&error, &mut failures, slow).await;
                }
            }
        }
    }

    /// Asks for one chat until nothing is wanted any more. Answers no when VK tells nothing of it for now, unless this is the
    /// `last` time.
    async fn chat(
        &mut self,
        peer: i64,
        first: Wanted,
        up_to: u64,
        wants: Wants,
        last: bool,
    ) -> Result<bool, OutboxError> {
        let (of, mut wanted, mut calls) = (self.of, Some(first), 0);
        while let Some(now) = wanted {
            let turn = if calls == CALLS_A_CHAT {
                Turned::Left
            } else {
                calls += 1;
                let most = now.from.saturating_add(MESSAGES_A_CALL - 1);
                match self.ask(peer, now.from, now.to.map_or(most, |to| to.min(most)), wants).await {
                    Ok(turn) => turn,
                    Err(error) if last => Turned::Refused(error.to_string()),
                    Err(_) => return Ok(false),
                }
            };
            if let Turned::Refused(words) = &turn {
                tracing::warn!(peer, words, "VK refuses to tell the messages of a chat that a gap has swallowed");
            }
            of.wait_for_room().await;
            of.outbox.fill(Filled::Chat { group: of.group, peer, gap: now.gap, up_to, turn }).await?;
            wanted = of.outbox.to_fill(of.group, peer, up_to).await?;
        }
        Ok(true)
    }

    /// Asks until there is an answer, or a refusal. What is too much for one answer is asked for in halves; a half without
    /// any message is not the end of the chat. An error is VK's last one, when it answers, but not this.
    async fn ask(&mut self, peer: i64, first: i64, last: i64, wants: Wants) -> Result<Turned, CallError> {
        let (mut from, mut to) = (first, last);
        let (mut failures, mut tries) = (0, 0);
        loop {
            self.pace.tick().await;
            self.calls = self.calls.saturating_add(1);
            let error = match self.of.client.messages(peer, from..=to).await {
                Ok(raw) if raw.is_empty() && to < last => {
                    (from, to, failures, tries) = (to + 1, last, 0, 0);
                    continue;
                }
                Ok(raw) => {
                    self.tries = TRIES;
                    return Ok(self.of.convert(peer, (first, to), &raw, wants).await);
                }
                Err(error) => error,
            };
            let slow = match &error {
                CallError::Api(api) => match (api.code, api.class()) {
                    (7 | 15, _) | (_, ErrorClass::NoData | ErrorClass::NeverRetry) => {
                        self.tries = TRIES;
                        return Ok(Turned::Refused(error.to_string()));
                    }
                    (_, class) => class != ErrorClass::Transient,
                },
                CallError::TooLarge(_) if from == to => return Ok(self.of.too_large(peer, from, &error)),
                CallError::TooLarge(_) | CallError::Timeout if from < to => {
                    to = from + (to - from) / 2;
                    false
                }
                _ => false,
            };
            if !slow {
                tries += 1;
            }
            if tries == self.tries {
                tries = 0;
                // A VK that is away keeps nothing from us but time.
                if self.of.client.long_poll_settings().await.is_ok() {
                    self.tries = 1;
                    return Err(error);
                }
            }
            self.wait(&error, &mut failures, slow).await;
        }
    }

    async fn wait(&mut self, error: &CallError, failures: &mut u32, slow: bool) {
        *failures += 1;
        let settings = if slow { &SLOW_BACKOFF } else { &BACKOFF };
        let pause = backoff::wait(settings, *failures, self.jitter.random::<f64>());
        tracing::warn!(%error, pause_s = pause.as_secs(), "messages cannot be fetched back now; they are asked for again");
        self.of.clock.sleep(pause).await;
    }
}

impl Backfill {
    /// What VK had of what it was asked for, in order.
    async fn convert(&self, peer: i64, (from, to): (i64, i64), raw: &[Box<RawValue>], wants: Wants) -> Turned {
        let at = self.clock.now();
        let quarantined = |event_id: &EventId, reason: String, raw: &str| QuarantineRecord {
            group: self.group.get(),
            at,
            reason,
            event_id: event_id.to_string(),
            raw: raw.into(),
        };
        let (mut items, mut nameless) = (Vec::new(), Vec::new());
        for raw in raw {
            match item(self.group, peer, raw.get()) {
                Ok(item) => items.push(item),
                Err(Nameless { update, event_id, reason }) => nameless.push(quarantined(&event_id, reason, &update)),
            }
        }
        items.retain(|item| (from..=to).contains(&item.cmid));
        items.sort_by_key(|item| item.cmid);
        items.dedup_by_key(|item| item.cmid);
        let read = items.iter().map(|item| read_again(self.group, &item.event_id, &item.update));
        let read: Vec<Result<Update<'_>, String>> = read.collect();
        let book = self.converter.look_up(read.iter().flatten()).await;
        let mut writing = self.converter.writing(at, items.len());
        let mut became = |(item, read): (&Item, Result<Update<'_>, String>)| match read {
            _ if !(if item.ours { wants.replies } else { wants.new }) => FetchedAs::SwitchedOff,
            Ok(update) => {
                let (event, takers) = self.converter.event(update, &book, &mut writing);
                FetchedAs::Event(event, takers)
            }
            Err(reason) => FetchedAs::Unreadable(quarantined(&item.event_id, reason, &item.update)),
        };
        let messages = items.iter().zip(read).map(|pair| Fetched { cmid: pair.0.cmid, became: became(pair) }).collect();
        Turned::Asked { from, to, messages, nameless }
    }

    /// A single message that is more than an answer may hold.
    fn too_large(&self, peer: i64, cmid: i64, error: &CallError) -> Turned {
        let record = QuarantineRecord {
            group: self.group.get(),
            at: self.clock.now(),
            reason: error.to_string(),
            event_id: EventId::fetched(self.group, peer, cmid).to_string(),
            raw: format!("{{\"peer_id\":{peer},\"conversation_message_id\":{cmid}}}").into(),
        };
        let messages = vec![Fetched { cmid, became: FetchedAs::Unreadable(record) }];
        Turned::Asked { from: cmid, to: cmid, messages, nameless: Vec::new() }
    }
}
