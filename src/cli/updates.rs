//! Raw updates as people hand them to `convert` and `route`: one, an array of them, an answer of Long Poll, or one of these
//! a line; from a file or from standard input. Deliberately absent: what is done with them.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::exit::Failure;
use crate::domain::convert::{Quarantined, Update, read_answer};
use crate::domain::ids::{GroupId, Ts};

/// The largest input that is read.
const INPUT_BYTES: u64 = 1 << 30;

/// Reads a file, or standard input for `-`.
///
/// # Errors
/// When it cannot be read, or is too large.
pub(super) fn input(file: &Path) -> Result<Vec<u8>, Failure> {
    let told = |error: io::Error| Failure::new(format!("{} cannot be read: {error}", file.display()));
    let input: Box<dyn Read> = match file.as_os_str() == "-" {
        true => Box::new(io::stdin().lock()),
        false => Box::new(File::open(file).map_err(told)?),
    };
    let mut bytes = Vec::new();
    input.take(INPUT_BYTES + 1).read_to_end(&mut bytes).map_err(told)?;
    if bytes.len() as u64 > INPUT_BYTES {
        return Err(Failure::new(format!("{} has more than {INPUT_BYTES} bytes: give it in parts", file.display())));
    }
    Ok(bytes)
}

/// Every update in a mended text, read as if all came in one answer: so two identical ones without an id get two ids,
/// wherever they stand.
pub(super) fn read(text: &str) -> Vec<Result<Update<'_>, Quarantined>> {
    let group = GroupId::new(1).expect("invariant: one is an id");
    let ts = Ts::parse("0").expect("invariant: zero is a ts");
    let updates: Vec<&str> = pieces(text).into_iter().flat_map(updates).collect();
    read_answer(group, &ts, &updates)
}

/// What is said of the n-th update, from 1, that cannot be read.
pub(super) fn quarantined(number: usize, bad: &Quarantined) -> String {
    format!("quarantined: update {number}: {}", bad.reason)
}

/// The JSON values of an input; where it is no JSON, the line.
fn pieces(text: &str) -> Vec<&str> {
    let whole: Result<Vec<&RawValue>, _> = serde_json::Deserializer::from_str(text).into_iter().collect();
    match whole {
        Ok(values) => values.into_iter().map(RawValue::get).collect(),
        Err(_) => text.lines().map(str::trim).filter(|line| !line.is_empty()).collect(),
    }
}

/// The updates of one value.
fn updates(piece: &str) -> Vec<&str> {
    #[derive(Deserialize)]
    struct Answer<'a> {
        #[serde(borrow)]
        updates: Vec<&'a RawValue>,
    }
    let list: Option<Vec<&RawValue>> = match piece.as_bytes().first() {
        Some(b'[') => serde_json::from_str(piece).ok(),
        _ => serde_json::from_str::<Answer<'_>>(piece).ok().map(|answer| answer.updates),
    };
    list.map_or_else(|| vec![piece], |list| list.into_iter().map(RawValue::get).collect())
}
