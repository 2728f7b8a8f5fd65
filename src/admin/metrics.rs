//! What Prometheus reads of the outbox and of the moment: made when it asks, from what is durable, so that a restart forgets
//! nothing. What is counted since the start comes after it (`crate::metrics`). Every name begins with `event_router_`.
//! Deliberately absent: a server of its own, any global recorder.

use metrics::{Unit, counter, describe_counter, describe_gauge, gauge, with_local_recorder};
use metrics_exporter_prometheus::PrometheusBuilder;

use crate::domain::time::Moment;
use crate::outbox::gaps::GapView;
use crate::outbox::views::{At, DestinationState, DestinationView, Stats};

/// Of Prometheus' text format.
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

const STATES: [(DestinationState, &str); 7] = [
    (DestinationState::Idle, "idle"),
    (DestinationState::Flowing, "flowing"),
    (DestinationState::Retrying, "retrying"),
    (DestinationState::Held, "held"),
    (DestinationState::Down, "down"),
    (DestinationState::Paused, "paused"),
    (DestinationState::Detached, "detached"),
];

/// What is told.
pub(super) struct Snapshot<'a> {
    pub(super) stats: &'a Stats,
    pub(super) gaps: &'a [GapView],
    pub(super) started: Moment,
}

/// The text.
pub(super) fn render(snapshot: &Snapshot<'_>) -> String {
    let recorder = PrometheusBuilder::new().build_recorder();
    with_local_recorder(&recorder, || {
        service(snapshot);
        outbox(snapshot.stats);
        gaps(snapshot.gaps);
        for view in &snapshot.stats.destinations {
            destination(view, snapshot.stats.at.0);
        }
    });
    recorder.handle().render()
}

/// A gauge with what it means; labels are pairs.
fn set(name: &'static str, unit: Unit, words: &'static str, labels: &[(&'static str, String)], value: f64) {
    describe_gauge!(name, unit, words);
    gauge!(name, labels).set(value);
}

/// The same of a number that only grows.
fn count(name: &'static str, words: &'static str, labels: &[(&'static str, String)], value: u64) {
    describe_counter!(name, Unit::Count, words);
    counter!(name, labels).absolute(value);
}

/// Seconds since 1970; 0 is never.
fn date(at: Option<At>) -> f64 {
    at.map_or(0.0, |At(at)| at.0 as f64 / 1000.0)
}

fn service(snapshot: &Snapshot<'_>) {
    let stats = snapshot.stats;
    let version = [("version", env!("CARGO_PKG_VERSION").to_owned())];
    set("event_router_build_info", Unit::Count, "1, with the version", &version, 1.0);
    let started = date(Some(At(snapshot.started)));
    set("event_router_start_timestamp_seconds", Unit::Seconds, "When the service started", &[], started);
    let polling = stats.polling.as_ref();
    let fine = polling.is_some_and(|polling| polling.problem.is_none());
    let words = "1 while VK is polled without trouble, else 0";
    set("event_router_polling_fine", Unit::Count, words, &[], f64::from(u8::from(fine)));
    let words = "When VK last gave an answer that could be used; 0 is never since the start";
    let heard = date(polling.and_then(|polling| polling.heard));
    set("event_router_vk_heard_timestamp_seconds", Unit::Seconds, words, &[], heard);
    for checkpoint in &stats.checkpoints {
        let group = [("group_id", checkpoint.group_id.to_string())];
        let (name, words) = ("event_router_checkpoint_timestamp_seconds", "When the checkpoint was last committed");
        set(name, Unit::Seconds, words, &group, date(Some(checkpoint.committed)));
    }
}

fn outbox(stats: &Stats) {
    let bytes = |name, words, value: u64| set(name, Unit::Bytes, words, &[], value as f64);
    bytes("event_router_outbox_file_bytes", "What the outbox's files take", stats.disk_bytes);
    bytes("event_router_outbox_used_bytes", "What is in use, as outbox.max_bytes counts it", stats.used_bytes);
    bytes("event_router_outbox_max_bytes", "outbox.max_bytes", stats.max_bytes.unwrap_or_default());
    bytes(
        "event_router_outbox_room_bytes",
        "What can still be written before polling stops for want of room",
        stats.room_bytes,
    );
    bytes("event_router_outbox_kept_bytes", "Dead letters and updates in quarantine", stats.kept_bytes);
    let full = f64::from(u8::from(stats.full.is_some()));
    set("event_router_outbox_full", Unit::Count, "1 while polling waits for room, else 0", &[], full);
    let events = (stats.log_next - stats.log_from) as f64;
    set(
        "event_router_outbox_events",
        Unit::Count,
        "Events in the log, settled ones that are kept included",
        &[],
        events,
    );
    let quarantined = stats.quarantined as f64;
    set("event_router_quarantined_updates", Unit::Count, "Updates in quarantine", &[], quarantined);
    let replays = stats.replays.len() as f64;
    set("event_router_replays_under_way", Unit::Count, "Replays that are not done", &[], replays);
    count("event_router_unrouted_events_total", "Events that no destination takes", &[], stats.unrouted);
    count("event_router_duplicates_total", "Updates that came again and were dropped", &[], stats.repeats);
}

fn gaps(gaps: &[GapView]) {
    let told = || gaps.iter().filter_map(|gap| gap.backfill.as_ref());
    count("event_router_gaps_total", "Gaps: VK said that it had lost events", &[], gaps.len() as u64);
    let (name, words) = ("event_router_last_gap_timestamp_seconds", "When VK last said so; 0 is never");
    set(name, Unit::Seconds, words, &[], date(gaps.last().map(|gap| gap.at)));
    let recovered = told().map(|told| told.recovered).sum();
    count("event_router_backfilled_messages_total", "Messages of gaps that were fetched back", &[], recovered);
    let filling = told().filter(|told| told.finished.is_none()).count() as f64;
    let words = "Gaps whose messages are being fetched back";
    set("event_router_gaps_being_filled", Unit::Count, words, &[], filling);
}

fn destination(view: &DestinationView, now: Moment) {
    let label = [("destination", view.name.clone())];
    let counted = |name, words, value| count(name, words, &label, value);
    counted("event_router_routed_events_total", "Events that the destination takes", view.routed);
    counted("event_router_delivered_events_total", "Events that its handler has", view.delivered);
    counted("event_router_discarded_events_total", "Events that an operator took out", view.discarded);
    let number = |name, words, value: u64| set(name, Unit::Count, words, &label, value as f64);
    number("event_router_pending_events", "Events that wait for their delivery", view.pending);
    number("event_router_aside_events", "Of these, events of blocked chats that were moved aside", view.aside);
    number("event_router_dead_letters", "Events that were refused or given up", view.dead);
    number("event_router_expired_events", "Events that were too old to be sent", view.expired);
    number("event_router_requests_in_flight", "Requests that wait for their answer", view.in_flight);
    number("event_router_waiting_chats", "Chats that wait for a retry", view.waiting_chats);
    let age = view.oldest.map_or(0.0, |At(at)| at.age(now).as_secs_f64());
    let (name, words) =
        ("event_router_oldest_pending_age_seconds", "How long the oldest pending event waits; 0 with none");
    set(name, Unit::Seconds, words, &label, age);
    let (name, words) = ("event_router_last_delivery_timestamp_seconds", "The last 2xx; 0 is never");
    set(name, Unit::Seconds, words, &label, date(view.last_ok));
    for (state, word) in STATES {
        let labels = [("destination", view.name.clone()), ("state", word.to_owned())];
        let is = f64::from(u8::from(view.state == state));
        set("event_router_destination_state", Unit::Count, "1 for the state it is in, 0 for the others", &labels, is);
    }
}
