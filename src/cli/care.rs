//! `outbox verify`, `salvage`, `export`: what is done about an outbox rather than with its events one by one.
//! Deliberately absent: how it is done (`outbox::{verify, salvage, lookup}`).
#![allow(clippy::print_stderr, reason = "the command line speaks on stderr")]

use std::io::{IsTerminal, stderr};
use std::path::Path;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressFinish, ProgressStyle};

use super::access::{Access, Live};
use super::args::CareVerb;
use super::exit::{Exit, Failure, say};
use super::outbox::{print, tell_offline};
use super::render::count;
use super::selector::SelectorArgs;
use crate::clock::Clock;
use crate::outbox::salvage::{Salvaged, salvage};
use crate::outbox::space::people;
use crate::outbox::verify::Verified;
use crate::outbox::views::Exported;
use crate::outbox::{Look, lookup};

/// How often words that move do so.
const TICK: Duration = Duration::from_millis(200);

pub(super) async fn run(dir: &Path, verb: CareVerb, json: bool) -> Result<Exit, Failure> {
    match verb {
        CareVerb::Verify => run_verify(dir, json).await,
        CareVerb::Salvage { into } => run_salvage(dir, &into, json).await,
        CareVerb::Export { selector } => run_export(dir, selector).await,
    }
}

/// Reads everything and checks it. Damage is exit 65.
async fn run_verify(dir: &Path, json: bool) -> Result<Exit, Failure> {
    let open = || Look::open_as_it_is(dir, "outbox verify", Duration::ZERO);
    let told: Verified = match Access::patiently(dir, open).await? {
        Access::Live(live) => {
            if !json {
                eprintln!("live: the service runs and goes on writing; its own store is read");
            }
            live.get_slowly("/api/v1/verify").await?
        }
        Access::Offline(look) => {
            tell_offline(dir, json);
            let bar = progress();
            let told = look.verify(&mut |read, of| {
                bar.set_length(of.max(read));
                bar.set_position(read);
            });
            bar.finish_and_clear();
            told?
        }
    };
    print(json, &told, |told| verified(told, dir))?;
    Ok(if told.sound { Exit::Done } else { Exit::Damaged })
}

fn verified(told: &Verified, dir: &Path) -> String {
    let mut words = format!(
        "read {} in {}: {} in {}, {} moved aside, {} dead, {} in quarantine, {}\n",
        people(told.bytes),
        count(told.records, "record", "records"),
        count(told.events, "event", "events"),
        count(told.chunks, "chunk", "chunks"),
        told.aside,
        told.dead,
        told.quarantined,
        count(told.gaps, "gap", "gaps")
    );
    for finding in &told.findings {
        words += &format!("FOUND  {finding}\n");
    }
    if told.found > told.findings.len() as u64 {
        words += &format!("       and {} more\n", told.found - told.findings.len() as u64);
    }
    words += match (told.sound, told.recounted) {
        (true, true) => "everything is as it was written, and every count is right\n",
        (true, false) => {
            "everything is as it was written; the counts moved while they were taken (the service runs): stop it to have them checked\n"
        }
        (false, _) => "",
    };
    if !told.sound {
        words += &format!(
            "this outbox is damaged; nothing was changed. Keep a copy of {}, stop the service, and bring what can be read into a fresh one:\n  event-router outbox salvage --into DIR\n",
            dir.display()
        );
    }
    words
}

/// Copies what is readable into a fresh outbox.
async fn run_salvage(dir: &Path, into: &Path, json: bool) -> Result<Exit, Failure> {
    if Live::knock(dir).await?.is_some() {
        let words = "the service runs: stop it first; salvage reads an outbox at rest".to_owned();
        return Err(Failure { words, exit: Exit::Unavailable });
    }
    let bar = progress();
    let told = salvage(dir, into, Clock::system().now(), &mut |bytes| bar.inc(bytes));
    bar.finish_and_clear();
    print(json, &told?, salvaged)
}

fn salvaged(told: &Salvaged) -> String {
    let mut words = format!(
        "brought into {}: {} of the log, {} moved aside, {}, {} in quarantine, {}\n",
        told.into,
        count(told.events, "event", "events"),
        told.aside,
        count(told.dead, "dead letter", "dead letters"),
        told.quarantined,
        count(told.gaps, "gap", "gaps")
    );
    for (group, ts) in &told.checkpoints {
        words += &format!("checkpoint: community {group} goes on at ts {ts}\n");
    }
    if told.checkpoints.is_empty() {
        words +=
            "NO checkpoint could be read: the service will begin at VK's present ts, and what lies between is lost\n";
    }
    if told.commits_missing > 0 {
        words += &format!(
            "MISSING  the last {}: the outbox is as it was before them; VK is asked again from the checkpoint above, and what it still has comes again\n",
            count(told.commits_missing, "commit", "commits")
        );
    }
    for missing in &told.missing {
        words += &format!("MISSING  {}\n", missing.words());
    }
    for hole in &told.holes {
        words += &format!("MISSING  {hole}\n");
    }
    if told.holes_found > told.holes.len() as u64 {
        words += &format!("         and {} more\n", told.holes_found - told.holes.len() as u64);
    }
    words += match told.loses_something() {
        true => "each loss is kept as a gap of the new outbox: event-router outbox gaps\n",
        false => "nothing was missing\n",
    };
    words
        + "the old outbox is as it was. To go on with the new one, make it outbox.dir, or put it in the old one's place.\n"
}

/// Events as lines of JSON.
async fn run_export(dir: &Path, selector: SelectorArgs) -> Result<Exit, Failure> {
    let access = Access::to_look(dir).await?;
    if matches!(access, Access::Offline(_)) {
        tell_offline(dir, false);
    }
    let mut selector = selector.selector(Clock::system().now()).map_err(Failure::usage)?;
    loop {
        let page: Exported = match &access {
            Access::Live(live) => live.get("/api/v1/export", &selector).await?,
            Access::Offline(look) => look.at(|kv| lookup::export(kv, &selector))?,
        };
        let mut lines = String::new();
        for line in &page.lines {
            lines.push_str(line.get());
            lines.push('\n');
        }
        say(&lines)?;
        match page.next {
            Some(next) => selector.from_seq = Some(next),
            None => return Ok(Exit::Done),
        }
    }
}

/// On a terminal words that move until this is dropped; nothing elsewhere.
pub(super) fn waiting(words: &'static str) -> ProgressBar {
    let wait = if stderr().is_terminal() { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
    let wait = wait.with_message(words).with_finish(ProgressFinish::AndClear);
    wait.enable_steady_tick(TICK);
    wait
}

/// A bar on a terminal; nothing elsewhere.
pub(super) fn progress() -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:30} {bytes} of {total_bytes}, {eta} to go");
    let bar = if stderr().is_terminal() { ProgressBar::new(0) } else { ProgressBar::hidden() };
    if let Ok(style) = style {
        bar.set_style(style);
    }
    bar
}
