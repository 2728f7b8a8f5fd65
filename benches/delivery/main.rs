//! Delivery beside its floors, on one machine: how fast a backlog drains, how long an event takes from VK's answer to its
//! handler, what a dead neighbour and a workstream log that hangs cost, and how an outage
//! ends. A floor is measured in the same run and takes turns with
//! us, round by round; what counts is the median of the rounds' ratios, not the absolute figures. `BENCH_DIR` names a
//! directory on the disk to look at; `--quick` is for a glance.
//!
//! Deliberately absent: criterion, which measures one thing to its end before the next; any pass or fail; other programs.
#![allow(clippy::print_stdout, reason = "a bench tells what it found")]

mod backlog;
mod drain;
mod latency;
mod outage;
mod sink;
mod workstream;

use std::env;
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;

#[derive(Parser)]
struct Args {
    /// Fewer and shorter rounds.
    #[arg(long)]
    quick: bool,
    /// Only this part.
    #[arg(long)]
    only: Option<Part>,
    /// How many events wait for a drain.
    #[arg(long)]
    events: Option<u64>,
    /// How long delivered events are kept.
    #[arg(long, default_value = "24h")]
    retention: humantime::Duration,
    /// What cargo says when it benches; without it, it only wants to know whether this runs.
    #[arg(long, hide = true)]
    bench: bool,
}

/// What is measured.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    Drain,
    Latency,
    Neighbours,
    Outage,
    Workstream,
}

/// How much is measured.
struct Size {
    /// Events that wait for a drain.
    events: u64,
    /// Rounds in which they are drained.
    drain_rounds: u64,
    /// Rounds of latency, and of an outage.
    rounds: usize,
    /// How long events come in a round of latency.
    span: Duration,
    /// How long the handler is away.
    away: Duration,
}

const FULL: Size =
    Size { events: 200_000, drain_rounds: 10, rounds: 10, span: Duration::from_secs(2), away: Duration::from_secs(6) };
const QUICK: Size =
    Size { events: 20_000, drain_rounds: 5, rounds: 3, span: Duration::from_secs(1), away: Duration::from_secs(2) };
/// For who only wants to know whether this runs.
const GLANCE: Size = Size {
    events: 4000,
    drain_rounds: 2,
    rounds: 1,
    span: Duration::from_millis(100),
    away: Duration::from_millis(100),
};

#[tokio::main]
async fn main() {
    let args = Args::parse();
    let size = match args {
        Args { bench: false, .. } => GLANCE,
        Args { quick: true, .. } => QUICK,
        Args { .. } => FULL,
    };
    let size = Size { events: args.events.unwrap_or(size.events), ..size };
    // Another bench of this process would have done it already.
    let _installed = rustls::crypto::ring::default_provider().install_default();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    println!(
        "{cores} cores for us, the handler (a thread of its own) and the simulated VK (another); medians of rounds"
    );
    println!("a floor takes turns with us in each round; ratio: median of the rounds' ratios, 1 is the floor");
    let disk = env::var_os("BENCH_DIR").map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")), PathBuf::from);
    let wanted = |part| args.only.is_none_or(|only| only == part);
    if wanted(Part::Drain) {
        drain::measure(&disk, &size, *args.retention).await;
    }
    if wanted(Part::Latency) {
        latency::measure(&disk, &size).await;
    }
    if wanted(Part::Neighbours) {
        latency::measure_neighbours(&disk, &size).await;
    }
    if wanted(Part::Outage) {
        outage::measure(&disk, &size).await;
    }
    if wanted(Part::Workstream) {
        workstream::measure(&disk, &size).await;
    }
}

/// The middle one.
fn median(figures: &[f64]) -> f64 {
    quantile(figures, 0.5)
}

/// The figure below which such a part of them lies.
fn quantile(figures: &[f64], part: f64) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    let place = (sorted.len() as f64 * part) as usize;
    sorted.get(place.min(sorted.len().saturating_sub(1))).copied().unwrap_or(f64::NAN)
}
