//! A long life of the outbox: millions of events through a window of waiting ones (`--events`, `--waiting`), and a backlog
//! that is drained (`--backlog`). It tells the curve of disk and memory, and fails when either grows while what waits does
//! not, or when the disk of a drained outbox is not given back. `BENCH_DIR` names a directory on the disk to look at.
//!
//! Deliberately absent: a floor to compare the rate with (`commit` has one), power cuts (`crash` in the tests), several
//! destinations. The reopening of a backlog happens in the process that made it, so what its memory grows by is a lower bound.
#![allow(clippy::print_stdout, reason = "a bench tells what it found")]

mod rig;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use event_router::outbox::records::Space;
use event_router::outbox::{frame, keys};
use rig::{BODY_BYTES, Rig, file_bytes};

/// Events of one append, and of one settlement.
const AT_ONCE: usize = 100;
const ROWS: u64 = 20;
/// How often disk and memory are looked at for each row.
const LOOKS: u64 = 10;
/// How much more the second half may need than the first.
const GROWTH_BYTES: u64 = 64 << 20;
/// The outbox promises to take no more than this, or so many times what is live.
const KEPT_BYTES: u64 = 64 << 20;
const KEPT_FACTOR: u64 = 4;
/// How long it may take for that, and how often it is looked.
const GIVEN_BACK_WITHIN: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(50);

#[derive(Parser)]
struct Args {
    /// How many events go through; 5,000,000 unless it is said.
    #[arg(long)]
    events: Option<u64>,
    /// How many of them wait at a time.
    #[arg(long, default_value_t = 1000)]
    waiting: u64,
    /// Instead: how many wait at once, before all are settled.
    #[arg(long)]
    backlog: Option<u64>,
    /// What cargo says when it benches; without it, it only wants to know whether this runs.
    #[arg(long, hide = true)]
    bench: bool,
}

/// Disk and memory at one moment.
#[derive(Clone, Copy, Default)]
struct Sample {
    file: u64,
    memory: u64,
}

impl Sample {
    fn now(dir: &Path) -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.trim().split(' ').next()?.parse::<u64>().ok());
        Self { file: file_bytes(dir), memory: kib.unwrap_or_default() << 10 }
    }

    fn most(samples: &[Self]) -> Self {
        let most = |of: fn(&Self) -> u64| samples.iter().map(of).max().unwrap_or_default();
        Self { file: most(|sample| sample.file), memory: most(|sample| sample.memory) }
    }

    fn least(samples: &[Self]) -> Self {
        let least = |of: fn(&Self) -> u64| samples.iter().map(of).min().unwrap_or_default();
        Self { file: least(|sample| sample.file), memory: least(|sample| sample.memory) }
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    // What the outbox says of its copies: how long they took and how long the writer stood still.
    tracing_subscriber::fmt().with_target(false).with_ansi(false).init();
    let parent = env::var_os("BENCH_DIR").map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")), PathBuf::from);
    let dir = tempfile::tempdir_in(parent).expect("a directory");
    let well = match args.backlog {
        Some(events) => backlog(dir.path(), events).await,
        None => {
            let events = args.events.unwrap_or(if args.bench { 5_000_000 } else { 20_000 });
            churn(dir.path(), events, args.waiting).await
        }
    };
    if well { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

async fn churn(dir: &Path, events: u64, waiting: u64) -> bool {
    println!("{events} events of {BODY_BYTES} bytes, {AT_ONCE} a commit, of which {waiting} wait");
    println!("{:>10} {:>10} {:>10} {:>10}", "events", "disk MiB", "RSS MiB", "events/s");
    let mut rig = Rig::open(dir).await;
    let mut samples: Vec<Sample> = Vec::new();
    let mut row_began = (0, Instant::now());
    let mut done = 0;
    while done < events {
        let answer = rig.answer(1, AT_ONCE);
        if rig.waiting() < waiting {
            rig.outbox.append(answer).await.expect("committed");
        } else {
            let settlement = rig.oldest(AT_ONCE).await;
            let (appended, settled) = tokio::join!(rig.outbox.append(answer), rig.outbox.settle_durably(settlement));
            appended.expect("committed");
            settled.expect("settled");
        }
        done += AT_ONCE as u64;
        if done * ROWS * LOOKS / events <= samples.len() as u64 {
            continue;
        }
        samples.push(Sample::now(dir));
        if (samples.len() as u64).is_multiple_of(LOOKS) {
            let rate = (done - row_began.0) as f64 / row_began.1.elapsed().as_secs_f64();
            let Sample { file, memory } = samples.last().copied().unwrap_or_default();
            println!("{done:>10} {:>10.1} {:>10.1} {rate:>10.0}", mib(file), mib(memory));
            row_began = (done, Instant::now());
        }
    }
    let (first, second) = samples.split_at(samples.len() / 2);
    let (before, least, most) = (Sample::most(first), Sample::least(second), Sample::most(second));
    println!(
        "second half: disk {:.1} to {:.1} MiB, first at most {:.1}",
        mib(least.file),
        mib(most.file),
        mib(before.file)
    );
    println!(
        "second half: RSS {:.1} to {:.1} MiB, first at most {:.1}",
        mib(least.memory),
        mib(most.memory),
        mib(before.memory)
    );
    let grew = most.file > before.file + GROWTH_BYTES || most.memory > before.memory + GROWTH_BYTES;
    if grew {
        println!("FAILED: it grew");
    }
    drained(dir, &mut rig).await && !grew
}

async fn backlog(dir: &Path, events: u64) -> bool {
    let mut rig = Rig::open(dir).await;
    let start = Instant::now();
    while rig.waiting() < events {
        let answer = rig.answer(1, AT_ONCE);
        rig.outbox.append(answer).await.expect("committed");
    }
    let took = start.elapsed().as_secs_f64();
    let full = Sample::now(dir);
    println!("{events} events of {BODY_BYTES} bytes wait: {:.0} events/s", events as f64 / took);
    println!("disk {:.1} MiB, RSS {:.1} MiB", mib(full.file), mib(full.memory));
    rig.outbox.close().await;
    drop(rig);
    let closed = Sample::now(dir);
    let start = Instant::now();
    let mut rig = Rig::open(dir).await;
    let took = start.elapsed().as_millis();
    let opened = Sample::now(dir);
    let (before, after) = (mib(closed.memory), mib(opened.memory));
    println!(
        "closed and opened again in {took} ms: RSS {before:.1} MiB before, {after:.1} after, {} wait",
        rig.waiting()
    );
    drained(dir, &mut rig).await
}

/// Settles everything and waits until the disk is given back.
async fn drained(dir: &Path, rig: &mut Rig) -> bool {
    let waited = rig.waiting();
    println!("{:>10} {:>10} {:>10} {:>10}", "settled", "disk MiB", "RSS MiB", "events/s");
    let start = Instant::now();
    let mut most = 0;
    for row in 1..=ROWS {
        let (before, began) = (rig.waiting(), Instant::now());
        rig.drain_to(waited - waited * row / ROWS, AT_ONCE).await;
        let rate = (before - rig.waiting()) as f64 / began.elapsed().as_secs_f64();
        let Sample { file, memory } = Sample::now(dir);
        most = most.max(memory);
        println!("{:>10} {:>10.1} {:>10.1} {rate:>10.0}", waited - rig.waiting(), mib(file), mib(memory));
    }
    let took = start.elapsed().as_secs_f64();
    println!("{waited} settled in {took:.1} s, RSS at most {:.1} MiB", mib(most));
    let start = Instant::now();
    let (file, live) = loop {
        let (file, live) = (file_bytes(dir), live_bytes(rig).await);
        if is_given_back(file, live) || start.elapsed() > GIVEN_BACK_WITHIN {
            break (file, live);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    };
    println!("{:.1} s later: disk {:.1} MiB, live {live} bytes", start.elapsed().as_secs_f64(), mib(file));
    rig.outbox.close().await;
    let Sample { file: end, memory } = Sample::now(dir);
    println!("closed: disk {:.1} MiB, RSS {:.1} MiB", mib(end), mib(memory));
    if !is_given_back(file, live) {
        println!("FAILED: the disk was not given back");
    }
    is_given_back(file, live)
}

/// What the store holds by its own count.
async fn live_bytes(rig: &Rig) -> u64 {
    let space = rig.outbox.read_store(|kv| frame::load::<Space>(kv, keys::SPACE)).await.expect("read");
    space.map_or(0, |space| space.weights.sum())
}

fn is_given_back(file: u64, live: u64) -> bool {
    file <= KEPT_BYTES.max(live.saturating_mul(KEPT_FACTOR))
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
