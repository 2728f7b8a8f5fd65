//! The loop of one destination: sends what the lanes say, and sleeps until an answer, the head, a replay, or the next due
//! time. What it knows and what follows from an answer is in `line`. Deliberately absent: polling for anything.

use std::future::{pending, ready};
use std::time::{Duration, Instant};

use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use tokio::sync::mpsc;
use tokio::time::{sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::line::{Begun, Done, Line};
use crate::attempts::Attempts;
use crate::clock::Clock;
use crate::delivery::{Attempt, BackoffSettings, Sender};
use crate::domain::ids::{DestinationName, Seq};
use crate::metrics::Attempting;
use crate::outbox::keys::DestinationId;
use crate::outbox::{Discard, Outbox, OutboxError};
use crate::status::Status;

/// How long attempts in flight may go on once the service stops.
const GRACE: Duration = Duration::from_secs(5);

/// What a worker is made of.
pub struct Worker {
    /// The destination.
    pub name: DestinationName,
    /// Its number in the outbox.
    pub id: DestinationId,
    /// How retries are spaced.
    pub backoff: BackoffSettings,
    /// Requests in flight at once.
    pub concurrency: usize,
    /// How many events go into one request at most; with more than one the body is a list.
    pub batch_max: usize,
    /// How many failures of an event count before it is given up.
    pub max_attempts: u32,
    /// How old an event may be when it is sent.
    pub max_age: Option<Duration>,
    /// Sends to it.
    pub sender: Sender,
    /// Where its events are.
    pub outbox: Outbox,
    /// Where it tells how it goes.
    pub status: Status,
    /// Where it tells of each attempt.
    pub attempts: Attempts,
    /// Where it counts them.
    pub attempting: Attempting,
    /// What time it is.
    pub clock: Clock,
    /// Seed of the jitter.
    pub seed: u64,
}

impl Worker {
    /// Delivers, and takes out what an operator asks for, until `stop`, then finishes what is in flight, settles it durably and returns.
    ///
    /// # Errors
    /// When the outbox takes or gives nothing any more.
    pub async fn run(self, mut orders: mpsc::Receiver<Discard>, stop: CancellationToken) -> Result<(), OutboxError> {
        let mut line = Line::resume(&self).await?;
        let mut head = self.outbox.watch_head();
        let mut replays = self.outbox.watch_replays();
        let mut relief = self.outbox.watch_relief();
        let mut pauses = self.outbox.watch_pauses();
        let discards = *replays.borrow_and_update();
        line.discards = discards;
        line.take_replays(discards).await?;
        let mut attempts = FuturesUnordered::new();
        while !stop.is_cancelled() {
            let now = self.clock.now();
            let pause = pauses.borrow_and_update().get(&self.id).filter(|pause| pause.lasts(now)).cloned();
            let mut more = line.fill().await?;
            if pause.is_none() {
                while let Some(dispatch) = line.lanes.next(Instant::now()) {
                    if line.is_expired(&dispatch) {
                        line.expire(dispatch);
                    } else {
                        attempts.push(self.attempt(line.begin(dispatch)));
                    }
                    if line.is_full() {
                        // What has expired is settled before more of it does.
                        more = true;
                        break;
                    }
                }
            }
            line.flush_if_due().await?;
            line.publish(attempts.len());
            let due = line.due(match pause {
                None => line.lanes.next_due(),
                Some(pause) => pause.until.map(|until| Instant::now() + now.age(until)),
            });
            let woken = tokio::select! {
                biased;
                () = stop.cancelled() => Woken::Stop,
                Some(done) = attempts.next(), if !attempts.is_empty() => Woken::Done(Box::new(done)),
                _ = head.changed() => Woken::Head,
                _ = replays.changed() => Woken::Replay(*replays.borrow_and_update()),
                _ = pauses.changed() => Woken::Due,
                Some(order) = orders.recv() => Woken::Order(order),
                _ = relief.changed() => Woken::Relief(*relief.borrow_and_update()),
                () = ready(()), if more => Woken::Due,
                () = until(due) => Woken::Due,
            };
            match woken {
                Woken::Done(done) => {
                    line.finish(*done);
                    // Whatever else is over by now needs no turn of its own.
                    while !line.is_full()
                        && let Some(Some(done)) = attempts.next().now_or_never()
                    {
                        line.finish(done);
                    }
                }
                Woken::Replay(discards) => line.take_replays(discards).await?,
                Woken::Relief(below) => line.relieve(below).await?,
                Woken::Order(order) => line.discard(order).await?,
                Woken::Stop | Woken::Head | Woken::Due => {}
            }
        }
        let all = async {
            while let Some(done) = attempts.next().await {
                line.finish(done);
            }
        };
        if timeout(GRACE, all).await.is_err() {
            tracing::warn!(destination = %self.name, "attempts in flight were abandoned; their events are sent again at the next start");
        }
        line.flush_durably().await
    }

    async fn attempt(&self, begun: Begun) -> Done {
        let at = self.clock.now();
        let Begun { dispatch, along, number } = begun;
        let attempt = Attempt {
            event: &dispatch.event,
            along: along.iter().map(|dispatch| &dispatch.event).collect(),
            list: self.batch_max > 1,
            number,
            replay: dispatch.key.replay,
        };
        let (outcome, latency) = self.sender.attempt(&attempt, at).await;
        self.attempting.attempted(&outcome, latency);
        Done { dispatch, along, at, outcome, latency }
    }
}

enum Woken {
    Stop,
    Done(Box<Done>),
    Head,
    Replay(u64),
    Relief(Seq),
    Order(Discard),
    Due,
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due.into()).await,
        None => pending().await,
    }
}
