//! The decision of a rule in words: by which table a destination takes an event, and of each other table the first
//! condition that failed. For people who wonder; the service only decides. Deliberately absent: deciding anything (`rule`).

use std::fmt::Display;

use serde_json::Value;

use super::payload::{Difference, difference};
use super::rule::{Conditions, Key, Rule, Table};
use crate::domain::convert::Facts;

/// How much of a text is quoted, in characters.
const QUOTED_CHARS: usize = 60;
/// How many values of a list are told.
const LISTED: usize = 12;

/// What became of each table of a rule, in their order. No table means that everything is taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation(pub Vec<Outcome>);

/// What became of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All its conditions hold.
    Matches,
    /// One does not.
    Fails {
        /// The first.
        key: Key,
        /// Why, in words.
        why: String,
    },
}

impl Explanation {
    /// Whether the destination takes the event.
    #[must_use]
    pub fn taken(&self) -> bool {
        self.0.is_empty() || self.by().is_some()
    }

    /// The first table that matches, by its place in `when` from 0.
    #[must_use]
    pub fn by(&self) -> Option<usize> {
        self.0.iter().position(|table| *table == Outcome::Matches)
    }
}

impl Rule {
    /// Why the destination takes the event, or does not.
    #[must_use]
    pub fn explain(&self, facts: &Facts<'_>) -> Explanation {
        let outcome = |table: &Table| match table.failed(facts) {
            None => Outcome::Matches,
            Some(key) => Outcome::Fails { key, why: why(&table.all, key, facts) },
        };
        Explanation(self.0.iter().map(outcome).collect())
    }
}

/// Why a condition that failed did.
fn why(asked: &Conditions, key: Key, facts: &Facts<'_>) -> String {
    let numbers = |list: &Option<Vec<i64>>, found: Option<i64>, none: &str| match found {
        None => none.to_owned(),
        Some(found) => format!("{found} is {}", none_of(list.iter().flatten(), "not")),
    };
    match key {
        Key::EventType => format!("{} is {}", facts.event_type, none_of(asked.event_type.iter().flatten(), "not")),
        Key::ChatId => numbers(&asked.chat_id, facts.chat_id(), "it is not from a chat"),
        Key::PeerId => numbers(&asked.peer_id, facts.peer_id, "it is from no conversation"),
        Key::UserId => numbers(&asked.user_id, facts.user_id, "VK does not say who did it"),
        Key::Chat => match facts.chat_id() {
            None => "it is not from a chat".to_owned(),
            Some(chat) => format!("it is from chat {chat}"),
        },
        Key::TextPrefix => match facts.text {
            None => "it is no message, so it has no text".to_owned(),
            Some(text) => {
                let prefixes = asked.text_prefix.iter().flatten().map(|prefix| quoted(prefix));
                format!("{} begins with {}", quoted(text), none_of(prefixes, "no"))
            }
        },
        Key::TextRegex => match facts.text {
            None => "it is no message, so it has no text".to_owned(),
            Some(text) => {
                let pattern = asked.text_regex.as_ref().map_or("", |pattern| pattern.as_str());
                format!("nothing in {} matches {}", quoted(text), quoted(pattern))
            }
        },
        Key::Attachment => match facts.attachments {
            None => "it is no message, so it has no attachments".to_owned(),
            Some([]) => "the message has no attachments".to_owned(),
            Some(kinds) => {
                let wanted = none_of(asked.attachment.iter().flatten(), "no");
                format!("among {} is {wanted}", listed(kinds.iter()))
            }
        },
        Key::Payload if !facts.payload.is_there() => "it has no payload".to_owned(),
        Key::Payload => asked
            .payload
            .as_ref()
            .and_then(|wanted| difference(wanted, facts.payload.value()))
            .map_or_else(String::new, |difference| in_words(&difference)),
        Key::Not => "all its conditions hold".to_owned(),
    }
}

fn in_words(difference: &Difference<'_>) -> String {
    let cut = |value: &Value| shortened(&value.to_string());
    match difference {
        Difference::NoTable(None) => "the payload cannot be read".to_owned(),
        Difference::NoTable(Some(found)) => format!("the payload is {}, no table", cut(found)),
        Difference::Missing(key) => format!("the payload has no {}", shortened(key)),
        Difference::Other { key, wanted, found } => {
            format!("{} is {}, not {}", shortened(key), cut(found), cut(wanted))
        }
    }
}

/// "not a" of one value, "none of a, b" of several.
fn none_of<T: Display>(values: impl Iterator<Item = T>, alone: &str) -> String {
    let all: Vec<T> = values.collect();
    match all.as_slice() {
        [one] => format!("{alone} {}", shortened(&one.to_string())),
        _ => format!("none of {}", listed(all.iter())),
    }
}

fn listed<T: Display>(values: impl Iterator<Item = T>) -> String {
    let mut values = values.map(|value| shortened(&value.to_string()));
    let mut words = values.by_ref().take(LISTED).collect::<Vec<_>>().join(", ");
    let more = values.count();
    if more > 0 {
        words += &format!(" and {more} more");
    }
    words
}

fn quoted(text: &str) -> String {
    match text.char_indices().nth(QUOTED_CHARS) {
        Some((end, _)) => format!("{:?}…", &text[..end]),
        None => format!("{text:?}"),
    }
}

fn shortened(text: &str) -> String {
    // What is quoted may be longer by its quotes and escapes.
    match text.char_indices().nth(2 * QUOTED_CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
