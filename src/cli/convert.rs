//! `convert`: raw updates to events, offline and without names. Each update that cannot be read is a line on stderr.

use std::io::{self, BufWriter, Write};

use super::args::ConvertArgs;
use super::exit::{Exit, Failure};
use super::updates;
use crate::clock::Clock;
use crate::domain::convert::{NameBook, Settings, Writing, mend};
use crate::domain::time::Moment;

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
    let bytes = updates::input(&args.file)?;
    let mut out = BufWriter::new(io::stdout().lock());
    let summary = convert(&bytes, &mut out, &mut io::stderr().lock(), at, settings)?;
    out.flush()?;
    Ok(if summary.quarantined > 0 { Exit::Failed } else { Exit::Done })
}

/// Converts everything in `input`.
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
    let updates = updates::read(&text);
    let mut writing = Writing::new(at, settings, updates.len());
    for (update, number) in updates.into_iter().zip(1..) {
        match update {
            Ok(update) => {
                out.write_all(&update.into_event(&NameBook::default(), &mut writing).body)?;
                out.write_all(b"\n")?;
                summary.converted += 1;
            }
            Err(bad) => {
                writeln!(err, "{}", updates::quarantined(number, &bad))?;
                summary.quarantined += 1;
            }
        }
    }
    Ok(summary)
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
