//! Where values come from: the file, then the environment, which beats it. Deliberately absent: what a value means.

use std::collections::HashMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::problem::Problem;

/// The file that is read when none is named.
pub const DEFAULT_FILE: &str = "event-router.toml";
/// What variables of the environment begin with.
const PREFIX: &str = "EVENT_ROUTER__";
/// The names that deployments already use, and the keys they stand for.
const BARE: [(&str, [&str; 2]); 3] =
    [("TOKEN", ["vk", "token"]), ("TOKEN_FILE", ["vk", "token_file"]), ("GROUPID", ["vk", "group_id"])];

/// Where to look.
#[derive(Clone, Debug, Default)]
pub struct Source {
    /// The file that was named, if one was.
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
}

pub(super) fn merge(source: &Source, problems: &mut Vec<Problem>) -> Merged {
    let mut merged = Merged::default();
    let default = Path::new(DEFAULT_FILE);
    let file = source.file.as_deref().unwrap_or(default);
    match fs::read_to_string(file) {
        Ok(text) => match text.parse::<Table>() {
            Ok(table) => merged.table = table,
            Err(error) => problems.push(syntax(file, &text, &error)),
        },
        Err(error) if error.kind() == ErrorKind::NotFound && source.file.is_none() => {
            merged.missing_file = Some(file.to_owned())
        }
        Err(error) => problems
            .push(Problem { path: file.display().to_string(), words: format!("the file cannot be read: {error}") }),
    }
    // The prefixed name beats the bare one: it comes later.
    for (name, keys) in BARE {
        if let Some((_, value)) = source.env.iter().find(|(key, value)| key == name && !value.is_empty()) {
            set(&mut merged, name, &keys.map(str::to_owned), value, problems);
        }
    }
    let mut prefixed: Vec<_> =
        source.env.iter().filter_map(|(key, value)| Some((key, key.strip_prefix(PREFIX)?, value))).collect();
    prefixed.sort();
    for (name, path, value) in prefixed {
        let keys: Vec<String> = path.split("__").map(str::to_lowercase).collect();
        set(&mut merged, name, &keys, value, problems);
    }
    merged
}

fn set(merged: &mut Merged, name: &str, keys: &[String], value: &str, problems: &mut Vec<Problem>) {
    let mut table = &mut merged.table;
    let mut path: Vec<String> = Vec::new();
    let Some((last, sections)) = keys.split_last() else { return };
    for section in sections {
        // Names of destinations may have capitals, variables have nothing else.
        let known =
            table.keys().find(|key| key.eq_ignore_ascii_case(section)).cloned().unwrap_or_else(|| section.clone());
        path.push(known.clone());
        match table.entry(known).or_insert_with(|| Value::Table(Table::new())) {
            Value::Table(inner) => table = inner,
            _ => {
                let words = format!("{name} wants a table here, and there is a value");
                return problems.push(Problem { path: path.join("."), words });
            }
        }
    }
    path.push(last.clone());
    // What a file says of the same secret gives way, in either form.
    match last.strip_suffix("_file") {
        Some(plain) => drop(table.remove(plain)),
        None => {
            let twin = format!("{last}_file");
            if !merged.from_env.contains_key(&[&path[..path.len() - 1], std::slice::from_ref(&twin)].concat().join("."))
            {
                table.remove(&twin);
            }
        }
    }
    table.insert(last.clone(), Value::String(value.to_owned()));
    merged.from_env.insert(path.join("."), name.to_owned());
}

/// Where the file is no TOML. The line itself is not shown: it may hold a secret.
fn syntax(file: &Path, text: &str, error: &toml::de::Error) -> Problem {
    let line = error.span().map_or(1, |span| text.get(..span.start).unwrap_or(text).matches('\n').count() + 1);
    Problem { path: format!("{}:{line}", file.display()), words: format!("not TOML: {}", error.message()) }
}
