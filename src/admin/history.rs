//! How each destination went over the last hour: what was pending, and how much was delivered, looked at now and then and kept
//! in memory alone; and its picture. Deliberately absent: what must survive a restart (it rides in the outbox).

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;

use crate::domain::time::Moment;
use crate::outbox::views::DestinationView;

/// How often it is looked.
pub(super) const EVERY: Duration = Duration::from_secs(10);
/// How many looks are kept: an hour of them.
const KEPT: usize = 360;
/// The picture's size, in its own units.
const WIDTH: f64 = 600.0;
const HEIGHT: f64 = 100.0;

/// What was seen; clones are the same.
#[derive(Clone, Debug, Default)]
pub(super) struct History(Arc<Mutex<BTreeMap<String, VecDeque<Sample>>>>);

#[derive(Clone, Copy, Debug)]
struct Sample {
    at: Moment,
    pending: u64,
    delivered: u64,
}

/// A picture of a destination's last hour.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Plot {
    /// The picture, as SVG.
    pub(super) svg: String,
    /// What it shows, in words.
    pub(super) caption: String,
}

impl History {
    /// Takes note of how it goes now.
    pub(super) fn note(&self, at: Moment, destinations: &[DestinationView]) {
        let mut all = self.lock();
        all.retain(|name, _| destinations.iter().any(|view| view.name == *name));
        for view in destinations {
            let samples = all.entry(view.name.clone()).or_default();
            if samples.len() == KEPT {
                samples.pop_front();
            }
            samples.push_back(Sample { at, pending: view.pending, delivered: view.delivered });
        }
    }

    /// Every destination's picture.
    pub(super) fn plots(&self) -> BTreeMap<String, Plot> {
        let all = self.lock();
        all.iter().map(|(name, samples)| (name.clone(), draw(name, samples))).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, VecDeque<Sample>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn draw(name: &str, samples: &VecDeque<Sample>) -> Plot {
    let pending: Vec<f64> = samples.iter().map(|sample| sample.pending as f64).collect();
    let rate = |(one, next): (&Sample, &Sample)| {
        let seconds = one.at.age(next.at).as_secs_f64();
        if seconds > 0.0 { next.delivered.saturating_sub(one.delivered) as f64 / seconds } else { 0.0 }
    };
    let rates: Vec<f64> = samples.iter().zip(samples.iter().skip(1)).map(rate).collect();
    let most = |values: &[f64]| values.iter().copied().fold(0.0, f64::max);
    let minutes = (samples.len() as f64 * EVERY.as_secs_f64() / 60.0).ceil();
    let caption = format!(
        "last {minutes:.0} min: pending (solid) up to {:.0}, delivered a second (dashed) up to {:.1}",
        most(&pending),
        most(&rates)
    );
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"plot\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" preserveAspectRatio=\"none\" role=\"img\" aria-label=\"{}: {caption}\"><line class=\"base\" x1=\"0\" y1=\"{HEIGHT}\" x2=\"{WIDTH}\" y2=\"{HEIGHT}\"/>",
        escaped(name)
    );
    for (class, values) in [("pending", &pending), ("rate", &rates)] {
        let _infallible = write!(svg, "<polyline class=\"{class}\" points=\"{}\"/>", points(values, most(values)));
    }
    svg.push_str("</svg>");
    Plot { svg, caption }
}

/// The newest stands at the right edge.
fn points(values: &[f64], most: f64) -> String {
    let step = WIDTH / (KEPT - 1) as f64;
    let place = |(at, value): (usize, &f64)| {
        let x = WIDTH - (values.len() - 1 - at) as f64 * step;
        let y = if most > 0.0 { HEIGHT - value / most * (HEIGHT - 4.0) } else { HEIGHT };
        format!("{x:.1},{y:.1}")
    };
    values.iter().enumerate().map(place).collect::<Vec<_>>().join(" ")
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_has_its_highest_at_the_top_and_its_newest_at_the_right() {
        let sample = |at, pending, delivered| Sample { at: Moment(at), pending, delivered };
        let samples = VecDeque::from([sample(0, 0, 0), sample(10_000, 200, 50), sample(20_000, 100, 50)]);
        let plot = draw("a<b", &samples);
        assert_eq!(plot.caption, "last 1 min: pending (solid) up to 200, delivered a second (dashed) up to 5.0");
        assert!(plot.svg.contains("points=\"596.7,100.0 598.3,4.0 600.0,52.0\""), "{}", plot.svg);
        assert!(plot.svg.contains("points=\"598.3,4.0 600.0,100.0\""), "{}", plot.svg);
        assert!(plot.svg.contains("aria-label=\"a&lt;b: last"), "{}", plot.svg);
    }

    #[test]
    fn nothing_seen_is_an_empty_picture() {
        let plot = draw("a", &VecDeque::new());
        assert!(plot.svg.contains("<polyline class=\"pending\" points=\"\"/>"), "{}", plot.svg);
    }
}
