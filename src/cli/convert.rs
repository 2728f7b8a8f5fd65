//! `convert`: raw updates to events, offline and without names. Each update that cannot be read is a line on stderr.

use std::fs::File;
use std::io::{self, BufWriter, Read, Write};

use serde::Deserialize;
use serde_json::value::RawValue;

use super::args::ConvertArgs;
use super::exit::{Exit, Failure};
use crate::clock::Clock;
use crate::domain::convert::{NameBook, Settings, Stamp, mend, read_answer};
use crate::domain::ids::{GroupId, Ts};
use crate::domain::time::Moment;

/// The largest input that is read.
const INPUT_BYTES: u64 = 1 << 30;

/// How many came out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Summary {
    /// Events written.
    pub(super) converted: usize,
    /// Updates that could not be read.
    pub(super) quarantined: usize,
}

pub(super) fn run(args: &ConvertArgs, settings: &Settings) -> Result<Exit, Failure> {
    let at = args.at.map_or_else(|| Clock::system().now(), |unix| Moment(unix.saturating_mul(1000)));
    let mut bytes = Vec::new();
    let input: Box<dyn Read> = if args.file.as_os_str() == "-" {
        Box::new(io::stdin().lock())
    } else {
        let told = |error: io::Error| Failure::new(format!("{} cannot be read: {error}", args.file.display()));
        Box::new(File::open(&args.file).map_err(told)?)
    };
    input
        .take(INPUT_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| Failure::new(format!("{} cannot be read: {error}", args.file.display())))?;
    if bytes.len() as u64 > INPUT_BYTES {
        let told = format!("{} has more than {INPUT_BYTES} bytes: convert it in parts", args.file.display());
        return Err(Failure::new(told));
    }
    let mut out = BufWriter::new(io::stdout().lock());
    let summary = convert(&bytes, &mut out, &mut io::stderr().lock(), at, settings)?;
    out.flush()?;
    Ok(if summary.quarantined > 0 { Exit::Failed } else { Exit::Done })
}

/// Converts everything in `input`: one update, an array of them, a Long Poll answer, or one of these a line.
///
/// # Errors
/// When something cannot be written.
pub(super) fn convert(
    input: &[u8],
    out: &mut impl Write,
    err: &mut impl Write,
    at: Moment,
    settings: &Settings,
) -> io::Result<Summary> {
    let text = mend(input);
    let mut summary = Summary::default();
    let stamp = Stamp::new(at, settings.utc_offset);
    let group = GroupId::new(1).map_err(io::Error::other)?;
    let ts = Ts::parse("0").map_err(io::Error::other)?;
    // As one answer, so that two identical updates without an id get two ids wherever they stand.
    let updates: Vec<&str> = pieces(&text).into_iter().flat_map(updates).collect();
    for (update, number) in read_answer(group, &ts, &updates).into_iter().zip(1..) {
        match update {
            Ok(update) => {
                out.write_all(&update.into_event(&NameBook::default(), &stamp, settings).body)?;
                out.write_all(b"\n")?;
                summary.converted += 1;
            }
            Err(bad) => {
                writeln!(err, "quarantined: update {number}: {}", bad.reason)?;
                summary.quarantined += 1;
            }
        }
    }
    Ok(summary)
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

#[cfg(test)]
mod tests {
    use chrono::FixedOffset;

    use super::*;

    fn check(input: &str, events: usize, complaints: &[&str]) {
        let settings = Settings {
            command_prefixes: vec!["/".into()],
            utc_offset: FixedOffset::east_opt(0).expect("an offset"),
            object: false,
        };
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let summary = convert(input.as_bytes(), &mut out, &mut err, Moment(0), &settings).expect("written");
        let err = String::from_utf8(err).expect("text");
        assert_eq!(summary, Summary { converted: events, quarantined: complaints.len() }, "{input}: {err}");
        assert_eq!(out.iter().filter(|byte| **byte == b'\n').count(), events);
        for (line, complaint) in err.lines().zip(complaints) {
            assert!(line.starts_with(complaint), "{line}");
        }
    }

    #[test]
    fn every_form_of_input_is_taken() {
        let update = r#"{"type":"group_join","object":{"user_id":1}}"#;
        check(update, 1, &[]);
        check(&format!("[{update},{update}]"), 2, &[]);
        check(&format!(r#"{{"ts":"1","updates":[{update}]}}"#), 1, &[]);
        check(&format!("{update}\n\n[{update}]\n"), 2, &[]);
        check("", 0, &[]);
    }

    #[test]
    fn an_event_is_one_line_whatever_the_input_looks_like() {
        check("{\n  \"type\": \"group_join\",\n  \"object\": {\n    \"user_id\": 1\n  }\n}\n", 1, &[]);
        check("[\r\n{\"type\":\"x\",\"object\":[\r\n1]},\r\n{\"type\":\"y\"}\r\n]", 2, &[]);
    }

    #[test]
    fn identical_updates_on_two_lines_are_two_events() {
        let update = r#"{"type":"group_join","object":{"user_id":1}}"#;
        let settings = Settings {
            command_prefixes: vec![],
            utc_offset: FixedOffset::east_opt(0).expect("an offset"),
            object: false,
        };
        let (mut out, mut err) = (Vec::new(), Vec::new());
        convert(format!("{update}\n{update}\n").as_bytes(), &mut out, &mut err, Moment(0), &settings).expect("written");
        let events: Vec<&str> = std::str::from_utf8(&out).expect("text").lines().collect();
        assert_eq!(events.len(), 2);
        assert_ne!(events[0], events[1]);
    }

    #[test]
    fn what_cannot_be_read_is_named_and_harms_no_neighbour() {
        let update = r#"{"type":"group_join","object":{"user_id":1}}"#;
        check(&format!("[{update},7,{update}]"), 2, &["quarantined: update 2: the update is no JSON object"]);
        check(&format!("{update}\n{{\"type\":\n{update}"), 2, &["quarantined: update 2: the update: "]);
    }
}
