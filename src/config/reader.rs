//! Typed reading of one table: each getter gives a value, or a default and a problem with its path. What nobody asked for is
//! an unknown key. Deliberately absent: which keys there are (`check`).

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::fmt::Display;
use std::fs;
use std::time::Duration;

use toml::{Table, Value};

use super::problem::Problem;
use crate::secret::Secret;

/// What all readers of a configuration share.
pub(super) struct Context {
    pub(super) from_env: HashMap<String, String>,
    pub(super) problems: RefCell<Vec<Problem>>,
}

impl Context {
    pub(super) fn problem(&self, path: &str, words: impl Into<String>) {
        let path = match self.from_env.get(path) {
            Some(variable) => format!("{path} ({variable})"),
            None => path.to_owned(),
        };
        self.problems.borrow_mut().push(Problem { path, words: words.into() });
    }
}

/// A table under a path.
pub(super) struct Reader<'a> {
    context: &'a Context,
    path: String,
    table: Table,
    known: RefCell<BTreeSet<String>>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(context: &'a Context, path: &str, table: Table) -> Self {
        Self { context, path: path.to_owned(), table, known: RefCell::default() }
    }

    /// The path of a key.
    pub(super) fn at(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// Adds a problem with a key.
    pub(super) fn problem(&self, key: &str, words: impl Into<String>) {
        self.context.problem(&self.at(key), words);
    }

    /// Whether the key is set.
    pub(super) fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// Its keys.
    pub(super) fn keys(&self) -> Vec<String> {
        self.table.keys().cloned().collect()
    }

    fn value(&self, key: &str) -> Option<&Value> {
        self.known.borrow_mut().insert(key.to_owned());
        self.table.get(key)
    }

    fn wrong(&self, key: &str, value: &Value, expected: &str) {
        let found = match value {
            Value::String(text) => format!("found {:?}", text.chars().take(80).collect::<String>()),
            Value::Integer(number) => format!("found {number}"),
            Value::Float(number) => format!("found {number}"),
            Value::Boolean(flag) => format!("found {flag}"),
            other => {
                format!("found {} {}", if other.type_str().starts_with('a') { "an" } else { "a" }, other.type_str())
            }
        };
        self.problem(key, format!("{found}, expected {expected}"));
    }

    fn parsed<T>(&self, key: &str, expected: &str, parse: impl Fn(&Value) -> Option<T>) -> Option<T> {
        let value = self.value(key)?;
        let parsed = parse(value);
        if parsed.is_none() {
            self.wrong(key, value, expected);
        }
        parsed
    }

    /// A sub-table; empty when it is not there.
    pub(super) fn table(&self, key: &str) -> Reader<'a> {
        let table = self.parsed(key, "a table", |value| value.as_table().cloned());
        Reader::new(self.context, &self.at(key), table.unwrap_or_default())
    }

    /// A list of tables.
    pub(super) fn tables(&self, key: &str) -> Option<Vec<Reader<'a>>> {
        let all = self.parsed(key, "a list of tables", |value| {
            value.as_array()?.iter().map(|table| table.as_table().cloned()).collect::<Option<Vec<_>>>()
        })?;
        let path = |place: usize| format!("{}[{place}]", self.at(key));
        Some(all.into_iter().enumerate().map(|(place, table)| Reader::new(self.context, &path(place), table)).collect())
    }

    pub(super) fn text(&self, key: &str) -> Option<String> {
        self.parsed(key, "text", |value| value.as_str().map(str::to_owned))
    }

    pub(super) fn flag(&self, key: &str, default: bool) -> bool {
        let parse = |value: &Value| value.as_bool().or_else(|| value.as_str()?.parse().ok());
        self.parsed(key, "true or false", parse).unwrap_or(default)
    }

    pub(super) fn integer(&self, key: &str, min: i64, max: i64) -> Option<i64> {
        let parse = |value: &Value| {
            value.as_integer().or_else(|| value.as_str()?.trim().parse().ok()).filter(|n| (min..=max).contains(n))
        };
        let expected = if max == i64::MAX {
            format!("a whole number from {min} on")
        } else {
            format!("a whole number from {min} to {max}")
        };
        self.parsed(key, &expected, parse)
    }

    pub(super) fn number(&self, key: &str, min: f64, max: f64) -> Option<f64> {
        let plain = |value: &Value| value.as_float().or_else(|| value.as_integer().map(|n| n as f64));
        let parse = |value: &Value| {
            plain(value).or_else(|| value.as_str()?.trim().parse().ok()).filter(|n| (min..=max).contains(n))
        };
        self.parsed(key, &format!("a number from {min} to {max}"), parse)
    }

    pub(super) fn span(&self, key: &str, min: Duration, max: Duration) -> Option<Duration> {
        let parse =
            |value: &Value| humantime::parse_duration(value.as_str()?).ok().filter(|span| (min..=max).contains(span));
        let words = |span: Duration| match span.as_secs() {
            // humantime would speak of months.
            seconds if seconds >= 86_400 && seconds.is_multiple_of(86_400) => format!("{}days", seconds / 86_400),
            _ => humantime::format_duration(span).to_string(),
        };
        let (min, max) = (words(min), words(max));
        self.parsed(key, &format!("a span like \"25s\", from {min} to {max}"), parse)
    }

    /// A value that text is parsed into.
    pub(super) fn parse<T, E: Display>(&self, key: &str, parse: impl Fn(&str) -> Result<T, E>) -> Option<T> {
        let text = self.text(key)?;
        parse(&text).map_err(|error| self.problem(key, format!("found {text:?}: {error}"))).ok()
    }

    /// A list of texts; from the environment, text with commas.
    pub(super) fn texts(&self, key: &str) -> Option<Vec<String>> {
        self.list(key, "a list of texts", |value| value.as_str().map(str::to_owned))
    }

    /// A list of whole numbers; from the environment, numbers with commas.
    pub(super) fn integers(&self, key: &str) -> Option<Vec<i64>> {
        self.list(key, "a list of whole numbers", |value| {
            value.as_integer().or_else(|| value.as_str()?.trim().parse().ok())
        })
    }

    fn list<T>(&self, key: &str, expected: &str, parse: impl Fn(&Value) -> Option<T>) -> Option<Vec<T>> {
        self.parsed(key, expected, |value| match value {
            Value::Array(all) => all.iter().map(&parse).collect(),
            Value::String(text) if self.context.from_env.contains_key(&self.at(key)) => {
                text.split(',').map(|part| parse(&Value::String(part.trim().to_owned()))).collect()
            }
            _ => None,
        })
    }

    /// A secret, or the file that holds it.
    pub(super) fn secret(&self, key: &str) -> Option<Secret> {
        let from_file = format!("{key}_file");
        let plain = self.value(key).cloned();
        let file = self.text(&from_file);
        match (plain, file) {
            (Some(_), Some(_)) => {
                self.problem(key, format!("both this and {from_file} are set, expected one of them"));
                None
            }
            (Some(Value::String(text)), None) => self.filled(key, &text),
            (Some(other), None) => {
                self.problem(key, format!("found a value of type {}, expected text", other.type_str()));
                None
            }
            (None, Some(path)) => match fs::read_to_string(&path) {
                Ok(text) => self.filled(&from_file, &text),
                Err(error) => {
                    self.problem(&from_file, format!("the file {path} cannot be read: {error}"));
                    None
                }
            },
            (None, None) => None,
        }
    }

    fn filled(&self, key: &str, text: &str) -> Option<Secret> {
        let text = text.trim();
        if text.is_empty() || text.chars().any(char::is_control) {
            self.problem(key, "the secret is empty or has control characters, expected one line of text");
            return None;
        }
        Some(Secret::new(text))
    }

    /// Whatever was not asked for is unknown.
    pub(super) fn finish(&self) {
        let known = self.known.borrow();
        for key in self.table.keys().filter(|key| !known.contains(*key)) {
            let near =
                known.iter().map(|other| (distance(key, other), other)).min().filter(|(distance, _)| *distance <= 2);
            let hint = near.map_or_else(String::new, |(_, other)| format!("; did you mean {other}?"));
            self.problem(key, format!("this key is not known to this version{hint}"));
        }
    }
}

/// How many letters differ, at least: a plain edit distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut left = i + 1;
        let mut corner = i;
        for (j, y) in b.iter().enumerate() {
            let up = row.get(j + 1).copied().unwrap_or(usize::MAX);
            let here = (left + 1).min(up + 1).min(corner + usize::from(x != *y));
            corner = up;
            if let Some(cell) = row.get_mut(j) {
                *cell = left;
            }
            left = here;
        }
        if let Some(cell) = row.last_mut() {
            *cell = left;
        }
    }
    row.last().copied().unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_distance_counts_the_letters_that_differ() {
        for (a, b, expected) in [
            ("", "", 0),
            ("a", "", 1),
            ("timeout", "timout", 1),
            ("wait", "wiat", 2),
            ("url", "lru", 2),
            ("abc", "abc", 0),
        ] {
            assert_eq!(distance(a, b), expected, "{a} {b}");
        }
    }
}
