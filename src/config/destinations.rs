//! `[delivery]` and `[destinations.*]`: where each destination is, what it inherits and what it overrides.
//! Deliberately absent: what it takes (`when`), the other sections (`check`).

use std::collections::BTreeSet;
use std::time::Duration;

use super::check::{DAY, HOUR, MILLISECOND, SECOND};
use super::reader::Reader;
use super::values;
use super::when::rule;
use crate::delivery::{self, BackoffSettings, SigningKey};
use crate::domain::ids::DestinationName;
use crate::domain::route::Rule;
use crate::secret::Secret;

/// Statuses that can never be refusals: they speak of the moment, not of the event.
const NEVER_REJECT: [i64; 3] = [408, 425, 429];
/// What signs requests.
const SIGNING_KEY: &str = "whsec_ and the base64 of 24 random bytes or more";

/// What `[delivery]` gives and each destination may change.
#[derive(Clone, Debug)]
pub(super) struct Delivery {
    timeout: Duration,
    concurrency: usize,
    batch_max: usize,
    max_attempts: u32,
    max_age: Option<Duration>,
    backoff: BackoffSettings,
    reject_on: Vec<u16>,
}

impl Default for Delivery {
    fn default() -> Self {
        let backoff = BackoffSettings {
            initial_interval: 500 * MILLISECOND,
            multiplier: 2.0,
            max_interval: 60 * SECOND,
            randomization_factor: 0.5,
        };
        Self {
            timeout: 10 * SECOND,
            concurrency: 16,
            batch_max: 1,
            max_attempts: 12,
            max_age: None,
            backoff,
            reject_on: vec![400, 406, 413, 415, 422],
        }
    }
}

impl Delivery {
    /// These, with what the table says put in their place; a table with keys of its own (not `alone`) is finished by the
    /// caller.
    pub(super) fn overridden(&self, table: &Reader<'_>, alone: bool) -> Self {
        let refusal = |status: i64| (400..500).contains(&status) && !NEVER_REJECT.contains(&status);
        let expected = "a list of statuses from 400 to 499 without 408, 425 and 429, which ask for another try";
        let reject_on = table.integers("reject_on", expected, refusal);
        let settings = Self {
            timeout: table.span("timeout", 10 * MILLISECOND, HOUR).unwrap_or(self.timeout),
            concurrency: table
                .integer("concurrency", 1, 1024)
                .and_then(|number| usize::try_from(number).ok())
                .unwrap_or(self.concurrency),
            batch_max: table
                .integer("batch_max", 1, 1000)
                .and_then(|number| usize::try_from(number).ok())
                .unwrap_or(self.batch_max),
            max_attempts: table
                .integer("max_attempts", 1, i64::from(u32::MAX))
                .and_then(|number| u32::try_from(number).ok())
                .unwrap_or(self.max_attempts),
            max_age: table.span("max_age", SECOND, 365 * DAY).or(self.max_age),
            backoff: self.backoff_overridden(table),
            reject_on: reject_on.map_or_else(
                || self.reject_on.clone(),
                |list| list.into_iter().filter_map(|status| u16::try_from(status).ok()).collect(),
            ),
        };
        if alone {
            table.finish();
        }
        settings
    }

    fn backoff_overridden(&self, table: &Reader<'_>) -> BackoffSettings {
        let default = self.backoff;
        let backoff = BackoffSettings {
            initial_interval: table.span("initial_interval", MILLISECOND, HOUR).unwrap_or(default.initial_interval),
            multiplier: table.number("multiplier", 1.0, 100.0).unwrap_or(default.multiplier),
            max_interval: table.span("max_interval", MILLISECOND, DAY).unwrap_or(default.max_interval),
            randomization_factor: table
                .number("randomization_factor", 0.0, 1.0)
                .unwrap_or(default.randomization_factor),
        };
        // What is inherited as a whole has been told of where it was set.
        let own = table.has("initial_interval") || table.has("max_interval");
        if own && backoff.max_interval < backoff.initial_interval {
            let (longest, first) = (backoff.max_interval, backoff.initial_interval);
            let (longest, first) = (humantime::format_duration(longest), humantime::format_duration(first));
            table.problem(
                "max_interval",
                format!("found {longest}, expected at least initial_interval, which is {first}"),
            );
        }
        backoff
    }
}

pub(super) fn destinations_section(all: &Reader<'_>, defaults: &Delivery) -> Vec<(delivery::Settings, Rule)> {
    let mut found = Vec::new();
    for key in all.keys() {
        let name = match DestinationName::parse(&key) {
            Ok(name) => Some(name),
            Err(error) => {
                all.problem(&key, format!("found this name, expected another: {}", error.what));
                None
            }
        };
        let table = all.table(&key);
        if !table.has("url") {
            table.problem("url", "found nothing, expected where events are posted, like http://172.19.0.7:7560/");
        }
        let url = table.address("url", values::shown_address, values::handler_address);
        let headers = headers(&table);
        let keys = table.secrets("secret", SIGNING_KEY, SigningKey::parse);
        let ca = table.certificates("ca_file");
        if table.has("ca_file") && url.as_deref().is_some_and(values::is_plain_http) {
            table.problem("ca_file", "found it beside a url without https, expected https there, or no ca_file");
        }
        let rule = rule(&table);
        let Delivery { timeout, concurrency, batch_max, max_attempts, max_age, backoff, reject_on } =
            defaults.overridden(&table, false);
        table.finish();
        if let (Some(name), Some(url)) = (name, url) {
            let settings = delivery::Settings {
                name,
                url,
                headers,
                keys,
                ca,
                timeout,
                concurrency,
                batch_max,
                max_attempts,
                max_age,
                reject_on,
                backoff,
            };
            found.push((settings, rule));
        }
    }
    found
}

/// Each header is a secret, and so has a `_file` form.
fn headers(destination: &Reader<'_>) -> Vec<(String, Secret)> {
    let table = destination.table("headers");
    let names: BTreeSet<String> =
        table.keys().iter().map(|key| key.strip_suffix("_file").unwrap_or(key).to_owned()).collect();
    let mut found: Vec<(String, Secret)> = Vec::new();
    for key in names {
        match values::header_name(&key) {
            Err(expected) => table.problem(&key, format!("found this header, expected {expected}")),
            Ok(name) if found.iter().any(|(other, _)| *other == name) => {
                table.problem(&key, "found the same header twice, expected it once (capitals do not matter)");
            }
            Ok(name) => {
                let value = table.secret(&key, "one line of printable ASCII", values::is_header_value);
                found.extend(value.map(|value| (name, value)));
            }
        }
    }
    found
}
