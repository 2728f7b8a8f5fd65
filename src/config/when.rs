//! `when` of a destination: its tables of conditions, and what cannot be meant. A condition that could never hold, or that
//! always does, is a problem, as it is always a slip. Deliberately absent: what the conditions do (`domain::route`).

use serde_json::{Map, Number, Value as Json};
use toml::Value;

use super::reader::Reader;
use super::values::shown;
use crate::domain::route::{Conditions, Pattern, Rule, Table};

const EMPTY_LIST: &str = "found an empty list, which matches nothing, expected at least one value";

pub(super) fn rule(destination: &Reader<'_>) -> Rule {
    let Some(tables) = destination.tables("when") else { return Rule::default() };
    if tables.is_empty() {
        destination
            .problem("when", "found an empty list, expected at least one table, or no `when` to take every event");
    }
    Rule(tables.iter().map(table).collect())
}

fn table(reader: &Reader<'_>) -> Table {
    let all = conditions(reader);
    let not = reader.table_if_set("not").map(|inner| {
        if inner.contents().is_empty() {
            reader.problem("not", "found no condition, which would exclude everything, expected at least one");
        }
        inner.refused("not", "found `not` inside `not`, expected the conditions themselves");
        let not = conditions(&inner);
        inner.finish();
        not
    });
    reader.finish();
    Table { all, not }
}

fn conditions(table: &Reader<'_>) -> Conditions {
    let filled = |key: &str, is_empty: bool| {
        if is_empty {
            table.problem(key, EMPTY_LIST);
        }
    };
    let numbers = |key: &str| {
        let list = table.integers(key, "a list of whole numbers", |_| true);
        filled(key, list.as_ref().is_some_and(Vec::is_empty));
        list
    };
    let texts = |key: &str| {
        let list = table.texts(key);
        filled(key, list.as_ref().is_some_and(Vec::is_empty));
        list
    };
    let chat = table.flag("chat", false);
    Conditions {
        event_type: texts("event_type"),
        chat_id: numbers("chat_id"),
        peer_id: numbers("peer_id"),
        user_id: numbers("user_id"),
        chat: table.has("chat").then_some(chat),
        text_prefix: texts("text_prefix"),
        text_regex: pattern(table),
        attachment: kinds(table, texts("attachment")),
        payload: payload(table),
    }
}

/// An event has its kinds in lower case.
fn kinds(table: &Reader<'_>, kinds: Option<Vec<String>>) -> Option<Vec<String>> {
    for kind in kinds.iter().flatten().filter(|kind| kind.to_lowercase() != **kind) {
        let (found, lower) = (Value::String(kind.clone()), Value::String(kind.to_lowercase()));
        table.problem("attachment", format!("found {}, expected lower case, {}", shown(&found), shown(&lower)));
    }
    kinds
}

fn pattern(table: &Reader<'_>) -> Option<Pattern> {
    let text = table.text("text_regex", "a regular expression as a text", |text| Some(text.to_owned()))?;
    let found = shown(&Value::String(text.clone()));
    if text.is_empty() {
        table.problem("text_regex", "found an empty text, which every message has, expected a regular expression");
    }
    Pattern::parse(&text)
        .map_err(|error| table.problem("text_regex", format!("found {found}, expected a regular expression: {error}")))
        .ok()
}

fn payload(table: &Reader<'_>) -> Option<Map<String, Json>> {
    let wanted = table.table_if_set("payload")?;
    if wanted.contents().is_empty() {
        table.problem("payload", "found an empty table, which says nothing, expected at least one key with its value");
    }
    let entry = |(key, value): (&String, &Value)| Some((key.clone(), json(&wanted, key, value)?));
    Some(wanted.contents().iter().filter_map(entry).collect())
}

/// A value as JSON; `path` leads to it. JSON has no dates and no infinite numbers.
fn json(wanted: &Reader<'_>, path: &str, value: &Value) -> Option<Json> {
    let refused = |found: String| {
        wanted.problem(
            path,
            format!("found {found}, expected what JSON has: a text, a number, true or false, a list, a table"),
        );
    };
    match value {
        Value::String(text) => Some(Json::String(text.clone())),
        Value::Integer(number) => Some(Json::from(*number)),
        Value::Boolean(flag) => Some(Json::Bool(*flag)),
        Value::Float(number) => {
            let json = Number::from_f64(*number).map(Json::Number);
            if json.is_none() {
                refused(number.to_string());
            }
            json
        }
        Value::Datetime(_) => {
            refused("a date".to_owned());
            None
        }
        Value::Array(list) => {
            let each = |(place, value)| json(wanted, &format!("{path}[{place}]"), value);
            Some(Json::Array(list.iter().enumerate().filter_map(each).collect()))
        }
        Value::Table(table) => {
            let each =
                |(key, value): (&String, &Value)| Some((key.clone(), json(wanted, &format!("{path}.{key}"), value)?));
            Some(Json::Object(table.iter().filter_map(each).collect()))
        }
    }
}
