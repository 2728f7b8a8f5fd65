//! What is told of an attempt that is over: a line of the log, and a record for whoever follows ([`crate::attempts`]), which is
//! described only if somebody does. Part of [`Line`]. Deliberately absent: what follows from it (`line`, `batch`); bodies.

use super::line::Line;
use crate::attempts::{Attempted, Ending, Sent};
use crate::domain::delivery::{Death, Failure};
use crate::domain::lanes::Dispatch;
use crate::domain::time::Moment;
use crate::outbox::records::{AttemptNote, History};

/// An event that was sent, and how.
pub(super) struct Made<'d> {
    dispatch: &'d Dispatch,
    at: Moment,
    sent: Sent,
}

impl<'d> Made<'d> {
    /// An attempt at an event of which so much was known before, in a request of so many.
    pub(super) fn of(
        dispatch: &'d Dispatch,
        known: Option<&History>,
        batch: usize,
        at: Moment,
        latency_ms: u32,
    ) -> Self {
        let attempt = known.map_or(1, |history| history.attempts.saturating_add(1));
        Self { dispatch, at, sent: Sent { attempt, batch, latency_ms } }
    }
}

impl Line<'_> {
    /// The handler has it.
    pub(super) fn tell_delivered(&self, made: &Made<'_>, status: u16) {
        let (destination, event, latency_ms) = (&self.worker.name, &made.dispatch.event, made.sent.latency_ms);
        let (seq, event_id) = (event.seq, &event.event.event_id);
        // Of a batch the log has one line: [`Line::tell_batch`].
        if made.sent.batch == 1 {
            tracing::debug!(%destination, %seq, %event_id, status, latency_ms, "delivered");
        }
        self.tell(made, || Ending::Delivered { status });
    }

    /// The handler refuses it; `history` has the attempt.
    pub(super) fn tell_refused(&self, made: &Made<'_>, status: u16, death: &Death, history: &History) {
        let (destination, event, latency_ms) = (&self.worker.name, &made.dispatch.event, made.sent.latency_ms);
        let (seq, event_id) = (event.seq, &event.event.event_id);
        tracing::error!(%destination, %seq, %event_id, status, latency_ms, "refused: dead letter");
        self.tell(made, || Ending::Dead { status: Some(status), reason: death.to_string(), excerpt: excerpt(history) });
    }

    /// It is sent again; `history` has the attempt, and the moment of the next one.
    pub(super) fn tell_failed(&self, made: &Made<'_>, failure: &Failure, history: &History) {
        self.log_failed(made, failure, history);
        self.tell(made, || Ending::Failed {
            status: failure.status(),
            error: failure.to_string(),
            excerpt: excerpt(history),
            next_try: history.next_try,
        });
    }

    /// It is not sent again; `history` has the attempt.
    pub(super) fn tell_given_up(&self, made: &Made<'_>, failure: &Failure, death: &Death, history: &History) {
        self.log_failed(made, failure, history);
        let (destination, event) = (&self.worker.name, &made.dispatch.event);
        let (seq, event_id) = (event.seq, &event.event.event_id);
        tracing::error!(%destination, %seq, %event_id, reason = %death, "given up: dead letter");
        self.tell(made, || Ending::Dead {
            status: failure.status(),
            reason: death.to_string(),
            excerpt: excerpt(history),
        });
    }

    /// It went in a batch that failed, and is sent again alone; the log has one line for all of it ([`Line::tell_batch`]).
    pub(super) fn tell_scattered(&self, made: &Made<'_>, status: Option<u16>, error: &str, history: &History) {
        self.tell(made, || Ending::Failed {
            status,
            error: error.to_owned(),
            excerpt: excerpt(history),
            next_try: history.next_try,
        });
    }

    /// A batch that began with this event is over: delivered with this status, or what was in the way.
    pub(super) fn tell_batch(&self, first: &Dispatch, events: usize, latency_ms: u32, came: Result<u16, &str>) {
        let (destination, first) = (&self.worker.name, first.event.seq);
        match came {
            Ok(status) => tracing::debug!(%destination, %first, events, status, latency_ms, "delivered together"),
            Err(error) => tracing::warn!(
                %destination, %first, events, error, latency_ms, "a batch failed: its events are sent again one by one"
            ),
        }
    }

    /// It is too old, and was not sent.
    pub(super) fn tell_expired(&self, dispatch: &Dispatch, at: Moment) {
        tracing::warn!(destination = %self.worker.name, seq = %dispatch.event.seq, "older than max_age: expired, not sent");
        self.worker.attempts.tell(|| self.describe(dispatch, at, None, Ending::Expired));
    }

    fn log_failed(&self, made: &Made<'_>, failure: &Failure, history: &History) {
        let (destination, event, latency_ms) = (&self.worker.name, &made.dispatch.event, made.sent.latency_ms);
        let (seq, event_id, error) = (event.seq, &event.event.event_id, failure.to_string());
        let (attempt, counted) = (history.attempts, history.counted);
        tracing::warn!(%destination, %seq, %event_id, attempt, counted, error, latency_ms, "attempt failed");
    }

    fn tell(&self, made: &Made<'_>, ending: impl FnOnce() -> Ending) {
        self.worker.attempts.tell(|| self.describe(made.dispatch, made.at, Some(made.sent), ending()));
    }

    fn describe(&self, dispatch: &Dispatch, at: Moment, sent: Option<Sent>, ending: Ending) -> Attempted {
        let event = &dispatch.event.event;
        Attempted {
            at,
            destination: self.worker.name.clone(),
            seq: dispatch.event.seq,
            event_id: event.event_id.clone(),
            event_type: event.event_type.clone(),
            peer_id: event.peer_id,
            user_id: event.user_id,
            replay: dispatch.key.replay,
            sent,
            ending,
        }
    }
}

/// What the handler said in the latest attempt of a history.
fn excerpt(history: &History) -> String {
    history.notes.last().map(|note: &AttemptNote| note.excerpt.clone()).unwrap_or_default()
}
