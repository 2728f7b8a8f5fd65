//! The whole way beside its floors, on one machine: conversion, commits, drains, latency, memory, start, processor time; and how
//! dead neighbours, outages and a log that hangs are borne. A floor is measured in the same run and takes turns with us, round by
//! round; what counts is the median of the rounds' ratios, not the absolute figures. `BENCH_DIR` names a directory on the disk to
//! look at; `--quick` is for a glance, `--picture FILE` draws the table.
//!
//! Deliberately absent: criterion, which measures one thing to its end before the next; any pass or fail; other programs.
#![allow(clippy::print_stdout, reason = "a bench tells what it found")]

mod backlog;
mod both;
mod commit;
mod convert;
mod drain;
mod growth;
mod latency;
#[path = "../rig/lots.rs"]
mod lots;
mod outage;
mod process;
#[path = "../rig/mod.rs"]
mod rig;
mod sink;
mod table;
mod workstream;

use std::path::PathBuf;
use std::time::Duration;
use std::{env, fs};

use clap::Parser;

/// Ticks of the processor's time as the kernel tells it: a hundred a second.
const TICKS: f64 = 100.0;

#[derive(Parser)]
struct Args {
    /// Fewer and shorter rounds.
    #[arg(long)]
    quick: bool,
    /// Only these parts.
    #[arg(long, value_delimiter = ',')]
    only: Vec<Part>,
    /// How many events wait for a drain.
    #[arg(long)]
    events: Option<u64>,
    /// How long delivered events are kept.
    #[arg(long, default_value = "24h")]
    retention: humantime::Duration,
    /// Draw the table into this file.
    #[arg(long, value_name = "FILE")]
    picture: Option<PathBuf>,
    /// Be the floor of `cost`, as a process of its own, that posts to this address.
    #[arg(long, hide = true)]
    floor_of_cost: Option<String>,
    /// What cargo says when it benches; without it, it only wants to know whether this runs.
    #[arg(long, hide = true)]
    bench: bool,
}

/// What is measured.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    Convert,
    Commit,
    Drain,
    Both,
    Latency,
    Process,
    Cost,
    Neighbours,
    Outage,
    Workstream,
    /// How figures grow with what waits and with the number of destinations; only when it is asked for.
    Growth,
}

/// How much is measured.
struct Size {
    /// Events that wait for a drain.
    events: u64,
    /// Rounds in which they are drained.
    drain_rounds: u64,
    /// Rounds of latency, of an outage, and of processes.
    rounds: usize,
    /// Rounds of what takes milliseconds: conversion, commits.
    turns: usize,
    /// How long events come in a round of latency, or are taken in.
    span: Duration,
    /// How long the handler is away.
    away: Duration,
    /// How long a process is left alone before its memory is looked at.
    settle: Duration,
    /// With how many waiting events a process is started.
    waiting: &'static [u64],
}

const FULL: Size = Size {
    events: 200_000,
    drain_rounds: 10,
    rounds: 10,
    turns: 100,
    span: Duration::from_secs(2),
    away: Duration::from_secs(6),
    settle: Duration::from_secs(3),
    waiting: &[10_000, 1_000_000, 10_000_000],
};
const QUICK: Size = Size {
    events: 20_000,
    drain_rounds: 5,
    rounds: 3,
    turns: 10,
    span: Duration::from_secs(1),
    away: Duration::from_secs(2),
    settle: Duration::from_secs(1),
    waiting: &[10_000, 100_000],
};
/// For who only wants to know whether this runs.
const GLANCE: Size = Size {
    events: 4000,
    drain_rounds: 2,
    rounds: 1,
    turns: 2,
    span: Duration::from_millis(100),
    away: Duration::from_millis(100),
    settle: Duration::from_millis(100),
    waiting: &[1000],
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
    let disk = env::var_os("BENCH_DIR").map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")), PathBuf::from);
    // Another bench of this process would have done it already.
    let _installed = rustls::crypto::ring::default_provider().install_default();
    if let Some(url) = args.floor_of_cost {
        return process::be_the_floor(&disk, &url, size.events).await;
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let machine = format!("{cores} cores for us, the handlers and the simulated VK; medians of rounds");
    println!(
        "{machine}; a floor takes turns with us in each round; ratio: median of the rounds' ratios, 1 is the floor"
    );
    let wanted = |part| if args.only.is_empty() { part != Part::Growth } else { args.only.contains(&part) };
    let mut figures = Vec::new();
    if wanted(Part::Convert) {
        figures.extend(convert::measure(&size));
    }
    if wanted(Part::Commit) {
        figures.extend(commit::measure(&disk, &size).await);
    }
    if wanted(Part::Latency) {
        figures.extend(latency::measure(&disk, &size).await);
    }
    if wanted(Part::Drain) {
        figures.extend(drain::measure(&disk, &size, *args.retention).await);
    }
    if wanted(Part::Both) {
        figures.extend(both::measure(&disk, &size).await);
    }
    if wanted(Part::Cost) {
        figures.extend(process::measure_cost(&disk, &size).await);
    }
    if wanted(Part::Process) {
        figures.extend(process::measure(&disk, &size).await);
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
    if wanted(Part::Growth) {
        growth::measure(&disk, &size).await;
    }
    println!("\n{}", table::text(&figures));
    if let Some(picture) = args.picture {
        table::draw(&figures, &machine, &picture);
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

/// Seconds of the processor that a process has had.
fn processor_of(process: &str) -> f64 {
    let text = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    let fields = text.rsplit_once(") ").map_or("", |(_, rest)| rest).split(' ');
    fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / TICKS
}
