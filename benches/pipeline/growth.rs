//! How figures grow: with what waits, and with how many destinations take each event. What is flat stays flat; what is not is
//! explained in `docs/PERFORMANCE.md`. Deliberately absent: floors; a row is compared with the row before it.

use std::path::Path;
use std::time::{Duration, Instant};

use event_router::clock::Clock;
use event_router::outbox::inspect;

use super::Size;
use super::backlog::{Backlog, Manner, run_until};
use super::drain::BACKOFF;
use super::latency::Service;
use super::sink::Sink;

const MANNER: Manner = Manner { concurrency: 16, batch_max: 1 };
/// Events of a commit.
const ANSWER: u64 = 100;
/// How often something small is done, to time it.
const TIMES: u32 = 50;

pub(crate) async fn measure(disk: &Path, size: &Size) {
    println!();
    println!("growth with what waits: commits of {ANSWER} beside it, draining it, looking at it, opening it");
    println!(
        "{:>12} {:>14} {:>12} {:>12} {:>10} {:>10}",
        "waiting", "commits, ev/s", "drain, ev/s", "stats, us", "open, ms", "disk, MB"
    );
    let most = size.waiting.last().copied().unwrap_or_default();
    for waiting in [1000, 10_000, 100_000, 1_000_000, 10_000_000].into_iter().filter(|waiting| *waiting <= most) {
        with_waiting(disk, waiting, size).await;
    }
    println!();
    println!(
        "growth with destinations that all take every event, a simulated VK gives 1,000 a second for {:?}",
        size.span
    );
    println!("{:>12} {:>14} {:>14} {:>14}", "destinations", "deliveries/s", "p50, ms", "p99, ms");
    for destinations in [1, 3, 10, 50] {
        let sinks: Vec<Sink> = futures_util::future::join_all((0..destinations).map(|_| Sink::start(true))).await;
        let names: Vec<String> = (0..destinations).map(|number| format!("d{number}")).collect();
        let all: Vec<(&str, String, &str)> =
            names.iter().zip(&sinks).map(|(name, sink)| (name.as_str(), sink.url().to_owned(), "")).collect();
        let service = Service::start(disk, &all).await;
        let start = Instant::now();
        // The last one is the one that is looked at; the others get as much.
        let last = sinks.last().expect("one");
        let took = service.round(last, size.span).await;
        let deliveries = took.len() * destinations;
        let rate = deliveries as f64 / start.elapsed().as_secs_f64();
        let [p50, p99] = [0.5, 0.99].map(|part| super::quantile(&took, part));
        println!("{destinations:>12} {rate:>14.0} {p50:>14.2} {p99:>14.2}");
        service.stop().await;
    }
}

async fn with_waiting(disk: &Path, waiting: u64, size: &Size) {
    let dir = tempfile::tempdir_in(disk).expect("a directory");
    let backlog = Backlog::open(dir.path(), Duration::ZERO).await;
    backlog.fill(0, waiting).await;
    let start = Instant::now();
    for turn in 0..u64::from(TIMES) {
        let from = waiting + turn * ANSWER;
        backlog.fill(from, from + ANSWER).await;
    }
    let commits = (u64::from(TIMES) * ANSWER) as f64 / start.elapsed().as_secs_f64();
    let start = Instant::now();
    for _ in 0..TIMES {
        let now = Clock::system().now();
        backlog.outbox.read_store(move |kv| inspect::stats(kv, "", &[], now)).await.expect("read");
    }
    let stats = start.elapsed().as_secs_f64() * 1e6 / f64::from(TIMES);
    let bytes = super::rig::file_bytes(dir.path()) >> 20;
    backlog.outbox.close().await;
    drop(backlog);
    let start = Instant::now();
    let backlog = Backlog::open(dir.path(), Duration::ZERO).await;
    let open = start.elapsed().as_secs_f64() * 1e3;
    let (sink, wanted) = (Sink::start(false).await, waiting.min(size.events));
    let start = Instant::now();
    run_until(backlog.worker(sink.url(), MANNER, BACKOFF), sink.reaches(wanted)).await;
    let drain = sink.taken() as f64 / start.elapsed().as_secs_f64();
    println!("{waiting:>12} {commits:>14.0} {drain:>12.0} {stats:>12.0} {open:>10.0} {bytes:>10}");
    backlog.outbox.close().await;
}
