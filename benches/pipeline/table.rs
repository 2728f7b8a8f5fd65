//! The table of everything that was measured: as text, and as a picture. A figure says what it is beside its floor, what was
//! aimed at, and whether that is reached. Deliberately absent: judging a run by it; machines are shared.

use std::fmt::Write;
use std::fs;
use std::path::Path;

/// Something that was measured.
pub(crate) struct Figure {
    /// What it is of.
    pub(crate) what: String,
    /// Ours, with its unit.
    pub(crate) ours: String,
    /// The floor's, with its unit, if there is one.
    pub(crate) floor: String,
    /// What is compared with the aim: mostly ours over the floor's.
    pub(crate) value: f64,
    /// What is aimed at.
    pub(crate) aim: Aim,
}

/// What a value should be.
#[derive(Clone, Copy)]
pub(crate) enum Aim {
    AtLeast(f64),
    AtMost(f64),
}

impl Aim {
    fn is_met(self, value: f64) -> bool {
        match self {
            Self::AtLeast(least) => value >= least,
            Self::AtMost(most) => value <= most,
        }
    }

    fn words(self) -> String {
        match self {
            Self::AtLeast(least) => format!(">= {least}"),
            Self::AtMost(most) => format!("<= {most}"),
        }
    }

    /// How long the bar of a value is, where 1 is the aim; longer is better.
    fn reached(self, value: f64) -> f64 {
        match self {
            Self::AtLeast(least) => value / least,
            Self::AtMost(most) => most / value,
        }
    }
}

/// The table as text.
pub(crate) fn text(figures: &[Figure]) -> String {
    let width = figures.iter().map(|figure| figure.what.chars().count()).max().unwrap_or(0);
    let mut out = format!("{:<width$}  {:>16}  {:>16}  {:>8}  {:>8}  \n", "what", "ours", "floor", "value", "aim");
    for figure in figures {
        let met = if figure.aim.is_met(figure.value) { "" } else { "not met" };
        // Writing to a String does not fail.
        let _written = writeln!(
            out,
            "{:<width$}  {:>16}  {:>16}  {:>8.2}  {:>8}  {met}",
            figure.what,
            figure.ours,
            figure.floor,
            figure.value,
            figure.aim.words(),
        );
    }
    out
}

/// Draws the table as SVG: a bar for each figure, as long as it reaches towards its aim, which is the line.
pub(crate) fn draw(figures: &[Figure], machine: &str, to: &Path) {
    const ROW: usize = 22;
    const TEXT: usize = 380;
    const AIM: f64 = 300.0;
    let height = 60 + figures.len() * ROW;
    let escape = |text: &str| text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 1060 {height}\" font-family=\"sans-serif\" font-size=\"13\">\n\
         <style>text{{fill:#24292f}} .met{{fill:#2da44e}} .not{{fill:#bf8700}} .aim{{stroke:#57606a;stroke-dasharray:4 3}} rect.page{{fill:#fff}}\
         @media (prefers-color-scheme: dark){{text{{fill:#e6edf3}} rect.page{{fill:#0d1117}} .aim{{stroke:#8b949e}}}}</style>\n\
         <rect class=\"page\" width=\"1060\" height=\"{height}\"/>\n\
         <text x=\"10\" y=\"20\">Each bar is as long as it reaches towards its aim (the line); {}</text>\n",
        escape(machine)
    );
    for (place, figure) in figures.iter().enumerate() {
        let y = 45 + place * ROW;
        let reached = figure.aim.reached(figure.value);
        let class = if figure.aim.is_met(figure.value) { "met" } else { "not" };
        let length = (reached * AIM).clamp(1.0, 1.6 * AIM);
        let _written = writeln!(
            out,
            "<text x=\"10\" y=\"{}\">{}</text><rect class=\"{class}\" x=\"{TEXT}\" y=\"{}\" width=\"{length:.0}\" height=\"14\"/><text x=\"{:.0}\" y=\"{}\">{:.2} (aim {})</text>",
            y + 12,
            escape(&figure.what),
            y,
            TEXT as f64 + length.max(AIM) + 8.0,
            y + 12,
            figure.value,
            escape(&figure.aim.words()),
        );
    }
    let line = TEXT as f64 + AIM;
    let _written =
        writeln!(out, "<line class=\"aim\" x1=\"{line}\" x2=\"{line}\" y1=\"36\" y2=\"{}\"/>\n</svg>", height - 6);
    fs::write(to, out).unwrap_or_else(|error| panic!("{}: {error}", to.display()));
}
