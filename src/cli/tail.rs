//! `outbox tail`: deliveries as they happen, a line each, until Ctrl-C, or until the service stops. Only the running service knows
//! of them: there is nothing to look into when it does not run. Deliberately absent: what a line tells (`admin::tail`), and
//! waiting for the service to come back.
#![allow(clippy::print_stderr, reason = "the command line speaks on stderr")]

use std::path::Path;
use std::time::Duration;

use clap::Args;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::access::{Access, Live};
use super::exit::{Exit, Failure, said};
use super::render::count;
use super::tail_line::Columns;
use crate::admin::{TailAsked, TailLine};
use crate::app::supervise;
use crate::outbox::Lock;

/// How long the service may be silent: it sends a blank line every 15 s.
const SILENCE: Duration = Duration::from_secs(60);
/// The longest line that is believed, in bytes.
const LINE_BYTES: usize = 1 << 20;
/// How long a reader of ours that does not read may hold us, once we are to end.
const READER_PATIENCE: Duration = Duration::from_secs(1);

/// Words of `outbox tail`.
#[derive(Debug, Default, Args)]
pub(super) struct TailArgs {
    /// To this destination
    #[arg(long, value_name = "D")]
    destination: Option<String>,
    /// Of events of this type, like `message_new`
    #[arg(long = "type", value_name = "T")]
    event_type: Option<String>,
    /// In this conversation (`peer_id`)
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    peer: Option<i64>,
    /// By this user (`user_id`)
    #[arg(long, value_name = "U", allow_negative_numbers = true)]
    user: Option<i64>,
    /// Only what did not succeed: failed, dead, expired
    #[arg(long)]
    failed: bool,
}

enum Woken {
    Stop,
    Piece(Result<Option<Vec<u8>>, Failure>),
}

pub(super) async fn run(dir: &Path, args: TailArgs, json: bool, stop: CancellationToken) -> Result<Exit, Failure> {
    let TailArgs { destination, event_type, peer, user, failed } = args;
    let asked = TailAsked { destination, event_type, peer, user, failed };
    let mut answer = service(dir).await?.follow("/api/v1/tail", &asked).await?;
    drop(supervise::beside(end_at_last(stop.clone())));
    eprintln!("following the deliveries of {}; Ctrl-C ends it", dir.display());
    let mut columns = Columns::default();
    if !json && !said(&columns.head())? {
        return Ok(Exit::Done);
    }
    let mut lines = Lines::default();
    loop {
        let woken = tokio::select! {
            biased;
            () = stop.cancelled() => Woken::Stop,
            piece = next(&mut answer) => Woken::Piece(piece),
        };
        let piece = match woken {
            Woken::Stop => return Ok(Exit::Done),
            Woken::Piece(piece) => piece?,
        };
        let Some(piece) = piece else {
            eprintln!("the service has stopped: nothing more is delivered");
            return Ok(Exit::Done);
        };
        let whole = lines.take(&piece)?;
        let words = if json { whole } else { people(&whole, &mut columns)? };
        if !said(&words)? {
            return Ok(Exit::Done);
        }
    }
}

/// The running service; one that is just starting is waited for.
async fn service(dir: &Path) -> Result<Live, Failure> {
    // Without its lock no service has ever run there, and none is made by looking.
    let open = || match dir.join("lock").exists() {
        true => Lock::take(dir, "outbox tail", Duration::ZERO).map(drop),
        false => Ok(()),
    };
    match Access::patiently(dir, open).await? {
        Access::Live(live) => Ok(live),
        Access::Offline(()) => {
            let words = format!(
                "no service runs on {}: `tail` shows deliveries as they happen; start it with `event-router run`, or look at what is kept with `event-router outbox list`",
                dir.display()
            );
            Err(Failure { words, exit: Exit::Unavailable })
        }
    }
}

async fn next(answer: &mut reqwest::Response) -> Result<Option<Vec<u8>>, Failure> {
    match timeout(SILENCE, answer.chunk()).await {
        Ok(Ok(piece)) => Ok(piece.map(|piece| piece.to_vec())),
        Ok(Err(_)) => Err(Failure::new(
            "the service broke off: it was killed, or it stopped before this could read everything; `outbox stats` tells how it is",
        )),
        Err(_) => Err(Failure::new(format!("the service has been silent for {} s: it hangs", SILENCE.as_secs()))),
    }
}

/// After Ctrl-C a reader of ours that does not read (a stopped `less`) holds us for a moment only.
#[allow(clippy::exit, reason = "nothing is lost by it, and the write that hangs cannot be called back")]
async fn end_at_last(stop: CancellationToken) {
    stop.cancelled().await;
    sleep(READER_PATIENCE).await;
    std::process::exit(0);
}

/// The lines for people; what was missed goes to stderr.
fn people(lines: &str, columns: &mut Columns) -> Result<String, Failure> {
    let mut words = String::new();
    for line in lines.lines() {
        let told = serde_json::from_str(line)
            .map_err(|error| Failure::new(format!("the service answers something else than expected: {error}")))?;
        match told {
            TailLine::Attempt(attempt) => words += &columns.line(&attempt),
            TailLine::Missed { missed } => {
                eprintln!(
                    "missed {}, of whatever was delivered then: the lines are read too slowly here",
                    count(missed, "attempt", "attempts")
                );
            }
        }
    }
    Ok(words)
}

/// Pieces of an answer, cut into whole lines.
#[derive(Default)]
struct Lines(Vec<u8>);

impl Lines {
    /// The lines that this piece ends; blank ones only say that the service is there.
    fn take(&mut self, piece: &[u8]) -> Result<String, Failure> {
        self.0.extend_from_slice(piece);
        let end = self.0.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
        let whole: Vec<u8> = self.0.drain(..end).collect();
        if self.0.len() > LINE_BYTES {
            return Err(Failure::new("the service answers something else than expected: a line without an end"));
        }
        let whole = String::from_utf8_lossy(&whole);
        Ok(whole.lines().filter(|line| !line.is_empty()).flat_map(|line| [line, "\n"]).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_cut_into_lines_wherever_they_end_and_blank_ones_are_dropped() {
        let mut lines = Lines::default();
        let mut all = Vec::new();
        // "я" is two bytes: a piece may end between them.
        for piece in "{\"a\":1}\n\n{\"я\":2}\n\n".as_bytes().chunks(1) {
            let whole = lines.take(piece).expect("short");
            all.extend(Some(whole).filter(|whole| !whole.is_empty()));
        }
        assert_eq!(all, ["{\"a\":1}\n", "{\"я\":2}\n"]);
        assert_eq!(lines.take(b"\n1\n2\n3").expect("short"), "1\n2\n");
        assert!(lines.take(&[b'x'; LINE_BYTES]).is_err());
    }
}
