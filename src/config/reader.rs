//! Typed reading of one table: each getter gives a value, or nothing and a problem with its path. What nobody asked for is
//! an unknown key. A value from the environment is text and is read as what the key wants; a value from the file must have
//! the key's type. Deliberately absent: secrets (`secrets`), which keys there are (`check`, `destinations`), what texts mean
//! (`values`).

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use toml::{Table, Value};

use super::certificates::read_certificates;
use super::problem::Problem;
use super::values::{self, shown};
use crate::outbox::space::people;

/// How many letters may differ between an unknown key and the known one that is offered for it.
const HINT_LETTERS: usize = 2;

/// What all readers of a configuration share.
#[derive(Debug, Default)]
pub(super) struct Context {
    /// Paths of values from the environment, and their variables.
    pub(super) from_env: HashMap<String, String>,
    /// What is wrong.
    pub(super) problems: RefCell<Vec<Problem>>,
    /// What is wrong with files of secrets and certificates: it matters only to those who need what is in them.
    pub(super) unread: RefCell<Vec<Problem>>,
    /// Paths of all keys that were asked for.
    pub(super) known: RefCell<BTreeSet<String>>,
}

impl Context {
    /// A problem; its path also names the variable when the value, or what it lies in, came from the environment.
    fn problem(&self, path: &str, words: impl Into<String>) -> Problem {
        let lies_in =
            |outer: &str| path.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']));
        let path = match self.from_env.iter().find(|(outer, _)| lies_in(outer)) {
            Some((_, variable)) => format!("{path} ({variable})"),
            None => path.to_owned(),
        };
        Problem { path, words: words.into() }
    }
}

/// A table under a path.
pub(super) struct Reader<'a> {
    context: &'a Context,
    path: String,
    table: Table,
}

impl<'a> Reader<'a> {
    pub(super) fn new(context: &'a Context, path: &str, table: Table) -> Self {
        Self { context, path: path.to_owned(), table }
    }

    /// The path of a key.
    pub(super) fn at(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// Adds a problem with a key.
    pub(super) fn problem(&self, key: &str, words: impl Into<String>) {
        let problem = self.context.problem(&self.at(key), words);
        self.context.problems.borrow_mut().push(problem);
    }

    /// Whether the key is set.
    pub(super) fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// Its keys.
    pub(super) fn keys(&self) -> Vec<String> {
        self.table.keys().cloned().collect()
    }

    /// The value of a key, which is known from now on.
    pub(super) fn value(&self, key: &str) -> Option<&Value> {
        self.context.known.borrow_mut().insert(self.at(key));
        self.table.get(key)
    }

    /// The text of a value from the environment.
    fn env_text<'v>(&self, key: &str, value: &'v Value) -> Option<&'v str> {
        value.as_str().filter(|_| self.context.from_env.contains_key(&self.at(key)))
    }

    fn parsed<T>(&self, key: &str, expected: &str, parse: impl Fn(&Value) -> Option<T>) -> Option<T> {
        let value = self.value(key)?;
        let parsed = parse(value);
        if parsed.is_none() {
            self.problem(key, format!("found {}, expected {expected}", shown(value)));
        }
        parsed
    }

    /// A sub-table; empty when it is not there.
    pub(super) fn table(&self, key: &str) -> Reader<'a> {
        self.table_if_set(key).unwrap_or_else(|| Reader::new(self.context, &self.at(key), Table::new()))
    }

    /// A sub-table that makes a difference by being there. What stands in its place is not shown: it may be a secret.
    pub(super) fn table_if_set(&self, key: &str) -> Option<Reader<'a>> {
        match self.value(key)? {
            Value::Table(table) => Some(Reader::new(self.context, &self.at(key), table.clone())),
            other => {
                self.problem(key, format!("found a value of type {}, expected a table", other.type_str()));
                None
            }
        }
    }

    /// All that is in it, for a table whose keys are the user's own.
    pub(super) fn contents(&self) -> &Table {
        &self.table
    }

    /// A key that must not be here, although others of its kind may have it.
    pub(super) fn refused(&self, key: &str, words: &str) {
        if self.value(key).is_some() {
            self.problem(key, words);
        }
    }

    /// A list of tables; from the environment, TOML.
    pub(super) fn tables(&self, key: &str) -> Option<Vec<Reader<'a>>> {
        let all = self.parsed(key, "a list of tables, like [{ event_type = [\"message_new\"] }]", |value| {
            let list = match self.env_text(key, value) {
                Some(text) => toml_list(text)?,
                None => value.as_array()?.clone(),
            };
            let table = |value| if let Value::Table(table) = value { Some(table) } else { None };
            list.into_iter().map(table).collect::<Option<Vec<_>>>()
        })?;
        let path = |place: usize| format!("{}[{place}]", self.at(key));
        Some(all.into_iter().enumerate().map(|(place, table)| Reader::new(self.context, &path(place), table)).collect())
    }

    pub(super) fn flag(&self, key: &str, default: bool) -> bool {
        let parse = |value: &Value| value.as_bool().or_else(|| self.env_text(key, value)?.trim().parse().ok());
        self.parsed(key, "true or false", parse).unwrap_or(default)
    }

    pub(super) fn integer(&self, key: &str, min: i64, max: i64) -> Option<i64> {
        let whole = |value: &Value| value.as_integer().or_else(|| self.env_text(key, value)?.trim().parse().ok());
        let expected = match max {
            i64::MAX => format!("a whole number from {min} on"),
            max => format!("a whole number from {min} to {max}"),
        };
        self.parsed(key, &expected, |value| whole(value).filter(|number| (min..=max).contains(number)))
    }

    pub(super) fn number(&self, key: &str, min: f64, max: f64) -> Option<f64> {
        let number = |value: &Value| match value {
            Value::Float(number) => Some(*number),
            Value::Integer(number) => Some(*number as f64),
            other => self.env_text(key, other)?.trim().parse().ok(),
        };
        let expected = format!("a number from {min} to {max}");
        self.parsed(key, &expected, |value| number(value).filter(|number| (min..=max).contains(number)))
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

    /// Bytes, as a text like `"8GiB"`.
    pub(super) fn size(&self, key: &str, min: u64, max: u64) -> Option<u64> {
        let parse = |value: &Value| values::bytes(value.as_str()?).filter(|bytes| (min..=max).contains(bytes));
        let expected = format!("bytes like \"256MiB\" or \"8GiB\", from {} to {}", people(min), people(max));
        self.parsed(key, &expected, parse)
    }

    /// A text that means something.
    pub(super) fn text<T>(&self, key: &str, expected: &str, parse: impl Fn(&str) -> Option<T>) -> Option<T> {
        self.parsed(key, expected, |value| parse(value.as_str()?))
    }

    /// An address. `show` says what of it may be seen.
    pub(super) fn address<T>(
        &self,
        key: &str,
        show: impl Fn(&str) -> String,
        parse: impl Fn(&str) -> Result<T, &'static str>,
    ) -> Option<T> {
        const EXPECTED: &str = "an address like http://host:port/path";
        let found = match self.value(key)? {
            Value::String(text) => match parse(text) {
                Ok(address) => return Some(address),
                Err(expected) => format!("found {}, expected {expected}", show(text)),
            },
            other => format!("found a value of type {}, expected {EXPECTED}", other.type_str()),
        };
        self.problem(key, found);
        None
    }

    /// A list of texts; from the environment, TOML or texts with commas between.
    pub(super) fn texts(&self, key: &str) -> Option<Vec<String>> {
        let filled = |value: &Value| value.as_str().filter(|text| !text.is_empty()).map(str::to_owned);
        self.list(key, "a list of texts that are not empty", filled)
    }

    /// A list of whole numbers; from the environment, TOML or numbers with commas between.
    pub(super) fn integers(&self, key: &str, expected: &str, fits: impl Fn(i64) -> bool) -> Option<Vec<i64>> {
        let of_env = self.context.from_env.contains_key(&self.at(key));
        self.list(key, expected, |value| {
            let text = || value.as_str().filter(|_| of_env)?.parse().ok();
            value.as_integer().or_else(text).filter(|number| fits(*number))
        })
    }

    fn list<T>(&self, key: &str, expected: &str, parse: impl Fn(&Value) -> Option<T>) -> Option<Vec<T>> {
        self.parsed(key, expected, |value| self.parts(key, value)?.iter().map(&parse).collect())
    }

    /// What a list consists of.
    pub(super) fn parts(&self, key: &str, value: &Value) -> Option<Vec<Value>> {
        match (self.env_text(key, value), value) {
            (Some(text), _) if text.trim_start().starts_with('[') => toml_list(text),
            (Some(text), _) => Some(text.split(',').map(|part| Value::String(part.trim().to_owned())).collect()),
            (None, Value::Array(all)) => Some(all.clone()),
            (None, _) => None,
        }
    }

    /// Adds a problem with what is in a file.
    pub(super) fn unread(&self, key: &str, words: impl Into<String>) {
        let problem = self.context.problem(&self.at(key), words);
        self.context.unread.borrow_mut().push(problem);
    }

    /// The CA certificates in a file; none when it is not set.
    pub(super) fn certificates(&self, key: &str) -> Vec<CertificateDer<'static>> {
        let file = self.text(key, "the path of a PEM file", |text| Some(text.to_owned()));
        file.map(|file| read_certificates(&file)).transpose().map(Option::unwrap_or_default).unwrap_or_else(|found| {
            let expected = "a PEM file with the certificate of the CA, as whoever ends TLS has it";
            self.unread(key, format!("found {found}, expected {expected}"));
            Vec::new()
        })
    }

    /// Whatever was not asked for is unknown.
    pub(super) fn finish(&self) {
        let known = self.context.known.borrow();
        let here = self.at("");
        let below = known.iter().filter_map(|path| path.strip_prefix(&here));
        let siblings: Vec<&str> = below.filter(|key| !key.contains('.')).collect();
        for key in self.table.keys().filter(|key| !siblings.contains(&key.as_str())) {
            // A slip rarely touches the first letter; `user_id` is no slip for `peer_id`.
            let alike = siblings.iter().filter(|other| other.get(..1) == key.get(..1));
            let near = alike.map(|other| (distance(key, other), other)).min();
            let hint = match near.filter(|(letters, _)| *letters <= HINT_LETTERS) {
                Some((_, other)) => format!("; did you mean {other}?"),
                None => String::new(),
            };
            self.problem(key, format!("found a key that this version does not know{hint}"));
        }
    }
}

/// A list as TOML writes it.
fn toml_list(text: &str) -> Option<Vec<Value>> {
    let table: Table = format!("list = {text}").parse().ok()?;
    // One key alone: a text with line ends could smuggle in others.
    table.get("list").filter(|_| table.len() == 1)?.as_array().cloned()
}

/// How many letters differ, at least: a plain edit distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut next = vec![i + 1];
        for (y, (corner, up)) in b.iter().zip(row.iter().zip(row.iter().skip(1))) {
            let left = next.last().copied().unwrap_or_default();
            next.push((left + 1).min(up + 1).min(corner + usize::from(x != *y)));
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_distance_counts_the_letters_that_differ() {
        fn check(a: &str, b: &str, expected: usize) {
            assert_eq!(distance(a, b), expected, "{a} {b}");
        }
        check("", "", 0);
        check("a", "", 1);
        check("", "abc", 3);
        check("timeout", "timout", 1);
        check("wait", "wiat", 2);
        check("url", "lru", 2);
        check("abc", "abc", 0);
    }

    #[test]
    fn only_the_environment_writes_numbers_as_text() {
        let context = Context { from_env: [("a".to_owned(), "A".to_owned())].into(), ..Context::default() };
        let table: Table = "a = '16'\nb = '16'".parse().expect("a table");
        let root = Reader::new(&context, "", table);
        assert_eq!(root.integer("a", 1, 20), Some(16));
        assert_eq!(root.integer("b", 1, 20), None);
        assert_eq!(context.problems.borrow()[0].to_string(), "b: found \"16\", expected a whole number from 1 to 20");
    }

    #[test]
    fn a_list_of_the_environment_is_toml_or_has_commas() {
        fn check(text: &str, expected: Option<&[&str]>) {
            let context = Context { from_env: [("a".to_owned(), "A".to_owned())].into(), ..Context::default() };
            let table = Table::from_iter([("a".to_owned(), Value::String(text.to_owned()))]);
            let read = Reader::new(&context, "", table).texts("a");
            assert_eq!(read, expected.map(|list| list.iter().map(ToString::to_string).collect()), "{text}");
        }
        check("/,!", Some(&["/", "!"]));
        check(" / , ! ", Some(&["/", "!"]));
        check("[\"/\", \",\"]", Some(&["/", ","]));
        check("[]", Some(&[]));
        check("/,,!", None);
        check("[\"/\"]\nother = 1", None);
        check("[\"/\"", None);
    }
}
