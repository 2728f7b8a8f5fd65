//! `outbox tail`: each attempt as it ends, as lines of JSON over an answer without an end; and what such a line looks like. The
//! stream ends when the service stops, and at once: it must hold nobody. Deliberately absent: what happened before somebody
//! asked (`outbox list`, `outbox show`).

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::api::{Door, Trouble};
use crate::attempts::{Attempted, Ending};
use crate::outbox::operator;
use crate::outbox::views::At;

/// A blank line is sent after so long without another, so that each side notices when the other is gone.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// How many attempts are looked at for one piece of the answer, at most.
const PIECE_ATTEMPTS: usize = 256;

/// Which attempts are asked for; what is absent does not matter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TailAsked {
    /// To this destination only.
    pub destination: Option<String>,
    /// Of events of this type.
    pub event_type: Option<String>,
    /// In this conversation.
    pub peer: Option<i64>,
    /// By this user.
    pub user: Option<i64>,
    /// Only those that did not deliver.
    pub failed: bool,
}

/// A line of `outbox tail --json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum TailLine {
    /// An attempt.
    Attempt(Box<AttemptLine>),
    /// The reader was too slow.
    Missed {
        /// How many attempts it missed here, whether they were asked for or not.
        missed: u64,
    },
}

/// An attempt at delivering one event, of a batch each of its events. It shows no body.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptLine {
    /// When it was sent; for an expired event, when that was found.
    pub at: At,
    /// The destination.
    pub destination: String,
    /// Position in the outbox.
    pub seq: u64,
    /// `webhook-id` of the event.
    pub event_id: String,
    /// Its type.
    pub event_type: String,
    /// The conversation.
    pub peer_id: Option<i64>,
    /// Who did it.
    pub user_id: Option<i64>,
    /// The replay it belongs to.
    pub replay: Option<u64>,
    /// Number of the attempt, from 1; null when the event was not sent.
    pub attempt: Option<u32>,
    /// How many events went in the same request, this one included; null when the event was not sent.
    pub batch: Option<u64>,
    /// How long the answer took, in milliseconds; null when the event was not sent.
    pub latency_ms: Option<u32>,
    /// What it came to, in one word.
    pub outcome: AttemptOutcome,
    /// HTTP status of the answer; null without one.
    pub status: Option<u16>,
    /// Why it did not deliver, in words; null when it did.
    pub error: Option<String>,
    /// The first bytes of an answer that did not deliver.
    pub excerpt: String,
    /// When it is tried again; null when it is not.
    pub next_try: Option<At>,
}

/// What an attempt came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttemptOutcome {
    /// The handler has it.
    Delivered,
    /// It is tried again.
    Failed,
    /// It is a dead letter: refused, or given up.
    Dead,
    /// It was too old, and was not sent.
    Expired,
}

impl TailAsked {
    fn takes(&self, one: &Attempted) -> bool {
        let delivered = matches!(one.ending, Ending::Delivered { .. });
        !(self.failed && delivered)
            && self.destination.as_ref().is_none_or(|name| name == one.destination.as_str())
            && self.event_type.as_ref().is_none_or(|event_type| *event_type == one.event_type)
            && self.peer.is_none_or(|peer| one.peer_id == Some(peer))
            && self.user.is_none_or(|user| one.user_id == Some(user))
    }
}

impl AttemptLine {
    fn of(one: &Attempted) -> Self {
        let (outcome, status, error, excerpt, next_try) = match &one.ending {
            Ending::Delivered { status } => (AttemptOutcome::Delivered, Some(*status), None, "", None),
            Ending::Failed { status, error, excerpt, next_try } => {
                (AttemptOutcome::Failed, *status, Some(error.as_str()), excerpt.as_str(), *next_try)
            }
            Ending::Dead { status, reason, excerpt } => {
                (AttemptOutcome::Dead, *status, Some(reason.as_str()), excerpt.as_str(), None)
            }
            Ending::Expired => (AttemptOutcome::Expired, None, Some("older than max_age, not sent"), "", None),
        };
        Self {
            at: At(one.at),
            destination: one.destination.to_string(),
            seq: one.seq.0,
            event_id: one.event_id.to_string(),
            event_type: one.event_type.clone().into_owned(),
            peer_id: one.peer_id,
            user_id: one.user_id,
            replay: (one.replay > 0).then_some(one.replay),
            attempt: one.sent.map(|sent| sent.attempt),
            batch: one.sent.map(|sent| sent.batch as u64),
            latency_ms: one.sent.map(|sent| sent.latency_ms),
            outcome,
            status,
            error: error.map(str::to_owned),
            excerpt: excerpt.to_owned(),
            next_try: next_try.map(At),
        }
    }
}

/// The route. Once it answers, it has begun to listen: nothing that ends from then on is left out.
pub(super) async fn follow(State(mut door): State<Door>, Query(asked): Query<TailAsked>) -> Result<Response, Trouble> {
    if let Some(name) = &asked.destination {
        operator::destination(&mut door, name).await?;
    }
    // The stream must keep nothing of the outbox: it may outlive the socket for a moment.
    let tail = Tail { attempts: door.attempts.follow(), asked, stop: door.stop };
    let pieces = stream::unfold(tail, |mut tail| async {
        let piece = tail.piece().await?;
        Some((Ok::<_, Infallible>(piece), tail))
    });
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(pieces)).into_response())
}

/// One reader.
struct Tail {
    attempts: Receiver<Arc<Attempted>>,
    asked: TailAsked,
    stop: CancellationToken,
}

enum Woken {
    Stop,
    Told(Result<Arc<Attempted>, RecvError>),
    Quiet,
}

impl Tail {
    /// The next lines; nothing more when the service stops.
    async fn piece(&mut self) -> Option<String> {
        let quiet = sleep(KEEP_ALIVE);
        tokio::pin!(quiet);
        loop {
            let woken = tokio::select! {
                biased;
                () = self.stop.cancelled() => Woken::Stop,
                () = &mut quiet => Woken::Quiet,
                told = self.attempts.recv() => Woken::Told(told),
            };
            let mut lines = String::new();
            match woken {
                Woken::Stop | Woken::Told(Err(RecvError::Closed)) => return None,
                Woken::Quiet => return Some("\n".to_owned()),
                Woken::Told(Ok(one)) => self.add(&mut lines, &one),
                Woken::Told(Err(RecvError::Lagged(missed))) => add(&mut lines, &TailLine::Missed { missed }),
            }
            for _ in 1..PIECE_ATTEMPTS {
                match self.attempts.try_recv() {
                    Ok(one) => self.add(&mut lines, &one),
                    Err(TryRecvError::Lagged(missed)) => add(&mut lines, &TailLine::Missed { missed }),
                    Err(TryRecvError::Empty | TryRecvError::Closed) => break,
                }
            }
            if !lines.is_empty() {
                return Some(lines);
            }
        }
    }

    fn add(&self, lines: &mut String, one: &Attempted) {
        if self.asked.takes(one) {
            add(lines, &TailLine::Attempt(Box::new(AttemptLine::of(one))));
        }
    }
}

fn add(lines: &mut String, line: &TailLine) {
    // Text, numbers and moments always become JSON.
    if let Ok(line) = serde_json::to_string(line) {
        lines.push_str(&line);
        lines.push('\n');
    }
}
