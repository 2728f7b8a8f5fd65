//! What is in trouble, in the words of `outbox stats`, and with each what to do: a command where there is one. Pure.
//! Deliberately absent: what is fine.

use std::time::Duration;

use comfy_table::Cell;

use super::render::{Tone, ahead, count, span, table, text, whole};
use super::stats::state;
use crate::domain::time::Moment;
use crate::outbox::space::people as bytes;
use crate::outbox::views::{At, DestinationState, DestinationView, Stats};

/// How long a gap is news: it cannot be mended, and `also` goes on counting it.
const NEWS: Duration = Duration::from_secs(86_400);

/// Who is in trouble, how badly, why, and what to do.
type Trouble = (String, Tone, String, Vec<String>);

/// Every trouble with its remedy, or that there is none.
pub(super) fn render(stats: &Stats) -> String {
    let all = all(stats);
    if all.is_empty() {
        return "No trouble: nothing is stuck.\n".to_owned();
    }
    let mut rows = table(&["TROUBLE", "WHY, AND WHAT TO DO"]);
    for (who, tone, why, remedies) in all {
        let remedies = remedies.into_iter().map(|remedy| format!("\n→ {remedy}"));
        rows.add_row([tone.cell(who), Cell::new(why + &remedies.collect::<String>())]);
    }
    whole(&mut rows, &[0]);
    text(&rows)
}

fn all(stats: &Stats) -> Vec<Trouble> {
    let now = stats.at.0;
    let mut all = Vec::new();
    let mut trouble = |who: &str, tone, why, remedies: Vec<String>| all.push((who.to_owned(), tone, why, remedies));
    if !stats.live {
        let why = "it does not run: VK is not asked, nothing is delivered";
        trouble("service", Tone::Care, why.to_owned(), vec!["event-router run".to_owned()]);
    }
    if let Some(full) = &stats.full {
        let (since, forgets) = (span(full.since.0.age(now)), ahead(Some(full.vk_may_forget_from), now));
        let why = format!("FULL for {since}: {}; VK may forget what was not taken {forgets}", full.why);
        let remedy = "polling goes on by itself as soon as there is room; delivery goes on meanwhile";
        trouble("disk", Tone::Bad, why, vec![remedy.to_owned()]);
    }
    // While it is full, that is what is in the way of polling.
    if let Some(polling) = stats.polling.as_ref().filter(|_| stats.full.is_none())
        && let Some(problem) = &polling.problem
    {
        let since = polling.since.map_or_else(String::new, |At(at)| format!(" for {}", span(at.age(now))));
        let why = format!("in trouble{since}: {problem}; next try {}", ahead(polling.next_try, now));
        let remedy = "event-router check --online   asks VK: the token, its rights, the Long Poll settings";
        trouble("polling", Tone::Bad, why, vec![remedy.to_owned()]);
    }
    for view in &stats.destinations {
        if let Some((tone, why, remedies)) = stuck(view, now) {
            trouble(&view.name, tone, why, remedies);
        }
        if view.dead > 0 {
            let why = format!("{}, refused or given up", count(view.dead, "dead letter", "dead letters"));
            let remedy =
                format!("event-router outbox list --destination {} --group   by cause, with what to do", view.name);
            trouble(&view.name, Tone::Care, why, vec![remedy]);
        }
    }
    for view in stats.destinations.iter().filter(|view| view.expired > 0) {
        let why = format!("{} too old to be sent (max_age)", count(view.expired, "event was", "events were"));
        let list = format!("event-router outbox list --destination {} --state expired", view.name);
        let again =
            format!("event-router outbox replay --destination {} --state expired   delivers them after all", view.name);
        trouble(&view.name, Tone::Care, why, vec![list, again]);
    }
    if stats.quarantined > 0 {
        let why = count(stats.quarantined, "update could not be read", "updates could not be read");
        let remedies = [
            "event-router outbox list --state quarantined",
            "event-router outbox replay --state quarantined   after an upgrade",
        ];
        trouble("quarantine", Tone::Care, why, remedies.map(str::to_owned).to_vec());
    }
    if let Some(At(last)) = stats.last_gap
        && last.age(now) < NEWS
    {
        let why = format!(
            "VK has lost events before they could be read, {}, the last time {} ago",
            count(stats.gaps, "time", "times"),
            span(last.age(now))
        );
        trouble("gaps", Tone::Care, why, vec!["event-router outbox gaps".to_owned()]);
    }
    if stats.max_bytes.is_some_and(|max| stats.kept_bytes > max / 4) {
        let kept = bytes(stats.kept_bytes);
        let why = format!("dead letters and quarantine take {kept}, over a quarter of outbox.max_bytes");
        trouble("disk", Tone::Care, why, vec!["replay or discard them".to_owned()]);
    }
    // What stands still comes first.
    all.sort_by_key(|(_, tone, ..)| *tone != Tone::Bad);
    all
}

/// What keeps the events of a destination waiting, if something does.
fn stuck(view: &DestinationView, now: Moment) -> Option<(Tone, String, Vec<String>)> {
    let name = &view.name;
    if view.state != DestinationState::Detached
        && let Some(pause) = &view.pause
    {
        let why = worded("PAUSED", &pause.words(now));
        return Some((Tone::Care, why, vec![format!("event-router outbox resume {name}")]));
    }
    let (word, tone) = state(view.state);
    let remedies = match view.state {
        DestinationState::Down => down(view, now),
        // What a stopped service knows of an outage is what it knew when it stopped.
        DestinationState::Stopped if let Some(error) = &view.last_error => {
            return Some((Tone::Care, format!("was DOWN when the service stopped: {error}"), hint(view, error)));
        }
        DestinationState::Held => vec!["nothing: it ends by itself".to_owned()],
        DestinationState::Retrying => vec![
            format!("event-router outbox list --destination {name} --state pending   then show ID"),
            format!("event-router outbox discard ID --destination {name}   takes out a bad event"),
        ],
        DestinationState::Detached if view.pending > 0 => vec![
            format!("give [destinations.{name}] back to the configuration, or, for good:"),
            format!("event-router outbox discard --state pending --destination {name}"),
        ],
        _ => return None,
    };
    let why = match view.state {
        DestinationState::Detached => format!("{}; {}", count(view.pending, "event waits", "events wait"), view.why),
        _ => view.why.clone(),
    };
    Some((tone, worded(word, &why), remedies))
}

fn down(view: &DestinationView, now: Moment) -> Vec<String> {
    let mut remedies = view.last_error.as_ref().map(|error| hint(view, error)).unwrap_or_default();
    remedies.push(format!("repair the handler; delivery goes on by itself, next try {}", ahead(view.next_try, now)));
    remedies
}

/// What an answer may mean.
fn hint(view: &DestinationView, error: &str) -> Vec<String> {
    let name = &view.name;
    let answers = |words: &[&str]| words.iter().any(|word| error.contains(word));
    let words = match () {
        () if answers(&["HTTP 404", "HTTP 405", "HTTP 301", "HTTP 302", "HTTP 307", "HTTP 308"]) => {
            format!("is the path in destinations.{name}.url right? The handler is there and does not know it")
        }
        () if answers(&["HTTP 401", "HTTP 403"]) => {
            format!("are destinations.{name}.secret and .headers what it wants?")
        }
        () if answers(&["HTTP 5"]) => "the handler's own log should say why".to_owned(),
        () if answers(&["no answer in time"]) => {
            format!("is the handler stuck, or destinations.{name}.timeout too short?")
        }
        () if answers(&["HTTP 429"]) => format!("is destinations.{name}.concurrency more than it bears?"),
        () if answers(&["ertificate", "InvalidContentType", "UnknownIssuer", "handshake", "alert"]) => {
            format!("is destinations.{name}.url http where it should be https, or the other way; is its ca_file right?")
        }
        () if answers(&["no connection"]) => format!("does it run, and is destinations.{name}.url right?"),
        () => return Vec::new(),
    };
    vec![words]
}

/// A sentence that begins with the word of a state.
fn worded(word: &str, why: &str) -> String {
    match why.get(..word.len()) {
        Some(start) if start.eq_ignore_ascii_case(word) => format!("{word}{}", &why[word.len()..]),
        _ => format!("{word}: {why}"),
    }
}
