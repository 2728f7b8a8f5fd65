//! The outbox against a model: any sequence of answers, settlements, reopenings, power cuts, failed commits, copies into new
//! generations and passing time leaves it with exactly what the model holds. proptest prints the seed of a failure and takes it back.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use event_router::clock::Clock;
use event_router::domain::delivery::Death;
use event_router::domain::event::{Event, Queued, Source};
use event_router::domain::ids::{DestinationName, EventId, GroupId, Seq, Ts};
use event_router::domain::time::Moment;
use event_router::outbox::generations::Generations;
use event_router::outbox::kv::{Batch, Disk, Kv};
use event_router::outbox::records::{History, QuarantineRecord};
use event_router::outbox::space::Limits;
use event_router::outbox::state::State;
use event_router::outbox::views::{DeliveryState, ListState, Selector};
use event_router::outbox::{
    Append, Change, Cursor, Outbox, OutboxError, Place, Settings, Settlement, Store, inspect, lookup,
};
use event_router::sim::kv::{CommitFault, MemoryDisk, MemoryKv};
use proptest::prelude::*;

const RETENTION: Duration = Duration::from_secs(100);
const NAMES: [&str; 3] = ["a", "b", "c"];

#[derive(Clone, Debug)]
enum Action {
    /// Events as (chat, destinations as bits, size); one with the number of an earlier event is a repeat of it.
    Append {
        events: Vec<(u8, u8, u16)>,
        repeat: bool,
        quarantined: bool,
        gap: bool,
    },
    /// A worker reads on and settles some of what it knows.
    Work {
        destination: u8,
        settle: Vec<Settle>,
    },
    /// The process ends, maybe with the power; the next one may find that the store is to be copied.
    Reopen {
        power_cut: bool,
        copy: Option<CommitFault>,
    },
    CommitFails {
        fault: CommitFault,
    },
    Pass {
        seconds: u8,
    },
}

#[derive(Clone, Copy, Debug)]
enum Settle {
    Deliver(u8),
    Die(u8),
    MoveAside(u8),
    ReplayDead,
}

fn action() -> impl Strategy<Value = Action> {
    let event = (0u8..4, 1u8..8, prop_oneof![20 => 1u16..200, 1 => 15_000u16..60_000]);
    let settle = prop_oneof![
        6 => any::<u8>().prop_map(Settle::Deliver),
        2 => any::<u8>().prop_map(Settle::Die),
        2 => any::<u8>().prop_map(Settle::MoveAside),
        1 => Just(Settle::ReplayDead),
    ];
    prop_oneof![
        6 => (prop::collection::vec(event, 0..12), any::<bool>(), any::<bool>(), any::<bool>())
            .prop_map(|(events, repeat, quarantined, gap)| Action::Append { events, repeat, quarantined, gap }),
        8 => (0u8..3, prop::collection::vec(settle, 0..10)).prop_map(|(destination, settle)| Action::Work { destination, settle }),
        2 => (any::<bool>(), prop::option::of(fault())).prop_map(|(power_cut, copy)| Action::Reopen { power_cut, copy }),
        1 => fault().prop_map(|fault| Action::CommitFails { fault }),
        2 => (1u8..120).prop_map(|seconds| Action::Pass { seconds }),
    ]
}

fn fault() -> impl Strategy<Value = CommitFault> {
    prop_oneof![
        3 => Just(CommitFault::None),
        1 => Just(CommitFault::FailsBefore),
        1 => Just(CommitFault::FailsAfter),
        1 => Just(CommitFault::SyncFails),
    ]
}

/// What must be true of the outbox.
#[derive(Clone, Debug, Default)]
struct Model {
    /// Every event ever appended, by position: its id, and for each destination how it stands.
    events: BTreeMap<u64, (String, BTreeMap<u8, Standing>)>,
    ts: Option<u64>,
    repeats: u64,
    quarantined: u64,
    gaps: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Pending,
    Delivered,
    Dead,
}

impl Model {
    fn with(&self, destination: u8, standing: Standing) -> Vec<u64> {
        let fits = |states: &BTreeMap<u8, Standing>| states.get(&destination) == Some(&standing);
        self.events.iter().filter(|(_, (_, states))| fits(states)).map(|(seq, _)| *seq).collect()
    }
}

/// A worker's memory: lost when the outbox is reopened.
struct Hand {
    cursor: Cursor,
    log: BTreeMap<Seq, Queued>,
    aside: BTreeMap<Seq, Queued>,
}

struct Bench {
    disk: MemoryDisk,
    clock: Clock,
    outbox: Outbox,
    hands: Vec<Hand>,
    model: Model,
    /// What a commit that answered an error would have made of it.
    maybe: Option<Model>,
    next_id: u64,
    next_ts: u64,
}

fn group() -> GroupId {
    GroupId::new(77).expect("an id")
}

fn new_disk() -> MemoryDisk {
    let disk = MemoryDisk::default();
    let mut batch = Batch::default();
    State::found(&mut batch);
    disk.current().commit(&batch).expect("committed");
    disk
}

fn start(disk: &MemoryDisk, clock: &Clock) -> Outbox {
    let names: Vec<_> = NAMES.iter().map(|name| DestinationName::parse(name).expect("a name")).collect();
    let limits = Limits { max_bytes: 8 << 30, min_free_bytes: 0 };
    let settings = Settings { dir: "memory".into(), retention: RETENTION, limits };
    let (kv, generations) = (Arc::new(disk.current()), Box::new(disk.clone()));
    let store = Store { kv, generations, lock: None, dir: "memory".into() };
    Outbox::start(store, &settings, &names, clock.clone()).expect("started")
}

impl Bench {
    async fn new() -> Self {
        let (disk, clock) = (new_disk(), Clock::standing(Moment(1_700_000_000_000)));
        let outbox = start(&disk, &clock);
        let model = Model::default();
        let mut bench = Self { disk, clock, outbox, hands: Vec::new(), model, maybe: None, next_id: 0, next_ts: 1 };
        bench.take_up().await;
        bench
    }

    /// What each worker knows after a start.
    async fn take_up(&mut self) {
        self.hands.clear();
        for name in NAMES {
            let id = self.outbox.destination(&DestinationName::parse(name).expect("a name")).expect("registered");
            let resume = self.outbox.resume(id).await.expect("resumed");
            let known = Cursor::from_record(&resume.record.cursor).expect("a cursor");
            let mut hand = Hand { cursor: Cursor::at(known.floor()), log: BTreeMap::new(), aside: BTreeMap::new() };
            while hand.cursor.horizon() < known.horizon() {
                let page = self.outbox.read(id, hand.cursor.horizon(), known.horizon()).await.expect("read");
                for event in page.events.into_iter().filter(|event| known.waits(event.seq)) {
                    hand.cursor.met(event.seq);
                    hand.log.insert(event.seq, event);
                }
                hand.cursor.looked(page.end);
            }
            for lane in resume.aside {
                let mut after = Seq(lane.first.0 - 1);
                while after < lane.last {
                    for event in self.outbox.read_aside(id, lane.lane, after, 32).await.expect("read") {
                        after = event.seq;
                        hand.aside.insert(event.seq, event);
                    }
                }
            }
            self.hands.push(hand);
        }
    }

    fn event(&self, id: u64, chat: u8, size: u16) -> Event {
        Event {
            group: group(),
            event_id: EventId::parse(&format!("event-{id}")).expect("an id"),
            event_type: "message_new".into(),
            user_id: Some(5),
            peer_id: (chat > 0).then(|| i64::from(chat)),
            received_at: self.clock.now(),
            body: Bytes::from(format!("{{\"n\":{id},\"x\":\"{}\"}}", "x".repeat(usize::from(size)))),
        }
    }

    async fn append(&mut self, events: &[(u8, u8, u16)], repeat: bool, quarantined: bool, gap: bool) -> bool {
        let mut after = self.model.clone();
        let mut batch = Vec::new();
        // Repeats are known from the log's end: one of an event that retention has deleted is not promised to be.
        let log_from = inspect::stats(&self.kv(), "memory", &[], self.clock.now()).expect("stats").log_from;
        let last = after.events.iter().next_back().filter(|(seq, _)| **seq >= log_from).map(|(_, (id, _))| id.clone());
        if let Some(number) = last.as_ref().filter(|_| repeat).and_then(|id| id.strip_prefix("event-")) {
            batch.push((self.event(number.parse().expect("a number"), 1, 5), Source::Live, vec![0]));
            after.repeats += 1;
        }
        let mut seq = *self.outbox.watch_head().borrow();
        for (chat, bits, size) in events {
            let destinations: Vec<u16> = (0..3).filter(|bit| bits & (1 << bit) != 0).collect();
            let event = self.event(self.next_id, *chat, *size);
            let states = destinations.iter().map(|id| (u8::try_from(*id).expect("small"), Standing::Pending)).collect();
            after.events.insert(seq.0, (event.event_id.to_string(), states));
            batch.push((event, Source::Live, destinations));
            self.next_id += 1;
            seq = seq.next();
        }
        let at = self.clock.now();
        let record = QuarantineRecord { group: 77, at, reason: "no".into(), event_id: "x".into(), raw: b"1".to_vec() };
        after.quarantined += u64::from(quarantined);
        after.gaps += u64::from(gap);
        after.ts = Some(self.next_ts);
        let append = Append {
            group: group(),
            ts: Ts::parse(&self.next_ts.to_string()).expect("a ts"),
            events: batch,
            unrouted: 0,
            quarantined: quarantined.then_some(record).into_iter().collect(),
            gap: gap.then(|| (Ts::parse("1").expect("a ts"), "failed 1".to_owned())),
            heard: None,
            last_answer: None,
        };
        self.next_ts += 1;
        let done = self.outbox.append(append).await;
        self.learn(done.map(drop), after)
    }

    async fn work(&mut self, destination: u8, settle: &[Settle]) -> bool {
        let mut after = self.model.clone();
        let id = u16::from(destination);
        let hand = &mut self.hands[usize::from(destination)];
        let page = self.outbox.read(id, hand.cursor.horizon(), hand.cursor.limit()).await.expect("read");
        for event in page.events {
            hand.cursor.met(event.seq);
            hand.log.insert(event.seq, event);
        }
        hand.cursor.looked(page.end);
        let mut changes = Vec::new();
        let mut moved = Vec::new();
        for step in settle {
            let mut pick = |choice: u8| {
                let all: Vec<Seq> = hand.log.keys().chain(hand.aside.keys()).copied().collect();
                let seq = *all.get(usize::from(choice) % all.len().max(1))?;
                hand.cursor.settle(seq);
                let in_log = hand.log.remove(&seq);
                let from = if in_log.is_some() { Place::Log } else { Place::Aside(hand.aside[&seq].event.lane()) };
                Some((in_log.or_else(|| hand.aside.remove(&seq)).expect("picked"), from))
            };
            let mut stands = |seq: Seq, standing| {
                after
                    .events
                    .get_mut(&seq.0)
                    .and_then(|(_, states)| states.insert(destination, standing))
                    .expect("known")
            };
            match step {
                Settle::Deliver(choice) => {
                    let Some((event, from)) = pick(*choice) else { continue };
                    stands(event.seq, Standing::Delivered);
                    changes.push(Change::Delivered { seq: event.seq, from, tried: true });
                }
                Settle::Die(choice) => {
                    let Some((event, from)) = pick(*choice) else { continue };
                    stands(event.seq, Standing::Dead);
                    let (at, death) = (self.clock.now(), Death::Refused(422));
                    changes.push(Change::Died { event, from, at, death, history: History::default() });
                }
                Settle::MoveAside(choice) => {
                    // As a worker does: a chat's later events follow its first.
                    let Some(lane) =
                        hand.log.values().nth(usize::from(*choice) % hand.log.len().max(1)).map(|e| e.event.lane())
                    else {
                        continue;
                    };
                    let all: Vec<Seq> =
                        hand.log.iter().filter(|(_, e)| e.event.lane() == lane).map(|(seq, _)| *seq).collect();
                    for seq in all {
                        let event = hand.log.remove(&seq).expect("listed");
                        hand.cursor.settle(seq);
                        moved.push(event.clone());
                        changes.push(Change::MovedAside { event });
                    }
                }
                Settle::ReplayDead => {
                    let dead = self.model.with(destination, Standing::Dead);
                    let Some(seq) = dead.first().copied().map(Seq) else { continue };
                    if stands(seq, Standing::Delivered) == Standing::Dead {
                        changes.push(Change::ReplayDelivered { seq, replay: 1 });
                    }
                }
            }
        }
        let settlement =
            Settlement { destination: id, cursor: hand.cursor.clone(), changes, last_ok: None, outage: None };
        let done = self.outbox.settle_durably(settlement).await;
        let hand = &mut self.hands[usize::from(destination)];
        hand.aside.extend(moved.into_iter().map(|event| (event.seq, event)));
        self.learn(done, after)
    }

    /// After a commit that answered `Ok` the model is the new one; after a failure it may be.
    fn learn(&mut self, done: Result<(), OutboxError>, after: Model) -> bool {
        match done {
            Ok(()) => self.model = after,
            Err(OutboxError::Poisoned(_) | OutboxError::Closed) => {}
            Err(_) => self.maybe = Some(after),
        }
        self.maybe.is_none() && self.outbox.watch_failure().borrow().is_none()
    }

    fn kv(&self) -> MemoryKv {
        self.disk.current()
    }

    async fn reopen(&mut self, power_cut: bool, copy: Option<CommitFault>) {
        self.outbox.close().await;
        let kv = self.kv();
        let happened = match kv.fault() {
            CommitFault::None | CommitFault::FailsBefore => false,
            CommitFault::FailsAfter => true,
            CommitFault::SyncFails => !power_cut,
        };
        if let Some(after) = self.maybe.take().filter(|_| happened) {
            self.model = after;
        }
        if power_cut {
            kv.power_cut(0);
        }
        kv.set_fault(CommitFault::None);
        self.disk.set_next_fault(CommitFault::None);
        let suspect = self.disk.is_suspect();
        if let Some(fault) = copy.filter(|_| !suspect) {
            kv.set_disk(Some(Disk { file: 1 << 40, free: 1 << 50 }));
            self.disk.set_next_fault(fault);
        }
        let switches = self.disk.switches();
        self.outbox = start(&self.disk, &self.clock);
        assert!(!suspect || self.disk.switches() == switches + 1, "what cannot be trusted is copied first");
        assert!(copy.is_some() || self.kv().unsynced() == 0, "what is read after a start is on disk for good");
        self.take_up().await;
    }

    fn check(&self) {
        // The writer may be deleting or copying meanwhile.
        let stats =
            inspect::steady(&self.kv(), |kv| inspect::stats(kv, "memory", &[], self.clock.now())).expect("stats");
        let model = &self.model;
        assert_eq!(stats.checkpoints.first().map(|c| c.ts.clone()), model.ts.map(|ts| ts.to_string()));
        assert_eq!((stats.repeats, stats.quarantined, stats.gaps), (model.repeats, model.quarantined, model.gaps));
        assert_eq!(stats.log_next, model.events.keys().next_back().map_or(1, |last| last + 1));
        for (number, name) in (0u8..).zip(NAMES) {
            let view = stats.destinations.iter().find(|view| view.name == name).expect("listed");
            let of = |standing| model.with(number, standing);
            let counts = [view.pending, view.delivered, view.dead];
            let expected =
                [Standing::Pending, Standing::Delivered, Standing::Dead].map(|standing| of(standing).len() as u64);
            assert_eq!(counts, expected, "{name}");
            assert_eq!(view.routed, view.pending + view.delivered + view.dead + view.expired + view.discarded);
            for (state, standing) in [(ListState::Pending, Standing::Pending), (ListState::Dead, Standing::Dead)] {
                let selector = Selector {
                    destination: Some(name.to_owned()),
                    state: Some(state),
                    limit: Some(10_000),
                    ..Selector::default()
                };
                let listed: Vec<u64> = inspect::steady(&self.kv(), |kv| lookup::list(kv, &selector))
                    .expect("listed")
                    .iter()
                    .filter_map(|row| row.seq)
                    .collect();
                assert_eq!(listed, of(standing), "{name} {state:?}");
            }
            if let Some(seq) = of(Standing::Dead).into_iter().chain(of(Standing::Pending)).next() {
                let shown = inspect::steady(&self.kv(), |kv| lookup::show(kv, &model.events[&seq].0))
                    .expect("read")
                    .expect("found by its id");
                assert_eq!(shown.row.seq, Some(seq));
                let state =
                    shown.row.deliveries.iter().find(|delivery| delivery.destination == name).expect("listed").state;
                assert!(state == DeliveryState::Dead || state == DeliveryState::Pending);
            }
        }
    }
}

/// How many cases are tried: `OUTBOX_MODEL_CASES` for a long run.
fn cases() -> u32 {
    std::env::var("OUTBOX_MODEL_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(80)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), max_shrink_iters: 2000, ..ProptestConfig::default() })]
    #[test]
    fn the_outbox_holds_what_the_model_holds(actions in prop::collection::vec(action(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let mut bench = Bench::new().await;
            for action in actions {
                let mut end = (false, None);
                let fine = match action {
                    Action::Append { events, repeat, quarantined, gap } => bench.append(&events, repeat, quarantined, gap).await,
                    Action::Work { destination, settle } => bench.work(destination, &settle).await,
                    Action::Reopen { power_cut, copy } => {
                        end = (power_cut, copy);
                        false
                    }
                    Action::CommitFails { fault } => {
                        bench.kv().set_fault(fault);
                        true
                    }
                    Action::Pass { seconds } => {
                        bench.clock.set(bench.clock.now().plus(Duration::from_secs(u64::from(seconds))));
                        true
                    }
                };
                if !fine {
                    bench.reopen(end.0, end.1).await;
                }
                bench.check();
            }
            // What was acknowledged survives the power, and a copy that comes to its end.
            bench.kv().set_fault(CommitFault::None);
            bench.reopen(true, Some(CommitFault::None)).await;
            let disk = bench.disk.clone();
            let mut switches = 0;
            while switches == 0 {
                assert!(bench.append(&[(1, 7, 50)], false, false, false).await);
                switches = disk.switches();
            }
            bench.check();
            bench.reopen(true, None).await;
            bench.check();
            bench.outbox.close().await;
        });
    }
}

#[tokio::test]
async fn what_everyone_settled_is_deleted_once_retention_is_over_and_not_before() {
    let mut bench = Bench::new().await;
    let log = |bench: &Bench| {
        let stats = inspect::stats(&bench.kv(), "memory", &[], bench.clock.now()).expect("stats");
        (stats.log_from, stats.log_next)
    };
    assert!(bench.append(&[(1, 7, 50), (2, 7, 50)], false, false, false).await);
    for destination in 0..3 {
        assert!(bench.work(destination, &[Settle::Deliver(0), Settle::Deliver(0)]).await);
    }
    bench.clock.set(bench.clock.now().plus(RETENTION / 2));
    assert!(bench.append(&[(1, 1, 50)], false, false, false).await);
    assert_eq!(log(&bench), (1, 4), "kept for replay");
    bench.clock.set(bench.clock.now().plus(RETENTION / 2));
    assert!(bench.append(&[(1, 2, 50)], false, false, false).await);
    assert_eq!(log(&bench), (3, 5), "gone, but for what waits");
    bench.clock.set(bench.clock.now().plus(RETENTION * 10));
    assert!(bench.append(&[(1, 2, 50)], false, false, false).await);
    assert_eq!(log(&bench), (3, 6), "what waits is kept, however long");
    bench.check();
    bench.outbox.close().await;
}

#[tokio::test]
async fn after_a_failed_commit_nothing_is_taken_and_everyone_is_told_why() {
    let mut bench = Bench::new().await;
    bench.kv().set_fault(CommitFault::FailsBefore);
    assert!(!bench.append(&[(1, 7, 50)], false, false, false).await);
    bench.kv().set_fault(CommitFault::None);
    assert!(!bench.append(&[(1, 7, 50)], false, false, false).await, "poisoned for good");
    let told = bench.outbox.watch_failure().borrow().clone().expect("told").to_string();
    assert!(told.contains("a failure on command"), "{told}");
    bench.reopen(false, None).await;
    assert!(bench.append(&[(1, 7, 50)], false, false, false).await, "a new start goes on");
    bench.check();
    bench.outbox.close().await;
}
