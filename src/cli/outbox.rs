//! `outbox`: look and replay, live through the socket or offline in the directory; tables for people, JSON for programs.
#![allow(clippy::print_stderr, reason = "the command line speaks on stderr")]

use std::io::{IsTerminal, stdin, stdout};
use std::path::Path;

use serde::Serialize;

use super::access::Access;
use super::args::{SelectorArgs, StateArg, Verb};
use super::exit::{Exit, Failure, say};
use super::render::{ago, number, right, span, table, text};
use super::stats;
use crate::clock::Clock;
use crate::domain::time::Moment;
use crate::outbox::gaps::{self, BackfillView, GapView};
use crate::outbox::kv::{Kv, KvError};
use crate::outbox::operations::operate;
use crate::outbox::pauses::{PauseAsked, PauseMade, PauseView};
use crate::outbox::views::{At, DeliveryState, DeliveryView, ReplayAsked, ReplayMade, Row, Selector, Shown, Stats};
use crate::outbox::{Operation, OutboxError, Store, inspect, lookup, replay};

pub(super) async fn run(dir: &Path, verb: Verb, json: bool) -> Result<Exit, Failure> {
    let now = Clock::system().now();
    let mut access = Access::find(dir).await?;
    if matches!(access, Access::Offline(_)) {
        tell_offline(dir, json);
    }
    match verb {
        Verb::Stats => {
            let stats: Stats = match &access {
                Access::Live(live) => live.get("/api/v1/stats", &()).await?,
                Access::Offline(store) => look(store, |kv| inspect::stats(kv, &dir.display().to_string(), now))?,
            };
            print(json, &stats, stats::render)
        }
        Verb::List { selector, limit } => {
            let selector = Selector { limit: Some(limit), ..selector.selector(now).map_err(Failure::usage)? };
            let rows: Vec<Row> = match &access {
                Access::Live(live) => live.get("/api/v1/events", &selector).await?,
                Access::Offline(store) => look(store, |kv| lookup::list(kv, &selector))?,
            };
            print(json, &rows, |rows| list(rows, now, limit))
        }
        Verb::Show { id } => {
            let id = plain(&id)?;
            let shown: Option<Shown> = match &access {
                Access::Live(live) => Some(live.get(&format!("/api/v1/events/{id}"), &()).await?),
                Access::Offline(store) => look(store, |kv| {
                    let mut shown = lookup::show(kv, id)?;
                    if let Some(shown) = &mut shown {
                        lookup::explain(shown, &inspect::stats(kv, "", now)?);
                    }
                    Ok(shown)
                })?,
            };
            let shown = shown.ok_or_else(|| Failure::new("there is no such event"))?;
            print(json, &shown, |shown| show(shown, now))
        }
        Verb::Gaps => {
            let gaps: Vec<GapView> = match &access {
                Access::Live(live) => live.get("/api/v1/gaps", &()).await?,
                Access::Offline(store) => look(store, gaps::all)?,
            };
            print(json, &gaps, |gaps| render_gaps(gaps, now))
        }
        Verb::Pause { destination, span, reason } => {
            let for_seconds = span.map(|span| span.as_secs().max(1));
            pause(&mut access, "pauses", PauseAsked { destination, for_seconds, reason }, now, json).await
        }
        Verb::Resume { destination } => {
            pause(&mut access, "resumes", PauseAsked { destination, ..PauseAsked::default() }, now, json).await
        }
        Verb::Replay { id, selector, dry_run, yes } => make_replay(&mut access, id, selector, dry_run, yes, json).await,
    }
}

/// Begins a pause, or ends one.
async fn pause(access: &mut Access, what: &str, asked: PauseAsked, now: Moment, json: bool) -> Result<Exit, Failure> {
    let made: PauseMade = match access {
        Access::Live(live) => live.post(&format!("/api/v1/{what}"), &asked).await?,
        Access::Offline(store) => {
            let id = look(store, |kv| inspect::destination_id(kv, &asked.destination))?.map_err(Failure::new)?;
            let record = (what == "pauses").then(|| asked.record(now));
            let operation = record.clone().map_or(Operation::Resume(id), |record| Operation::Pause(id, record));
            let dir = store.dir.clone();
            operate(store, operation, now).map_err(|error| OutboxError::of_store(&dir, &error))?;
            PauseMade { destination: asked.destination, pause: record.as_ref().map(PauseView::of) }
        }
    };
    print(json, &made, |made| match &made.pause {
        Some(pause) => format!("{} is {}\n", made.destination, pause.words(now)),
        None => format!("{} is not paused: its events go out\n", made.destination),
    })
}

/// Says that a directory is looked into, and no service asked.
pub(super) fn tell_offline(dir: &Path, json: bool) {
    if !json {
        eprintln!("offline: the service does not run; {} is read as it was left", dir.display());
    }
}

/// An id that can stand in a path as it is.
pub(super) fn plain(id: &str) -> Result<&str, Failure> {
    let fine = !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    if fine {
        Ok(id)
    } else {
        Err(Failure::usage(format!("{id:?} is no position, event id or number in quarantine like q7")))
    }
}

pub(super) fn look<T>(store: &Store, look: impl FnOnce(&dyn Kv) -> Result<T, KvError>) -> Result<T, Failure> {
    look(store.kv.as_ref()).map_err(|error| OutboxError::of_store(&store.dir, &error).into())
}

pub(super) fn print<T: Serialize>(json: bool, value: &T, render: impl FnOnce(&T) -> String) -> Result<Exit, Failure> {
    let words = if json {
        serde_json::to_string(value).map_err(|error| Failure::new(error.to_string()))? + "\n"
    } else {
        render(value)
    };
    say(&words)?;
    Ok(Exit::Done)
}

async fn make_replay(
    access: &mut Access,
    id: Option<String>,
    selector: SelectorArgs,
    dry_run: bool,
    yes: bool,
    json: bool,
) -> Result<Exit, Failure> {
    if selector.state.is_some_and(|state| !matches!(state, StateArg::Dead | StateArg::Expired | StateArg::Quarantined))
    {
        return Err(Failure::usage("--state: dead letters, expired events and updates in quarantine can be replayed"));
    }
    if id.is_none() && selector.is_empty() {
        return Err(Failure::usage(
            "say which: an ID, or at least one of --destination, --state, --type, --peer, --user, --since, --until, --seq",
        ));
    }
    if let Some(id) = &id {
        plain(id)?;
    }
    let selector = selector.selector(Clock::system().now()).map_err(Failure::usage)?;
    let plan =
        ask(access, &ReplayAsked { id: id.clone(), selector: selector.clone(), dry_run: true, up_to: None }).await?;
    let count: u64 = plan.iter().map(|made| made.matched).sum();
    if dry_run || count == 0 {
        return print(json, &plan, |plan| replays(plan, "would be replayed"));
    }
    if !yes {
        let refusal = format!("{count} row(s) would be replayed; say --yes to do it, or --dry-run to look");
        agreed(refusal, &format!("{}Replay them?", replays(&plan, "would be replayed")))?;
    }
    let live = matches!(access, Access::Live(_));
    let made = ask(access, &ReplayAsked { id, selector, dry_run: false, up_to: None }).await?;
    let done = if live { "are being replayed" } else { "will be replayed at the next start" };
    print(json, &made, |made| replays(made, done))
}

async fn ask(access: &mut Access, asked: &ReplayAsked) -> Result<Vec<ReplayMade>, Failure> {
    match access {
        Access::Live(live) => live.post("/api/v1/replays", asked).await,
        Access::Offline(store) => {
            let plans = look(store, |kv| replay::plan(kv, asked))?;
            match asked.dry_run {
                true => Ok(plans.iter().map(|plan| plan.made(None)).collect()),
                false => {
                    let dir = store.dir.clone();
                    let made = replay::write(store, &plans, Clock::system().now());
                    made.map_err(|error| OutboxError::of_store(&dir, &error).into())
                }
            }
        }
    }
}

/// Asks the person at the terminal; without one, `--yes` is needed.
pub(super) fn agreed(without_terminal: String, question: &str) -> Result<(), Failure> {
    if !(stdin().is_terminal() && stdout().is_terminal()) {
        return Err(Failure::usage(without_terminal));
    }
    eprint!("{question} [y/N] ");
    let mut answer = String::new();
    stdin().read_line(&mut answer)?;
    if matches!(answer.trim(), "y" | "Y" | "yes") { Ok(()) } else { Err(Failure::new("nothing was changed")) }
}

fn replays(made: &[ReplayMade], done: &str) -> String {
    if made.is_empty() {
        return "nothing matches\n".to_owned();
    }
    let line = |one: &ReplayMade| {
        let number = one.number.map_or_else(String::new, |number| format!(" (replay {number})"));
        match one.destination.as_str() {
            "quarantine" => {
                format!("{} update(s) in quarantine {done}: they are converted again{number}\n", one.matched)
            }
            name if one.expired => format!("{} expired event(s) of {name} {done}{number}\n", one.matched),
            name => format!("{} dead letter(s) of {name} {done}{number}\n", one.matched),
        }
    };
    made.iter().map(line).collect()
}

fn list(rows: &[Row], now: Moment, limit: u64) -> String {
    if rows.is_empty() {
        return "nothing matches\n".to_owned();
    }
    let mut shown = table(&["ID", "AGE", "TYPE", "PEER", "USER", "EVENT ID", "DELIVERIES"]);
    for row in rows {
        let deliveries: Vec<String> = row.deliveries.iter().map(delivery).collect();
        shown.add_row([
            id_of(row),
            span(row.received.0.age(now)),
            row.event_type.clone().unwrap_or_else(|| "quarantined".to_owned()),
            number(row.peer_id),
            number(row.user_id),
            row.event_id.clone(),
            row.reason.clone().unwrap_or_else(|| deliveries.join("; ")),
        ]);
    }
    right(&mut shown, &[0, 1]);
    let more =
        if rows.len() as u64 == limit { format!("(the first {limit}; more with --limit)\n") } else { String::new() };
    text(&shown) + &more
}

fn id_of(row: &Row) -> String {
    match (row.seq, row.quarantine) {
        (Some(seq), _) => seq.to_string(),
        (None, Some(number)) => format!("q{number}"),
        (None, None) => "-".to_owned(),
    }
}

fn delivery(view: &DeliveryView) -> String {
    let state = match view.state {
        DeliveryState::Pending => "pending",
        DeliveryState::Delivered => "delivered",
        DeliveryState::Dead => "dead",
        DeliveryState::Expired => "expired",
        DeliveryState::Discarded => "discarded",
    };
    let tried = if view.attempts > 0 { format!(", {} attempt(s)", view.attempts) } else { String::new() };
    let reason = view.reason.as_ref().map_or_else(String::new, |reason| format!(": {reason}"));
    format!("{} {state}{tried}{reason}", view.destination)
}

fn show(shown: &Shown, now: Moment) -> String {
    let row = &shown.row;
    let mut out = format!(
        "{}  {}  {}  received {}\n",
        id_of(row),
        row.event_type.as_deref().unwrap_or("quarantined"),
        row.event_id,
        ago(Some(row.received), now)
    );
    let mut line = |words: String| {
        out.push_str(&words);
        out.push('\n');
    };
    if let Some(reason) = &row.reason {
        line(format!("reason: {reason}"));
    }
    for view in &row.deliveries {
        line(format!("  {}", delivery(view)));
        for attempt in &view.history {
            let excerpt = if attempt.excerpt.is_empty() { String::new() } else { format!(" {:?}", attempt.excerpt) };
            line(format!(
                "    {}: {} after {} ms{excerpt}",
                ago(Some(attempt.at), now),
                attempt.answer,
                attempt.latency_ms
            ));
        }
        if let Some(why) = &view.why {
            line(format!("    {}: {why}", view.destination));
        }
        if let Some(At(at)) = view.next_try {
            let when = if at <= now { "due now".to_owned() } else { format!("in {}", span(now.age(at))) };
            line(format!("    next try {when}"));
        }
    }
    if let Some(body) = &shown.body {
        line(format!("\n{}", body.get()));
    }
    if let Some(raw) = &shown.raw {
        line(format!("\n{raw}"));
    }
    out
}

fn render_gaps(gaps: &[GapView], now: Moment) -> String {
    if gaps.is_empty() {
        return "VK has lost nothing that we know of\n".to_owned();
    }
    let mut shown =
        table(&["GAP", "WHEN", "COMMUNITY", "FROM TS", "TO TS", "DISTANCE", "AWAY", "CAUSE", "FETCHED BACK"]);
    for gap in gaps {
        let away =
            gap.away_seconds.map_or_else(|| "-".to_owned(), |seconds| span(std::time::Duration::from_secs(seconds)));
        shown.add_row([
            gap.number.to_string(),
            ago(Some(gap.at), now),
            gap.group_id.to_string(),
            gap.from_ts.clone(),
            gap.to_ts.clone(),
            number(gap.distance),
            away,
            gap.cause.clone(),
            gap.backfill.as_ref().map_or_else(|| "vk.backfill is off".to_owned(), BackfillView::words),
        ]);
    }
    text(&shown)
        + "Only messages can be fetched back: button presses, reactions, edits and other events of a gap are gone.\n"
}
