//! `outbox`: what is looked at, live through the socket or offline in the directory; tables for people, JSON for programs.
//! Deliberately absent: what changes anything (`change`), the outbox as a whole (`care`).
#![allow(clippy::print_stderr, reason = "the command line speaks on stderr")]

use std::path::Path;

use serde::Serialize;

use super::access::Access;
use super::args::Verb;
use super::care::waiting;
use super::exit::{Exit, Failure, say};
use super::render::{ago, count, number, right, span, table, text};
use super::stats;
use crate::clock::Clock;
use crate::domain::time::Moment;
use crate::outbox::audit::{self, AuditView};
use crate::outbox::gaps::{self, BackfillView, GapView};
use crate::outbox::groups::{self, GroupView};
use crate::outbox::replay::{self, ReplayView};
use crate::outbox::views::{At, DeliveryState, DeliveryView, ListState, Row, Selector, Shown, Stats};
use crate::outbox::{inspect, lookup};

/// `configured` are the destinations of the configuration, if they are known.
pub(super) async fn run(dir: &Path, configured: &[String], verb: Verb, json: bool) -> Result<Exit, Failure> {
    let now = Clock::system().now();
    let access = Access::to_look(dir).await?;
    if matches!(access, Access::Offline(_)) {
        tell_offline(dir, json);
    }
    match verb {
        Verb::Stats => {
            let stats: Stats = match &access {
                Access::Live(live) => live.get("/api/v1/stats", &()).await?,
                Access::Offline(look) => {
                    look.at(|kv| inspect::stats(kv, &dir.display().to_string(), configured, now))?
                }
            };
            print(json, &stats, stats::render)
        }
        Verb::List { selector, limit, group: true } => {
            if selector.state.is_some_and(|state| !state.has_cause()) {
                return Err(Failure::usage("--group: what is dead, expired or quarantined has a cause"));
            }
            let selector = Selector { limit: Some(limit), ..selector.selector(now).map_err(Failure::usage)? };
            let found: Vec<GroupView> = match &access {
                Access::Live(live) => live.get("/api/v1/groups", &selector).await?,
                Access::Offline(look) => look.at(|kv| groups::groups(kv, &selector))?,
            };
            print(json, &found, |found| render_groups(found, &selector, now))
        }
        Verb::List { selector, limit, group: false } => {
            let selector = Selector { limit: Some(limit), ..selector.selector(now).map_err(Failure::usage)? };
            let rows: Vec<Row> = match &access {
                Access::Live(live) => live.get("/api/v1/events", &selector).await?,
                Access::Offline(look) => look.at(|kv| lookup::list(kv, &selector))?,
            };
            print(json, &rows, |rows| list(rows, now, limit))
        }
        Verb::Show { id } => {
            let id = plain(&id)?;
            // A position is at hand; for an event id the log is read, from its end on.
            let wait = waiting("looking for this event, the newest first");
            let shown: Option<Shown> = match &access {
                Access::Live(live) => Some(live.get(&format!("/api/v1/events/{id}"), &()).await?),
                Access::Offline(look) => look.at(|kv| {
                    let mut shown = lookup::show(kv, id)?;
                    if let Some(shown) = &mut shown {
                        lookup::explain(shown, &inspect::stats(kv, &dir.display().to_string(), configured, now)?);
                    }
                    Ok(shown)
                })?,
            };
            drop(wait);
            let shown = shown.ok_or_else(|| Failure::new("there is no such event"))?;
            print(json, &shown, |shown| show(shown, now))
        }
        Verb::Gaps => {
            let gaps: Vec<GapView> = match &access {
                Access::Live(live) => live.get("/api/v1/gaps", &()).await?,
                Access::Offline(look) => look.at(gaps::all)?,
            };
            print(json, &gaps, |gaps| render_gaps(gaps, now))
        }
        Verb::Replays => {
            let replays: Vec<ReplayView> = match &access {
                Access::Live(live) => live.get("/api/v1/replays", &()).await?,
                Access::Offline(look) => look.at(|kv| replay::all(kv, configured, now))?,
            };
            print(json, &replays, |replays| render_replays(replays, now))
        }
        Verb::Audit => {
            let changes: Vec<AuditView> = match &access {
                Access::Live(live) => live.get("/api/v1/audit", &()).await?,
                Access::Offline(look) => look.at(audit::all)?,
            };
            print(json, &changes, |changes| render_audit(changes, now))
        }
    }
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

pub(super) fn print<T: Serialize>(json: bool, value: &T, render: impl FnOnce(&T) -> String) -> Result<Exit, Failure> {
    let words = if json {
        serde_json::to_string(value).map_err(|error| Failure::new(error.to_string()))? + "\n"
    } else {
        render(value)
    };
    say(&words)?;
    Ok(Exit::Done)
}

fn list(rows: &[Row], now: Moment, limit: u64) -> String {
    if rows.is_empty() {
        return "nothing matches\n".to_owned();
    }
    let mut shown = table(&["ID", "AGE", "TYPE", "PEER", "USER", "DELIVERIES"]);
    for row in rows {
        let deliveries: Vec<String> = row.deliveries.iter().map(delivery).collect();
        shown.add_row([
            id_of(row),
            span(row.received.0.age(now)),
            row.event_type.clone().unwrap_or_else(|| "quarantined".to_owned()),
            number(row.peer_id),
            number(row.user_id),
            row.reason.clone().unwrap_or_else(|| deliveries.join("; ")),
        ]);
    }
    right(&mut shown, &[0, 1]);
    let more =
        if rows.len() as u64 == limit { format!("(the first {limit}; more with --limit N)\n") } else { String::new() };
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
    let tried = if view.attempts > 0 {
        format!(", {}", count(view.attempts.into(), "failed attempt", "failed attempts"))
    } else {
        String::new()
    };
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
        let id = id_of(row);
        line(format!("  → event-router outbox replay {id}    reads it again, after an upgrade"));
        line(format!("  → event-router outbox discard {id}   takes it out for good"));
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
        for remedy in remedies(&id_of(row), view) {
            line(format!("    → event-router outbox {remedy}"));
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

/// What can be done about a delivery.
fn remedies(id: &str, view: &DeliveryView) -> Vec<String> {
    let to = &view.destination;
    let again = match view.state {
        DeliveryState::Dead => Some(format!("replay {id} --destination {to}    delivers it again")),
        DeliveryState::Expired => {
            Some(format!("replay {id} --destination {to} --state expired   delivers it after all"))
        }
        // Where a destination is down, nothing is wrong with its events.
        DeliveryState::Pending if view.attempts > 0 && !stands_still(view) => None,
        _ => return Vec::new(),
    };
    let out = (view.state != DeliveryState::Expired)
        .then(|| format!("discard {id} --destination {to}   takes it out for good"));
    again.into_iter().chain(out).collect()
}

/// Whether the destination takes nothing at all, of whatever chat.
fn stands_still(view: &DeliveryView) -> bool {
    let Some(why) = &view.why else { return false };
    let why = why.strip_prefix("the service is stopped; ").unwrap_or(why);
    ["down", "the destination was down", "paused", "not configured"].iter().any(|words| why.starts_with(words))
}

fn render_gaps(gaps: &[GapView], now: Moment) -> String {
    if gaps.is_empty() {
        return "VK has lost nothing that we know of\n".to_owned();
    }
    let mut shown = table(&["GAP", "WHEN", "COMMUNITY", "TS", "DISTANCE", "AWAY", "CAUSE", "FETCHED BACK"]);
    for gap in gaps {
        let away =
            gap.away_seconds.map_or_else(|| "-".to_owned(), |seconds| span(std::time::Duration::from_secs(seconds)));
        shown.add_row([
            gap.number.to_string(),
            ago(Some(gap.at), now),
            gap.group_id.to_string(),
            format!("{}..{}", gap.from_ts, gap.to_ts),
            number(gap.distance),
            away,
            gap.cause.clone(),
            gap.backfill.as_ref().map_or_else(|| "vk.backfill is off".to_owned(), BackfillView::words),
        ]);
    }
    text(&shown)
        + "Only messages can be fetched back: button presses, reactions, edits and other events of a gap are gone.\n"
}

fn render_groups(groups: &[GroupView], asked: &Selector, now: Moment) -> String {
    let Some(first) = groups.first() else { return "nothing matches\n".to_owned() };
    let mut shown = table(&["COUNT", "DESTINATION", "CAUSE", "OLDEST", "NEWEST", "EXAMPLE", "ITS ANSWER"]);
    for group in groups {
        let id = if group.state == ListState::Quarantined { "q" } else { "" };
        shown.add_row([
            group.count.to_string(),
            group.destination.clone().unwrap_or_else(|| "-".to_owned()),
            group.cause.clone().unwrap_or_else(|| "(other causes)".to_owned()),
            ago(Some(group.oldest), now),
            ago(Some(group.newest), now),
            format!("{id}{}", group.example),
            group.excerpt.as_ref().map_or_else(|| "-".to_owned(), |words| words.chars().take(60).collect()),
        ]);
    }
    right(&mut shown, &[0]);
    let Some(cause) = &first.cause else { return text(&shown) };
    // The rest of what was asked for stays: who acts on it means what is shown.
    let (destination, state) = (first.destination.clone(), Some(first.state));
    let words = Selector { destination, state, cause: None, ..asked.clone() }.words();
    let cause = cause.replace('\'', r"'\''");
    text(&shown)
        + &format!("\nthe first group again:  event-router outbox replay{words} --cause '{cause}'\n")
        + &format!("or out for good:        event-router outbox discard{words} --cause '{cause}'\n")
}

fn render_replays(replays: &[ReplayView], now: Moment) -> String {
    if replays.is_empty() {
        return "there was none, as far as is kept\n".to_owned();
    }
    let mut shown =
        table(&["REPLAY", "OF", "WHAT", "ASKED FOR", "ROWS", "DELIVERED", "FAILED", "GONE", "RATE", "STATE"]);
    for replay in replays {
        let state = match replay.ended {
            Some(At(at)) if replay.cancelled => format!("cancelled {} ago", span(at.age(now))),
            Some(At(at)) => format!("done {} ago", span(at.age(now))),
            None => replay.waits.clone().unwrap_or_else(|| "under way".to_owned()),
        };
        shown.add_row([
            replay.number.to_string(),
            replay.destination.clone(),
            replay.state.word().to_owned(),
            ago(Some(replay.at), now),
            replay.matched.to_string(),
            replay.succeeded.to_string(),
            replay.failed.to_string(),
            replay.gone().to_string(),
            replay.rate().map_or_else(
                || "-".to_owned(),
                |rate| format!("{rate:.3}").trim_end_matches('0').trim_end_matches('.').to_owned() + "/s",
            ),
            state,
        ]);
    }
    right(&mut shown, &[0, 4, 5, 6, 7, 8]);
    text(&shown)
}

fn render_audit(changes: &[AuditView], now: Moment) -> String {
    if changes.is_empty() {
        return "no operator has changed anything\n".to_owned();
    }
    let mut shown = table(&["WHEN", "WHAT", "CHANGED", "WHY"]);
    for change in changes {
        let changed = change.changed.map_or_else(|| "not carried out to its end".to_owned(), |count| count.to_string());
        let numbers: Vec<String> = change.replays.iter().map(|number| format!(" (replay {number})")).collect();
        let offline = numbers.concat() + if change.offline { " (offline)" } else { "" };
        shown.add_row([
            ago(Some(change.at), now),
            format!("{}{offline}", change.what),
            changed,
            change.reason.clone().unwrap_or_else(|| "-".to_owned()),
        ]);
    }
    text(&shown)
}
