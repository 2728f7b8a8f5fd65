//! Taking in while draining: each alone for a while, then both at once, on one outbox. What is taken in comes as answers of a
//! hundred; what drains goes to a handler, one event a request. Deliberately absent: VK (`latency`, `process`).

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::backlog::{Backlog, Manner, run_until};
use super::drain::BACKOFF;
use super::sink::Sink;
use super::table::{Aim, Figure};
use super::{Size, median};

const MANNER: Manner = Manner { concurrency: 16, batch_max: 1 };
const ANSWER: u64 = 100;

pub(crate) async fn measure(disk: &Path, size: &Size) -> Vec<Figure> {
    println!();
    println!(
        "taking in answers of {ANSWER} while draining, {} rounds of {:?}; floor: each alone",
        size.rounds, size.span
    );
    println!("{:<16} {:>12} {:>12} {:>6}", "", "both ev/s", "alone ev/s", "ratio");
    let dir = tempfile::tempdir_in(disk).expect("a directory");
    let backlog = Arc::new(Backlog::open(dir.path(), Duration::ZERO).await);
    let sink = Sink::start(false).await;
    let next = Arc::new(AtomicU64::new(0));
    let mut told = [const { Vec::new() }; 6];
    for round in 0..=size.rounds {
        // More waits than any turn drains.
        take_in(&backlog, &next, Until::Waiting(size.events)).await;
        let alone = drain(&backlog, &sink, size.span).await;
        let taken = take_in(&backlog, &next, Until::Elapsed(size.span)).await;
        let stop = Arc::new(AtomicBool::new(false));
        let taking = {
            let (backlog, next, stop) = (Arc::clone(&backlog), Arc::clone(&next), Arc::clone(&stop));
            tokio::spawn(async move { take_in(&backlog, &next, Until::Stopped(stop)).await })
        };
        let drained = drain(&backlog, &sink, size.span).await;
        stop.store(true, Ordering::SeqCst);
        let taken_too = taking.await.expect("no panic");
        if round > 0 {
            let row = [drained, alone, drained / alone, taken_too, taken, taken_too / taken];
            told.iter_mut().zip(row).for_each(|(column, figure)| column.push(figure));
        }
    }
    backlog.outbox.close().await;
    let [drained, alone, ratio, taken_too, taken, taken_ratio] = told.map(|column| median(&column));
    [("draining", drained, alone, ratio), ("taking in", taken_too, taken, taken_ratio)]
        .into_iter()
        .map(|(name, both, alone, ratio)| {
            println!("{name:<16} {both:>12.0} {alone:>12.0} {ratio:>6.2}");
            Figure {
                what: format!("both at once: {name}"),
                ours: format!("{both:.0}/s"),
                floor: format!("{alone:.0}/s"),
                value: ratio,
                aim: Aim::AtLeast(0.7),
            }
        })
        .collect()
}

/// How long is taken in.
enum Until {
    Elapsed(Duration),
    Waiting(u64),
    Stopped(Arc<AtomicBool>),
}

/// Events a second that were taken in.
async fn take_in(backlog: &Backlog, next: &AtomicU64, until: Until) -> f64 {
    let (start, mut events) = (Instant::now(), 0);
    let waiting = async || {
        let id = backlog.outbox.destination(&backlog.name).expect("registered");
        next.load(Ordering::SeqCst) - backlog.outbox.resume(id).await.expect("read").record.delivered
    };
    loop {
        let done = match &until {
            Until::Elapsed(span) => start.elapsed() >= *span,
            Until::Waiting(wanted) => waiting().await >= *wanted,
            Until::Stopped(stop) => stop.load(Ordering::SeqCst),
        };
        if done {
            return events as f64 / start.elapsed().as_secs_f64();
        }
        let from = next.fetch_add(ANSWER, Ordering::SeqCst);
        backlog.fill(from, from + ANSWER).await;
        events += ANSWER;
    }
}

/// Events a second that were drained.
async fn drain(backlog: &Backlog, sink: &Sink, span: Duration) -> f64 {
    let (before, start) = (sink.taken(), Instant::now());
    run_until(backlog.worker(sink.url(), MANNER, BACKOFF), tokio::time::sleep(span)).await;
    (sink.taken() - before) as f64 / start.elapsed().as_secs_f64()
}
