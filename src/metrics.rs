//! What the running service counts and times for Prometheus: since its start, in memory. Labels have few values: outcomes,
//! destinations of the configuration, types of events up to a limit. Every name begins with `event_router_`.
//!
//! Deliberately absent: what the outbox knows anyway (`admin::metrics` tells that from the disk, so that a restart forgets
//! nothing), a global recorder (several services may run in one process), a server.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use metrics::{
    Counter, Histogram, Unit, counter, describe_counter, describe_histogram, histogram, with_local_recorder,
};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusRecorder};

use crate::domain::delivery::{Failure, Outcome};
use crate::domain::ids::DestinationName;

const POLLS: &str = "event_router_polls_total";
const UPDATES: &str = "event_router_updates_total";
const EVENTS: &str = "event_router_events_total";
const POLL_TO_COMMIT: &str = "event_router_poll_to_commit_seconds";
const COMMIT: &str = "event_router_commit_seconds";
const SYNC: &str = "event_router_commit_sync_seconds";
const ATTEMPTS: &str = "event_router_attempts_total";
const ATTEMPT: &str = "event_router_attempt_seconds";
const LATENCY: &str = "event_router_delivery_latency_seconds";

/// The edges of the histograms, in seconds: from what a fast disk takes to an outage of hours.
const EDGES: [f64; 21] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1_800.0,
    3_600.0, 21_600.0, 86_400.0,
];
/// How many types of events are told apart; those of VK that exist are fewer. What comes beyond counts as `other`.
const TYPES: usize = 100;
/// The longest name of a type that is told.
const TYPE_BYTES: usize = 40;

/// What came of a poll.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Polled {
    /// Updates.
    Updates,
    /// An answer without any.
    Empty,
    /// `failed 1`: VK has forgotten what came since.
    Outdated,
    /// `failed 2`: the key is old.
    KeyExpired,
    /// `failed 3`: key and ts are lost.
    Lost,
    /// An answer that could not be used.
    Unusable,
    /// No answer, or one of HTTP that is no success, or far too large.
    Unreachable,
}

impl Polled {
    const ALL: [Self; 7] =
        [Self::Updates, Self::Empty, Self::Outdated, Self::KeyExpired, Self::Lost, Self::Unusable, Self::Unreachable];

    fn word(self) -> &'static str {
        match self {
            Self::Updates => "updates",
            Self::Empty => "empty",
            Self::Outdated => "outdated",
            Self::KeyExpired => "key_expired",
            Self::Lost => "lost",
            Self::Unusable => "unusable",
            Self::Unreachable => "unreachable",
        }
    }
}

/// The counters of a service; clones are the same.
#[derive(Clone)]
pub struct Metrics(Arc<Inner>);

struct Inner {
    recorder: PrometheusRecorder,
    polls: [Counter; Polled::ALL.len()],
    updates: Counter,
    events: Mutex<HashMap<String, Counter>>,
    poll_to_commit: Histogram,
    commits: Commits,
    readings: Mutex<Vec<(Counter, Reading)>>,
}

/// A number that somebody else counts.
type Reading = Box<dyn Fn() -> u64 + Send + Sync>;

/// How long commits take.
#[derive(Clone)]
pub struct Commits {
    whole: Histogram,
    sync: Histogram,
}

/// What is counted of one destination.
#[derive(Clone)]
pub struct Attempting {
    outcomes: [Counter; OUTCOMES.len()],
    seconds: Histogram,
    latency: Histogram,
}

/// What an attempt comes to, as a label.
const OUTCOMES: [&str; 6] = ["delivered", "refused", "failed", "timeout", "unreachable", "broken"];

impl Default for Metrics {
    fn default() -> Self {
        let builder = PrometheusBuilder::new().set_buckets(&EDGES);
        let recorder = builder.expect("invariant: there are edges").build_recorder();
        with_local_recorder(&recorder, describe);
        let inner = with_local_recorder(&recorder, || {
            // Told from the start: what has not happened yet is 0, not absent.
            let polls = Polled::ALL.map(|polled| counter!(POLLS, "outcome" => polled.word()));
            let commits = Commits { whole: histogram!(COMMIT), sync: histogram!(SYNC) };
            (polls, counter!(UPDATES), histogram!(POLL_TO_COMMIT), commits)
        });
        let (polls, updates, poll_to_commit, commits) = inner;
        let (events, readings) = (Mutex::default(), Mutex::default());
        Self(Arc::new(Inner { recorder, polls, updates, events, poll_to_commit, commits, readings }))
    }
}

fn describe() {
    describe_counter!(POLLS, Unit::Count, "Polls of VK, by what came of them");
    describe_counter!(UPDATES, Unit::Count, "Updates that VK's answers brought");
    describe_counter!(EVENTS, Unit::Count, "Updates that were converted to events, whether somebody takes them or not");
    describe_histogram!(POLL_TO_COMMIT, Unit::Seconds, "From an answer of VK with updates to its durable commit");
    describe_histogram!(COMMIT, Unit::Seconds, "A commit of the outbox, its fdatasync included");
    describe_histogram!(SYNC, Unit::Seconds, "Of a commit: handing it to the disk, and fdatasync");
    describe_counter!(ATTEMPTS, Unit::Count, "Requests to a destination, by what came of them");
    describe_histogram!(ATTEMPT, Unit::Seconds, "From a request to the end of its answer");
    describe_histogram!(
        LATENCY,
        Unit::Seconds,
        "From an event's receipt, just before its commit, to its 2xx; no replays"
    );
}

impl Metrics {
    /// A poll is over.
    pub fn polled(&self, polled: Polled) {
        self.0.polls[polled as usize].increment(1);
    }

    /// So many updates came.
    pub fn updates(&self, count: usize) {
        self.0.updates.increment(count as u64);
    }

    /// An update became an event of a type.
    pub fn converted(&self, event_type: &str) {
        let mut events = lock(&self.0.events);
        if let Some(known) = events.get(event_type) {
            return known.increment(1);
        }
        // Some day VK, or whoever speaks for it, sends what nobody has seen.
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        let fine = event_type.len() <= TYPE_BYTES && event_type.bytes().all(plain) && events.len() < TYPES;
        let name = if fine { event_type } else { "other" };
        let counter = with_local_recorder(&self.0.recorder, || counter!(EVENTS, "event_type" => name.to_owned()));
        counter.increment(1);
        if fine {
            events.insert(name.to_owned(), counter);
        }
    }

    /// An answer of VK was committed so long after it came.
    pub fn answer_committed(&self, after: Duration) {
        self.0.poll_to_commit.record(after);
    }

    /// For the outbox: how long its commits take.
    #[must_use]
    pub fn commits(&self) -> Commits {
        self.0.commits.clone()
    }

    /// For a worker.
    #[must_use]
    pub fn attempting(&self, destination: &DestinationName) -> Attempting {
        let name = || destination.to_string();
        with_local_recorder(&self.0.recorder, || Attempting {
            outcomes: OUTCOMES.map(|outcome| counter!(ATTEMPTS, "destination" => name(), "outcome" => outcome)),
            seconds: histogram!(ATTEMPT, "destination" => name()),
            latency: histogram!(LATENCY, "destination" => name()),
        })
    }

    /// Tells also of what somebody else counts.
    pub fn read(&self, name: &'static str, words: &'static str, reading: impl Fn() -> u64 + Send + Sync + 'static) {
        let counter = with_local_recorder(&self.0.recorder, || {
            describe_counter!(name, Unit::Count, words);
            counter!(name)
        });
        lock(&self.0.readings).push((counter, Box::new(reading)));
    }

    /// All of it, in Prometheus' text format.
    #[must_use]
    pub fn render(&self) -> String {
        lock(&self.0.readings).iter().for_each(|(counter, reading)| counter.absolute(reading()));
        self.0.recorder.handle().render()
    }

    /// Puts what was timed into the histograms: whether anybody asks or not, what waits to be put there must stay little.
    pub fn tidy(&self) {
        self.0.recorder.handle().run_upkeep();
    }
}

impl Commits {
    /// A commit is durable after so long, of which the sync took so much.
    pub fn committed(&self, whole: Duration, sync: Duration) {
        self.whole.record(whole);
        self.sync.record(sync);
    }
}

impl Attempting {
    /// A request is over after so long.
    pub fn attempted(&self, outcome: &Outcome, after: Duration) {
        let place = match outcome {
            Outcome::Delivered { .. } => 0,
            Outcome::Refused { .. } => 1,
            Outcome::Failed { failure: Failure::Status(_), .. } => 2,
            Outcome::Failed { failure: Failure::Timeout, .. } => 3,
            Outcome::Failed { failure: Failure::Connect(_), .. } => 4,
            Outcome::Failed { failure: Failure::Broken(_), .. } => 5,
        };
        self.outcomes[place].increment(1);
        self.seconds.record(after);
    }

    /// An event was delivered so long after its receipt.
    pub fn delivered(&self, after: Duration) {
        self.latency.record(after);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str, series: &str) -> Option<f64> {
        text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
    }

    #[test]
    fn what_has_not_happened_is_told_as_nothing() {
        let text = Metrics::default().render();
        for series in ["event_router_polls_total{outcome=\"lost\"}", "event_router_updates_total"] {
            assert_eq!(value(&text, series), Some(0.0), "{series} in {text}");
        }
    }

    #[test]
    fn types_of_events_are_told_apart_up_to_a_limit() {
        let metrics = Metrics::default();
        for event_type in ["message_new", "message_new", "it is \"none\"\n", &"x".repeat(TYPE_BYTES + 1)] {
            metrics.converted(event_type);
        }
        for n in 0..TYPES + 10 {
            metrics.converted(&format!("type_{n}"));
            metrics.converted("message_new");
        }
        let text = metrics.render();
        assert_eq!(text.lines().filter(|line| line.starts_with("event_router_events_total{")).count(), TYPES + 1);
        assert_eq!(value(&text, "event_router_events_total{event_type=\"message_new\"}"), Some(112.0), "{text}");
        assert_eq!(value(&text, "event_router_events_total{event_type=\"other\"}"), Some(13.0), "{text}");
    }

    #[test]
    fn what_is_timed_is_counted_whether_it_was_tidied_or_not() {
        let metrics = Metrics::default();
        let all = metrics.attempting(&DestinationName::parse("all").expect("a name"));
        let failed = |failure| Outcome::Failed { failure, excerpt: String::new(), retry_after: None };
        all.attempted(&Outcome::Delivered { status: 200 }, Duration::from_millis(3));
        metrics.tidy();
        all.attempted(&failed(Failure::Timeout), Duration::from_secs(10));
        all.delivered(Duration::from_secs(90_000));
        let text = metrics.render();
        for (series, expected) in [
            ("event_router_attempts_total{destination=\"all\",outcome=\"delivered\"}", 1.0),
            ("event_router_attempts_total{destination=\"all\",outcome=\"timeout\"}", 1.0),
            ("event_router_attempt_seconds_bucket{destination=\"all\",le=\"0.005\"}", 1.0),
            ("event_router_attempt_seconds_count{destination=\"all\"}", 2.0),
            ("event_router_delivery_latency_seconds_bucket{destination=\"all\",le=\"86400\"}", 0.0),
            ("event_router_delivery_latency_seconds_bucket{destination=\"all\",le=\"+Inf\"}", 1.0),
        ] {
            assert_eq!(value(&text, series), Some(expected), "{series} in {text}");
        }
    }

    #[test]
    fn what_others_count_is_read_when_it_is_asked_for() {
        let metrics = Metrics::default();
        let count = Arc::new(std::sync::atomic::AtomicU64::new(0));
        let counted = Arc::clone(&count);
        metrics
            .read("event_router_of_another_total", "Words", move || counted.load(std::sync::atomic::Ordering::Relaxed));
        count.store(7, std::sync::atomic::Ordering::Relaxed);
        let text = metrics.render();
        assert_eq!(value(&text, "event_router_of_another_total"), Some(7.0), "{text}");
        assert!(text.contains("# HELP event_router_of_another_total Words"), "{text}");
    }
}
