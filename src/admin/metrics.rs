//! What Prometheus reads: made from what is durable at the moment of the question, so that a restart forgets nothing. Every
//! name begins with `event_router_`. Deliberately absent: a server of its own, any global recorder.

use metrics::{Unit, counter, describe_counter, describe_gauge, gauge};
use metrics_exporter_prometheus::PrometheusBuilder;

use crate::outbox::gaps::GapView;

/// Of Prometheus' text format.
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

const GAPS: &str = "event_router_gaps_total";
const LAST_GAP: &str = "event_router_last_gap_timestamp_seconds";
const FETCHED: &str = "event_router_backfilled_messages_total";
const FILLING: &str = "event_router_gaps_being_filled";

/// The text.
pub(super) fn render(gaps: &[GapView]) -> String {
    let recorder = PrometheusBuilder::new().build_recorder();
    metrics::with_local_recorder(&recorder, || {
        describe_counter!(GAPS, Unit::Count, "Gaps: VK said that it had lost events");
        describe_gauge!(LAST_GAP, Unit::Seconds, "When VK last said so, in seconds since 1970; 0 is never");
        describe_counter!(FETCHED, Unit::Count, "Messages of gaps that were fetched back");
        describe_gauge!(FILLING, Unit::Count, "Gaps whose messages are being fetched back");
        counter!(GAPS).absolute(gaps.len() as u64);
        gauge!(LAST_GAP).set(gaps.last().map_or(0.0, |gap| gap.at.0.unix_seconds() as f64));
        let told = || gaps.iter().filter_map(|gap| gap.backfill.as_ref());
        counter!(FETCHED).absolute(told().map(|told| told.recovered).sum());
        gauge!(FILLING).set(told().filter(|told| told.finished.is_none()).count() as f64);
    });
    recorder.handle().render()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::time::Moment;
    use crate::outbox::gaps::BackfillView;
    use crate::outbox::views::At;

    #[test]
    fn gaps_are_counted_and_dated() {
        let gap = |at, backfill| GapView {
            number: 1,
            group_id: 7,
            from_ts: "1".to_owned(),
            to_ts: "5".to_owned(),
            distance: Some(4),
            at: At(Moment(at)),
            last_heard: None,
            away_seconds: None,
            cause: "failed 1".to_owned(),
            backfill,
        };
        let filling = BackfillView {
            recovered: 42,
            absent: 0,
            refused_chats: 0,
            refusal: None,
            left_chats: 0,
            switched_off: 0,
            finished: None,
        };
        let text = render(&[gap(1_000, None), gap(1_790_000_000_123, Some(filling))]);
        let value = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.unwrap_or_else(|| panic!("no {name} in {text}")).parse::<f64>().expect("a number")
        };
        assert_eq!([GAPS, LAST_GAP, FETCHED, FILLING].map(value), [2.0, 1_790_000_000.0, 42.0, 1.0]);
        assert!(text.contains("# TYPE event_router_gaps_total counter"), "{text}");
    }
}
