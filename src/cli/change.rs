//! `outbox replay`, `cancel`, `discard`, `pause`, `resume`: what an operator changes, live through the socket or offline in the
//! directory. Says how many rows it will touch, and asks. Deliberately absent: what a change is (`outbox::operator`).
#![allow(clippy::print_stderr, reason = "the command line speaks on stderr")]

use std::future::{Future, ready};
use std::io::{IsTerminal, stderr, stdin, stdout};
use std::path::Path;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::access::{Access, Live};
use super::args::{ChangeVerb, Sure};
use super::exit::{Exit, Failure};
use super::outbox::{plain, print, tell_offline};
use super::render::{ahead, count as so_many};
use super::selector::SelectorArgs;
use crate::clock::Clock;
use crate::domain::ids::Seq;
use crate::domain::time::Moment;
use crate::outbox::kv::KvError;
use crate::outbox::operations::operate;
use crate::outbox::operator::{self, Asked, CancelAsked, Desk, Discarded, Look, OperatorError, ReplayMade};
use crate::outbox::pauses::{PauseAsked, PauseMade};
use crate::outbox::replay::ReplayView;
use crate::outbox::state::State;
use crate::outbox::views::ListState;
use crate::outbox::{Operation, OutboxError, Store};

/// How often a replay that is followed is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(300);

/// `configured` are the destinations of the configuration.
pub(super) async fn run(dir: &Path, configured: Vec<String>, verb: ChangeVerb, json: bool) -> Result<Exit, Failure> {
    let now = Clock::system().now();
    let asked = check(verb, now)?;
    let access = Access::to_change(dir).await?;
    if matches!(access, Access::Offline(_)) {
        tell_offline(dir, json);
    }
    let mut office = match access {
        Access::Live(live) => Office::Live(live),
        Access::Offline(store) => Office::AtRest(Box::new(AtRest { store, state: None, configured })),
    };
    match asked {
        Change::Replay(asked, sure, dry_run) => replay(&mut office, asked, sure, dry_run, json).await,
        Change::Discard(asked, sure) => discard(&mut office, asked, sure, json).await,
        Change::Cancel(asked) => {
            let view: ReplayView = office.cancel(asked).await?;
            print(json, &view, |view| {
                if !view.cancelled {
                    return format!("replay {} was done before it could be cancelled\n", view.number);
                }
                let left = so_many(view.matched.saturating_sub(view.succeeded + view.failed), "row", "rows");
                format!(
                    "replay {} is cancelled: {} {}, {} failed, {left} left alone\n",
                    view.number,
                    view.succeeded,
                    view.did(),
                    view.failed
                )
            })
        }
        Change::Pause(asked) => {
            let made: PauseMade = office.pause(asked).await?;
            let words = |made: &PauseMade| {
                let (name, pause) = (&made.destination, made.pause.as_ref());
                let reason = pause.and_then(|pause| pause.reason.as_ref());
                let reason = reason.map_or_else(String::new, |reason| format!(": {reason}"));
                let until = pause.and_then(|pause| pause.until);
                let end = until.map_or_else(String::new, |until| format!("by itself {}, or ", ahead(Some(until), now)));
                format!(
                    "{name} is paused from now on{reason}; it goes on {end}with `event-router outbox resume {name}`"
                )
            };
            print(json, &made, |made| format!("{}\n", words(made)))
        }
        Change::Resume(asked) => {
            let made: PauseMade = office.resume(asked).await?;
            let when = if matches!(office, Office::Live(_)) {
                "go out, as far as its handler answers"
            } else {
                "go out at the next start"
            };
            print(json, &made, |made| format!("{} is not paused any more: its events {when}\n", made.destination))
        }
    }
}

/// What is asked for, once the words make sense.
enum Change {
    Replay(Asked, Sure, bool),
    Discard(Asked, Sure),
    Cancel(CancelAsked),
    Pause(PauseAsked),
    Resume(PauseAsked),
}

fn check(verb: ChangeVerb, now: Moment) -> Result<Change, Failure> {
    Ok(match verb {
        ChangeVerb::Replay { id, selector, rate, dry_run, mut sure } => {
            if selector.state.is_some_and(|state| !state.has_cause()) {
                let words = "--state: dead letters, expired events and updates in quarantine can be replayed";
                return Err(Failure::usage(words));
            }
            let quarantined = selector.state == Some(super::selector::StateArg::Quarantined);
            if rate.is_some() && (quarantined || id.as_ref().is_some_and(|id| id.starts_with('q'))) {
                return Err(Failure::usage(
                    "--rate: what is in quarantine is only converted; its events go out like any other",
                ));
            }
            let asked = rows(id, selector, now)?;
            let asked = Asked { interval_us: rate.unwrap_or(0), reason: sure.reason.take(), ..asked };
            Change::Replay(asked, sure, dry_run)
        }
        ChangeVerb::Discard { id, selector, mut sure } => {
            use super::selector::StateArg::{Dead, Delivered, Discarded};
            let state = selector.state.or((id.is_none() && !selector.is_empty()).then_some(Dead));
            if matches!(state, Some(Delivered | Discarded)) {
                let words = "--state: what is dead, expired, quarantined or pending can be discarded";
                return Err(Failure::usage(words));
            }
            let asked = rows(id, SelectorArgs { state, ..selector }, now)?;
            Change::Discard(Asked { reason: sure.reason.take(), ..asked }, sure)
        }
        ChangeVerb::Cancel { number, reason } => Change::Cancel(CancelAsked { number, reason }),
        ChangeVerb::Pause { destination, span, reason } => {
            let for_seconds = span.map(|span| span.as_secs().max(1));
            Change::Pause(PauseAsked { destination, for_seconds, reason })
        }
        ChangeVerb::Resume { destination, reason } => {
            Change::Resume(PauseAsked { destination, for_seconds: None, reason })
        }
    })
}

/// Which rows are meant.
fn rows(id: Option<String>, selector: SelectorArgs, now: Moment) -> Result<Asked, Failure> {
    if id.is_none() && selector.is_empty() {
        return Err(Failure::usage(
            "say which: an ID, or at least one of --destination, --state, --type, --peer, --user, --since, --until, --seq, --cause",
        ));
    }
    if let Some(id) = &id {
        plain(id)?;
    }
    Ok(Asked { id, selector: selector.selector(now).map_err(Failure::usage)?, ..Asked::default() })
}

async fn replay(office: &mut Office, asked: Asked, sure: Sure, dry_run: bool, json: bool) -> Result<Exit, Failure> {
    let plan: Vec<ReplayMade> = office.replay(Asked { dry_run: true, ..asked.clone() }).await?;
    let count: u64 = plan.iter().map(|made| made.matched).sum();
    if dry_run || count == 0 {
        return print(json, &plan, |plan| replays(plan, ""));
    }
    if !sure.yes {
        let refusal =
            format!("{} would be replayed; say --yes to do it, or --dry-run to look", so_many(count, "row", "rows"));
        agreed(refusal, &format!("{}Replay them?", replays(&plan, "")))?;
    }
    let made = office.replay(asked).await?;
    let Office::Live(live) = office else {
        return print(json, &made, |made| replays(made, "at the next start"));
    };
    print(json, &made, |made| replays(made, "now"))?;
    if !json && stderr().is_terminal() {
        follow(live, &made).await?;
    }
    Ok(Exit::Done)
}

/// Shows how replays go until they are over.
async fn follow(live: &Live, made: &[ReplayMade]) -> Result<(), Failure> {
    let style = ProgressStyle::with_template("{bar:30} {pos} of {len}, {eta} to go  {msg}");
    let bar = ProgressBar::new(made.iter().map(|one| one.matched).sum());
    if let Ok(style) = style {
        bar.set_style(style);
    }
    bar.set_message("(Ctrl-C leaves it to itself)");
    loop {
        let all: Vec<ReplayView> = live.get("/api/v1/replays", &()).await?;
        let ours: Vec<&ReplayView> =
            all.iter().filter(|view| made.iter().any(|one| one.number == Some(view.number))).collect();
        bar.set_position(ours.iter().map(|view| view.succeeded + view.failed).sum());
        if ours.iter().all(|view| view.ended.is_some() || view.waits.is_some()) {
            bar.finish_and_clear();
            for view in ours {
                let how = match &view.waits {
                    Some(words) => format!("waits: {words}"),
                    None if view.cancelled => "cancelled".to_owned(),
                    None => "done".to_owned(),
                };
                let (number, succeeded, failed) = (view.number, view.succeeded, view.failed);
                eprintln!("replay {number}: {how}; {succeeded} {}, {failed} failed, {} gone", view.did(), view.gone());
            }
            return Ok(());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// What replays take; `begin` says when they begin, and nothing of one that is not made.
fn replays(made: &[ReplayMade], begin: &str) -> String {
    if made.is_empty() {
        return "nothing matches: dead letters are meant, unless --state says expired or quarantined\n".to_owned();
    }
    let line = |one: &ReplayMade| {
        let rows = match one.state {
            ListState::Quarantined => so_many(one.matched, "update", "updates") + " in quarantine",
            ListState::Expired => so_many(one.matched, "expired event", "expired events") + " of " + &one.destination,
            _ => so_many(one.matched, "dead letter", "dead letters") + " of " + &one.destination,
        };
        let did = if one.state == ListState::Quarantined { "converted again" } else { "delivered again" };
        match (one.number, &one.waits) {
            (None, _) => format!("{rows} would be {did}\n"),
            (Some(number), Some(waits)) => format!("replay {number}: {rows} to be {did}; it waits: {waits}\n"),
            (Some(number), None) => format!("replay {number}: {rows} to be {did}; it begins {begin}\n"),
        }
    };
    made.iter().map(line).collect()
}

async fn discard(office: &mut Office, asked: Asked, sure: Sure, json: bool) -> Result<Exit, Failure> {
    let would: Discarded = office.discard(Asked { dry_run: true, ..asked.clone() }).await?;
    if would.matched == 0 {
        return print(json, &would, |_| "nothing matches\n".to_owned());
    }
    if !sure.yes {
        let words = format!("{} would be discarded for good", so_many(would.matched, "row", "rows"));
        agreed(format!("{words}; say --yes to do it"), &format!("{words}. Discard them?"))?;
    }
    let done = office.discard(Asked { up_to: would.up_to, died_by_ms: would.died_by_ms, ..asked }).await?;
    print(json, &done, |done| format!("{} discarded\n", so_many(done.matched, "row", "rows")))
}

/// Asks the person at the terminal; without one, `--yes` is needed.
fn agreed(without_terminal: String, question: &str) -> Result<(), Failure> {
    if !(stdin().is_terminal() && stdout().is_terminal()) {
        return Err(Failure::usage(without_terminal));
    }
    eprint!("{question} [y/N] ");
    let mut answer = String::new();
    stdin().read_line(&mut answer)?;
    if matches!(answer.trim(), "y" | "Y" | "yes") { Ok(()) } else { Err(Failure::new("nothing was changed")) }
}

/// Where changes are asked for.
enum Office {
    Live(Live),
    AtRest(Box<AtRest>),
}

impl Office {
    async fn replay(&mut self, asked: Asked) -> Result<Vec<ReplayMade>, Failure> {
        match self {
            Self::Live(live) => post(live, "replays", &asked).await,
            Self::AtRest(desk) => Ok(operator::replay(desk.as_mut(), asked).await?),
        }
    }

    async fn discard(&mut self, asked: Asked) -> Result<Discarded, Failure> {
        match self {
            Self::Live(live) => post(live, "discards", &asked).await,
            Self::AtRest(desk) => Ok(operator::discard(desk.as_mut(), asked).await?),
        }
    }

    async fn cancel(&mut self, asked: CancelAsked) -> Result<ReplayView, Failure> {
        match self {
            Self::Live(live) => post(live, "cancellations", &asked).await,
            Self::AtRest(desk) => Ok(operator::cancel(desk.as_mut(), asked).await?),
        }
    }

    async fn pause(&mut self, asked: PauseAsked) -> Result<PauseMade, Failure> {
        match self {
            Self::Live(live) => post(live, "pauses", &asked).await,
            Self::AtRest(desk) => Ok(operator::pause(desk.as_mut(), asked).await?),
        }
    }

    async fn resume(&mut self, asked: PauseAsked) -> Result<PauseMade, Failure> {
        match self {
            Self::Live(live) => post(live, "resumes", &asked).await,
            Self::AtRest(desk) => Ok(operator::resume(desk.as_mut(), asked).await?),
        }
    }
}

async fn post<T: DeserializeOwned>(live: &Live, what: &str, asked: &impl Serialize) -> Result<T, Failure> {
    live.post(&format!("/api/v1/{what}"), asked).await
}

impl From<OperatorError> for Failure {
    fn from(error: OperatorError) -> Self {
        match error {
            OperatorError::Outbox(error) => error.into(),
            OperatorError::Unknown(words) | OperatorError::Refused(words) => Self::new(words),
        }
    }
}

/// An outbox that no service runs, as an operator's desk.
struct AtRest {
    store: Store,
    /// Loaded by the first change.
    state: Option<State>,
    configured: Vec<String>,
}

impl AtRest {
    fn told(&self, error: &KvError) -> OutboxError {
        OutboxError::of_store(&self.store.dir, error)
    }
}

impl Desk for AtRest {
    const OFFLINE: bool = true;

    fn look<T: Send + 'static>(&mut self, look: Look<T>) -> impl Future<Output = Result<T, OutboxError>> + Send {
        ready(look(self.store.kv.as_ref()).map_err(|error| self.told(&error)))
    }

    fn operate(&mut self, operations: Vec<Operation>) -> impl Future<Output = Result<Vec<u64>, OutboxError>> + Send {
        let now = self.now();
        ready(operate(&mut self.store, &mut self.state, operations, now).map_err(|error| self.told(&error)))
    }

    async fn withdraw(&mut self, _destination: &str, _seq: Seq) -> Result<Option<Result<(), String>>, OutboxError> {
        Ok(None)
    }

    fn configured(&self) -> Vec<String> {
        self.configured.clone()
    }

    fn now(&self) -> Moment {
        Clock::system().now()
    }
}
