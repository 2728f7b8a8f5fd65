//! What an outage costs: one request at a time, ever more rarely, spread over the chats; nothing dies of it, nobody else waits
//! for it, and traffic comes back step by step. An hour of it, in time that only numbers know, and a minute's worth of milliseconds
//! over real HTTP. Deliberately absent: outages over a restart (`delivery_faults`, `crash`).

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use event_router::delivery::{BackoffSettings, backoff};
use event_router::domain::event::{Queued, Source};
use event_router::domain::ids::Seq;
use event_router::domain::lanes::{Dispatch, LaneKey, Lanes};
use event_router::outbox::views::DestinationState;
use event_router::sim::handler::{Answer, Received};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::Value;
use tokio::sync::watch;

use crate::rig::{Rig, view, within};
use crate::store_rig::event;

/// How many probes there are at least and at most, if they take no time: each waits its interval, spread by the jitter.
fn bounds(settings: &BackoffSettings, outage: Duration) -> (usize, usize) {
    let count = |factor: f64| {
        let mut left = outage.as_secs_f64();
        (1..)
            .take_while(|number| {
                left -= backoff::interval(settings, *number).as_secs_f64() * factor;
                left >= 0.0
            })
            .count()
    };
    (count(1.0 + settings.randomization_factor), count(1.0 - settings.randomization_factor))
}

/// The destination, the time, and what a reader of the contract expects of the two.
struct World {
    lanes: Lanes,
    now: Instant,
    random: StdRng,
    settings: BackoffSettings,
    seq: u64,
    waiting: BTreeMap<i64, VecDeque<u64>>,
    last_attempt: HashMap<i64, Instant>,
    attempts: HashMap<u64, u32>,
}

impl World {
    fn come(&mut self, peer: i64) {
        self.seq += 1;
        let event = Queued { seq: Seq(self.seq), source: Source::Live, event: event(self.seq, peer, 10) };
        self.lanes.offer(LaneKey::live(event.event.lane()), event, None);
        self.waiting.entry(peer).or_default().push_back(self.seq);
    }

    fn fail(&mut self, dispatch: &Dispatch) {
        let tried = self.attempts.entry(dispatch.event.seq.0).or_default();
        *tried += 1;
        assert!(!self.lanes.counts(dispatch.key, false, false), "a failure counts in an outage");
        let (settings, random) = (&self.settings, &mut self.random);
        let mut wait = |number| backoff::wait(settings, number, random.random());
        self.lanes.failed(dispatch.key, self.now, *tried, None, &mut wait);
        self.last_attempt.insert(dispatch.event.event.peer_id.expect("a chat"), self.now);
    }

    /// Whose turn it is: a chat that was never tried, else the one whose last attempt is longest ago.
    fn next_chat(&self) -> i64 {
        let turn = |peer: &i64| (self.last_attempt.get(peer).copied(), self.waiting[peer][0]);
        *self.waiting.keys().min_by_key(|peer| turn(peer)).expect("a chat")
    }
}

#[test]
fn an_hour_of_outage_costs_a_bounded_number_of_probes_spread_over_the_chats_and_ends_step_by_step() {
    const CONCURRENCY: usize = 16;
    const CHATS: i64 = 40;
    const HOUR: Duration = Duration::from_secs(3600);
    let settings = BackoffSettings {
        initial_interval: Duration::from_millis(500),
        multiplier: 2.0,
        max_interval: Duration::from_secs(60),
        randomization_factor: 0.5,
    };
    let (fewest, most) = bounds(&settings, HOUR);
    assert_eq!((fewest, most), (45, 125), "the intervals are not those of the contract");
    for seed in 0..20 {
        let (lanes, start, random) = (Lanes::new(CONCURRENCY), Instant::now(), StdRng::seed_from_u64(seed));
        let mut world = World {
            lanes,
            now: start,
            random,
            settings,
            seq: 0,
            waiting: BTreeMap::new(),
            last_attempt: HashMap::new(),
            attempts: HashMap::new(),
        };
        (0..CHATS).for_each(|peer| world.come(peer));
        // What is in flight when it begins.
        let flying: Vec<_> = std::iter::from_fn(|| world.lanes.next(world.now)).collect();
        assert_eq!(flying.len(), CONCURRENCY);
        flying.iter().for_each(|dispatch| world.fail(dispatch));
        assert!(world.lanes.is_down());
        let (mut probes, mut last) = (0, start);
        let mut arrivals = (1..=360).map(|n| start + HOUR / 360 * n).peekable();
        loop {
            let due = world.lanes.next_due().expect("a probe is due");
            world.now = arrivals.next_if(|at| *at < due).unwrap_or(due);
            if world.now > start + HOUR {
                break;
            }
            if world.now < due {
                let peer = world.random.random_range(0..CHATS + 10);
                world.come(peer);
                assert!(world.lanes.next(world.now).is_none(), "an event that comes is no reason to ask");
                continue;
            }
            let expected = world.next_chat();
            let probe = world.lanes.next(world.now).expect("due");
            assert_eq!(probe.event.event.peer_id, Some(expected));
            assert!(world.lanes.next(world.now + HOUR).is_none(), "one at a time");
            probes += 1;
            let interval = backoff::interval(&settings, probes);
            let waited = world.now - last;
            assert!(waited >= interval / 2 && waited <= interval * 3 / 2, "{waited:?} before probe {probes}");
            last = world.now;
            world.fail(&probe);
        }
        let probes = usize::try_from(probes).expect("small");
        eprintln!("seed {seed}: {probes} probes in an hour, of {fewest} to {most}");
        assert!((fewest..=most).contains(&probes));
        assert!(world.last_attempt.len() >= usize::try_from(CHATS).expect("small"), "a chat was never tried");
        // It answers again: the next probe ends it.
        let (mut flying, mut answers, mut widest) = (VecDeque::new(), 0, 0);
        let mut delivered: BTreeMap<i64, VecDeque<u64>> = BTreeMap::new();
        while world.lanes.queued().0 > 0 {
            flying.extend(std::iter::from_fn(|| world.lanes.next(world.now)));
            assert!(flying.len() <= CONCURRENCY.min(answers.max(1)), "{} after {answers} answers", flying.len());
            widest = widest.max(flying.len());
            let dispatch: Dispatch = flying.pop_front().expect("nothing waits for a time that was not asked for");
            assert_eq!(world.lanes.answered(dispatch.key, world.now), answers == 0);
            answers += 1;
            let peer = dispatch.event.event.peer_id.expect("a chat");
            delivered.entry(peer).or_default().push_back(dispatch.event.seq.0);
        }
        assert_eq!((&delivered, widest), (&world.waiting, CONCURRENCY), "everything, in order, and as wide as before");
    }
}

fn peer(received: &Received) -> i64 {
    let body: Value = serde_json::from_slice(&received.body).expect("JSON");
    body["peer_id"].as_i64().expect("a chat")
}

/// The same hour a thousand times as fast, over real HTTP. One failure that counted would kill its event.
#[tokio::test(flavor = "multi_thread")]
async fn an_outage_over_http_costs_a_bounded_number_of_probes_and_no_stampede_follows() {
    const CONCURRENCY: usize = 8;
    const CHATS: usize = 20;
    const OUTAGE: Duration = Duration::from_millis(3600);
    let settings = BackoffSettings {
        initial_interval: Duration::from_millis(1),
        multiplier: 2.0,
        max_interval: Duration::from_millis(60),
        randomization_factor: 0.5,
    };
    let table =
        format!("concurrency = {CONCURRENCY}\nmax_attempts = 1\ninitial_interval = \"1ms\"\nmax_interval = \"60ms\"");
    let mut rig = Rig::new(&[("all", table.as_str())], "").await;
    let begun = OnceLock::new();
    rig.handler("all").answer(move |_| match begun.get_or_init(Instant::now).elapsed() < OUTAGE {
        true => Answer::Status(503, "away"),
        false => Answer::Slow(Duration::from_millis(2), 200),
    });
    let service = rig.start().await;
    // All of it waits before the first request.
    assert!(rig.run(&["outbox", "pause", "all"]).await.status.success());
    (0..CHATS * 8).for_each(|n| drop(rig.message(i64::try_from(n % CHATS).expect("small"), "x", &["all"])));
    let head = rig.vk.head().to_string();
    rig.until("all is read", |stats| stats.checkpoints[0].ts == head).await;
    assert!(rig.run(&["outbox", "resume", "all"]).await.status.success());
    let stats = rig.until_settled().await;
    assert_eq!(view(&stats, "all").dead, 0);
    assert_eq!(rig.assert_balanced().repeats, 0);
    service.stop().await;

    let received = rig.handler("all").received();
    let back = received.iter().position(|one| one.status == 200).expect("it came back");
    let (away, after) = received.split_at(back);
    assert!(away.iter().all(|one| one.status == 503) && after.iter().all(|one| one.status == 200));
    // Two chats must fail before it is known; by then all places were taken, and the first one's again.
    let probes = &away[(CONCURRENCY + 1).min(away.len())..];
    let (fewest, most) = bounds(&settings, OUTAGE);
    eprintln!("{} probes in {OUTAGE:?}, of {fewest} to {most}", probes.len());
    // A slow machine makes them fewer.
    assert!(probes.len() >= fewest / 2 && probes.len() <= most, "{} probes, of {fewest} to {most}", probes.len());
    assert!(probes.iter().all(|one| one.at_once == 1), "one at a time");
    let steps = (1..).take_while(|n| backoff::interval(&settings, *n) < settings.max_interval).count();
    for pair in probes[steps..].windows(2) {
        let gap = pair[1].came - pair[0].came;
        assert!(gap >= settings.max_interval / 2, "{gap:?} between two probes");
    }
    let known =
        (0..).find(|n| away[..*n].iter().map(peer).collect::<BTreeSet<_>>().len() == CHATS).expect("all are tried");
    for round in away[known.max(CONCURRENCY + 1)..].windows(CHATS) {
        let chats: BTreeSet<_> = round.iter().map(peer).collect();
        assert_eq!(chats.len(), CHATS, "a chat was asked twice before another was");
    }
    // The probe that was answered opens one place, each answer after it one more.
    for (place, one) in after.iter().enumerate().skip(1) {
        assert!(one.at_once <= CONCURRENCY.min(place.div_ceil(2)), "{} at once at request {place}", one.at_once);
    }
}

/// One refuses connections, one takes requests and never answers: the third has everything while they have settled nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_destination_gets_everything_in_order_while_another_refuses_and_a_third_hangs() {
    let names = [("hangs", "timeout = \"300s\""), ("live", ""), ("refuses", "")];
    let mut rig = Rig::new(&names, "[delivery]\ninitial_interval = \"20ms\"\nmax_interval = \"100ms\"").await;
    let (release, held) = watch::channel(false);
    rig.handler("hangs").answer(move |_| Answer::Until(held.clone(), 200));
    rig.handler("refuses").down();
    let service = rig.start().await;
    (0..400).for_each(|n| drop(rig.message(n % 30, "x", &["hangs", "live", "refuses"])));
    let stats = rig.until("the live one has everything", |stats| view(stats, "live").delivered == 400).await;
    for name in ["hangs", "refuses"] {
        let view = view(&stats, name);
        assert_eq!((view.pending, view.delivered, view.dead), (400, 0, 0), "{view:?}");
    }
    rig.until("both are told", |stats| {
        view(stats, "refuses").state == DestinationState::Down && view(stats, "hangs").in_flight == 16
    })
    .await;
    within("its requests", rig.handler("hangs").until(|all| all.len() == 16)).await;
    release.send_replace(true);
    rig.handler("refuses").up().await.expect("up");
    rig.until_settled().await;
    assert_eq!(rig.assert_balanced().repeats, 0);
    service.stop().await;
}
