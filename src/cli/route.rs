//! `route`: which destinations take the events of raw updates, by which table of `when`, and which condition failed in each
//! other; offline, by the rules of the configuration. The JSON that it prints is described in `docs/CONFIG.md`. Deliberately
//! absent: deciding (`domain::route`), converting.

use std::io::{self, BufWriter, ErrorKind, Write};

use serde::Serialize;

use super::args::RouteArgs;
use super::exit::{Exit, Failure};
use super::render::{table, text};
use super::updates;
use crate::domain::convert::{Facts, Settings, Update, mend};
use crate::domain::ids::DestinationName;
use crate::domain::route::{Explanation, Outcome, Rule};

/// What is told of an event.
#[derive(Serialize)]
struct EventView<'a> {
    /// Which update of the input it was, from 1.
    update: usize,
    event_id: &'a str,
    event_type: &'a str,
    user_id: Option<i64>,
    peer_id: Option<i64>,
    chat_id: Option<i64>,
    /// The names of those that take it.
    taken_by: Vec<&'a str>,
    destinations: Vec<DestinationView<'a>>,
}

/// What is told of a destination.
#[derive(Serialize)]
struct DestinationView<'a> {
    name: &'a str,
    taken: bool,
    /// The first table that matches; none when the destination takes everything, or not this.
    table: Option<usize>,
    /// All its tables; none when it takes everything.
    tables: Vec<TableView>,
}

/// What is told of a table of `when`.
#[derive(Serialize)]
struct TableView {
    /// Its place in `when`, from 0, as in the paths of problems.
    table: usize,
    matches: bool,
    /// The first condition that failed.
    failed: Option<&'static str>,
    /// Why, in words that may change.
    why: Option<String>,
}

type Rules = [(DestinationName, Rule)];

pub(super) fn run(args: &RouteArgs, settings: &Settings, rules: &Rules) -> Result<Exit, Failure> {
    let bytes = updates::input(&args.file)?;
    let mut out = BufWriter::new(io::stdout().lock());
    let told = route(&bytes, &mut out, &mut io::stderr().lock(), args.json, settings, rules);
    match told.and_then(|quarantined| out.flush().map(|()| quarantined)) {
        Ok(0) => Ok(Exit::Done),
        Ok(_) => Ok(Exit::Failed),
        // A reader that has left has seen enough.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(Exit::Done),
        Err(error) => Err(error.into()),
    }
}

/// Explains everything in `input`; gives the number of updates that could not be read.
fn route(
    input: &[u8],
    out: &mut impl Write,
    err: &mut impl Write,
    json: bool,
    settings: &Settings,
    rules: &Rules,
) -> io::Result<usize> {
    let text = mend(input);
    let (mut told, mut quarantined) = (0, 0);
    for (update, number) in updates::read(&text).into_iter().zip(1..) {
        match update {
            Ok(update) => {
                let facts = update.facts(settings);
                let view = event_view(number, &update, &facts, rules);
                match json {
                    true => writeln!(out, "{}", serde_json::to_string(&view)?)?,
                    false => write!(out, "{}{}", if told > 0 { "\n" } else { "" }, people(&view))?,
                }
                told += 1;
            }
            Err(bad) => {
                writeln!(err, "{}", updates::quarantined(number, &bad))?;
                quarantined += 1;
            }
        }
    }
    Ok(quarantined)
}

fn event_view<'a>(number: usize, update: &'a Update<'_>, facts: &Facts<'a>, rules: &'a Rules) -> EventView<'a> {
    let destinations: Vec<_> =
        rules.iter().map(|(name, rule)| destination_view(name.as_str(), rule.explain(facts))).collect();
    EventView {
        update: number,
        event_id: update.event_id().as_str(),
        event_type: facts.event_type,
        user_id: facts.user_id,
        peer_id: facts.peer_id,
        chat_id: facts.chat_id(),
        taken_by: destinations.iter().filter(|to| to.taken).map(|to| to.name).collect(),
        destinations,
    }
}

fn destination_view(name: &str, explanation: Explanation) -> DestinationView<'_> {
    let (taken, by) = (explanation.taken(), explanation.by());
    let view = |(place, outcome)| match outcome {
        Outcome::Matches => TableView { table: place, matches: true, failed: None, why: None },
        Outcome::Fails { key, why } => {
            TableView { table: place, matches: false, failed: Some(key.as_str()), why: Some(why) }
        }
    };
    DestinationView { name, taken, table: by, tables: explanation.0.into_iter().enumerate().map(view).collect() }
}

fn people(event: &EventView<'_>) -> String {
    let mut head = format!("update {}: {} {}", event.update, event.event_type, event.event_id);
    for (name, id) in [("peer", event.peer_id), ("chat", event.chat_id), ("user", event.user_id)] {
        head.extend(id.map(|id| format!(", {name} {id}")));
    }
    let mut rows = table(&["DESTINATION", "TAKEN", "BY", "FAILED"]);
    for to in &event.destinations {
        let by: Vec<String> = to.tables.iter().filter(|one| one.matches).map(|one| place(one.table)).collect();
        let by = match (to.taken, by.is_empty()) {
            (true, true) => "no `when`".to_owned(),
            (_, true) => "-".to_owned(),
            (_, false) => by.join(", "),
        };
        let failed: Vec<String> = to.tables.iter().filter_map(failure).collect();
        let failed = if failed.is_empty() { "-".to_owned() } else { failed.join("\n") };
        rows.add_row([to.name, if to.taken { "yes" } else { "no" }, &by, &failed]);
    }
    let nobody = if event.taken_by.is_empty() { "nobody takes it: it is counted, not stored\n" } else { "" };
    format!("{head}\n{}{nobody}", text(&rows))
}

fn failure(table: &TableView) -> Option<String> {
    Some(format!("{} {}: {}", place(table.table), table.failed?, table.why.as_deref()?))
}

fn place(table: usize) -> String {
    format!("when[{table}]")
}
