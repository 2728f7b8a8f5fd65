//! `/metrics` of the real binary, read by a strict parser of Prometheus' text format; and that the documents, the dashboard and
//! the alerts name what exists and nothing else. Deliberately absent: whether the expressions are sound (`tests/metrics/run`).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use event_router::sim::handler::Answer;
use event_router::sim::vk_server::Fault;
use serde_json::Value;
use tokio::process::Child;

use crate::admin::address;
use crate::rig::{Rig, text, view, within};

/// A family: its kind, its help, and its series, each a name with labels in order.
#[derive(Debug, Default)]
struct Family {
    kind: String,
    help: String,
    series: BTreeMap<String, f64>,
}

type Families = BTreeMap<String, Family>;

/// Reads the text as Prometheus' documents describe version 0.0.4, and less forgivingly: each family in one piece, with its help
/// and its kind before its series, no series twice.
fn parse(text: &str) -> Families {
    let mut families = Families::new();
    let mut current = String::new();
    assert!(text.ends_with('\n'), "the last line has no end");
    for line in text.lines().filter(|line| !line.is_empty()) {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').expect("a help of words");
            assert!(!families.contains_key(name), "{name} is in two pieces");
            name.clone_into(&mut current);
            let family = Family { help: help.to_owned(), ..Family::default() };
            families.insert(current.clone(), family);
            continue;
        }
        let family = families.get_mut(&current).unwrap_or_else(|| panic!("{line} has no help before it"));
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect("a kind");
            assert!(name == current && family.kind.is_empty() && family.series.is_empty(), "{line}");
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            kind.clone_into(&mut family.kind);
            continue;
        }
        assert!(!line.starts_with('#') && !family.kind.is_empty(), "{line}");
        let (series, value) = sample(line);
        let name = series.split('{').next().expect("a name");
        let end = name.strip_prefix(&current).unwrap_or_else(|| panic!("{line} is not of {current}"));
        let ends: &[&str] = if family.kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
        assert!(ends.contains(&end), "{line}");
        assert_eq!(name.ends_with("_total"), family.kind == "counter", "{line}: a counter ends in _total");
        assert!(family.series.insert(series, value).is_none(), "{line} is there twice");
    }
    families
}

/// A series and its value.
fn sample(line: &str) -> (String, f64) {
    let (head, labels, value) = match line.split_once('{') {
        None => line.split_once(' ').map(|(head, value)| (head, "", value)).expect("a value"),
        Some((head, rest)) => {
            let (labels, value) = rest.rsplit_once("} ").expect("an end of the labels");
            (head, labels, value)
        }
    };
    let plain =
        |word: &str| word.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
    assert!(plain(head) && head.starts_with("event_router_"), "{line}");
    let mut rest = labels;
    while !rest.is_empty() {
        let (name, value) = rest.split_once("=\"").expect("a label");
        assert!(plain(name), "{line}");
        let end = value.find('"').expect("its end");
        assert!(!value[..end].contains('\\'), "{line}: no label of ours needs an escape");
        rest = value[end + 1..].trim_start_matches(',');
    }
    let value: f64 = value.parse().expect("a number");
    assert!(value.is_finite(), "{line}");
    (line.rsplit_once(' ').expect("a value").0.to_owned(), value)
}

/// A histogram is one: its buckets grow and end in the count.
fn assert_histograms(families: &Families) {
    for (name, family) in families.iter().filter(|(_, family)| family.kind == "histogram") {
        let counts = family.series.iter().filter(|(series, _)| series.starts_with(&format!("{name}_count")));
        for (series, count) in counts {
            let labels = series.trim_start_matches(&format!("{name}_count")).trim_matches(['{', '}']);
            let mut buckets: Vec<(f64, f64)> = Vec::new();
            for (bucket, value) in
                family.series.iter().filter(|(series, _)| series.starts_with(&format!("{name}_bucket")))
            {
                let Some((_, edge)) = bucket.split_once("le=\"") else { panic!("{bucket} has no edge") };
                if bucket.contains(labels) {
                    let edge = edge.trim_end_matches("\"}");
                    buckets.push((if edge == "+Inf" { f64::INFINITY } else { edge.parse().expect("an edge") }, *value));
                }
            }
            buckets.sort_by(|one, other| one.0.total_cmp(&other.0));
            assert!(buckets.windows(2).all(|pair| pair[0].1 <= pair[1].1), "{series}: {buckets:?}");
            assert_eq!(buckets.last(), Some(&(f64::INFINITY, *count)), "{series}");
        }
    }
}

/// What waits for a retry goes on waiting.
const PATIENT: &str = "[delivery]\ninitial_interval = \"60s\"";

/// The binary with a door on TCP, and what it tells.
struct Scraped {
    rig: Rig,
    _service: Child,
    address: String,
}

impl Scraped {
    async fn start() -> Self {
        let address = address();
        let rig = Rig::new(&[("fine", ""), ("picky", "when = [{ event_type = ['message_new'] }]")], PATIENT).await;
        let config = fs::read_to_string(rig.config()).expect("read");
        let config = config.replace("listen = \"off\"", &format!("listen = \"{address}\""));
        fs::write(rig.config(), config).expect("written");
        let service = rig.spawn();
        within("the first poll", rig.vk.until(|vk| !vk.polls().is_empty())).await;
        Self { rig, _service: service, address }
    }

    async fn text(&self) -> String {
        let answer = reqwest::Client::builder().no_proxy().build().expect("a client");
        let answer = answer.get(format!("http://{}/metrics", self.address)).send();
        let answer = within("metrics", answer).await.expect("answered");
        assert_eq!(answer.headers()["content-type"], "text/plain; version=0.0.4; charset=utf-8");
        within("all of it", answer.text()).await.expect("text")
    }

    async fn families(&self) -> Families {
        let families = parse(&self.text().await);
        assert_histograms(&families);
        families
    }
}

#[track_caller]
fn is(families: &Families, series: &str, expected: f64) {
    let name = series.split('{').next().expect("a name");
    let name = ["_bucket", "_count", "_sum"].iter().fold(name, |name, end| name.strip_suffix(end).unwrap_or(name));
    let family = families.get(name).unwrap_or_else(|| panic!("no {name}"));
    assert_eq!(family.series.get(series), Some(&expected), "{series} in {family:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_night_is_told_in_numbers_that_add_up() {
    let mut scraped = Scraped::start().await;
    let before = scraped.families().await;
    is(&before, "event_router_polls_total{outcome=\"lost\"}", 0.0);
    is(&before, "event_router_destination_state{destination=\"fine\",state=\"idle\"}", 1.0);
    let rig = &mut scraped.rig;
    rig.handler("picky").answer(|received| match text(received).as_str() {
        "refused" => Answer::Status(422, "no"),
        "failed" => Answer::Status(500, "oops"),
        _ => Answer::Status(200, ""),
    });
    for words in ["one", "two", "refused", "!three"] {
        let takers: &[&str] = if words.starts_with('!') { &["fine"] } else { &["fine", "picky"] };
        rig.message(1, words, takers);
    }
    rig.update("group_join", serde_json::json!({ "user_id": 5 }), "user 5", &["fine"]);
    rig.until_settled().await;
    rig.message(2, "failed", &["fine", "picky"]);
    rig.until("it waits for a retry", |stats| {
        view(stats, "picky").waiting_chats == 1 && view(stats, "fine").pending == 0
    })
    .await;
    rig.vk.inject(Fault::Failed3);
    rig.until("a gap", |stats| stats.gaps == 1).await;

    let families = scraped.families().await;
    for (series, expected) in [
        ("event_router_events_total{event_type=\"message_new\"}", 4.0),
        ("event_router_events_total{event_type=\"command_call\"}", 1.0),
        ("event_router_events_total{event_type=\"group_join\"}", 1.0),
        ("event_router_updates_total", 6.0),
        ("event_router_routed_events_total{destination=\"fine\"}", 6.0),
        ("event_router_delivered_events_total{destination=\"fine\"}", 6.0),
        ("event_router_attempts_total{destination=\"fine\",outcome=\"delivered\"}", 6.0),
        ("event_router_delivery_latency_seconds_count{destination=\"fine\"}", 6.0),
        ("event_router_attempts_total{destination=\"picky\",outcome=\"refused\"}", 1.0),
        ("event_router_dead_letters{destination=\"picky\"}", 1.0),
        ("event_router_pending_events{destination=\"picky\"}", 1.0),
        ("event_router_destination_state{destination=\"picky\",state=\"retrying\"}", 1.0),
        ("event_router_destination_state{destination=\"picky\",state=\"down\"}", 0.0),
        ("event_router_polls_total{outcome=\"lost\"}", 1.0),
        ("event_router_gaps_total", 1.0),
        ("event_router_polling_fine", 1.0),
        ("event_router_outbox_full", 0.0),
        ("event_router_log_records_dropped_total", 0.0),
        ("event_router_build_info{version=\"0.1.0\"}", 1.0),
    ] {
        is(&families, series, expected);
    }
    let value = |name: &str, series: &str| families[name].series[series];
    let (commits, syncs) = ("event_router_commit_seconds", "event_router_commit_sync_seconds");
    assert!(value(commits, "event_router_commit_seconds_count") >= 3.0);
    assert!(value(commits, "event_router_commit_seconds_sum") >= value(syncs, "event_router_commit_sync_seconds_sum"));
    assert!(value("event_router_enrichment_calls_total", "event_router_enrichment_calls_total") >= 1.0);
    assert!(value("event_router_outbox_used_bytes", "event_router_outbox_used_bytes") > 0.0);
    let polls = &families["event_router_poll_to_commit_seconds"].series["event_router_poll_to_commit_seconds_count"];
    is(&families, "event_router_polls_total{outcome=\"updates\"}", *polls);
}

fn document(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(path)).expect("read")
}

/// The names of metrics in a text, without what a histogram's series add.
fn named(text: &str, families: &Families) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    let names = words.filter(|word| word.starts_with("event_router_"));
    let family = |name: &str| {
        let bare = ["_bucket", "_count", "_sum"].iter().find_map(|end| name.strip_suffix(end));
        let histogram = bare.filter(|bare| families.get(*bare).is_some_and(|family| family.kind == "histogram"));
        histogram.unwrap_or(name).to_owned()
    };
    names.map(family).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_documents_the_dashboard_and_the_alerts_name_what_exists() {
    let mut scraped = Scraped::start().await;
    scraped.rig.message(1, "one", &["fine", "picky"]);
    scraped.rig.until_settled().await;
    let families = scraped.families().await;
    let existing: BTreeSet<String> = families.keys().cloned().collect();

    let table = document("METRICS.md");
    for (name, family) in &families {
        let row = format!("| `{name}` | {} |", family.kind);
        assert!(table.contains(&row), "docs/METRICS.md has no row that begins {row}\n{}", family.help);
    }
    for path in ["METRICS.md", "grafana-dashboard.json", "alerts.yaml", "OPERATIONS.md"] {
        let names = named(&document(path), &families);
        let strange: Vec<_> = names.difference(&existing).collect();
        assert!(strange.is_empty(), "docs/{path} names what does not exist: {strange:?}");
    }
    assert_eq!(named(&table, &families), existing);
    // What labels the dashboard and the alerts ask for exists as well.
    let _sound: Value = serde_json::from_str(&document("grafana-dashboard.json")).expect("JSON");
    let text = document("grafana-dashboard.json").replace("\\\"", "\"") + &document("alerts.yaml");
    for word in text.split("state=\"").skip(1).map(|rest| rest.split('"').next().unwrap_or_default()) {
        let series = format!("event_router_destination_state{{destination=\"fine\",state=\"{word}\"}}");
        assert!(families["event_router_destination_state"].series.contains_key(&series), "no state {word}");
    }
}
