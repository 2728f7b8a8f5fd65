//! Tables, ages, counts and colours for people. Colour is on a terminal only, never with `NO_COLOR`, and never says what no word
//! says. Deliberately absent: what is shown (`outbox::views`).

use std::ffi::OsStr;
use std::io::IsTerminal;
use std::time::Duration;

use comfy_table::presets::NOTHING;
use comfy_table::{Cell, CellAlignment, Color, ColumnConstraint, ContentArrangement, Table};

use crate::domain::time::Moment;
pub(super) use crate::domain::time::span;
use crate::outbox::views::At;

/// Where a terminal is narrower, it breaks the lines itself.
const NARROWEST: u16 = 40;

/// How words are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tone {
    /// All is well.
    Good,
    /// Somebody should look.
    Care,
    /// Something stands still.
    Bad,
    /// It is neither.
    Plain,
}

impl Tone {
    /// Words in this tone; without colours they are the same words.
    pub(super) fn cell(self, words: impl Into<String>) -> Cell {
        let cell = Cell::new(words.into());
        match self {
            Self::Good => cell.fg(Color::DarkGreen),
            Self::Care => cell.fg(Color::DarkYellow),
            Self::Bad => cell.fg(Color::DarkRed),
            Self::Plain => cell,
        }
    }
}

/// Whether colours are wanted on stdout.
pub(super) fn coloured() -> bool {
    let var = |name| std::env::var_os(name);
    wanted(std::io::stdout().is_terminal(), var("NO_COLOR").as_deref(), var("TERM").as_deref())
}

/// Whether colours are wanted: on a terminal that knows them, unless `NO_COLOR` (<https://no-color.org>) is set and not empty.
fn wanted(terminal: bool, no_color: Option<&OsStr>, term: Option<&OsStr>) -> bool {
    terminal && no_color.is_none_or(OsStr::is_empty) && term.is_none_or(|term| term != "dumb")
}

/// A table without lines, as wide as the terminal at most; elsewhere a row is a line.
#[must_use]
pub(super) fn table(head: &[&str]) -> Table {
    let mut table = bare();
    table.set_header(head);
    spaced(&mut table);
    table
}

/// Lines of a name and words, which go on under themselves where the terminal ends.
#[must_use]
pub(super) fn facts(rows: Vec<[Cell; 2]>) -> String {
    let mut table = bare();
    table.add_rows(rows);
    spaced(&mut table);
    text(&table)
}

fn bare() -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    if table.is_tty() {
        // Without colours it is still a terminal, with a width: unless it says none, as in some containers.
        if let Some(width) = table.width().filter(|width| *width >= NARROWEST) {
            table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
        }
        if !coloured() {
            table.force_no_tty();
        }
    }
    table
}

fn spaced(table: &mut Table) {
    let last = table.column_count().saturating_sub(1);
    for (place, column) in table.column_iter_mut().enumerate() {
        // Nothing stands to the right of the last one.
        column.set_padding((0, if place == last { 0 } else { 2 }));
    }
}

/// So many of something.
#[must_use]
pub(super) fn count(number: u64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

/// Columns whose words are never broken, by their places: names and states.
pub(super) fn whole(table: &mut Table, columns: &[usize]) {
    for place in columns {
        if let Some(column) = table.column_mut(*place) {
            column.set_constraint(ColumnConstraint::ContentWidth);
        }
    }
}

/// Aligns columns to the right, by their places.
pub(super) fn right(table: &mut Table, columns: &[usize]) {
    for place in columns {
        if let Some(column) = table.column_mut(*place) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
}

/// A table as text without spaces at the ends of its lines.
#[must_use]
pub(super) fn text(table: &Table) -> String {
    table.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}

/// How long ago something was.
#[must_use]
pub(super) fn ago(at: Option<At>, now: Moment) -> String {
    at.map_or_else(|| "-".to_owned(), |At(at)| format!("{} ago", span(at.age(now))))
}

/// How far ahead something is.
#[must_use]
pub(super) fn ahead(at: Option<At>, now: Moment) -> String {
    match at {
        None => "-".to_owned(),
        Some(At(at)) if at <= now => "now".to_owned(),
        Some(At(at)) => format!("in {}", span(now.age(at).max(Duration::from_secs(1)))),
    }
}

/// A number or nothing.
#[must_use]
pub(super) fn number(number: Option<i64>) -> String {
    number.map_or_else(|| "-".to_owned(), |number| number.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_for_terminals_and_not_for_those_who_do_not_want_them() {
        let (some, empty) = (Some(OsStr::new("1")), Some(OsStr::new("")));
        let xterm = Some(OsStr::new("xterm-256color"));
        assert!(wanted(true, None, xterm) && wanted(true, empty, xterm) && wanted(true, None, None));
        for (terminal, no_color, term) in
            [(false, None, xterm), (true, some, xterm), (true, None, Some(OsStr::new("dumb"))), (false, some, None)]
        {
            assert!(!wanted(terminal, no_color, term), "{terminal} {no_color:?} {term:?}");
        }
    }

    #[test]
    fn a_coloured_table_says_the_same_words() {
        let mut plain = Table::new();
        plain.load_style(NOTHING).force_no_tty();
        plain.add_row([
            Tone::Bad.cell("DOWN"),
            Tone::Care.cell("PAUSED"),
            Tone::Good.cell("idle"),
            Tone::Plain.cell("-"),
        ]);
        let without = text(&plain);
        assert!(!without.contains('\u{1b}'), "{without:?}");
        plain.enforce_styling();
        let with = text(&plain);
        assert!(with.contains('\u{1b}'), "{with:?}");
        let escapes = regex::Regex::new("\u{1b}\\[[0-9;]*m").expect("a pattern");
        assert_eq!(escapes.replace_all(&with, "").trim_end(), without.trim_end());
    }

    #[test]
    fn one_is_one_and_more_are_many() {
        let rows = |number| count(number, "row", "rows");
        assert_eq!((rows(0), rows(1), rows(2)), ("0 rows".to_owned(), "1 row".to_owned(), "2 rows".to_owned()));
    }

    #[test]
    fn ages_look_back_and_ahead() {
        let now = Moment(1_000_000);
        assert_eq!(ago(Some(At(Moment(997_000))), now), "3s ago");
        assert_eq!(ago(None, now), "-");
        assert_eq!(ahead(Some(At(Moment(1_000_200))), now), "in 1s");
        assert_eq!(ahead(Some(At(Moment(999_000))), now), "now");
    }
}
