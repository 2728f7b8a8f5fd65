//! How an attempt looks to people: columns that grow with what they hold, for lines that come one by one. Deliberately absent:
//! any clock; a wait is told as it was decided.

use std::time::Duration;

use super::render::{number, span};
use crate::admin::{AttemptLine, AttemptOutcome};
use crate::outbox::views::At;

/// The columns before the last one, and which of them are aligned to the right.
const HEAD: [(&str, bool); 6] =
    [("TIME", false), ("DESTINATION", false), ("SEQ", true), ("TYPE", false), ("PEER", true), ("TRY", true)];

/// The widths of the columns so far, in characters.
pub(super) struct Columns([usize; HEAD.len()]);

impl Default for Columns {
    fn default() -> Self {
        // A moment; a name; a position; `reaction_changed`; a chat; a number.
        Self([24, 11, 6, 16, 10, 3])
    }
}

impl Columns {
    /// The line above the others.
    pub(super) fn head(&mut self) -> String {
        self.set(HEAD.map(|(name, _)| name.to_owned()), "OUTCOME")
    }

    /// The line of an attempt.
    pub(super) fn line(&mut self, attempt: &AttemptLine) -> String {
        let cells = [
            attempt.at.0.rfc3339(),
            attempt.destination.clone(),
            attempt.seq.to_string(),
            attempt.event_type.clone(),
            number(attempt.peer_id),
            number(attempt.attempt.map(i64::from)),
        ];
        self.set(cells, &outcome(attempt))
    }

    fn set(&mut self, cells: [String; HEAD.len()], last: &str) -> String {
        let mut line = String::new();
        for ((cell, width), (_, right)) in cells.iter().zip(&mut self.0).zip(HEAD) {
            let cell = tame(cell);
            *width = cell.chars().count().max(*width);
            line += &if right { format!("{cell:>width$}  ") } else { format!("{cell:<width$}  ") };
        }
        line + &tame(last) + "\n"
    }
}

/// What came of an attempt, in plain words.
fn outcome(attempt: &AttemptLine) -> String {
    let error = attempt.error.as_deref().unwrap_or("for no reason that is known");
    let said = if attempt.excerpt.is_empty() { String::new() } else { format!(" {:?}", attempt.excerpt) };
    let mut words = match attempt.outcome {
        AttemptOutcome::Delivered => {
            let status = attempt.status.map_or_else(String::new, |status| format!(" {status}"));
            format!("delivered{status} in {} ms", attempt.latency_ms.unwrap_or_default())
        }
        AttemptOutcome::Failed => format!("failed: {error}{said}, {}", next_try(attempt)),
        AttemptOutcome::Dead => format!("dead: {error}{said}"),
        AttemptOutcome::Expired => format!("expired: {error}"),
    };
    if let Some(events) = attempt.batch.filter(|events| *events > 1) {
        words += &format!(", in a batch of {events}");
    }
    if let Some(replay) = attempt.replay {
        words += &format!(", replay {replay}");
    }
    words
}

/// When it is tried again, from when the attempt was over: tenths of a second for short waits.
fn next_try(attempt: &AttemptLine) -> String {
    let Some(At(next)) = attempt.next_try else { return "next try when its turn comes".to_owned() };
    let over = attempt.at.0.plus(Duration::from_millis(attempt.latency_ms.unwrap_or_default().into()));
    let wait = over.age(next);
    match wait.as_millis() {
        0..50 => "next try at once".to_owned(),
        50..10_000 => format!("next try in {:.1}s", wait.as_secs_f64()),
        _ => format!("next try in {}", span(wait)),
    }
}

/// Text from outside without what would break the line or steer the terminal.
fn tame(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::time::Moment;

    fn delivered() -> AttemptLine {
        AttemptLine {
            at: At(Moment(1_709_107_923_456)),
            destination: "messages".to_owned(),
            seq: 42,
            event_id: "a1".to_owned(),
            event_type: "message_new".to_owned(),
            peer_id: Some(2_000_000_002),
            user_id: Some(100),
            replay: None,
            attempt: Some(1),
            batch: Some(1),
            latency_ms: Some(12),
            outcome: AttemptOutcome::Delivered,
            status: Some(200),
            error: None,
            excerpt: String::new(),
            next_try: None,
        }
    }

    fn failed(error: &str, wait_ms: i64) -> AttemptLine {
        let (outcome, next) = (AttemptOutcome::Failed, Moment(1_709_107_923_468 + wait_ms));
        AttemptLine { outcome, error: Some(error.to_owned()), next_try: Some(At(next)), ..delivered() }
    }

    #[test]
    fn lines_stand_in_columns_that_grow() {
        let mut columns = Columns::default();
        let mut all = columns.head();
        all += &columns.line(&delivered());
        let long = "a-destination-with-a-long-name".to_owned();
        all += &columns.line(&AttemptLine {
            destination: long,
            seq: 1_234_567,
            peer_id: None,
            ..failed("HTTP 500", 2000)
        });
        all += &columns.line(&AttemptLine { attempt: Some(2), ..delivered() });
        insta::assert_snapshot!(all, @"
        TIME                      DESTINATION     SEQ  TYPE                    PEER  TRY  OUTCOME
        2024-02-28T08:12:03.456Z  messages         42  message_new       2000000002    1  delivered 200 in 12 ms
        2024-02-28T08:12:03.456Z  a-destination-with-a-long-name  1234567  message_new                -    1  failed: HTTP 500, next try in 2.0s
        2024-02-28T08:12:03.456Z  messages                             42  message_new       2000000002    2  delivered 200 in 12 ms
        ");
    }

    #[test]
    fn an_outcome_is_told_in_plain_words() {
        let refused = AttemptLine {
            outcome: AttemptOutcome::Dead,
            error: Some("the handler refused it with HTTP 422".to_owned()),
            excerpt: "no such chat".to_owned(),
            ..delivered()
        };
        let expired = AttemptLine {
            outcome: AttemptOutcome::Expired,
            error: Some("older than max_age, not sent".to_owned()),
            ..delivered()
        };
        for (attempt, expected) in [
            (delivered(), "delivered 200 in 12 ms"),
            (AttemptLine { batch: Some(7), ..delivered() }, "delivered 200 in 12 ms, in a batch of 7"),
            (AttemptLine { replay: Some(3), ..delivered() }, "delivered 200 in 12 ms, replay 3"),
            (failed("HTTP 500", 480), "failed: HTTP 500, next try in 0.5s"),
            (failed("HTTP 500", 0), "failed: HTTP 500, next try at once"),
            (failed("HTTP 500", 130_000), "failed: HTTP 500, next try in 2m 10s"),
            (AttemptLine { next_try: None, ..failed("x", 0) }, "failed: x, next try when its turn comes"),
            (
                AttemptLine { batch: Some(7), excerpt: "oops".to_owned(), ..failed("HTTP 500", 2000) },
                "failed: HTTP 500 \"oops\", next try in 2.0s, in a batch of 7",
            ),
            (refused, "dead: the handler refused it with HTTP 422 \"no such chat\""),
            (expired, "expired: older than max_age, not sent"),
        ] {
            assert_eq!(outcome(&attempt), expected);
        }
    }

    #[test]
    fn what_comes_from_outside_breaks_no_line() {
        let line = Columns::default().line(&AttemptLine { event_type: "x\n\u{1b}[2J".to_owned(), ..failed("\r", 0) });
        assert_eq!(line.chars().filter(|c| c.is_control()).collect::<String>(), "\n", "{line:?}");
    }
}
