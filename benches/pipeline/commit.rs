//! Group commit beside its floor: appends to the outbox, and the same bodies written to the end of a file and synced with
//! `fdatasync`. Syncs take what the disk pleases, so both take turns, round by round, and what counts is the median of the
//! rounds' ratios, not the absolute numbers. A third takes its turn: the store alone, given as many ready bytes in full values,
//! nothing of which is ever deleted: no outbox that is built on it is faster. Deliberately absent: criterion, which measures
//! one thing to its end before the next.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use event_router::domain::ids::Seq;
use event_router::outbox::frame::PART_BYTES;
use event_router::outbox::kv::{Batch, Kv};
use event_router::outbox::sled_kv::SledKv;
use event_router::outbox::{Append, keys};
use tokio::task::JoinSet;

use super::rig::{BODY_BYTES, Rig, file_bytes};
use super::table::{Aim, Figure};
use super::{Size, median};

/// Rounds that are not counted: files are young in them.
const WARM_UP: usize = 5;
/// What the record of an event takes beside its body: its id, its type, its numbers.
const RECORD_MORE_BYTES: usize = 63;
/// How many events one commit settles between the rounds.
const SETTLED_AT_ONCE: usize = 1000;

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

pub(crate) async fn measure(disk: &Path, size: &Size) -> Vec<Figure> {
    let rounds = size.turns;
    println!();
    println!(
        "commit: {BODY_BYTES}-byte bodies, {rounds} rounds; floors: the bodies of a commit in one write, or in a write an event, then fdatasync"
    );
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
        "store alone",
        "ratio",
        "written",
    ];
    let [place, commit, outbox, bare, ratio, each, ratio_each, more, settled, alone, ratio_alone, written] = columns;
    println!(
        "{place:<6} {commit:<22} {outbox:>12} {bare:>10} {ratio:>6} {each:>12} {ratio_each:>6} {more:>8} {settled:>12} {alone:>12} {ratio_alone:>6} {written:>8}"
    );
    let mut figures = Vec::new();
    for (place, dir, aims) in [("disk", disk, [0.9, 0.8, 0.5]), ("tmpfs", Path::new("/dev/shm"), [0.05, 0.35, 0.45])] {
        if dir.is_dir() {
            figures.extend(measure_in(place, dir, rounds, aims).await);
        }
    }
    figures
}

async fn measure_in(place: &str, parent: &Path, rounds: usize, aims: [f64; 3]) -> Vec<Figure> {
    let dir = tempfile::tempdir_in(parent).expect("a directory");
    let path = dir.path().join("outbox");
    let mut rig = Rig::open(&path).await;
    let mut alone = Alone::open(&dir.path().join("alone"));
    let mut figures = Vec::new();
    for (number, kind) in KINDS.into_iter().enumerate() {
        let mut floor = Floor::open(&dir.path().join("bare"));
        let mut told = [const { Vec::new() }; 10];
        for round in 0..WARM_UP + rounds {
            let bare_first = (round % 2 == 0).then(|| floor.round(&kind, false));
            let before = written();
            let outbox = appended(&mut rig, &kind).await;
            let bytes = written() - before;
            let store = alone.round(&kind);
            let bare = bare_first.unwrap_or_else(|| floor.round(&kind, false));
            let each = floor.round(&kind, true);
            let settled = timed(rig.drain_to(0, SETTLED_AT_ONCE)).await;
            if round >= WARM_UP {
                let events = (kind.turns * kind.events_a_turn()) as f64;
                let rate = |span: Duration| events / span.as_secs_f64();
                let more = (outbox.as_secs_f64() - bare.as_secs_f64()) * 1e6 / kind.turns as f64;
                let ratios = [rate(outbox) / rate(bare), rate(outbox) / rate(each)];
                let settled = rate(settled);
                let (alone, amplified) = (rate(store), bytes / (events * BODY_BYTES as f64));
                let [ours, bare, each] = [outbox, bare, each].map(rate);
                let row = [ours, bare, ratios[0], each, ratios[1], more, settled, alone, ours / alone, amplified];
                told.iter_mut().zip(row).for_each(|(column, figure)| column.push(figure));
            }
        }
        let told = told.map(|column| median(&column));
        let [outbox, bare, ratio, each, ratio_each, more, settled, alone, ratio_alone, written] = told;
        println!(
            "{place:<6} {:<22} {outbox:>12.0} {bare:>10.0} {ratio:>6.2} {each:>12.0} {ratio_each:>6.2} {more:>8.0} {settled:>12.0} {alone:>12.0} {ratio_alone:>6.2} {written:>7.1}x",
            kind.name
        );
        // The others are for whoever looks closer.
        if let Some(aim) = aims.get(number) {
            figures.push(Figure {
                what: format!("commit of {} on {place}", kind.name),
                ours: format!("{outbox:.0}/s"),
                // As a log without batches would write them.
                floor: format!("{each:.0}/s"),
                value: ratio_each,
                aim: Aim::AtLeast(*aim),
            });
        }
    }
    rig.outbox.close().await;
    println!("{place:<6} the outbox ends at {} KiB", file_bytes(&path) >> 10);
    figures
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

/// The store without the outbox: nobody counts, packs or answers.
struct Alone {
    kv: SledKv,
    next: u64,
}

impl Alone {
    fn open(dir: &Path) -> Self {
        Self { kv: SledKv::open(dir).expect("a store"), next: 1 }
    }

    fn round(&mut self, kind: &Kind) -> Duration {
        let batches: Vec<Batch> = (0..kind.turns).map(|_| self.ready(kind)).collect();
        let start = Instant::now();
        batches.iter().for_each(|batch| self.kv.commit(batch).expect("committed"));
        start.elapsed()
    }

    /// As many bytes as a commit of as many events writes, in as few chunks as can be, and the small keys beside them.
    fn ready(&mut self, kind: &Kind) -> Batch {
        let mut batch = Batch::default();
        let bytes = vec![b'x'; kind.events_a_turn() * (BODY_BYTES + RECORD_MORE_BYTES)];
        for chunk in bytes.chunks(PART_BYTES) {
            batch.put(keys::chunk(Seq(self.next)), chunk.to_vec());
            self.next += 1;
        }
        (1..).take(kind.at_once).for_each(|community| batch.put(keys::checkpoint(community), vec![b'x'; 32]));
        batch.put(keys::HEAD.to_vec(), vec![b'x'; 64]);
        batch.put(keys::SPACE.to_vec(), vec![b'x'; 32]);
        batch
    }
}

/// How many bytes this process has written so far: what the outbox was given and what the store adds to it.
fn written() -> f64 {
    let told = fs::read_to_string("/proc/self/io").expect("Linux tells it");
    let bytes = told.lines().find_map(|line| line.strip_prefix("wchar: ")).expect("it is there");
    bytes.parse().expect("a number")
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
