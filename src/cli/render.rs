//! Tables, ages and counts for people. Deliberately absent: what is shown (`outbox::views`).

use std::time::Duration;

use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, ContentArrangement, Table};

use crate::domain::time::Moment;
use crate::outbox::views::At;

/// A table without lines, as wide as the terminal at most.
#[must_use]
pub(super) fn table(head: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING).set_content_arrangement(ContentArrangement::Dynamic).set_header(head);
    if !std::io::IsTerminal::is_terminal(&std::io::stdout()) {
        table.set_content_arrangement(ContentArrangement::Disabled);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table
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

/// A span in its two largest units: `3s`, `4m 10s`, `2h 5m`, `3d 4h`.
#[must_use]
pub(super) fn span(span: Duration) -> String {
    let seconds = span.as_secs();
    let two = |large: u64, large_name: &str, small: u64, small_name: &str| match small {
        0 => format!("{large}{large_name}"),
        _ => format!("{large}{large_name} {small}{small_name}"),
    };
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => two(seconds / 60, "m", seconds % 60, "s"),
        3600..86_400 => two(seconds / 3600, "h", seconds % 3600 / 60, "m"),
        _ => two(seconds / 86_400, "d", seconds % 86_400 / 3600, "h"),
    }
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
    fn a_span_shows_its_two_largest_units() {
        for (seconds, expected) in [
            (0, "0s"),
            (59, "59s"),
            (60, "1m"),
            (250, "4m 10s"),
            (7500, "2h 5m"),
            (7200, "2h"),
            (273_600, "3d 4h"),
            (86_400, "1d"),
        ] {
            assert_eq!(span(Duration::from_secs(seconds)), expected);
        }
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
