//! How fast a backlog drains, beside a bare loop that posts the same. It is drained in turns, the loop posts as many
//! after each or before. A turn counts from the worker's start until its last event is settled on disk. Processor time is that of
//! the whole process, the handler's included. Deliberately absent: how fast it was filled (`commit` has that).

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use event_router::delivery::BackoffSettings;

use super::backlog::{BODY_BYTES, Backlog, CHATS, Manner, client, post_all, posts, run_until};
use super::sink::Sink;
use super::{Size, median};

/// Ticks of the processor's time as the kernel tells it: a hundred a second.
const TICKS: f64 = 100.0;
const BACKOFF: BackoffSettings = BackoffSettings {
    initial_interval: Duration::from_millis(500),
    multiplier: 2.0,
    max_interval: Duration::from_secs(60),
    randomization_factor: 0.5,
};

/// What a request brings, how many are in flight, and in how many turns a backlog drains: batches take all of it at once.
const KINDS: [(&str, Manner, u64); 3] = [
    ("1 event, 16 in flight", Manner { concurrency: 16, batch_max: 1 }, 10),
    ("1 event, 64 in flight", Manner { concurrency: 64, batch_max: 1 }, 10),
    ("100 events, 16 in flight", Manner { concurrency: 16, batch_max: 100 }, 1),
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

pub(crate) async fn measure(disk: &Path, size: &Size, retention: Duration) {
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
    for (name, manner, turns) in KINDS {
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
        backlog.outbox.close().await;
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
    let (before, processor, start) = (sink.taken(), processor(), Instant::now());
    work.await;
    let span = start.elapsed().as_secs_f64();
    Turn { events: (sink.taken() - before) as f64, span, processor: self::processor() - processor }
}

/// Seconds of the processor that this process has had.
fn processor() -> f64 {
    let text = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = text.rsplit_once(") ").map_or("", |(_, rest)| rest).split(' ');
    fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / TICKS
}
