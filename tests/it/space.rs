//! Room: who holds the log and who does not, what happens when room is short, and what a worker does about it; on a store in
//! memory that claims any size, with real workers over real HTTP.

use std::sync::Arc;
use std::time::Duration;

use event_router::app::worker::Worker;
use event_router::attempts::Attempts;
use event_router::clock::Clock;
use event_router::delivery::{BackoffSettings, Sender, Settings as To};
use event_router::domain::delivery::Death;
use event_router::domain::event::{Event, Queued, Source};
use event_router::domain::ids::{DestinationName, Seq};
use event_router::domain::lanes::{LaneKey, Lanes};
use event_router::metrics::Metrics;
use event_router::outbox::kv::{Batch, Disk, Kv};
use event_router::outbox::records::History;
use event_router::outbox::space::Limits;
use event_router::outbox::state::State;
use event_router::outbox::verify::verify;
use event_router::outbox::views::{DestinationView, Stats};
use event_router::outbox::{Change, Cursor, Operation, Outbox, Place, Settings, Store, inspect};
use event_router::sim::handler::{Answer, Handler};
use event_router::sim::kv::MemoryDisk;
use event_router::status::Status;
use tokio::task::{JoinHandle, yield_now};
use tokio_util::sync::CancellationToken;

use crate::rig::within;
use crate::store_rig::{NOW, all_dead, append, event, settlement};

const EASY: Limits = Limits { max_bytes: 8 << 30, min_free_bytes: 0 };

struct Bench {
    disk: MemoryDisk,
    outbox: Outbox,
    ts: u64,
}

fn start(disk: &MemoryDisk, names: &[&str], limits: Limits) -> Outbox {
    let names: Vec<_> = names.iter().map(|name| DestinationName::parse(name).expect("a name")).collect();
    let settings = Settings { dir: "memory".into(), retention: Duration::from_secs(100), limits };
    let (kv, generations) = (Arc::new(disk.current()), Box::new(disk.clone()));
    let store = Store { kv, generations, lock: None, dir: "memory".into() };
    Outbox::start(store, &settings, &names, Clock::standing(NOW)).expect("started")
}

impl Bench {
    fn new(names: &[&str], limits: Limits) -> Self {
        let disk = MemoryDisk::default();
        let mut batch = Batch::default();
        State::found(&mut batch);
        disk.current().commit(&batch).expect("committed");
        let outbox = start(&disk, names, limits);
        Self { disk, outbox, ts: 0 }
    }

    async fn restart(&mut self, names: &[&str], limits: Limits) {
        self.outbox.close().await;
        self.outbox = start(&self.disk, names, limits);
    }

    async fn append(&mut self, events: Vec<(Event, Vec<u16>)>) {
        self.ts += 1;
        let events = events.into_iter().map(|(event, takers)| (event, Source::Live, takers)).collect();
        self.outbox.append(append(self.ts, events)).await.expect("committed");
    }

    /// The volume has room for so much more.
    fn room(&self, free: u64) {
        self.disk.current().set_disk(Some(Disk { file: 0, free }));
    }

    fn stats(&self) -> Stats {
        inspect::steady(&self.disk.current(), |kv| inspect::stats(kv, "memory", &[], NOW)).expect("stats")
    }

    fn view(&self, name: &str) -> DestinationView {
        self.stats().destinations.into_iter().find(|view| view.name == name).expect("listed")
    }

    async fn until(&self, what: &str, mut fact: impl FnMut(&Stats) -> bool) {
        within(what, async {
            while !fact(&self.stats()) {
                yield_now().await;
            }
        })
        .await;
    }

    fn assert_sound(&self) {
        // The writer may be about to delete what is settled: it is counted once it is done.
        let counted = (0..1000).any(|_| {
            let told = verify(&self.disk.current(), &mut |_, _| {}).expect("read");
            assert!(told.sound, "{:?}", told.findings);
            told.recounted
        });
        assert!(counted, "the writer never rests");
    }

    fn work(&self, name: &str, handler: &Handler) -> (JoinHandle<()>, CancellationToken) {
        drop(rustls::crypto::ring::default_provider().install_default());
        let span = Duration::from_millis;
        let backoff = BackoffSettings {
            initial_interval: span(20),
            multiplier: 2.0,
            max_interval: span(100),
            randomization_factor: 0.0,
        };
        let name = DestinationName::parse(name).expect("a name");
        let to = To {
            name: name.clone(),
            url: handler.url(),
            headers: Vec::new(),
            keys: Vec::new(),
            ca: Vec::new(),
            timeout: Duration::from_secs(30),
            concurrency: 4,
            batch_max: 1,
            max_attempts: u32::MAX,
            max_age: None,
            reject_on: vec![400],
            backoff,
        };
        let worker = Worker {
            id: self.outbox.destination(&name).expect("registered"),
            sender: Sender::new(&to).expect("a sender"),
            attempting: Metrics::default().attempting(&name),
            name,
            backoff,
            concurrency: 4,
            batch_max: 1,
            max_attempts: u32::MAX,
            max_age: None,
            outbox: self.outbox.clone(),
            status: Status::new(NOW),
            attempts: Attempts::default(),
            clock: Clock::standing(NOW),
            seed: 1,
        };
        let stop = CancellationToken::new();
        let run = worker.run(tokio::sync::mpsc::channel(1).1, stop.clone());
        (tokio::spawn(async move { run.await.expect("a worker that ends well") }), stop)
    }
}

async fn stopped((task, stop): (JoinHandle<()>, CancellationToken)) {
    stop.cancel();
    within("the end of a worker", task).await.expect("no panic");
}

fn id(number: u64) -> String {
    format!("{number:040x}")
}

#[tokio::test]
async fn an_empty_log_on_a_volume_without_much_room_takes_events() {
    let limits = Limits { max_bytes: 8 << 30, min_free_bytes: 100 };
    let mut bench = Bench::new(&["a"], limits);
    bench.room(105);
    bench.restart(&["a"], limits).await;
    for number in 1..4 {
        bench.append(vec![(event(number, 1, 50), vec![0])]).await;
    }
    assert!(bench.outbox.watch_failure().borrow().is_none());
    bench.assert_sound();
}

#[tokio::test]
async fn a_dead_letter_that_two_replays_deliver_in_one_commit_is_counted_once() {
    let mut bench = Bench::new(&["a"], EASY);
    bench.append(vec![(event(1, 1, 50), vec![0]), (event(2, 2, 50), vec![0])]).await;
    let page = bench.outbox.read(0, Seq(1), Seq(100)).await.expect("read");
    let mut cursor = Cursor::at(Seq(1));
    page.events.iter().for_each(|queued| cursor.met(queued.seq));
    let first = page.events[0].clone();
    cursor.settle(first.seq);
    let (at, death) = (NOW, Death::Refused(422));
    let died = Change::Died { event: first.clone(), from: Place::Log, at, death, history: History::default() };
    bench.outbox.settle_durably(settlement(0, &cursor, vec![died])).await.expect("settled");
    let twice = vec![
        Change::ReplayDelivered { seq: first.seq, replay: 1 },
        Change::ReplayDelivered { seq: first.seq, replay: 1 },
    ];
    bench.outbox.settle_durably(settlement(0, &cursor, twice)).await.expect("settled");
    let view = bench.view("a");
    assert_eq!((view.routed, view.pending, view.delivered, view.dead), (2, 1, 1, 0));
    bench.assert_sound();
}

#[tokio::test]
async fn a_replay_asked_for_twice_sends_a_letter_once() {
    let mut bench = Bench::new(&["a"], EASY);
    let handler = Handler::start().await.expect("a handler");
    handler.answer(|one| if one.event_id == id(1) { Answer::Status(400, "no") } else { Answer::Status(500, "later") });
    bench.append(vec![(event(1, 1, 50), vec![0]), (event(2, 2, 50), vec![0])]).await;
    let worker = bench.work("a", &handler);
    bench.until("a dead letter", |stats| stats.destinations[0].dead == 1).await;
    handler.answer(|one| if one.event_id == id(1) { Answer::Status(200, "ok") } else { Answer::Status(500, "later") });
    let before = handler.received().len();
    let (first, second) = tokio::join!(
        bench.outbox.operate(vec![Operation::Replay(all_dead(0, 1))]),
        bench.outbox.operate(vec![Operation::Replay(all_dead(0, 1))])
    );
    assert!(first.is_ok() && second.is_ok());
    bench.until("both replays", |stats| stats.replays.is_empty()).await;
    stopped(worker).await;
    let sent = handler.received()[before..].iter().filter(|one| one.event_id == id(1)).count();
    let view = bench.view("a");
    assert_eq!((sent, view.pending, view.delivered, view.dead), (1, 1, 1, 0));
    bench.assert_sound();
}

#[tokio::test]
async fn a_detached_destination_that_comes_back_gets_its_events_in_order_though_some_are_aside() {
    let mut bench = Bench::new(&["a", "b"], EASY);
    let events = vec![
        (event(1, 1, 50), vec![0]),
        (event(2, 9, 12_000), vec![1]),
        (event(3, 1, 16_000), vec![0]),
        (event(4, 9, 16_000), vec![1]),
        (event(5, 9, 50), vec![1]),
    ];
    bench.append(events).await;
    let mut cursor = Cursor::at(Seq(1));
    cursor.met(Seq(1));
    cursor.met(Seq(3));
    cursor.looked(Seq(6));
    bench.outbox.settle_durably(settlement(0, &cursor, Vec::new())).await.expect("settled");
    let deliver = |seq| Change::Delivered { seq: Seq(seq), from: Place::Log, tried: false };
    let done = settlement(1, &Cursor::at(Seq(6)), vec![deliver(2), deliver(4), deliver(5)]);
    bench.outbox.settle_durably(done).await.expect("settled");
    // It leaves the configuration, and room gets short: the front of the log is let go, and its event is kept aside.
    bench.room(105);
    bench.restart(&["b"], Limits { max_bytes: 8 << 30, min_free_bytes: 100 }).await;
    bench.outbox.settle_durably(settlement(1, &Cursor::at(Seq(6)), Vec::new())).await.expect("settled");
    bench.until("the first event aside", |stats| stats.destinations[0].aside == 1 && stats.log_from > 1).await;
    bench.assert_sound();
    bench.disk.current().set_disk(None);
    bench.restart(&["a", "b"], EASY).await;
    let handler = Handler::start().await.expect("a handler");
    let worker = bench.work("a", &handler);
    bench.until("both events", |stats| stats.destinations[0].delivered == 2).await;
    stopped(worker).await;
    assert_eq!(handler.taken(), [id(1), id(3)]);
    bench.assert_sound();
}

#[test]
fn a_live_retry_is_due_although_replays_have_all_their_places() {
    use std::time::Instant;
    let (mut lanes, now) = (Lanes::new(4), Instant::now());
    let queued = |seq: u64, peer: i64| Queued { seq: Seq(seq), source: Source::Live, event: event(seq, peer, 5) };
    let live = queued(9, 9);
    lanes.offer(LaneKey::live(live.event.lane()), live, None);
    let dispatch = lanes.next(now).expect("sent");
    lanes.failed(dispatch.key, now, 1, None, &mut |_| Duration::from_secs(1));
    for number in 1..=3 {
        let letter = queued(number, number.cast_signed());
        lanes.offer(LaneKey { replay: 7, lane: letter.event.lane() }, letter, None);
    }
    assert_eq!(std::iter::from_fn(|| lanes.next(now)).count(), 2);
    assert_eq!(lanes.next_due(), Some(now + Duration::from_secs(1)));
}

#[tokio::test]
async fn a_chat_in_flight_that_cannot_give_way_keeps_nobody_busy() {
    let limits = Limits { max_bytes: 8 << 30, min_free_bytes: 100 };
    let mut bench = Bench::new(&["a", "b"], limits);
    let handler = Handler::start().await.expect("a handler");
    handler.answer(|_| Answer::Hang);
    bench.room(105);
    bench.restart(&["a", "b"], limits).await;
    let worker = bench.work("a", &handler);
    bench.append(vec![(event(1, 1, 50), vec![0]), (event(2, 9, 12_000), vec![1])]).await;
    within("a request in flight", handler.until(|all| !all.is_empty())).await;
    let deliver = Change::Delivered { seq: Seq(2), from: Place::Log, tried: false };
    bench.outbox.settle_durably(settlement(1, &Cursor::at(Seq(3)), vec![deliver])).await.expect("settled");
    let commits = bench.disk.current().commits();
    // Nothing happens: that takes a moment to see.
    let _over = tokio::time::timeout(Duration::from_millis(300), std::future::pending::<()>()).await;
    assert!(bench.disk.current().commits() - commits < 10, "relief is asked for again and again");
    worker.1.cancel();
    worker.0.abort();
}

/// One blocked chat, one destination without any event, one that is detached: none of them holds what others have settled.
#[tokio::test]
async fn nobody_holds_the_bytes_of_others() {
    let mut bench = Bench::new(&["blocked", "busy", "detached", "quiet"], EASY);
    bench.append(vec![(event(1, 13, 50), vec![0]), (event(2, 14, 50), vec![2])]).await;
    bench.restart(&["blocked", "busy", "quiet"], Limits { max_bytes: 16 << 20, min_free_bytes: 0 }).await;
    let (fails, takes, quiet) = tokio::join!(Handler::start(), Handler::start(), Handler::start());
    let (fails, takes, quiet) = (fails.expect("a handler"), takes.expect("a handler"), quiet.expect("a handler"));
    fails.answer(|one| if one.event_id == id(1) { Answer::Status(500, "never") } else { Answer::Status(200, "ok") });
    let workers = [bench.work("blocked", &fails), bench.work("busy", &takes), bench.work("quiet", &quiet)];
    let mut number = 2;
    // Four times what may be used: with anybody holding the front of the log, this would not fit.
    for round in 1..=160u64 {
        let mut events = Vec::new();
        for place in 0..25u64 {
            number += 1;
            let takers = if place == 0 { vec![0] } else { vec![1] };
            events.push((event(number, place.cast_signed(), 16_000), takers));
        }
        bench.append(events).await;
        // Room is looked at now and then: whoever takes events from VK waits for it, and so do we.
        let what = format!("the busy one, and room, in round {round}");
        bench.until(&what, |stats| stats.destinations[1].pending < 50 && stats.live_bytes < 24 << 20).await;
    }
    bench.until("all but two", |stats| stats.destinations.iter().map(|view| view.pending).sum::<u64>() == 2).await;
    let stats = bench.stats();
    let pending: Vec<_> = stats.destinations.iter().map(|view| (view.name.as_str(), view.pending)).collect();
    assert_eq!((pending[0].1, pending[2].1), (1, 1), "{pending:?}");
    for worker in workers {
        stopped(worker).await;
    }
    bench.assert_sound();
    // What was held back is still there, and is delivered when its time comes.
    fails.answer(|_| Answer::Status(200, "ok"));
    bench.restart(&["blocked", "busy", "detached", "quiet"], EASY).await;
    let back = Handler::start().await.expect("a handler");
    let workers = [bench.work("blocked", &fails), bench.work("detached", &back)];
    bench.until("the rest", |stats| stats.destinations[0].pending + stats.destinations[2].pending == 0).await;
    for worker in workers {
        stopped(worker).await;
    }
    assert_eq!(back.taken(), [id(2)]);
    bench.assert_sound();
}

/// The same by numbers: a chat that blocks, a destination that gets nothing, while others' events go by. `SPACE_EVENTS` for a
/// million of them.
#[tokio::test(flavor = "multi_thread")]
async fn a_blocked_chat_costs_what_it_holds_however_much_goes_by() {
    let count: u64 = std::env::var("SPACE_EVENTS").ok().and_then(|count| count.parse().ok()).unwrap_or(10_000);
    let mut bench = Bench::new(&["both", "quiet"], Limits { max_bytes: 64 << 20, min_free_bytes: 0 });
    let (handler, quiet) = (Handler::start().await.expect("a handler"), Handler::start().await.expect("a handler"));
    let held = |one: &event_router::sim::handler::Received| {
        one.body.starts_with(b"{\"ts\":1,\"event_id\":\"") && one.event_id.ends_with("f00d")
    };
    handler.answer(move |one| if held(one) { Answer::Status(500, "never") } else { Answer::Status(200, "ok") });
    let workers = [bench.work("both", &handler), bench.work("quiet", &quiet)];
    let mut blocked = 0;
    let mut most = 0;
    for batch in 0..count / 100 {
        let mut events = Vec::new();
        for place in 0..100 {
            // Every hundredth is of the chat that blocks.
            let number = batch * 100 + place;
            match place {
                0 => {
                    blocked += 1;
                    events.push((event(number << 16 | 0xf00d, 13, 500), vec![0]));
                }
                _ => events.push((event(number << 16, 100 + (place % 30).cast_signed(), 500), vec![0])),
            }
        }
        bench.append(events).await;
        let waits = bench.stats();
        most = most.max(waits.live_bytes);
        if waits.destinations[0].pending > blocked + 5000 {
            bench.until("the others", |stats| stats.destinations[0].pending < blocked + 500).await;
        }
    }
    bench.until("all others", |stats| stats.destinations[0].pending == blocked).await;
    let stats = bench.stats();
    eprintln!(
        "{count} events, {blocked} of a blocked chat; at most {most} bytes live, {} aside at the end",
        stats.destinations[0].aside
    );
    assert!(most < 64 << 20, "{most}");
    handler.answer(|_| Answer::Status(200, "ok"));
    bench.until("the blocked chat", |stats| stats.destinations[0].pending == 0).await;
    for worker in workers {
        stopped(worker).await;
    }
    bench.assert_sound();
    let order: Vec<u64> = handler
        .taken()
        .iter()
        .filter(|id| id.ends_with("f00d"))
        .map(|id| u64::from_str_radix(&id[24..], 16).expect("hex"))
        .collect();
    assert!(order.len() as u64 == blocked && order.is_sorted(), "{} of {blocked}", order.len());
}

/// Whoever reads all of the outbox costs the disk: few do so at once, and one who went away keeps his place to the end.
#[tokio::test(flavor = "multi_thread")]
async fn few_read_all_of_it_at_once_and_small_looks_do_not_wait_for_them() {
    let bench = Bench::new(&["a"], EASY);
    let (open, gate) = std::sync::mpsc::channel::<()>();
    let gate = Arc::new(std::sync::Mutex::new(gate));
    let (begun, mut begins) = tokio::sync::mpsc::channel(16);
    let scans: Vec<JoinHandle<()>> = (0..3)
        .map(|_| {
            let (outbox, gate, begun) = (bench.outbox.clone(), Arc::clone(&gate), begun.clone());
            tokio::spawn(async move {
                let look = move |_: &dyn Kv| {
                    begun.blocking_send(()).expect("the test listens");
                    let _closed = gate.lock().expect("sound").recv();
                    Ok(())
                };
                outbox.scan_store(look).await.expect("read");
            })
        })
        .collect();
    for _ in 0..3 {
        within("it reads", begins.recv()).await.expect("begun");
    }
    // They are not waited for any more.
    scans.iter().for_each(JoinHandle::abort);
    let mut fourth = std::pin::pin!(bench.outbox.scan_store(|_| Ok(())));
    within("a small look", bench.outbox.read_store(|_| Ok(()))).await.expect("read");
    assert!(futures_util::FutureExt::now_or_never(&mut fourth).is_none(), "there is no place");
    drop(open);
    within("a place", fourth).await.expect("read");
}
