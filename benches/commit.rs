//! Group commit beside its floor: appends to the outbox, and the same bodies written to the end of a file and synced with
//! `fdatasync`. Syncs take what the disk pleases, so both take turns, round by round, and what counts is the median of the
//! rounds' ratios, not the absolute numbers. `BENCH_DIR` names a directory on the disk to look at; `--quick` is for a glance.
//!
//! Deliberately absent: criterion, which measures one thing to its end before the next; any pass or fail.
#![allow(clippy::print_stdout, reason = "a bench tells what it found")]

mod rig;

use std::env;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Parser;
use event_router::outbox::Append;
use rig::{BODY_BYTES, Rig, file_bytes};
use tokio::task::JoinSet;

/// Rounds that are not counted: files are young in them.
const WARM_UP: usize = 5;
const ROUNDS: usize = 100;
const QUICK_ROUNDS: usize = 10;
/// How many events one commit settles between the rounds.
const SETTLED_AT_ONCE: usize = 1000;

#[derive(Parser)]
struct Args {
    /// Fewer rounds.
    #[arg(long)]
    quick: bool,
    /// What cargo says when it benches; without it, it only wants to know whether this runs.
    #[arg(long, hide = true)]
    bench: bool,
}

/// What one turn of a round writes, and how.
struct Kind {
    name: &'static str,
    /// Appends that are made one after the other.
    turns: usize,
    /// Appends that are made at once in each of them.
    at_once: usize,
    /// Events of each append.
    events: usize,
    /// Syncs of the floor in each turn.
    syncs: usize,
}

const KINDS: [Kind; 5] = [
    Kind { name: "1", turns: 20, at_once: 1, events: 1, syncs: 1 },
    Kind { name: "100", turns: 10, at_once: 1, events: 100, syncs: 1 },
    Kind { name: "1000", turns: 3, at_once: 1, events: 1000, syncs: 1 },
    Kind { name: "8 x 12, floor: 1 sync", turns: 10, at_once: 8, events: 12, syncs: 1 },
    Kind { name: "8 x 12, floor: 8 syncs", turns: 10, at_once: 8, events: 12, syncs: 8 },
];

impl Kind {
    fn events_a_turn(&self) -> usize {
        self.at_once * self.events
    }
}

#[tokio::main]
async fn main() {
    let args = Args::parse();
    let rounds = if args.quick || !args.bench { QUICK_ROUNDS } else { ROUNDS };
    println!("{BODY_BYTES}-byte bodies, {rounds} rounds, medians; ratio: median of the rounds' ratios, 1 is the floor");
    println!("floors: the bodies of a commit in one write, or in a write an event, then fdatasync");
    let columns = [
        "where",
        "events/commit",
        "outbox ev/s",
        "one write",
        "ratio",
        "write/event",
        "ratio",
        "us more",
        "settled ev/s",
    ];
    let [place, commit, outbox, bare, ratio, each, ratio_each, more, settled] = columns;
    println!(
        "{place:<6} {commit:<22} {outbox:>12} {bare:>10} {ratio:>6} {each:>12} {ratio_each:>6} {more:>8} {settled:>12}"
    );
    let disk = env::var_os("BENCH_DIR").map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")), PathBuf::from);
    for (place, dir) in [("disk", disk), ("tmpfs", PathBuf::from("/dev/shm"))] {
        if dir.is_dir() {
            measure(place, &dir, rounds).await;
        }
    }
}

async fn measure(place: &str, parent: &Path, rounds: usize) {
    let dir = tempfile::tempdir_in(parent).expect("a directory");
    let path = dir.path().join("outbox");
    let mut rig = Rig::open(&path).await;
    for kind in KINDS {
        let mut floor = Floor::open(&dir.path().join("bare"));
        let mut told = [const { Vec::new() }; 7];
        for round in 0..WARM_UP + rounds {
            let bare_first = (round % 2 == 0).then(|| floor.round(&kind, false));
            let outbox = appended(&mut rig, &kind).await;
            let bare = bare_first.unwrap_or_else(|| floor.round(&kind, false));
            let each = floor.round(&kind, true);
            let settled = timed(rig.drain_to(0, SETTLED_AT_ONCE)).await;
            if round >= WARM_UP {
                let events = (kind.turns * kind.events_a_turn()) as f64;
                let rate = |span: Duration| events / span.as_secs_f64();
                let more = (outbox.as_secs_f64() - bare.as_secs_f64()) * 1e6 / kind.turns as f64;
                let ratios = [rate(outbox) / rate(bare), rate(outbox) / rate(each)];
                let row = [rate(outbox), rate(bare), ratios[0], rate(each), ratios[1], more, rate(settled)];
                told.iter_mut().zip(row).for_each(|(column, figure)| column.push(figure));
            }
        }
        let [outbox, bare, ratio, each, ratio_each, more, settled] = told.map(median);
        println!(
            "{place:<6} {:<22} {outbox:>12.0} {bare:>10.0} {ratio:>6.2} {each:>12.0} {ratio_each:>6.2} {more:>8.0} {settled:>12.0}",
            kind.name
        );
    }
    rig.outbox.close().await;
    println!("{place:<6} the outbox ends at {} KiB", file_bytes(&path) >> 10);
}

/// One round of appends to the outbox; the events are made before.
async fn appended(rig: &mut Rig, kind: &Kind) -> Duration {
    let mut answers: Vec<Vec<Append>> = Vec::new();
    for _ in 0..kind.turns {
        answers.push((1..).take(kind.at_once).map(|community| rig.answer(community, kind.events)).collect());
    }
    let outbox = rig.outbox.clone();
    let work = async move {
        for turn in answers {
            let mut appends = JoinSet::new();
            for answer in turn {
                let outbox = outbox.clone();
                appends.spawn(async move { outbox.append(answer).await.expect("committed") });
            }
            appends.join_all().await;
        }
    };
    timed(work).await
}

/// The same bodies and nothing else, at the end of a file.
struct Floor {
    file: File,
    bytes: Vec<u8>,
}

impl Floor {
    fn open(path: &Path) -> Self {
        let file = OpenOptions::new().create(true).write(true).truncate(true).open(path).expect("a file");
        Self { file, bytes: Vec::new() }
    }

    fn round(&mut self, kind: &Kind, a_write_an_event: bool) -> Duration {
        self.bytes.resize(kind.events_a_turn() * BODY_BYTES / kind.syncs, b'x');
        let piece = if a_write_an_event { BODY_BYTES } else { self.bytes.len() };
        let start = Instant::now();
        for _ in 0..kind.turns * kind.syncs {
            for bytes in self.bytes.chunks(piece) {
                self.file.write_all(bytes).expect("written");
            }
            self.file.sync_data().expect("synced");
        }
        start.elapsed()
    }
}

async fn timed(work: impl Future) -> Duration {
    let start = Instant::now();
    work.await;
    start.elapsed()
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}
