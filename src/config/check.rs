//! Every section but the destinations: its defaults, its bounds, the setting it becomes. What is not built yet is not here,
//! and so unknown. Deliberately absent: where values come from (`source`), destinations (`destinations`).

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use chrono::FixedOffset;
use tracing::Level;

use super::destinations::{Delivery, destinations_section};
use super::problem::{Problem, Problems};
use super::reader::{Context, Reader};
use super::source::{DEFAULT_FILE, Merged, Source, merge};
use super::values;
use crate::app;
use crate::app::settings::{AdminSettings, WorkstreamSettings};
use crate::domain::convert;
use crate::domain::ids::{DestinationName, GroupId};
use crate::domain::route::Rule;
use crate::outbox;
use crate::outbox::space::Limits;
use crate::secret::Secret;
use crate::vk;

pub(super) const SECOND: Duration = Duration::from_secs(1);
pub(super) const MILLISECOND: Duration = Duration::from_millis(1);
pub(super) const HOUR: Duration = Duration::from_secs(3600);
pub(super) const DAY: Duration = Duration::from_secs(24 * 3600);
/// The longest path of the outbox: that of a socket has 107 bytes on Linux, `/admin.sock` included.
const DIR_BYTES: usize = 96;
/// Below this the store's own pieces, of 2 MiB each, would count more than what they hold.
const LEAST_MAX_BYTES: u64 = 16 << 20;
const MOST_BYTES: u64 = 1 << 50;
const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

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
    rules: Result<Vec<(DestinationName, Rule)>, Problems>,
}

impl Loaded {
    /// The whole service: it needs a token, a community and a destination, and every secret's file.
    ///
    /// # Errors
    /// What is missing or cannot be read.
    pub fn service(self) -> Result<app::Settings, Problems> {
        self.service
    }

    /// Who takes what: it needs a destination, and neither a token nor a community.
    ///
    /// # Errors
    /// When there is no destination.
    pub fn rules(self) -> Result<Vec<(DestinationName, Rule)>, Problems> {
        self.rules
    }
}

/// Reads a configuration.
///
/// # Errors
/// Everything that is wrong with what is there. What is missing, and files of secrets that cannot be read, are told by
/// [`Loaded::service`] instead: whoever only looks into the outbox needs none of it.
pub fn load(source: &Source) -> Result<Loaded, Problems> {
    read(merge(source).map_err(|problem| Problems(vec![problem]))?).1
}

/// Everything that was read; the context tells which keys there are.
pub(super) fn read(merged: Merged) -> (Context, Result<Loaded, Problems>) {
    let Merged { table, from_env, missing_file, problems } = merged;
    let context = Context { from_env, problems: problems.into(), ..Context::default() };
    let root = Reader::new(&context, "", table);
    let expected = "a text of 1 to 128 characters without blanks around it";
    let service_name = root.text("service_name", expected, values::service_name);
    let service_name = service_name.unwrap_or_else(|| "toaster.event-routing-service".to_owned());
    let mut missing = Vec::new();
    let vk = vk_section(&root.table("vk"), &mut missing);
    let events = events_section(&root.table("events"));
    let names = names_section(&root.table("enrichment"));
    let outbox = outbox_section(&root.table("outbox"));
    let defaults = Delivery::default().overridden(&root.table("delivery"), true);
    let destinations = destinations_section(&root.table("destinations"), &defaults);
    let workstream_log = workstream_section(&root.table("workstream_log"));
    let admin = admin_section(&root.table("admin"));
    let log = log_section(&root.table("log"));
    root.finish();
    let mut problems = context.problems.take();
    if !problems.is_empty() {
        // Who has problems to solve wants to know of all of them, except that something seems to be missing because it
        // could not be read.
        problems.append(&mut context.unread.take());
        problems.sort();
        return (context, Err(Problems(problems)));
    }
    let no_file = missing_file.map(|file| {
        let expected =
            format!("{DEFAULT_FILE} in the working directory, or --config FILE, or all of it in the environment");
        Problem { path: file.display().to_string(), words: format!("found no such file, expected {expected}") }
    });
    let mut rules = Ok(destinations.iter().map(|(to, rule)| (to.name.clone(), rule.clone())).collect());
    if destinations.is_empty() {
        let none = absent("destinations", "at least one table, like [destinations.messages] with a url");
        missing.push(none.clone());
        rules = Err(Problems(no_file.iter().cloned().chain([none]).collect()));
    }
    if let Some(no_file) = no_file.filter(|_| !missing.is_empty()) {
        missing.insert(0, no_file);
    }
    missing.append(&mut context.unread.take());
    let service = match vk {
        Some(vk) if missing.is_empty() => {
            let (events, outbox) = (events.clone(), outbox.clone());
            Ok(app::Settings { service_name, vk, names, events, outbox, destinations, workstream_log, admin })
        }
        _ => Err(Problems(missing)),
    };
    (context, Ok(Loaded { log, outbox, events, service, rules }))
}

fn absent(path: &str, expected: &str) -> Problem {
    Problem { path: path.to_owned(), words: format!("found nothing, expected {expected}") }
}

/// The settings, or what is missing for them.
fn vk_section(vk: &Reader<'_>, missing: &mut Vec<Problem>) -> Option<vk::Settings> {
    let token = vk.secret("token", "the community's access token, without blanks", values::is_token);
    let group_id = vk.integer("group_id", 1, i64::MAX).and_then(|id| GroupId::new(id).ok());
    let api_url = vk.address("api_url", values::shown_address, values::api_address);
    let api_version = vk.text("api_version", "a version like \"5.199\"", values::api_version);
    let wait = vk.span("wait", SECOND, 90 * SECOND).unwrap_or(25 * SECOND);
    if wait.subsec_nanos() > 0 {
        vk.problem("wait", format!("found {}, expected whole seconds", humantime::format_duration(wait)));
    }
    let session_max_age = vk.span("session_max_age", SECOND, 30 * DAY).unwrap_or(HOUR);
    let ca = vk.certificates("ca_file");
    if !vk.has("token") && !vk.has("token_file") {
        missing
            .push(absent("vk.token", "the community's access token (TOKEN, or TOKEN_FILE for a file that holds it)"));
    }
    if !vk.has("group_id") {
        missing.push(absent("vk.group_id", "the community's number (GROUPID)"));
    }
    let backfill = vk.flag("backfill", false);
    vk.finish();
    Some(vk::Settings {
        backfill,
        token: token?,
        group_id: group_id?,
        api_url: api_url.unwrap_or_else(|| "https://api.vk.ru".to_owned()),
        api_version: api_version.unwrap_or_else(|| "5.199".to_owned()),
        session_max_age,
        wait,
        ca,
    })
}

fn events_section(events: &Reader<'_>) -> convert::Settings {
    let command_prefixes = events.texts("command_prefixes").unwrap_or_else(|| vec!["/".to_owned(), "!".to_owned()]);
    let default = FixedOffset::east_opt(3 * 3600).expect("invariant: three hours are an offset");
    let utc_offset = events.text("utc_offset", "an offset like \"+03:00\", at most 14 hours", values::utc_offset);
    let object = events.flag("object", false);
    events.finish();
    convert::Settings { command_prefixes, utc_offset: utc_offset.unwrap_or(default), object }
}

fn names_section(names: &Reader<'_>) -> vk::NamesSettings {
    let settings = vk::NamesSettings {
        enabled: names.flag("enabled", true),
        timeout: names.span("timeout", 10 * MILLISECOND, 60 * SECOND).unwrap_or(3 * SECOND),
        cache_ttl: names.span("cache_ttl", SECOND, 30 * DAY).unwrap_or(HOUR),
        cache_entries: names.integer("cache_entries", 1, 10_000_000).map_or(100_000, i64::unsigned_abs),
    };
    names.finish();
    settings
}

fn outbox_section(outbox: &Reader<'_>) -> outbox::Settings {
    let fine = |text: &str| (1..=DIR_BYTES).contains(&text.len()) && !text.contains('\0');
    let expected =
        format!("a directory on the persistent volume, its path at most {DIR_BYTES} bytes for the socket in it");
    let dir = outbox.text("dir", &expected, |text| fine(text).then(|| PathBuf::from(text)));
    let retention = outbox.span("retention", Duration::ZERO, YEAR).unwrap_or(DAY);
    let limits = Limits {
        max_bytes: outbox.size("max_bytes", LEAST_MAX_BYTES, MOST_BYTES).unwrap_or(8 << 30),
        min_free_bytes: outbox.size("min_free_bytes", 0, MOST_BYTES).unwrap_or(256 << 20),
    };
    outbox.finish();
    outbox::Settings { dir: dir.unwrap_or_else(|| PathBuf::from("data")), retention, limits }
}

/// Its address is not shown, as it may carry a secret anywhere.
fn workstream_section(table: &Reader<'_>) -> Option<WorkstreamSettings> {
    let hidden = |_: &str| "a text (not shown)".to_owned();
    let url = table.address("url", hidden, |text| values::http_address(text).map(|_| Secret::new(text)));
    let level = level(table);
    table.finish();
    Some(WorkstreamSettings { url: url?, level })
}

/// Beyond this machine a door without a lock is none.
fn admin_section(table: &Reader<'_>) -> AdminSettings {
    let expected = "an address and a port like \"127.0.0.1:9180\", or \"off\"";
    let listen = table.text("listen", expected, |text| match text {
        "off" => Some(None),
        _ => text.parse::<SocketAddr>().ok().map(Some),
    });
    let listen = listen.unwrap_or(Some(SocketAddr::from(([127, 0, 0, 1], 9180))));
    let token = table.secret("token", "a token without blanks", values::is_token);
    if listen.is_some_and(|listen| !listen.ip().is_loopback()) && !table.has("token") && !table.has("token_file") {
        table.problem("token", "found nothing, expected a token, as admin.listen is no loopback address");
    }
    table.finish();
    AdminSettings { listen, token }
}

fn log_section(table: &Reader<'_>) -> LogSettings {
    let format = table.text("format", "\"pretty\" or \"json\"", |text| match text {
        "pretty" => Some(Format::Pretty),
        "json" => Some(Format::Json),
        _ => None,
    });
    let level = level(table);
    table.finish();
    LogSettings { format: format.unwrap_or(Format::Pretty), level }
}

fn level(table: &Reader<'_>) -> Level {
    let names = "\"error\", \"warn\", \"info\", \"debug\" or \"trace\"";
    table.text("level", names, values::level).unwrap_or(Level::INFO)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const DOCUMENT: &str = include_str!("../../docs/CONFIG.md");
    const COMPLETE: &str = "[vk]\ntoken = 'x'\ngroup_id = 1\n[destinations.sample]\nurl = 'http://h/'\nwhen = [{}]";

    /// A row of the table of keys.
    struct Row {
        key: &'static str,
        default: &'static str,
        env: &'static str,
    }

    fn rows() -> Vec<Row> {
        let of = |line: &'static str| {
            let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
            let [key, _, default, _, env] = cells[..] else { panic!("a row has five cells: {line}") };
            Row { key: key.trim_matches('`'), default, env }
        };
        DOCUMENT.lines().filter(|line| line.starts_with("| `")).map(of).collect()
    }

    fn complete(line: Option<(&str, &str)>) -> (Context, Result<Loaded, Problems>) {
        let mut table: toml::Table = COMPLETE.parse().expect("a table");
        if let Some((path, value)) = line {
            let value: toml::Value = value.parse().expect("a default is TOML");
            match path.split_once('.') {
                None => table.insert(path.to_owned(), value),
                Some((section, key)) => {
                    let section = table.entry(section).or_insert_with(|| toml::Table::new().into());
                    section.as_table_mut().expect("a table").insert(key.to_owned(), value)
                }
            };
        }
        read(Merged { table, ..Merged::default() })
    }

    #[test]
    fn the_document_lists_exactly_the_keys_that_are_accepted() {
        let sections =
            ["vk", "events", "enrichment", "outbox", "delivery", "destinations", "workstream_log", "admin", "log"];
        let (context, _) = complete(None);
        let known = context.known.take().into_iter();
        let keys = known.filter(|key| !sections.contains(&key.as_str()) && key != "destinations.sample");
        let documented = |key: String| key.replace("destinations.sample", "destinations.<name>").replace("[0]", "[]");
        let accepted: BTreeSet<String> = keys.map(documented).collect();
        let listed: BTreeSet<String> = rows().iter().map(|row| row.key.to_owned()).collect();
        assert_eq!(accepted, listed);
    }

    #[test]
    fn the_document_names_each_key_as_the_environment_does() {
        for row in rows().iter().filter(|row| !row.key.contains("[]")) {
            let name = format!("`EVENT_ROUTER__{}`", row.key.to_uppercase().replace('.', "__"));
            assert!(row.env.contains(&name), "{}: {}", row.key, row.env);
        }
    }

    #[test]
    fn each_default_in_the_document_is_the_one_that_holds() {
        let loaded = |line| {
            let loaded = complete(line).1.expect("no problem");
            (loaded.log, loaded.outbox.clone(), loaded.events.clone(), loaded.service().expect("nothing is missing"))
        };
        let told = rows().into_iter().filter(|row| row.default.starts_with('`'));
        let checked = told.map(|row| {
            assert_eq!(loaded(Some((row.key, row.default.trim_matches('`')))), loaded(None), "{}", row.key);
        });
        assert_eq!(checked.count(), 30);
    }
}
