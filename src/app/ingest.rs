//! The loop that faces VK: poll, convert, route, commit, and only then go on. It carries out what `vk::session` says.
//!
//! Invariant: the ts moves only after the commit that covers it answered `Ok`. The loop may be dropped at any await: a poll
//! is asked again, a commit happens whole or not at all. Deliberately absent: what an answer means, what an event is.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::asking::Asking;
use super::converter::Converter;
use super::explain::explain;
use crate::clock::Clock;
use crate::delivery::{BackoffSettings, backoff};
use crate::domain::convert::mend;
use crate::domain::ids::{GroupId, Ts};
use crate::domain::time::Moment;
use crate::metrics::{Metrics, Polled};
use crate::outbox::{Outbox, OutboxError};
use crate::status::Status;
use crate::vk::wire::{PollReply, WireError, poll_reply};
use crate::vk::{CallError, Client, Commit, Session, Step};

/// Between polls that fail.
const POLL_BACKOFF: BackoffSettings = BackoffSettings {
    initial_interval: Duration::from_millis(500),
    multiplier: 2.0,
    max_interval: Duration::from_secs(30),
    randomization_factor: 0.5,
};
/// A checkpoint that has not moved is written again this often, to tell when VK was last heard.
const HEARD_EVERY: Duration = Duration::from_secs(60);
/// How many answers in a row that send us elsewhere are followed without a pause.
const DETOURS_AT_ONCE: u32 = 5;
/// A key that is refused as soon as it was given.
const KEYS_REFUSED: &str = "VK refuses each key as soon as it has given it (failed 2): a key is good for the address it was asked from, so look whether this service leaves by changing ones (several exits, a proxy)";
/// An answer with fewer updates than this, or one that was waited for, ends a backlog.
const BACKLOG_UPDATES: usize = 10;
/// An empty answer that comes at once is not asked for again before this.
const EMPTY_PAUSE: Duration = Duration::from_secs(1);

/// What the loop is made of.
pub struct Ingest {
    /// Calls VK.
    pub client: Client,
    /// Makes events of updates.
    pub converter: Arc<Converter>,
    /// Where events go.
    pub outbox: Outbox,
    /// The community.
    pub group: GroupId,
    /// Whether messages that gaps swallow are fetched back.
    pub backfill: bool,
    /// Tells that polling has caught up with VK.
    pub caught_up: watch::Sender<()>,
    /// Where it tells how it goes.
    pub status: Status,
    /// Where it counts.
    pub metrics: Metrics,
    /// What time it is.
    pub clock: Clock,
    /// Seed of the jitter.
    pub seed: u64,
}

impl Ingest {
    /// Takes events in until `stop`.
    ///
    /// # Errors
    /// When the outbox takes nothing any more.
    pub async fn run(self, stop: CancellationToken) -> Result<(), OutboxError> {
        let all = async {
            let checkpoint = self.outbox.checkpoint(self.group).await?;
            let committed = checkpoint.as_ref().map(|checkpoint| checkpoint.at);
            let mut intake = Intake {
                ingest: &self,
                session: Session::new(checkpoint.map(|checkpoint| checkpoint.ts)),
                failures: 0,
                detours: 0,
                committed,
                asking: Asking::new(self.clock.now()),
                jitter: StdRng::seed_from_u64(self.seed),
            };
            loop {
                intake.turn().await?;
            }
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => Ok(()),
            ended = all => ended,
        }
    }
}

struct Intake<'a> {
    ingest: &'a Ingest,
    session: Session,
    /// Polls in a row that brought no answer of sense.
    failures: u32,
    /// Answers in a row that sent us elsewhere: to another ts, for another key.
    detours: u32,
    /// When the checkpoint was last committed.
    committed: Option<Moment>,
    /// When a session is asked for.
    asking: Asking,
    jitter: StdRng,
}

impl Intake<'_> {
    /// Waits while the outbox has no room: VK keeps what is not taken, for a while.
    async fn wait_for_room(&mut self) {
        let mut space = self.ingest.outbox.watch_space();
        let mut waited = false;
        loop {
            let Some(full) = space.borrow_and_update().full.clone() else {
                if waited {
                    self.ingest.status.polling_goes_on();
                }
                return;
            };
            waited = true;
            self.ingest.status.polling_problem(self.ingest.clock.now(), full.words(), None);
            if space.changed().await.is_err() {
                return;
            }
        }
    }

    /// One step: a session or a poll, and what follows from it.
    async fn turn(&mut self) -> Result<(), OutboxError> {
        self.wait_for_room().await;
        self.renew_if_due().await;
        let Step::Poll { session, ts } = self.session.step() else {
            return self.open().await;
        };
        let (ts, start) = (ts.clone(), Instant::now());
        let body = match self.ingest.client.poll(session, &ts, self.failures).await {
            Ok(body) => body,
            Err(error) => {
                self.ingest.metrics.polled(Polled::Unreachable);
                self.fail(error.to_string()).await;
                return Ok(());
            }
        };
        let came = Instant::now();
        let text = mend(&body);
        let reply = poll_reply(&text);
        self.ingest.metrics.polled(polled(&reply));
        match reply {
            Ok(PollReply::Updates { ts: next, updates }) => {
                let raw: Vec<&str> = updates.iter().map(|update| update.get()).collect();
                let (stands, fast) = (next == ts, start.elapsed() < EMPTY_PAUSE);
                self.heard();
                if !(raw.is_empty() && stands) || self.checkpoint_is_old() {
                    let commit = self.session.updates(next);
                    self.take(commit, &ts, &raw).await?;
                }
                if !raw.is_empty() {
                    self.ingest.metrics.updates(raw.len());
                    self.ingest.metrics.answer_committed(came.elapsed());
                }
                if raw.len() < BACKLOG_UPDATES || !fast {
                    // VK has no backlog for us.
                    self.ingest.caught_up.send_replace(());
                }
                if stands && !raw.is_empty() {
                    tracing::warn!(ts = %ts, updates = raw.len(), "VK gives updates and does not move the ts: they come again with the next poll");
                }
                if fast && (stands || raw.is_empty()) {
                    self.ingest.clock.sleep(EMPTY_PAUSE).await;
                }
                self.failures = 0;
                self.detours = 0;
            }
            Ok(PollReply::Outdated { ts: Some(next) }) => {
                let commit = self.session.outdated(next);
                self.take(commit, &ts, &[]).await?;
                self.detour("VK says again and again that history is lost (failed 1)").await;
            }
            Ok(PollReply::Outdated { ts: None }) if self.session.outdated_nowhere() => {
                self.detour("VK says again and again that history is lost (failed 1), and not where to go on").await;
            }
            Ok(PollReply::Outdated { ts: None }) => {
                self.fail("VK says that history is lost (failed 1), and not where to go on".to_owned()).await;
            }
            Ok(PollReply::KeyExpired) => {
                tracing::info!("the Long Poll key has expired; a new one is asked for, ts stays");
                self.session.key_expired();
                self.detour(KEYS_REFUSED).await;
            }
            Ok(PollReply::Lost) => {
                self.session.lost();
                self.detour("VK says again and again that all history is lost (failed 3)").await;
            }
            Ok(PollReply::Unknown { code }) => {
                self.fail(format!("VK answers a poll with failed {code}, which nobody has explained")).await;
            }
            Err(error) => {
                self.fail(error.to_string()).await;
            }
        }
        Ok(())
    }

    /// Asks for a new session when ours is old, or polls bring nothing of sense. Ours is good until there is one: VK limits how
    /// often it gives them.
    async fn renew_if_due(&mut self) {
        let now = self.ingest.clock.now();
        if !self.asking.is_due(now) {
            return;
        }
        if matches!(self.session.step(), Step::Open) {
            // There is none to renew: one is asked for anyway.
            return;
        }
        let wait = self.asking.budget.wait(now);
        if !wait.is_zero() {
            self.asking.put_off(now.plus(wait));
            return;
        }
        self.asking.budget.take(now);
        match self.ingest.client.session().await {
            Ok(reply) => {
                tracing::info!("the Long Poll session is renewed; ts stays");
                // There is a ts, so there is nothing to commit.
                let _nothing = self.session.opened(reply);
                self.given();
            }
            Err(error) => {
                let pause = self.refused(&error);
                let (error, pause_ms) = (explain(&error), millis(pause));
                if self.asking.alarm().is_some() {
                    tracing::error!(
                        error,
                        pause_ms,
                        "VK gives no new Long Poll session; the one there is goes on while it lasts"
                    );
                } else {
                    tracing::warn!(
                        error,
                        pause_ms,
                        "no new Long Poll session is to be had now; the one there is goes on"
                    );
                }
                self.asking.hold(self.ingest.clock.now().plus(pause));
            }
        }
    }

    /// VK gave a session.
    fn given(&mut self) {
        self.asking.given(self.ingest.clock.now().plus(self.ingest.client.session_max_age()));
    }

    /// VK gave none; how long it is left alone.
    fn refused(&mut self, error: &CallError) -> Duration {
        self.asking.refused(error, self.jitter.random::<f64>())
    }

    async fn open(&mut self) -> Result<(), OutboxError> {
        let wait = self.asking.budget.wait(self.ingest.clock.now());
        if !wait.is_zero() {
            let words =
                "sessions were asked for often, and VK limits that: its keys do not last, or its answers make no sense; the log says which".to_owned();
            self.trouble(words, wait).await;
        }
        self.asking.budget.take(self.ingest.clock.now());
        match self.ingest.client.session().await {
            Ok(reply) => {
                self.given();
                tracing::info!("a Long Poll session is open");
                if self.failures == 0 && self.detours < DETOURS_AT_ONCE {
                    self.heard();
                }
                match self.session.opened(reply) {
                    Some(commit) => {
                        let asked = commit.ts().clone();
                        self.take(commit, &asked, &[]).await
                    }
                    None => Ok(()),
                }
            }
            Err(error) => {
                let pause = self.refused(&error);
                self.trouble(explain(&error), pause).await;
                Ok(())
            }
        }
    }

    /// Converts, routes and commits what an answer brought; then, and only then, the session goes on.
    async fn take(&mut self, commit: Commit, asked: &Ts, raw: &[&str]) -> Result<(), OutboxError> {
        let append = self.ingest.append(&commit, asked, raw).await;
        if let Some((from, cause)) = commit.gap() {
            tracing::error!(%from, to = %commit.ts(), cause, "VK has lost events: a gap is recorded");
        }
        let (events, unrouted) = (append.events.len(), append.unrouted);
        let done = self.ingest.outbox.append(append).await?;
        if !raw.is_empty() {
            tracing::debug!(updates = raw.len(), events, unrouted, repeats = done.repeats, ts = %commit.ts(), "committed");
        }
        self.committed = Some(self.ingest.clock.now());
        self.session.committed(commit);
        Ok(())
    }

    fn checkpoint_is_old(&self) -> bool {
        self.committed.is_none_or(|at| at.age(self.ingest.clock.now()) >= HEARD_EVERY)
    }

    fn heard(&self) {
        let now = self.ingest.clock.now();
        match self.asking.alarm() {
            Some((words, next_try)) => self.ingest.status.heard_in_trouble(now, words.to_owned(), next_try),
            None => self.ingest.status.heard(now),
        }
    }

    /// A poll brought nothing: wait before the next.
    async fn fail(&mut self, words: String) {
        if self.session.unreadable() {
            self.asking.wish(self.ingest.clock.now());
        }
        self.failures = self.failures.saturating_add(1);
        let pause = backoff::wait(&POLL_BACKOFF, self.failures, self.jitter.random::<f64>());
        self.trouble(words, pause).await;
    }

    /// VK answered and sent us elsewhere. We go there at once, since what it still has may be gone soon; only when it does so
    /// again and again, ever more slowly, and with words.
    async fn detour(&mut self, words: &str) {
        self.failures = 0;
        self.detours = self.detours.saturating_add(1);
        match self.detours.checked_sub(DETOURS_AT_ONCE).filter(|many| *many > 0) {
            Some(many) => {
                let pause = backoff::wait(&POLL_BACKOFF, many, self.jitter.random::<f64>());
                self.trouble(format!("{words}, {} times in a row", self.detours), pause).await;
            }
            None => self.heard(),
        }
    }

    async fn trouble(&self, words: String, pause: Duration) {
        let now = self.ingest.clock.now();
        tracing::warn!(error = words, pause_ms = millis(pause), "polling is in trouble; ts stays");
        self.ingest.status.polling_problem(now, words, Some(now.plus(pause)));
        self.ingest.clock.sleep(pause).await;
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// What came of a poll, as it is counted.
fn polled(reply: &Result<PollReply<'_>, WireError>) -> Polled {
    match reply {
        Ok(PollReply::Updates { updates, .. }) if updates.is_empty() => Polled::Empty,
        Ok(PollReply::Updates { .. }) => Polled::Updates,
        Ok(PollReply::Outdated { .. }) => Polled::Outdated,
        Ok(PollReply::KeyExpired) => Polled::KeyExpired,
        Ok(PollReply::Lost) => Polled::Lost,
        Ok(PollReply::Unknown { .. }) | Err(_) => Polled::Unusable,
    }
}
