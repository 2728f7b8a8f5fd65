//! What follows from the answer to a request of several events (contract §3): a 2xx delivers all, anything else sends them again
//! one by one and blames nobody. Part of [`Line`]. Deliberately absent: which events go together (`domain::lanes`).

use std::time::{Duration, Instant};

use super::line::{Done, Line, NOTE_CHARS, place_of, tried};
use super::told::Made;
use crate::delivery::backoff;
use crate::domain::delivery::{Outcome, RetryAfter};
use crate::domain::lanes::{Dispatch, LaneKey};
use crate::outbox::Change;
use crate::outbox::records::AttemptNote;

impl Line<'_> {
    /// A batch is over.
    pub(super) fn finish_batch(&mut self, done: Done) {
        let Done { dispatch, along, at, outcome, latency } = done;
        let latency_ms = u32::try_from(latency.as_millis()).unwrap_or(u32::MAX);
        let events = 1 + along.len();
        let all: Vec<&Dispatch> = std::iter::once(&dispatch).chain(&along).collect();
        let mut keys: Vec<LaneKey> = Vec::new();
        for one in &all {
            if !keys.contains(&one.key) {
                keys.push(one.key);
            }
        }
        let (error, status, excerpt, refused, asked) = match outcome {
            Outcome::Delivered { status } => {
                self.tell_batch(&dispatch, events, latency_ms, Ok(status));
                self.last_ok = Some(at);
                for one in &all {
                    let seq = one.event.seq;
                    let known = self.histories.remove(&(0, seq));
                    self.tell_delivered(&Made::of(one, known.as_ref(), events, at, latency_ms), status);
                    self.time(one, at, latency);
                    self.change(Change::Delivered { seq, from: place_of(one), tried: known.is_some() });
                    self.settle(one);
                }
                for key in keys.iter().skip(1) {
                    self.lanes.went_along(*key, Instant::now());
                }
                self.outage_over(dispatch.key);
                return;
            }
            Outcome::Refused { status, excerpt } => (format!("HTTP {status}"), Some(status), excerpt, true, None),
            Outcome::Failed { failure, excerpt, retry_after } => {
                (failure.to_string(), failure.status(), excerpt, false, retry_after)
            }
        };
        self.tell_batch(&dispatch, events, latency_ms, Err(&error));
        let (pause, ended) = self.scatter(&keys, refused, asked);
        if ended {
            self.answers_again();
        }
        let answer: String = format!("{error} (with {} others)", events - 1).chars().take(NOTE_CHARS).collect();
        for one in all {
            let note = AttemptNote { at, answer: answer.clone(), latency_ms, excerpt: excerpt.clone() };
            let known = self.histories.remove(&(0, one.event.seq));
            let made = Made::of(one, known.as_ref(), events, at, latency_ms);
            let history = tried(known, note, Some(self.worker.clock.now().plus(pause)));
            self.tell_scattered(&made, status, &error, &history);
            self.histories.insert((0, one.event.seq), history.clone());
            self.change(Change::Tried { seq: one.event.seq, history });
        }
        self.last_error = Some((at, answer));
    }

    fn scatter(&mut self, keys: &[LaneKey], refused: bool, asked: Option<RetryAfter>) -> (Duration, bool) {
        let (settings, draw) = (&self.worker.backoff, self.draw());
        self.lanes
            .scattered(keys, Instant::now(), refused, asked, &mut |attempt| backoff::wait(settings, attempt, draw))
    }
}
