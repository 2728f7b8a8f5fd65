//! Every key there is: its default, its bounds, the setting it becomes. What is not built yet is not here, and so unknown.
//! Deliberately absent: where values come from (`source`).

use std::cell::RefCell;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use chrono::FixedOffset;
use reqwest::Url;
use tracing::Level;

use super::problem::{Problem, Problems};
use super::reader::{Context, Reader};
use super::source::{DEFAULT_FILE, Source, merge};
use crate::app;
use crate::app::settings::WorkstreamSettings;
use crate::delivery::{self, BackoffSettings};
use crate::domain::convert;
use crate::domain::ids::{DestinationName, GroupId};
use crate::domain::route::{Condition, Rule};
use crate::outbox;
use crate::secret::Secret;
use crate::vk;

const SECOND: Duration = Duration::from_secs(1);
const MILLISECOND: Duration = Duration::from_millis(1);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);
const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
/// Statuses that can never be refusals: they speak of the moment, not of the event.
const NEVER_REJECT: [u16; 3] = [408, 425, 429];
/// Headers that are ours, or HTTP's.
const TAKEN_HEADERS: [&str; 7] =
    ["content-type", "content-length", "host", "transfer-encoding", "connection", "user-agent", "te"];

/// How the log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogSettings {
    /// For people or for programs.
    pub format: Format,
    /// Least important level that is written.
    pub level: Level,
}

/// The format of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A line a record, for people.
    Pretty,
    /// A JSON object a record.
    Json,
}

/// What was read, with what is wrong only for a command that needs the whole.
#[derive(Debug)]
pub struct Loaded {
    /// How the log is written.
    pub log: LogSettings,
    /// Where the outbox is.
    pub outbox: outbox::Settings,
    /// How events are written.
    pub events: convert::Settings,
    service: Result<app::Settings, Problems>,
}

impl Loaded {
    /// The whole service: it needs a token, a community and a destination.
    ///
    /// # Errors
    /// What is missing.
    pub fn service(self) -> Result<app::Settings, Problems> {
        self.service
    }
}

/// Reads a configuration.
///
/// # Errors
/// Everything that is wrong with what is there.
pub fn load(source: &Source) -> Result<Loaded, Problems> {
    let mut problems = Vec::new();
    let merged = merge(source, &mut problems);
    if !problems.is_empty() {
        return Err(Problems(problems));
    }
    let context = Context { from_env: merged.from_env, problems: RefCell::default() };
    let root = Reader::new(&context, "", merged.table);
    let service_name = root.text("service_name").unwrap_or_else(|| "toaster.event-routing-service".to_owned());
    let (vk, missing_vk) = vk_section(&root.table("vk"));
    let events = events_section(&root.table("events"));
    let names = names_section(&root.table("enrichment"));
    let outbox = outbox_section(&root.table("outbox"));
    let defaults = Delivery::read(&root.table("delivery"), &Delivery::default(), true);
    let destinations = destinations_section(&root.table("destinations"), &defaults);
    let workstream_log = workstream_section(&root.table("workstream_log"));
    let log = log_section(&root.table("log"));
    root.finish();
    let mut problems = context.problems.into_inner();
    if !problems.is_empty() {
        problems.sort();
        return Err(Problems(problems));
    }
    let mut missing = missing_vk;
    if destinations.is_empty() {
        missing
            .push(told("destinations", "there is none, expected at least one table [destinations.<name>] with a url"));
    }
    if let Some(file) = merged.missing_file.filter(|_| !missing.is_empty()) {
        let words =
            format!("there is no such file; name one with --config, or put {DEFAULT_FILE} into the working directory");
        missing.insert(0, told(&file.display().to_string(), &words));
    }
    let service = match vk {
        Some(vk) if missing.is_empty() => {
            let (events, outbox) = (events.clone(), outbox.clone());
            Ok(app::Settings { service_name, vk, names, events, outbox, destinations, workstream_log })
        }
        _ => Err(Problems(missing)),
    };
    Ok(Loaded { log, outbox, events, service })
}

fn told(path: &str, words: &str) -> Problem {
    Problem { path: path.to_owned(), words: words.to_owned() }
}

/// The settings, or what is missing for them.
fn vk_section(vk: &Reader<'_>) -> (Option<vk::Settings>, Vec<Problem>) {
    let token = vk.secret("token");
    let group_id = vk.integer("group_id", 1, i64::MAX).and_then(|id| GroupId::new(id).ok());
    let api_url = vk.parse("api_url", api_url).unwrap_or_else(|| "https://api.vk.ru".to_owned());
    let api_version = vk.parse("api_version", api_version).unwrap_or_else(|| "5.199".to_owned());
    let wait = vk.span("wait", SECOND, 90 * SECOND).unwrap_or(25 * SECOND);
    if wait.subsec_nanos() > 0 {
        vk.problem("wait", "expected whole seconds");
    }
    let mut missing = Vec::new();
    if token.is_none() {
        missing.push(told("vk.token", "it is not set, expected the community's access token (TOKEN, or TOKEN_FILE with the path of a file that holds it)"));
    }
    if group_id.is_none() {
        missing.push(told("vk.group_id", "it is not set, expected the community's number (GROUPID)"));
    }
    vk.finish();
    let settings =
        token.zip(group_id).map(|(token, group_id)| vk::Settings { token, group_id, api_url, api_version, wait });
    (settings, missing)
}

/// An address of the API; over plain http only where nobody listens on the way.
fn api_url(text: &str) -> Result<String, String> {
    let url = http_url(text)?;
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let near = match host.parse::<IpAddr>() {
        Ok(IpAddr::V4(address)) => address.is_loopback() || address.is_private(),
        Ok(IpAddr::V6(address)) => address.is_loopback() || address.is_unique_local(),
        Err(_) => host == "localhost",
    };
    if url.scheme() == "http" && !near {
        return Err("expected https: the token would travel in the clear (http is for a loopback or private address)"
            .to_owned());
    }
    Ok(text.trim_end_matches('/').to_owned())
}

fn http_url(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| format!("{error}, expected a URL like https://host/path"))?;
    match url.scheme() {
        "http" | "https" => Ok(url),
        _ => Err("expected a URL that begins with http:// or https://".to_owned()),
    }
}

fn api_version(text: &str) -> Result<String, &'static str> {
    let fine = text.split_once('.').is_some_and(|(a, b)| [a, b].iter().all(|part| part.parse::<u16>().is_ok()));
    if fine { Ok(text.to_owned()) } else { Err("expected a version like 5.199") }
}

fn events_section(events: &Reader<'_>) -> convert::Settings {
    let command_prefixes = events.texts("command_prefixes").unwrap_or_else(|| vec!["/".to_owned(), "!".to_owned()]);
    if command_prefixes.iter().any(String::is_empty) {
        events.problem(
            "command_prefixes",
            "an empty prefix would make every message a command, expected texts like \"/\"",
        );
    }
    let default = FixedOffset::east_opt(3 * 3600).expect("invariant: three hours are an offset");
    let utc_offset =
        events.parse("utc_offset", |text| text.parse::<FixedOffset>().map_err(|_| "expected an offset like +03:00"));
    let settings = convert::Settings {
        command_prefixes,
        utc_offset: utc_offset.unwrap_or(default),
        object: events.flag("object", false),
    };
    events.finish();
    settings
}

fn names_section(names: &Reader<'_>) -> vk::NamesSettings {
    let settings = vk::NamesSettings {
        enabled: names.flag("enabled", true),
        timeout: names.span("timeout", MILLISECOND, 60 * SECOND).unwrap_or(3 * SECOND),
        cache_ttl: names.span("cache_ttl", SECOND, 30 * DAY).unwrap_or(HOUR),
        cache_entries: names.integer("cache_entries", 1, 10_000_000).map_or(100_000, i64::unsigned_abs),
    };
    names.finish();
    settings
}

fn outbox_section(outbox: &Reader<'_>) -> outbox::Settings {
    let dir = outbox.text("dir").unwrap_or_else(|| "data".to_owned());
    if dir.is_empty() {
        outbox.problem("dir", "it is empty, expected a directory on the persistent volume");
    }
    let retention = outbox.span("retention", Duration::ZERO, YEAR).unwrap_or(DAY);
    outbox.finish();
    outbox::Settings { dir: PathBuf::from(dir), retention }
}

/// What `[delivery]` gives and each destination may change.
#[derive(Clone, Debug)]
struct Delivery {
    timeout: Duration,
    concurrency: usize,
    backoff: BackoffSettings,
    reject_on: Vec<u16>,
}

impl Default for Delivery {
    fn default() -> Self {
        let backoff = BackoffSettings {
            initial_interval: Duration::from_millis(500),
            multiplier: 2.0,
            max_interval: 60 * SECOND,
            randomization_factor: 0.5,
        };
        Self { timeout: 10 * SECOND, concurrency: 16, backoff, reject_on: vec![400, 406, 413, 415, 422] }
    }
}

impl Delivery {
    /// Reads the keys over `defaults`; the caller finishes the table when it has keys of its own (`alone` is false).
    fn read(table: &Reader<'_>, defaults: &Self, alone: bool) -> Self {
        let backoff = BackoffSettings {
            initial_interval: table
                .span("initial_interval", MILLISECOND, HOUR)
                .unwrap_or(defaults.backoff.initial_interval),
            multiplier: table.number("multiplier", 1.0, 100.0).unwrap_or(defaults.backoff.multiplier),
            max_interval: table.span("max_interval", MILLISECOND, DAY).unwrap_or(defaults.backoff.max_interval),
            randomization_factor: table
                .number("randomization_factor", 0.0, 1.0)
                .unwrap_or(defaults.backoff.randomization_factor),
        };
        if backoff.max_interval < backoff.initial_interval {
            table.problem("max_interval", "it is shorter than initial_interval, expected at least as long");
        }
        let reject_on = table.integers("reject_on").map(|list| reject_on(table, &list));
        let settings = Self {
            timeout: table.span("timeout", 10 * MILLISECOND, HOUR).unwrap_or(defaults.timeout),
            concurrency: table
                .integer("concurrency", 1, 1024)
                .and_then(|n| usize::try_from(n).ok())
                .unwrap_or(defaults.concurrency),
            backoff,
            reject_on: reject_on.unwrap_or_else(|| defaults.reject_on.clone()),
        };
        if alone {
            table.finish();
        }
        settings
    }
}

fn reject_on(table: &Reader<'_>, list: &[i64]) -> Vec<u16> {
    let status = |number: &i64| {
        u16::try_from(*number).ok().filter(|status| (400..500).contains(status) && !NEVER_REJECT.contains(status))
    };
    let fine: Vec<u16> = list.iter().filter_map(status).collect();
    if fine.len() < list.len() {
        table.problem("reject_on", "expected statuses from 400 to 499, without 408, 425 and 429, which speak of the moment and not of the event");
    }
    fine
}

fn destinations_section(all: &Reader<'_>, defaults: &Delivery) -> Vec<(delivery::Settings, Rule)> {
    let mut found = Vec::new();
    for key in all.keys() {
        let table = all.table(&key);
        let name = DestinationName::parse(&key).map_err(|error| all.problem(&key, error.to_string())).ok();
        if !table.has("url") {
            table.problem("url", "it is not set, expected where events are posted, like http://172.19.0.7:7560/");
        }
        let url = table.parse("url", |text| http_url(text).map(|_| text.to_owned()));
        let headers = headers(&table);
        let rule = rule(&table);
        let delivery = Delivery::read(&table, defaults, false);
        table.finish();
        if let (Some(name), Some(url)) = (name, url) {
            let Delivery { timeout, concurrency, backoff, reject_on } = delivery;
            found.push((delivery::Settings { name, url, headers, timeout, concurrency, reject_on, backoff }, rule));
        }
    }
    found
}

fn headers(destination: &Reader<'_>) -> Vec<(String, Secret)> {
    let table = destination.table("headers");
    let mut found = Vec::new();
    for key in table.keys() {
        let name = key.strip_suffix("_file").unwrap_or(&key);
        let lower = name.to_lowercase();
        let value = table.secret(name);
        if reqwest::header::HeaderName::from_bytes(lower.as_bytes()).is_err() {
            table.problem(&key, "this is no name of a header, expected one like authorization");
        } else if TAKEN_HEADERS.contains(&lower.as_str())
            || lower.starts_with("webhook-")
            || lower.starts_with("x-event-")
        {
            table.problem(&key, "this header is set by the service itself, expected another one");
        } else if let Some(value) = value {
            match reqwest::header::HeaderValue::from_str(value.expose()) {
                Ok(_) => found.push((lower, value)),
                Err(_) => table.problem(&key, "a header cannot carry this value, expected printable ASCII"),
            }
        }
    }
    found
}

fn rule(destination: &Reader<'_>) -> Rule {
    let Some(tables) = destination.tables("when") else { return Rule::default() };
    if tables.is_empty() {
        destination.problem("when", "the list is empty, expected at least one table; leave it out to take every event");
    }
    Rule(tables.iter().map(condition).collect())
}

fn condition(table: &Reader<'_>) -> Condition {
    let condition = Condition {
        event_type: table.texts("event_type"),
        chat_id: table.integers("chat_id"),
        peer_id: table.integers("peer_id"),
    };
    for (key, empty) in [
        ("event_type", condition.event_type.as_ref().is_some_and(Vec::is_empty)),
        ("chat_id", condition.chat_id.as_ref().is_some_and(Vec::is_empty)),
        ("peer_id", condition.peer_id.as_ref().is_some_and(Vec::is_empty)),
    ] {
        if empty {
            table.problem(key, "the list is empty and would match nothing, expected at least one value");
        }
    }
    table.finish();
    condition
}

fn workstream_section(table: &Reader<'_>) -> Option<WorkstreamSettings> {
    let level = level(table, Level::INFO);
    let url = table.parse("url", |text| http_url(text).map(|_| Secret::new(text)));
    table.finish();
    url.map(|url| WorkstreamSettings { url, level })
}

fn log_section(table: &Reader<'_>) -> LogSettings {
    let format = table.parse("format", |text| match text {
        "pretty" => Ok(Format::Pretty),
        "json" => Ok(Format::Json),
        _ => Err("expected \"pretty\" or \"json\""),
    });
    let level = level(table, Level::INFO);
    table.finish();
    LogSettings { format: format.unwrap_or(Format::Pretty), level }
}

fn level(table: &Reader<'_>, default: Level) -> Level {
    let level =
        table.parse("level", |text| text.parse::<Level>().map_err(|_| "expected error, warn, info, debug or trace"));
    level.unwrap_or(default)
}
