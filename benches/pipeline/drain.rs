//! How fast a backlog drains, beside a bare loop that posts the same. It is drained in turns, the loop posts as many
//! after each or before. A turn counts from the worker's start until its last event is settled on disk. Processor time is that of
//! the whole process, the handler's included. Deliberately absent: how fast it was filled (`commit` has that).

use std::path::Path;
use std::time::{Duration, Instant};

use event_router::delivery::BackoffSettings;

use super::backlog::{BODY_BYTES, Backlog, CHATS, Manner, client, post_all, posts, run_until};
use super::sink::Sink;
use super::table::{Aim, Figure};
use super::{Size, median, processor_of};

pub(crate) const BACKOFF: BackoffSettings = BackoffSettings {
    initial_interval: Duration::from_millis(500),
    multiplier: 2.0,
    max_interval: Duration::from_secs(60),
    randomization_factor: 0.5,
};

/// How long the slow handler takes.
const TAKES: Duration = Duration::from_millis(20);

/// A way to drain.
struct Kind {
    name: &'static str,
    /// How many are in flight, and what a request brings.
    manner: Manner,
    /// In how many turns a backlog drains: batches take all of it at once.
    turns: u64,
    /// What is aimed at, if it is one of the table.
    aim: Option<f64>,
    /// What the best of the peers reaches that keeps order and loses nothing, on a machine like this one, in events a second.
    peer: f64,
    /// How many times as much is aimed at.
    times: f64,
}

const KINDS: [Kind; 3] = [
    Kind {
        name: "1 event, 16 in flight",
        manner: Manner { concurrency: 16, batch_max: 1 },
        turns: 10,
        aim: Some(0.8),
        peer: 18_500.0,
        times: 2.0,
    },
    Kind {
        name: "1 event, 64 in flight",
        manner: Manner { concurrency: 64, batch_max: 1 },
        turns: 10,
        aim: None,
        peer: 18_500.0,
        times: 2.0,
    },
    Kind {
        name: "100 events, 16 in flight",
        manner: Manner { concurrency: 16, batch_max: 100 },
        turns: 1,
        aim: Some(0.7),
        peer: 79_700.0,
        times: 1.0,
    },
];

/// What a turn took.
struct Turn {
    events: f64,
    span: f64,
    processor: f64,
}

impl Turn {
    fn rate(&self) -> f64 {
        self.events / self.span
    }

    fn cost(&self) -> f64 {
        self.processor * 1e6 / self.events
    }
}

pub(crate) async fn measure(disk: &Path, size: &Size, retention: Duration) -> Vec<Figure> {
    let Size { events, drain_rounds, .. } = size;
    println!();
    println!(
        "drain: {events} events of {BODY_BYTES} bytes wait in {CHATS} chats, {drain_rounds} rounds and one to warm up"
    );
    println!(
        "floor: reqwest posts the same from memory, as many at once; us/event: processor time, the handler's included"
    );
    println!(
        "{:<26} {:>11} {:>11} {:>6} {:>11} {:>11}",
        "a request", "ours ev/s", "bare ev/s", "ratio", "ours us/ev", "bare us/ev"
    );
    let mut figures = Vec::new();
    for Kind { name, manner, turns, aim, peer, times } in KINDS {
        let dir = tempfile::tempdir_in(disk).expect("a directory");
        let backlog = Backlog::open(dir.path(), retention).await;
        let sink = Sink::start(false).await;
        let slice = events / turns;
        let (mut filled, mut delivered) = (0, 0);
        let mut told = [const { Vec::new() }; 5];
        for round in 0..=*drain_rounds {
            // What is in flight at the end of a turn is part of it: the next one is shorter, or the backlog is empty.
            let wanted = ((round + 1) * slice).saturating_sub(delivered);
            if filled < delivered + wanted {
                backlog.fill(filled, filled + events).await;
                filled += events;
            }
            let bare_first = if round.is_multiple_of(2) { Some(bare_turn(&sink, manner, slice).await) } else { None };
            let ours = our_turn(&backlog, &sink, manner, wanted).await;
            let bare = match bare_first {
                Some(turn) => turn,
                None => bare_turn(&sink, manner, slice).await,
            };
            delivered += ours.events as u64;
            if round > 0 {
                let row = [ours.rate(), bare.rate(), ours.rate() / bare.rate(), ours.cost(), bare.cost()];
                told.iter_mut().zip(row).for_each(|(column, figure)| column.push(figure));
            }
        }
        let [ours, bare, ratio, our_cost, bare_cost] = told.map(|column| median(&column));
        println!("{name:<26} {ours:>11.0} {bare:>11.0} {ratio:>6.2} {our_cost:>11.1} {bare_cost:>11.1}");
        if let Some(aim) = aim {
            let (what, told) = (format!("drain, {name}"), format!("{ours:.0}/s"));
            let floor = format!("{bare:.0}/s");
            figures.push(Figure { what, ours: told.clone(), floor, value: ratio, aim: Aim::AtLeast(aim) });
            let what = format!("drain, {name}: beside the best of the peers");
            let floor = format!("{peer:.0}/s");
            figures.push(Figure { what, ours: told, floor, value: ours / peer, aim: Aim::AtLeast(times) });
        }
        backlog.outbox.close().await;
    }
    figures.push(slow_handler(disk, size, retention).await);
    figures
}

/// A handler that takes its time: what counts is how many requests are in flight.
async fn slow_handler(disk: &Path, size: &Size, retention: Duration) -> Figure {
    let dir = tempfile::tempdir_in(disk).expect("a directory");
    let backlog = Backlog::open(dir.path(), retention).await;
    let sink = Sink::slow(TAKES).await;
    let manner = Manner { concurrency: 64, batch_max: 1 };
    let slice = (manner.concurrency as f64 / TAKES.as_secs_f64() * size.span.as_secs_f64() * 2.0) as u64;
    let (mut ours, mut bare, mut filled) = (Vec::new(), Vec::new(), 0);
    for round in 0..=size.rounds {
        // What is in flight at the end of a turn is delivered as well.
        backlog.fill(filled, filled + slice + 1000).await;
        filled += slice + 1000;
        let turn = our_turn(&backlog, &sink, manner, slice).await;
        if round > 0 {
            ours.push(turn.rate());
            bare.push(bare_turn(&sink, manner, slice).await.rate());
        }
    }
    backlog.outbox.close().await;
    let (ours, bare) = (median(&ours), median(&bare));
    // What the handler really took, beyond which nobody can be.
    let ideal = manner.concurrency as f64 / sink.took().as_secs_f64();
    println!("{:<26} {ours:>11.0} {ideal:>11.0} {:>6.2}", "a handler takes 20 ms, 64", ours / ideal);
    println!("{:<26} {bare:>11.0} {ideal:>11.0} {:>6.2}", "the same, the bare loop", bare / ideal);
    Figure {
        what: "drain, 64 in flight, a handler takes 20 ms".to_owned(),
        ours: format!("{ours:.0}/s"),
        floor: format!("{ideal:.0}/s"),
        value: ours / ideal,
        aim: Aim::AtLeast(0.95),
    }
}

async fn our_turn(backlog: &Backlog, sink: &Sink, manner: Manner, slice: u64) -> Turn {
    let worker = backlog.worker(sink.url(), manner, BACKOFF);
    timed(sink, run_until(worker, sink.reaches(sink.taken() + slice))).await
}

async fn bare_turn(sink: &Sink, manner: Manner, slice: u64) -> Turn {
    let (client, posts) = (client(manner.concurrency), posts(0, slice, manner.batch_max));
    timed(sink, post_all(&client, sink.url(), posts, manner.concurrency)).await
}

async fn timed(sink: &Sink, work: impl Future) -> Turn {
    let (before, processor, start) = (sink.taken(), processor_of("self"), Instant::now());
    work.await;
    let span = start.elapsed().as_secs_f64();
    Turn { events: (sink.taken() - before) as f64, span, processor: processor_of("self") - processor }
}
