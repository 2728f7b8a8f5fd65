//! How `outbox stats` looks to people.

use super::render::{ago, ahead, right, span, table, text};
use crate::outbox::space::people as bytes;
use crate::outbox::views::{At, DestinationState, Stats};

/// Statistics as text.
pub(super) fn render(stats: &Stats) -> String {
    let now = stats.at.0;
    let mut out = String::new();
    let mut line = |words: String| {
        out.push_str(&words);
        out.push('\n');
    };
    line(format!("outbox      {} ({})", stats.dir, if stats.live { "live" } else { "offline" },));
    let of = stats.max_bytes.map_or_else(String::new, |max| format!(" of at most {}", bytes(max)));
    line(format!(
        "disk        {} in use{of}, files {}, room for {} more",
        bytes(stats.used_bytes),
        bytes(stats.disk_bytes),
        bytes(stats.room_bytes)
    ));
    if let Some(full) = &stats.full {
        line(format!(
            "FULL        since {}: {}; VK may forget what was not taken {}",
            ago(Some(full.since), now),
            full.why,
            ahead(Some(full.vk_may_forget_from), now)
        ));
    }
    if stats.max_bytes.is_some_and(|max| stats.kept_bytes > max / 4) {
        line(format!(
            "WARNING     dead letters and quarantine take {}, over a quarter of outbox.max_bytes: replay or discard them",
            bytes(stats.kept_bytes)
        ));
    }
    for checkpoint in &stats.checkpoints {
        line(format!(
            "checkpoint  community {}: ts {}, committed {}",
            checkpoint.group_id,
            checkpoint.ts,
            ago(Some(checkpoint.committed), now)
        ));
    }
    if let Some(polling) = &stats.polling {
        let words = match &polling.problem {
            None => format!("fine, VK heard {}", ago(polling.heard, now)),
            Some(problem) => {
                let since = polling.since.map_or_else(String::new, |At(at)| format!(" for {}", span(at.age(now))));
                format!("in trouble{since}: {problem}; next try {}", ahead(polling.next_try, now))
            }
        };
        line(format!("polling     {words}"));
    }
    let kept = stats.log_next - stats.log_from;
    line(format!("log         {kept} events, positions {}..{}", stats.log_from, stats.log_next));
    let counts = [
        ("unrouted", stats.unrouted),
        ("repeats dropped", stats.repeats),
        ("in quarantine", stats.quarantined),
        ("gaps", stats.gaps),
    ];
    line(format!("also        {}", counts.map(|(name, count)| format!("{count} {name}")).join(", ")));
    for replay in &stats.replays {
        line(format!(
            "replay      number {} of {}: {} of {} rows {}, {} failed, asked for {}{}",
            replay.number,
            replay.destination,
            replay.succeeded,
            replay.matched,
            replay.did(),
            replay.failed,
            ago(Some(replay.at), now),
            replay.waits.as_ref().map_or_else(String::new, |words| format!("; {words}"))
        ));
    }
    out.push('\n');
    out + &destinations(stats)
}

fn destinations(stats: &Stats) -> String {
    let now = stats.at.0;
    let mut rows = table(&[
        "DESTINATION",
        "STATE",
        "PENDING",
        "IN FLIGHT",
        "DELIVERED",
        "DEAD",
        "OLDEST",
        "LAST OK",
        "NEXT TRY",
        "WHY",
    ]);
    for view in &stats.destinations {
        rows.add_row([
            view.name.clone(),
            state(view.state).to_owned(),
            view.pending.to_string(),
            view.in_flight.to_string(),
            view.delivered.to_string(),
            view.dead.to_string(),
            view.oldest.map_or_else(|| "-".to_owned(), |At(at)| span(at.age(now))),
            ago(view.last_ok, now),
            ahead(view.next_try, now),
            view.why.clone(),
        ]);
    }
    right(&mut rows, &[2, 3, 4, 5]);
    let mut out = text(&rows);
    for view in stats.destinations.iter().filter(|view| view.dead > 0) {
        out.push_str(&format!(
            "\n{name} has {count} dead letter(s): event-router outbox list --destination {name} --state dead",
            name = view.name,
            count = view.dead
        ));
    }
    if stats.quarantined > 0 {
        out.push_str("\nsome updates could not be read: event-router outbox list --state quarantined");
    }
    if stats.gaps > 0 {
        out.push_str("\nVK has lost events: event-router outbox gaps");
    }
    if !out.ends_with('\n') {
        out.push('\n');
    }
    out
}

/// A state in a word.
fn state(state: DestinationState) -> &'static str {
    match state {
        DestinationState::Idle => "idle",
        DestinationState::Flowing => "flowing",
        DestinationState::Retrying => "retrying",
        DestinationState::Held => "held",
        DestinationState::Down => "DOWN",
        DestinationState::Paused => "PAUSED",
        DestinationState::Detached => "detached",
        DestinationState::Stopped => "stopped",
    }
}
