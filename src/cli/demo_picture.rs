//! The picture of a demo, drawn anew under its lines while it waits: what VK has sent, what is committed, what each destination
//! has got. On a terminal only; elsewhere there are the lines alone. Deliberately absent: what happens (`demo`).

use std::collections::BTreeMap;
use std::io::{IsTerminal, stdout};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::exit::say;
use super::render::{Tone, coloured, count};
use super::stats::state;
use crate::outbox::views::{DestinationView, Stats};

/// How wide the names are: `commands` and the longest state.
const NAME_CHARS: usize = 20;

/// Bars of what goes through.
pub(super) struct Picture {
    all: MultiProgress,
    sent: ProgressBar,
    committed: ProgressBar,
    destinations: BTreeMap<String, ProgressBar>,
    /// The ts that VK began with.
    from: u64,
}

impl Picture {
    /// Nothing is drawn before the first look. `from` is VK's first ts, `updates` how many there will be.
    pub(super) fn new(from: u64, updates: u64) -> Self {
        let target = if stdout().is_terminal() { ProgressDrawTarget::stdout() } else { ProgressDrawTarget::hidden() };
        let all = MultiProgress::with_draw_target(target);
        let bar = |name: &str| {
            let bar = all.add(ProgressBar::new(updates));
            bar.set_style(style(Tone::Plain));
            bar.set_prefix(name.to_owned());
            bar
        };
        let (sent, committed) = (bar("VK has sent"), bar("committed"));
        Self { all, sent, committed, destinations: BTreeMap::new(), from }
    }

    /// Prints words above the picture.
    pub(super) fn say(&self, words: &str) {
        // Whoever read it may have gone: the demo goes on to its end, which is soon.
        self.all.suspend(|| drop(say(&format!("{words}\n"))));
    }

    /// Draws what is so now: VK's head, and what the service tells.
    pub(super) fn look(&mut self, head: u64, stats: &Stats) {
        if self.all.is_hidden() {
            return;
        }
        self.sent(head);
        let committed = stats.checkpoints.iter().filter_map(|checkpoint| checkpoint.ts.parse::<u64>().ok()).max();
        self.committed.set_position(committed.unwrap_or(self.from).saturating_sub(self.from));
        for view in &stats.destinations {
            let bar = self.destinations.entry(view.name.clone());
            let bar = bar.or_insert_with(|| self.all.add(ProgressBar::new(0)));
            let (word, tone) = state(view.state);
            bar.set_style(style(tone));
            bar.set_prefix(format!("{:<10}{word}", view.name));
            bar.set_length(view.routed);
            bar.set_position(view.delivered + view.dead);
            bar.set_message(words(view));
        }
    }

    /// VK has got so far.
    pub(super) fn sent(&self, head: u64) {
        self.sent.set_position(head.saturating_sub(self.from));
    }

    /// The service does not run: nothing more is known of its destinations.
    pub(super) fn stopped(&self) {
        for (name, bar) in &self.destinations {
            bar.set_style(style(Tone::Plain));
            bar.set_prefix(format!("{name:<10}stopped"));
            bar.set_message("");
        }
    }

    /// Takes the picture away for good.
    pub(super) fn clear(&self) {
        // A terminal that is gone shows nothing anyway.
        let _cleared = self.all.clear();
        self.all.set_draw_target(ProgressDrawTarget::hidden());
    }
}

fn words(view: &DestinationView) -> String {
    let mut words = Vec::new();
    if view.dead > 0 {
        words.push(count(view.dead, "refused", "refused"));
    }
    if view.pending > 0 {
        words.push(count(view.pending, "waits", "wait"));
    }
    words.extend(view.last_error.clone().filter(|_| state(view.state).1 == Tone::Bad));
    words.join(", ")
}

fn style(tone: Tone) -> ProgressStyle {
    let colour = match tone {
        _ if !coloured() => "",
        Tone::Good => ".green",
        Tone::Care => ".yellow",
        Tone::Bad => ".red",
        Tone::Plain => "",
    };
    let template =
        format!("        {{prefix:{NAME_CHARS}{colour}}} {{bar:16{colour}}} {{pos:>5}} of {{len:<5}} {{wide_msg}}");
    ProgressStyle::with_template(&template).expect("invariant: the template is sound")
}
