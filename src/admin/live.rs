//! What a running service adds to the statistics on disk: the state of the moment, in a word and a sentence. Pure.
//! Deliberately absent: reading either.

use crate::domain::ids::DestinationName;
use crate::domain::time::{Moment, span};
use crate::outbox::views::{At, DestinationState, DestinationView, PollingView, Stats};
use crate::status::{Board, Destination, Gate};

/// Lays the moment's state over the statistics on disk.
pub(super) fn overlay(stats: &mut Stats, board: &Board, configured: &[DestinationName]) {
    stats.live = true;
    let (since, problem) = board.polling.problem.clone().unzip();
    stats.polling = Some(PollingView {
        heard: board.polling.heard.map(At),
        problem,
        since: since.map(At),
        next_try: board.polling.next_try.map(At),
    });
    for view in &mut stats.destinations {
        // The others are detached: nothing happens there.
        if let Some(name) = configured.iter().find(|name| name.as_str() == view.name) {
            destination(view, board.destinations.get(name).cloned().unwrap_or_default(), stats.at.0);
        }
    }
}

fn destination(view: &mut DestinationView, live: Destination, now: Moment) {
    view.in_flight = live.in_flight as u64;
    view.waiting_chats = live.waiting_chats as u64;
    view.next_try = live.next_try.map(At);
    if let Some((at, error)) = live.last_error {
        view.last_error = Some(error);
        // While it is down, what counts is since when.
        view.last_error_at = view.last_error_at.filter(|_| live.gate == Gate::Down).or(Some(At(at)));
    }
    let error = view.last_error.clone().unwrap_or_else(|| "no answer yet".to_owned());
    if let Some(pause) = &view.pause {
        view.next_try = pause.until;
        (view.state, view.why) = (DestinationState::Paused, pause.words(now));
        return;
    }
    (view.state, view.why) = match live.gate {
        Gate::Held => (DestinationState::Held, format!("the handler asked for a pause: {error}")),
        Gate::Down => {
            let since = view.last_error_at.map_or_else(String::new, |At(at)| format!(" for {}", span(at.age(now))));
            (DestinationState::Down, format!("down{since}: {error}; one request at a time until it answers"))
        }
        Gate::Open if live.waiting_chats > 0 => {
            let chats = live.waiting_chats;
            let wait = if chats == 1 { "1 chat waits".to_owned() } else { format!("{chats} chats wait") };
            let alone = if view.last_ok.is_none_or(|ok| view.last_error_at.is_some_and(|failed| failed > ok))
                && chats == 1
            {
                "; with no other traffic a bad event and an outage look alike: if it is the event, `outbox discard ID` takes it out"
            } else {
                ""
            };
            (DestinationState::Retrying, format!("{wait} for a retry: {error}{alone}; other chats go on"))
        }
        Gate::Open if view.pending > 0 || live.in_flight > 0 => (DestinationState::Flowing, "events go out".to_owned()),
        Gate::Open => (DestinationState::Idle, "nothing waits".to_owned()),
    };
}

/// Why the service is not ready, if it is not. An outbox that takes nothing any more ends the process: nobody answers then.
pub(super) fn not_ready(board: &Board) -> Option<String> {
    match (&board.polling.problem, board.polling.heard) {
        (Some((_, problem)), _) => Some(format!("polling: {problem}")),
        (None, None) => Some("polling: VK has not answered yet".to_owned()),
        (None, Some(_)) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::Polling;

    #[test]
    fn readiness_says_what_is_missing() {
        let mut board = Board::default();
        assert_eq!(not_ready(&board).as_deref(), Some("polling: VK has not answered yet"));
        board.polling = Polling { heard: Some(Moment(1)), ..Polling::default() };
        assert_eq!(not_ready(&board), None);
        board.polling.problem = Some((Moment(2), "VK answers HTTP 502".to_owned()));
        assert_eq!(not_ready(&board).as_deref(), Some("polling: VK answers HTTP 502"));
    }
}
