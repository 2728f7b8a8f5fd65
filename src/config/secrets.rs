//! Secrets, each in the configuration itself or in a file of its own; several where a key may have several. No problem shows
//! one, nor what was found in its place. Deliberately absent: which keys are secrets, what fits one.

use std::fmt::Display;
use std::path::Path;

use toml::Value;

use super::reader::Reader;
use super::source::{in_words, read_limited};
use super::values::looks_secret;
use crate::secret::Secret;

/// The largest file that holds secrets, in bytes.
const FILE_BYTES: u64 = 16 << 10;
/// How many secrets one key has at most: more than any rotation needs.
const MOST: usize = 8;

/// What stands for a secret.
enum Given {
    Plain(Value),
    File(String),
}

fn file_key(key: &str) -> String {
    format!("{key}_file")
}

fn hidden(found: impl Display, expected: &str) -> String {
    format!("found {found} (not shown), expected {expected}")
}

fn of_type(value: &Value) -> String {
    format!("a value of type {}", value.type_str())
}

impl Reader<'_> {
    /// A secret, or the file that holds it; `fits` says whether it can be one.
    pub(super) fn secret(&self, key: &str, expected: &str, fits: impl Fn(&str) -> bool) -> Option<Secret> {
        let words = match self.given(key)? {
            Given::File(file) => return self.of_file(key, expected, read_secret(&file, fits)),
            Given::Plain(Value::String(text)) if fits(&text) => return Some(Secret::new(text)),
            Given::Plain(Value::String(text)) if text.is_empty() => format!("found an empty text, expected {expected}"),
            Given::Plain(Value::String(_)) => hidden("another text", expected),
            Given::Plain(other) => hidden(of_type(&other), expected),
        };
        self.problem(key, words);
        None
    }

    /// Secrets of which there may be several: a text, a list of texts, or a file with one a line. `parse` says what each one
    /// means, or what it is instead, in words that do not show it.
    pub(super) fn secrets<T, E: Display>(
        &self,
        key: &str,
        expected: &str,
        parse: impl Fn(&str) -> Result<T, E>,
    ) -> Vec<T> {
        let value = match self.given(key) {
            None => return Vec::new(),
            Some(Given::File(file)) => {
                return self.of_file(key, expected, read_secrets(&file, parse)).unwrap_or_default();
            }
            Some(Given::Plain(value)) => value,
        };
        let parts = self.parts(key, &value).unwrap_or_else(|| vec![value]);
        if parts.is_empty() || parts.len() > MOST {
            self.problem(key, format!("found {} of them, expected 1 to {MOST}", parts.len()));
            return Vec::new();
        }
        let mut all = Vec::new();
        for (place, part) in parts.iter().enumerate() {
            let found = match part.as_str().map(&parse) {
                Some(Ok(secret)) => {
                    all.push(secret);
                    continue;
                }
                Some(Err(found)) => found.to_string(),
                None => of_type(part),
            };
            let at = if parts.len() == 1 { key.to_owned() } else { format!("{key}[{place}]") };
            self.problem(&at, hidden(found, expected));
        }
        all
    }

    /// What stands for a secret; both forms at once are a problem.
    fn given(&self, key: &str) -> Option<Given> {
        let from_file = file_key(key);
        let plain = self.value(key).cloned();
        let file = self.text(&from_file, "the path of a file", |text| Some(text.to_owned()));
        if plain.is_some() && file.is_some() {
            self.problem(key, format!("found it and {from_file}, expected one of the two"));
            return None;
        }
        plain.map(Given::Plain).or(file.map(Given::File))
    }

    fn of_file<T>(&self, key: &str, expected: &str, read: Result<T, String>) -> Option<T> {
        read.map_err(|found| self.unread(&file_key(key), format!("found {found}, expected a file with {expected}")))
            .ok()
    }
}

/// Reads a file of one secret; the error is what was found instead.
fn read_secret(file: &str, fits: impl Fn(&str) -> bool) -> Result<Secret, String> {
    let (path, text) = read_text(file)?;
    let text = text.trim_end_matches(['\n', '\r']);
    if fits(text) { Ok(Secret::new(text)) } else { Err(format!("another text (not shown) at {path}")) }
}

/// Reads a file of a secret a line; empty lines do not count. The error is what was found instead.
fn read_secrets<T, E: Display>(file: &str, parse: impl Fn(&str) -> Result<T, E>) -> Result<Vec<T>, String> {
    let (path, text) = read_text(file)?;
    let lines = || text.lines().enumerate().filter(|(_, line)| !line.is_empty());
    if lines().count() > MOST {
        return Err(format!("more than {MOST} of them at {path}"));
    }
    let read =
        |(place, line)| parse(line).map_err(|found| format!("{found} (not shown) in line {} at {path}", place + 1));
    lines().map(read).collect()
}

/// The text of a file, and its path as it may be shown.
fn read_text(file: &str) -> Result<(String, String), String> {
    // Somebody may have put the secret where its path belongs.
    let path = if looks_secret(file) { "a path that looks like the secret itself".to_owned() } else { file.to_owned() };
    let text = read_limited(Path::new(file), FILE_BYTES).map_err(|error| format!("{} at {path}", in_words(&error)))?;
    if text.trim_end_matches(['\n', '\r']).is_empty() {
        Err(format!("an empty file at {path}"))
    } else {
        Ok((path, text))
    }
}
