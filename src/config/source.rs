//! Where values come from: the file, then the environment, which beats it; there a prefixed name beats a bare one.
//! Deliberately absent: what a value means.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::problem::Problem;

/// The file that is read when none is named.
pub const DEFAULT_FILE: &str = "event-router.toml";
/// The largest configuration that is read, in bytes.
const FILE_BYTES: u64 = 1 << 20;
/// What variables of the environment begin with.
const PREFIX: &str = "EVENT_ROUTER__";
/// The names that deployments already use, and the keys they stand for.
const BARE: [(&str, [&str; 2]); 3] =
    [("TOKEN", ["vk", "token"]), ("TOKEN_FILE", ["vk", "token_file"]), ("GROUPID", ["vk", "group_id"])];

/// Where to look.
#[derive(Clone, Debug, Default)]
pub struct Source {
    /// The file that was named, if one was; without one, [`DEFAULT_FILE`] is read if it is there.
    pub file: Option<PathBuf>,
    /// The environment.
    pub env: Vec<(String, String)>,
}

/// Everything that was set, and where what came from the environment came from.
#[derive(Debug, Default)]
pub(super) struct Merged {
    pub(super) table: Table,
    /// Paths of values from the environment, and their variables.
    pub(super) from_env: HashMap<String, String>,
    /// The file that was to be read and is not there.
    pub(super) missing_file: Option<PathBuf>,
    /// What is wrong with the variables' names.
    pub(super) problems: Vec<Problem>,
}

/// Merges. The error is a file that cannot be read: without it nothing can be said about the rest.
pub(super) fn merge(source: &Source) -> Result<Merged, Problem> {
    let mut merged = Merged::default();
    let file = source.file.as_deref().unwrap_or(Path::new(DEFAULT_FILE));
    match read_limited(file, FILE_BYTES) {
        Ok(text) => merged.table = text.parse().map_err(|error| syntax(file, &text, &error))?,
        Err(error) if error.kind() == ErrorKind::NotFound && source.file.is_none() => {
            merged.missing_file = Some(file.to_owned());
        }
        Err(error) => {
            let words = format!("found {}, expected a readable TOML file", in_words(&error));
            return Err(Problem { path: file.display().to_string(), words });
        }
    }
    // What comes later beats what came before. An empty bare name is what a compose file makes of an unset variable.
    for (name, keys) in BARE {
        if let Some((_, value)) = source.env.iter().find(|(key, value)| key == name && !value.is_empty()) {
            merged.set(name, &keys.map(str::to_owned), value);
        }
    }
    let mut prefixed: Vec<_> =
        source.env.iter().filter_map(|(key, value)| Some((key, key.strip_prefix(PREFIX)?, value))).collect();
    prefixed.sort();
    for (name, path, value) in prefixed {
        let keys: Vec<String> = path.split("__").map(str::to_lowercase).collect();
        merged.set(name, &keys, value);
    }
    Ok(merged)
}

impl Merged {
    fn set(&mut self, name: &str, keys: &[String], value: &str) {
        let Some((last, sections)) = keys.split_last() else { return };
        let mut table = &mut self.table;
        let mut path: Vec<String> = Vec::new();
        for section in sections {
            let known = known_as(table, section);
            path.push(known.clone());
            match table.entry(known).or_insert_with(|| Value::Table(Table::new())) {
                Value::Table(inner) => table = inner,
                _ => {
                    let words = "found a value that is no table, expected a table to put this key into".to_owned();
                    return self.problems.push(Problem { path: format!("{} ({name})", path.join(".")), words });
                }
            }
        }
        let last = known_as(table, last);
        let at = |key: &str| [path.as_slice(), &[key.to_owned()]].concat().join(".");
        // A secret and its file are one thing in two forms: what comes later replaces either. Two of one rank stay, and
        // are told by whoever reads the secret.
        let twin = last.strip_suffix("_file").map_or_else(|| format!("{last}_file"), str::to_owned);
        if rank(self.from_env.get(&at(&twin))) < rank(Some(&name.to_owned())) {
            table.remove(&twin);
            self.from_env.remove(&at(&twin));
        }
        table.insert(last.clone(), Value::String(value.to_owned()));
        let before = self.from_env.insert(at(&last), name.to_owned());
        if let Some(before) = before.filter(|before| rank(Some(before)) == rank(Some(&name.to_owned()))) {
            let words = format!("found also {before}, which names the same key, expected one of the two");
            self.problems.push(Problem { path: format!("{} ({name})", at(&last)), words });
        }
    }
}

/// A key as the table has it: names of destinations may have capitals, variables have nothing else.
fn known_as(table: &Table, key: &str) -> String {
    table.keys().find(|known| known.eq_ignore_ascii_case(key)).cloned().unwrap_or_else(|| key.to_owned())
}

/// The file is beaten by a bare name, that by a prefixed one.
fn rank(variable: Option<&String>) -> u8 {
    match variable {
        None => 0,
        Some(name) if name.starts_with(PREFIX) => 2,
        Some(_) => 1,
    }
}

/// Reads a text of at most so many bytes.
pub(super) fn read_limited(file: &Path, limit_bytes: u64) -> io::Result<String> {
    let mut text = String::new();
    File::open(file)?.take(limit_bytes + 1).read_to_string(&mut text)?;
    if text.len() as u64 > limit_bytes {
        return Err(io::Error::new(ErrorKind::FileTooLarge, format!("it has more than {limit_bytes} bytes")));
    }
    Ok(text)
}

/// Why a file was not read, as the words after "found".
pub(super) fn in_words(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::NotFound => "no such file".to_owned(),
        ErrorKind::PermissionDenied => "a file that this user may not read".to_owned(),
        ErrorKind::IsADirectory => "a directory".to_owned(),
        ErrorKind::InvalidData => "a file that is not UTF-8 text".to_owned(),
        _ => format!("a file that cannot be read ({error})"),
    }
}

/// Where the file is no TOML. The line itself is not shown: it may hold a secret.
fn syntax(file: &Path, text: &str, error: &toml::de::Error) -> Problem {
    let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    let why = error.message().lines().next().unwrap_or_default();
    Problem {
        path: format!("{}, line {line}, column {column}", file.display()),
        words: format!("found what is no TOML ({why}), expected TOML"),
    }
}
