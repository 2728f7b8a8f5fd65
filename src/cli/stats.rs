//! How `outbox stats` looks to people: the facts, the destinations, and what is in trouble with what to do about it (`trouble`).
//! Deliberately absent: finding any of it.

use comfy_table::Cell;

use super::render::{Tone, ago, ahead, count, facts, right, span, table, text, whole};
use super::trouble;
use crate::outbox::space::people as bytes;
use crate::outbox::views::{At, DestinationState, Stats};

/// Statistics as text.
pub(super) fn render(stats: &Stats) -> String {
    facts(head(stats)) + "\n" + &destinations(stats) + "\n" + &trouble::render(stats)
}

fn head(stats: &Stats) -> Vec<[Cell; 2]> {
    let now = stats.at.0;
    let mut rows = Vec::new();
    let mut fact = |name: &str, tone: Tone, words: String| rows.push([Cell::new(name), tone.cell(words)]);
    let live = if stats.live { "live" } else { "offline: the service does not run" };
    fact("outbox", Tone::Plain, format!("{} ({live})", stats.dir));
    let of = stats.max_bytes.map_or_else(String::new, |max| format!(" of at most {}", bytes(max)));
    let (used, files, room) = (bytes(stats.used_bytes), bytes(stats.disk_bytes), bytes(stats.room_bytes));
    let full = if stats.full.is_some() { "FULL: " } else { "" };
    let tone = if stats.full.is_some() { Tone::Bad } else { Tone::Plain };
    fact("disk", tone, format!("{full}{used} in use{of}, files {files}, room for {room} more"));
    for checkpoint in &stats.checkpoints {
        let (group, ts, committed) = (checkpoint.group_id, &checkpoint.ts, ago(Some(checkpoint.committed), now));
        fact("checkpoint", Tone::Plain, format!("community {group}: ts {ts}, committed {committed}"));
    }
    if let Some(polling) = &stats.polling {
        let heard = ago(polling.heard, now);
        match (&polling.problem, polling.heard) {
            (None, None) => fact("polling", Tone::Plain, "VK has not answered yet".to_owned()),
            (None, Some(_)) => fact("polling", Tone::Good, format!("fine, VK heard {heard}")),
            (Some(_), None) => fact("polling", Tone::Bad, "IN TROUBLE, VK not heard since the start".to_owned()),
            (Some(_), Some(_)) => fact("polling", Tone::Bad, format!("IN TROUBLE, VK last heard {heard}")),
        }
    }
    let events = count(stats.log_next - stats.log_from, "event", "events");
    fact("log", Tone::Plain, format!("{events}, positions {}..{}", stats.log_from, stats.log_next));
    let (unrouted, quarantined) = (stats.unrouted, stats.quarantined);
    let (repeats, gaps) = (count(stats.repeats, "repeat", "repeats"), count(stats.gaps, "gap", "gaps"));
    let also = format!("{unrouted} taken by nobody, {repeats} dropped, {quarantined} in quarantine, {gaps}");
    fact("also", Tone::Plain, also);
    for replay in &stats.replays {
        let rows = count(replay.matched, "row", "rows");
        let waits = replay.waits.as_ref().map_or_else(String::new, |words| format!("; it waits: {words}"));
        let (number, of, done, did) = (replay.number, &replay.destination, replay.succeeded, replay.did());
        let (failed, asked) = (replay.failed, ago(Some(replay.at), now));
        let words =
            format!("number {number} of {of}, asked for {asked}: of {rows} {done} {did}, {failed} failed{waits}");
        fact("replay", Tone::Plain, words);
    }
    rows
}

fn destinations(stats: &Stats) -> String {
    let now = stats.at.0;
    let head = ["DESTINATION", "STATE", "PENDING", "IN FLIGHT", "DELIVERED", "DEAD", "OLDEST", "LAST OK", "NEXT TRY"];
    let mut rows = table(&head);
    for view in &stats.destinations {
        let (word, tone) = state(view.state);
        let dead = if view.dead > 0 { Tone::Care } else { Tone::Plain };
        rows.add_row([
            Cell::new(&view.name),
            tone.cell(word),
            Cell::new(view.pending),
            Cell::new(view.in_flight),
            Cell::new(view.delivered),
            dead.cell(view.dead.to_string()),
            Cell::new(view.oldest.map_or_else(|| "-".to_owned(), |At(at)| span(at.age(now)))),
            Cell::new(ago(view.last_ok, now)),
            Cell::new(ahead(view.next_try, now)),
        ]);
    }
    whole(&mut rows, &[0, 1]);
    right(&mut rows, &[2, 3, 4, 5]);
    text(&rows)
}

/// A state in a word, and how it is meant.
pub(super) fn state(state: DestinationState) -> (&'static str, Tone) {
    match state {
        DestinationState::Idle => ("idle", Tone::Good),
        DestinationState::Flowing => ("flowing", Tone::Good),
        DestinationState::Retrying => ("retrying", Tone::Care),
        DestinationState::Held => ("held", Tone::Care),
        DestinationState::Down => ("DOWN", Tone::Bad),
        DestinationState::Paused => ("PAUSED", Tone::Care),
        DestinationState::Detached => ("detached", Tone::Care),
        DestinationState::Stopped => ("stopped", Tone::Plain),
    }
}
