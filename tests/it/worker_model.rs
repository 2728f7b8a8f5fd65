//! The worker against its promises: any interleaving of answers, batches, expiry, discards, replays, ends and kills leaves every
//! event in exactly one state after each step, and every chat in order. The real worker, outbox and HTTP; the store is in memory, the
//! clock stands until it is moved. proptest prints what failed. `WORKER_MODEL_CASES` makes it longer. Deliberately absent:
//! commits that fail and copies (`outbox_model`), chats aside (`domain::lanes`), broken connections (`roads`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use event_router::app::worker::Worker;
use event_router::attempts::Attempts;
use event_router::clock::Clock;
use event_router::delivery::{self, BackoffSettings, Sender};
use event_router::domain::event::{Event, Source};
use event_router::domain::ids::{DestinationName, EventId, GroupId, Seq, Ts};
use event_router::domain::time::Moment;
use event_router::metrics::Metrics;
use event_router::outbox::kv::{Batch, Kv};
use event_router::outbox::records::ReplayOrder;
use event_router::outbox::space::Limits;
use event_router::outbox::state::State;
use event_router::outbox::views::{ListState, Selector, Stats};
use event_router::outbox::{Append, Discard, Operation, Outbox, OutboxError, Settings, Store, inspect, lookup};
use event_router::secret::Secret;
use event_router::sim::handler::{Answer, Handler, Received};
use event_router::sim::kv::{MemoryDisk, MemoryKv};
use event_router::status::Status;
use proptest::prelude::*;
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::rig::within;
use crate::store_rig::all_dead;

/// Ten milliseconds before a full second: a date of `Retry-After` is that far off.
const START: Moment = Moment(1_790_000_000_990);
const MAX_AGE: Duration = Duration::from_secs(100);
const STATES: [ListState; 5] =
    [ListState::Pending, ListState::Delivered, ListState::Dead, ListState::Expired, ListState::Discarded];

#[derive(Clone, Debug)]
enum Action {
    /// Events of these chats.
    Come(Vec<u8>),
    /// The worker goes on until so many more requests came, or for a moment.
    Work(u8),
    /// An operator takes out one of the events in a state, or has a state replayed.
    DiscardPending(u8),
    DiscardSettled(u8),
    Replay {
        expired: bool,
    },
    /// The worker ends and another one begins from what is stored.
    Restart {
        kill: bool,
    },
    Pass {
        seconds: u8,
    },
    /// Connections are refused, or taken again.
    Away(bool),
}

/// What the handler says to a request.
#[derive(Clone, Copy, Debug)]
enum Say {
    Fine,
    Refuse,
    Fail(u16),
    /// With `Retry-After` in seconds, or as a date.
    Later(u16, bool),
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        6 => prop::collection::vec(0u8..4, 1..12).prop_map(Action::Come),
        8 => (1u8..12).prop_map(Action::Work),
        2 => any::<u8>().prop_map(Action::DiscardPending),
        1 => any::<u8>().prop_map(Action::DiscardSettled),
        2 => any::<bool>().prop_map(|expired| Action::Replay { expired }),
        2 => any::<bool>().prop_map(|kill| Action::Restart { kill }),
        1 => (1u8..80).prop_map(|seconds| Action::Pass { seconds }),
        1 => any::<bool>().prop_map(Action::Away),
    ]
}

fn say() -> impl Strategy<Value = Say> {
    let failure = prop_oneof![Just(301u16), Just(404), Just(408), Just(429), Just(500), Just(503)];
    prop_oneof![
        10 => Just(Say::Fine),
        2 => Just(Say::Refuse),
        4 => failure.prop_map(Say::Fail),
        1 => (prop_oneof![Just(429u16), Just(503), Just(500)], any::<bool>()).prop_map(|(status, date)| Say::Later(status, date)),
    ]
}

/// A worker that runs.
struct Life {
    outbox: Outbox,
    stop: CancellationToken,
    task: JoinHandle<Result<(), OutboxError>>,
    orders: mpsc::Sender<Discard>,
}

struct Bench {
    disk: MemoryDisk,
    clock: Clock,
    handler: Handler,
    life: Life,
    lives: u64,
    batch_max: usize,
    /// The chat of each event, in order.
    chats: Vec<u8>,
    killed: bool,
    /// Something that was replayed was discarded meanwhile: it may have been taken.
    raced: bool,
}

fn begin(disk: &MemoryDisk, clock: &Clock, url: &str, life: u64, batch_max: usize) -> Life {
    let name = DestinationName::parse("all").expect("a name");
    let limits = Limits { max_bytes: 8 << 30, min_free_bytes: 0 };
    let settings = Settings { dir: "memory".into(), retention: Duration::from_secs(1 << 20), limits };
    let (kv, generations) = (Arc::new(disk.current()), Box::new(disk.clone()));
    let store = Store { kv, generations, lock: None, dir: "memory".into() };
    let outbox = Outbox::start(store, &settings, std::slice::from_ref(&name), clock.clone()).expect("started");
    let backoff = BackoffSettings {
        initial_interval: Duration::from_millis(1),
        multiplier: 2.0,
        max_interval: Duration::from_millis(4),
        randomization_factor: 0.5,
    };
    let to = delivery::Settings {
        name: name.clone(),
        url: url.to_owned(),
        headers: vec![("x-life".to_owned(), Secret::new(life.to_string()))],
        keys: Vec::new(),
        ca: Vec::new(),
        timeout: Duration::from_secs(30),
        concurrency: 3,
        batch_max,
        max_attempts: 2,
        max_age: Some(MAX_AGE),
        reject_on: vec![422],
        backoff,
    };
    let worker = Worker {
        id: outbox.destination(&name).expect("registered"),
        attempting: Metrics::default().attempting(&name),
        name,
        backoff,
        concurrency: to.concurrency,
        batch_max,
        max_attempts: to.max_attempts,
        max_age: to.max_age,
        sender: Sender::new(&to).expect("a sender"),
        outbox: outbox.clone(),
        attempts: Attempts::default(),
        status: Status::new(clock.now()),
        clock: clock.clone(),
        seed: life,
    };
    let (orders, inbox) = mpsc::channel(1);
    let stop = CancellationToken::new();
    Life { outbox, task: tokio::spawn(worker.run(inbox, stop.clone())), stop, orders }
}

impl Bench {
    async fn new(batch_max: usize, answers: Vec<Say>, healed: Arc<AtomicBool>) -> Self {
        drop(rustls::crypto::ring::default_provider().install_default());
        let (disk, clock) = (MemoryDisk::default(), Clock::standing(START));
        let mut batch = Batch::default();
        State::found(&mut batch);
        disk.current().commit(&batch).expect("committed");
        let handler = Handler::start().await.expect("a handler");
        let said = AtomicUsize::new(0);
        handler.answer(move |received| {
            let say = answers[said.fetch_add(1, Ordering::SeqCst) % answers.len()];
            match say {
                _ if healed.load(Ordering::SeqCst) => Answer::Status(200, ""),
                Say::Fine => Answer::Status(200, ""),
                Say::Refuse => Answer::Status(422, "no"),
                Say::Fail(status) => Answer::Status(status, "not now"),
                Say::Later(status, false) => Answer::RetryAfter(status, "0"),
                Say::Later(status, true) => {
                    // By the time of the request: the clock may have been moved since.
                    let sent = received.headers["webhook-timestamp"].to_str().expect("text");
                    let second = Duration::from_secs(sent.parse::<u64>().expect("a number") + 1);
                    let date = std::time::UNIX_EPOCH + second;
                    Answer::RetryAfter(status, httpdate::fmt_http_date(date).leak())
                }
            }
        });
        let life = begin(&disk, &clock, &handler.url(), 0, batch_max);
        Self { disk, clock, handler, life, lives: 0, batch_max, chats: Vec::new(), killed: false, raced: false }
    }

    fn kv(&self) -> MemoryKv {
        self.disk.current()
    }

    async fn come(&mut self, chats: &[u8]) {
        let events = chats.iter().map(|chat| {
            self.chats.push(*chat);
            let (seq, now) = (self.chats.len(), self.clock.now());
            let body = format!("{{\"event_id\":\"e{seq}\",\"n\":{seq},\"chat\":{chat}}}");
            let event = Event {
                group: GroupId::new(1).expect("an id"),
                event_id: EventId::parse(&format!("e{seq}")).expect("an id"),
                event_type: "message_new".into(),
                user_id: None,
                peer_id: Some(i64::from(*chat)),
                received_at: now,
                body: Bytes::from(body),
            };
            (event, Source::Live, vec![0])
        });
        let append = Append {
            events: events.collect(),
            group: GroupId::new(1).expect("an id"),
            ts: Ts::parse("1").expect("a ts"),
            unrouted: 0,
            quarantined: Vec::new(),
            gap: None,
            heard: None,
            last_answer: None,
        };
        let appended = self.life.outbox.append(append).await.expect("committed").appended;
        assert_eq!(appended, chats.len() as u64);
    }

    async fn restart(&mut self, kill: bool) {
        if kill {
            self.killed = true;
            self.life.task.abort();
            assert!((&mut self.life.task).await.is_err_and(|error| error.is_cancelled()), "it had ended by itself");
        } else {
            self.life.stop.cancel();
            within("the end of the worker", &mut self.life.task).await.expect("no panic").expect("a clean end");
        }
        self.life.outbox.close().await;
        self.lives += 1;
        self.life = begin(&self.disk, &self.clock, &self.handler.url(), self.lives, self.batch_max);
    }

    /// One of those in a state.
    fn one_of(&self, state: ListState, choice: u8) -> Option<Seq> {
        let all: Vec<u64> = self.check().1.remove(STATES.iter().position(|one| *one == state).expect("known"));
        all.get(usize::from(choice) % all.len().max(1)).copied().map(Seq)
    }

    async fn act(&mut self, action: Action) {
        match action {
            Action::Come(chats) => self.come(&chats).await,
            Action::Work(more) => {
                let goal = self.handler.received().len() + usize::from(more);
                let came = self.handler.until(|all| all.len() >= goal);
                // Nothing may be left to be sent.
                let _came = timeout(Duration::from_millis(5), came).await;
            }
            Action::DiscardPending(choice) => {
                let Some(seq) = self.one_of(ListState::Pending, choice) else { return };
                let (reply, answer) = oneshot::channel();
                self.life.orders.send(Discard { seq, reply }).await.expect("the worker runs");
                let taken = within("an answer to a discard", answer).await.expect("answered").is_ok();
                let discarded = self.check().1.pop().expect("five states");
                assert_eq!(discarded.contains(&seq.0), taken, "{seq}");
            }
            Action::DiscardSettled(choice) => {
                let dead = self.one_of(ListState::Dead, choice);
                let Some(seq) = dead.or_else(|| self.one_of(ListState::Expired, choice)) else { return };
                self.raced |= !self.check().0.replays.is_empty();
                self.life.outbox.operate(vec![Operation::DiscardDead(0, vec![seq])]).await.expect("committed");
            }
            Action::Replay { expired } => {
                let order = ReplayOrder { expired, ..all_dead(0, 1) };
                self.life.outbox.operate(vec![Operation::Replay(order)]).await.expect("committed");
            }
            Action::Restart { kill } => self.restart(kill).await,
            Action::Pass { seconds } => {
                self.clock.set(self.clock.now().plus(Duration::from_secs(u64::from(seconds))));
            }
            Action::Away(true) => self.handler.down(),
            Action::Away(false) => self.back().await,
        }
    }

    async fn back(&self) {
        if !self.handler.is_up() {
            self.handler.up().await.expect("up");
        }
    }

    /// The books: every event is in one state, and the counters say the same. Answers them, and the events in each state.
    fn check(&self) -> (Stats, Vec<Vec<u64>>) {
        let kv = self.kv();
        let (stats, states) = loop {
            // What is read piece by piece is of one moment only if nothing was committed meanwhile.
            let before = kv.commits();
            let listed = STATES.map(|state| {
                let selector = Selector { state: Some(state), limit: Some(100_000), ..Selector::default() };
                let rows = inspect::steady(&kv, |kv| lookup::list(kv, &selector)).expect("listed");
                rows.iter().filter_map(|row| row.seq).collect::<Vec<u64>>()
            });
            let stats = inspect::steady(&kv, |kv| inspect::stats(kv, "memory", &[], self.clock.now())).expect("stats");
            if kv.commits() == before {
                break (stats, listed.to_vec());
            }
        };
        let all: u64 = self.chats.len() as u64;
        let view = &stats.destinations[0];
        assert_eq!(view.routed, all);
        let counted = [view.pending, view.delivered, view.dead, view.expired, view.discarded];
        assert_eq!(counted.map(|count| count as usize).as_slice(), states.iter().map(Vec::len).collect::<Vec<_>>());
        let each: BTreeSet<u64> = states.iter().flatten().copied().collect();
        assert!(
            each.len() as u64 == all && each.iter().copied().eq(1..=all),
            "an event is in no state, or in two: {states:?}"
        );
        (stats, states)
    }

    /// All that waits and all that is replayed comes to its end.
    async fn settle(&mut self) -> Vec<Vec<u64>> {
        self.back().await;
        within("everything is settled", async {
            loop {
                let (stats, states) = self.check();
                if stats.destinations[0].pending == 0 && stats.replays.is_empty() {
                    return states;
                }
                let _came = timeout(Duration::from_millis(2), self.handler.until(|_| false)).await;
            }
        })
        .await
    }

    /// The order of each chat, as the handler saw it: after an answer comes a later event, after a failure the same one or, when
    /// that was given up, a later one. A new life begins where the last one had not settled.
    fn check_order(&self) -> BTreeSet<u64> {
        let (mut taken, mut first) = (BTreeSet::new(), BTreeMap::<u64, u64>::new());
        let mut next: BTreeMap<(String, u64), u64> = BTreeMap::new();
        for one in self.handler.received() {
            let fine = (200..300).contains(&one.status);
            let events = events(&one);
            taken.extend(events.iter().filter(|_| fine).map(|(seq, _)| *seq));
            if one.headers.contains_key("x-event-replay") {
                continue;
            }
            let life = one.headers["x-life"].to_str().expect("text").to_owned();
            let mut begun = BTreeSet::new();
            for (seq, chat) in &events {
                let next = next.entry((life.clone(), *chat)).or_default();
                // Of a batch that failed, each comes again from the first one on.
                if begun.insert(*chat) || fine {
                    assert!(*seq >= *next, "{seq} of chat {chat} came after it was settled, or after a later one");
                    let settled = fine || one.status == 422 && self.batch_max == 1;
                    *next = *seq + u64::from(settled);
                }
                if fine {
                    let last = first.entry(*chat).or_default();
                    assert!(self.killed || *seq > *last, "{seq} of chat {chat} was taken after {last}");
                    *last = (*last).max(*seq);
                }
            }
        }
        taken
    }
}

/// The events of a request: their positions and chats.
fn events(one: &Received) -> Vec<(u64, u64)> {
    let body: Value = serde_json::from_slice(&one.body).expect("JSON");
    let event = |value: &Value| (value["n"].as_u64().expect("a number"), value["chat"].as_u64().expect("a chat"));
    body.as_array().map_or_else(|| vec![event(&body)], |all| all.iter().map(event).collect())
}

/// How many cases are tried: `WORKER_MODEL_CASES` for a long run.
fn cases() -> u32 {
    std::env::var("WORKER_MODEL_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(40)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), max_shrink_iters: 200, ..ProptestConfig::default() })]
    #[test]
    fn whatever_happens_each_event_is_in_one_state_and_each_chat_in_order(
        batch_max in prop_oneof![Just(1usize), Just(5)],
        answers in prop::collection::vec(say(), 1..40),
        actions in prop::collection::vec(action(), 1..40),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let healed = Arc::new(AtomicBool::new(false));
            let mut bench = Bench::new(batch_max, answers, Arc::clone(&healed)).await;
            for action in actions {
                bench.act(action).await;
                bench.check();
            }
            healed.store(true, Ordering::SeqCst);
            let states = bench.settle().await;
            bench.restart(false).await;
            assert_eq!(bench.settle().await, states, "a restart changes nothing");
            let taken = bench.check_order();
            let delivered: BTreeSet<u64> = states[1].iter().copied().collect();
            assert!(delivered.is_subset(&taken), "delivered and never taken: {:?}", delivered.difference(&taken));
            // A worker that is killed may not know what was taken.
            assert!(bench.killed || bench.raced || delivered == taken, "taken and not delivered: {:?}", taken.difference(&delivered));
            bench.life.stop.cancel();
            within("the end", &mut bench.life.task).await.expect("no panic").expect("a clean end");
            bench.life.outbox.close().await;
        });
    }
}
