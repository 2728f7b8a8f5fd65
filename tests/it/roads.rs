//! What can happen between us and a handler, over real HTTP: connections that break in every way, every status, waits that are
//! asked for, certificates that do not fit, a handler that comes and goes. Each with the books: nothing is lost, order holds.
//! Deliberately absent: long outages (`outages`), what stands in a request (`requests`).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use event_router::outbox::views::DestinationState;
use event_router::sim::handler::{Answer, Handler, Received};
use event_router::sim::road::{Bump, Road, Stretch};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::rig::{Rig, text, view, within};

const FAST: &str = "[delivery]\ninitial_interval = \"5ms\"\nmax_interval = \"20ms\"\ntimeout = \"5s\"";

fn number(received: &Received, name: &str) -> u64 {
    received.headers[name].to_str().expect("text").parse().expect("a number")
}

/// Puts something else into the configuration.
fn rewrite(rig: &Rig, from: &str, to: &str) {
    let config = fs::read_to_string(rig.config()).expect("read");
    assert!(config.contains(from), "{config}");
    fs::write(rig.config(), config.replace(from, to)).expect("written");
}

/// Answers are cut at any byte, and connections are reset, end, fall silent or crawl: what the handler has taken without our
/// knowing comes again, the same, and in order.
#[tokio::test(flavor = "multi_thread")]
async fn connections_that_break_at_any_byte_lose_nothing_and_keep_order() {
    for (batch_max, longest) in [(1, 500), (7, 200)] {
        let seed = u64::from(std::process::id());
        eprintln!("seed of the roads: {seed}");
        let table = format!("concurrency = 6\nbatch_max = {batch_max}\ntimeout = \"100ms\"\nmax_attempts = 1000000");
        let mut rig = Rig::new(&[("all", &table)], FAST).await;
        let random = Mutex::new(StdRng::seed_from_u64(seed));
        let met = Arc::new([const { AtomicUsize::new(0) }; 4]);
        let counts = Arc::clone(&met);
        let road = Road::to(rig.handler("all").address(), move |place| {
            let kind = [0, 1, 2, 0, 1, 0, 1, 0, 1, 3, 0, 1, 0, 1, 0, 1][place % 16];
            counts[kind].fetch_add(1, Ordering::SeqCst);
            let bump = Some([Bump::Reset, Bump::End, Bump::Silence, Bump::Crawl][kind]);
            Stretch { bytes: random.lock().expect("no panic").random_range(0..longest), bump }
        });
        let road = road.await.expect("a road");
        rewrite(&rig, &rig.handler("all").url(), &road.url());
        let service = rig.start().await;
        for n in 0..120 {
            rig.message(n % 9, "x", &["all"]);
        }
        rig.until_settled().await;
        let balance = rig.assert_balanced();
        assert!(balance.repeats > 0, "no answer was lost: {balance}");
        let met: Vec<usize> = met.iter().map(|count| count.load(Ordering::SeqCst)).collect();
        assert!(met.iter().all(|count| *count > 0), "resets, ends, silence, crawls: {met:?}");
        service.stop().await;
    }
}

/// The first attempt of each event gets the status that it speaks of.
#[tokio::test(flavor = "multi_thread")]
async fn every_status_is_success_refusal_or_another_try() {
    const REFUSALS: [u16; 5] = [400, 406, 413, 415, 422];
    let fast = "[delivery]\ninitial_interval = \"1ms\"\nmax_interval = \"5ms\"";
    let mut rig = Rig::new(&[("all", "")], fast).await;
    rig.handler("all").answer(|received| match number(received, "x-event-attempt") {
        1 => Answer::Status(text(received).parse().expect("a status"), ""),
        _ => Answer::Status(200, ""),
    });
    let service = rig.start().await;
    let statuses: BTreeMap<String, u16> =
        (200..600).map(|status| (rig.message(i64::from(status % 47), &status.to_string(), &["all"]), status)).collect();
    let stats = rig.until_settled().await;
    assert_eq!((view(&stats, "all").dead, view(&stats, "all").delivered), (5, 395));
    let refused = statuses.iter().filter(|(_, status)| REFUSALS.contains(status));
    let dead = refused.map(|(id, _)| ("all".to_owned(), id.clone())).collect();
    let balance = rig.books(&dead);
    assert!(balance.balanced() && balance.repeats == 0, "{balance}");
    let mut attempts: BTreeMap<String, Vec<u16>> = BTreeMap::new();
    for one in rig.handler("all").received() {
        attempts.entry(one.event_id).or_default().push(one.status);
    }
    for (id, status) in &statuses {
        let expected = match status {
            200..300 => vec![*status],
            _ if REFUSALS.contains(status) => vec![*status],
            _ => vec![*status, 200],
        };
        assert_eq!(attempts[id], expected);
    }
    service.stop().await;
}

/// With 503 a date holds all chats; with 500 some seconds hold one chat alone.
#[tokio::test(flavor = "multi_thread")]
async fn both_forms_of_retry_after_hold_what_they_are_about() {
    let mut rig = Rig::new(&[("date", ""), ("seconds", "timeout = \"30s\"")], FAST).await;
    let until = SystemTime::now() + Duration::from_secs(3);
    let words: &'static str = httpdate::fmt_http_date(until).leak();
    let asked = AtomicUsize::new(0);
    rig.handler("date").answer(move |_| match asked.fetch_add(1, Ordering::SeqCst) {
        0 => Answer::RetryAfter(503, words),
        _ => Answer::Status(200, ""),
    });
    rig.handler("seconds").answer(|received| match (text(received).as_str(), number(received, "x-event-attempt")) {
        ("first", 1) => Answer::RetryAfter(500, "3"),
        _ => Answer::Status(200, ""),
    });
    let service = rig.start().await;
    // All that goes there leaves at once: no more than that is to be done within the three seconds.
    assert!(rig.run(&["outbox", "pause", "seconds"]).await.status.success());
    rig.message(1, "first", &["date", "seconds"]);
    // An attempt that the handler has seen may still be unanswered here, and other chats do not wait for it.
    rig.until("the first attempt has failed", |stats| view(stats, "date").last_error.is_some()).await;
    for n in 0..20 {
        rig.message(1 + n % 4, "later", &["date", "seconds"]);
    }
    rig.until("all of them wait", |stats| view(stats, "seconds").pending == 21).await;
    assert!(rig.run(&["outbox", "resume", "seconds"]).await.status.success());
    rig.until_settled().await;
    rig.assert_balanced();
    let until = until.duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_secs();
    let early: Vec<_> = rig.handler("date").received()[1..]
        .iter()
        .map(|one| number(one, "webhook-timestamp"))
        .filter(|at| *at < until)
        .collect();
    assert!(early.is_empty(), "{early:?} lie before {until}");
    let received = rig.handler("seconds").received();
    let firsts: Vec<usize> = (0..received.len()).filter(|place| text(&received[*place]) == "first").collect();
    assert_eq!((firsts.len(), firsts[1]), (2, 16), "the other chats had all of theirs before");
    let at = |place: usize| number(&received[place], "webhook-timestamp");
    assert!(at(firsts[1]) >= at(firsts[0]) + 3, "{} and {}", at(firsts[0]), at(firsts[1]));
    service.stop().await;
}

/// A certificate for another name, and a port where nobody speaks TLS: nothing is sent, it is told, and waited for.
#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_for_another_name_and_a_handler_without_tls_get_nothing_and_are_told() {
    let (secure, plain) = (Handler::start_tls().await.expect("a handler"), Handler::start().await.expect("a handler"));
    let road = Road::to(secure.address(), |_| Stretch { bytes: 0, bump: None }).await.expect("a road");
    let (wrong, right) = (road.url().replace("http:", "https:"), secure.url());
    let (bare, safe) = (plain.url(), plain.url().replace("http:", "https:"));
    let dir = tempfile::tempdir().expect("a directory");
    let ca = dir.path().join("ca.pem");
    fs::write(&ca, secure.ca_pem().expect("a CA")).expect("written");
    let rest = format!(
        "{FAST}\n[destinations.name]\nurl = {wrong:?}\nca_file = {ca:?}\n[destinations.plain]\nurl = {safe:?}\nca_file = {ca:?}\n"
    );
    let mut rig = Rig::new(&[("other", "")], &rest).await;
    let service = rig.start().await;
    let all = ["name", "other", "plain"];
    (0..40).for_each(|n| drop(rig.message(n % 4, "x", &all)));
    let stats = rig.until("both are told", |stats| {
        let down = |name| view(stats, name).state == DestinationState::Down;
        down("name") && down("plain") && view(stats, "other").delivered == 40
    });
    let stats = stats.await;
    let why = |name| view(&stats, name).why.clone();
    assert!(why("name").contains("not valid for name"), "{}", why("name"));
    assert!(
        why("plain").contains("corrupt message") || why("plain").contains("InvalidContentType"),
        "{}",
        why("plain")
    );
    assert_eq!((secure.received().len(), plain.received().len()), (0, 0), "nothing is sent to a stranger");
    service.stop().await;
    rewrite(&rig, &wrong, &right);
    rewrite(&rig, &format!("{safe:?}\nca_file = {ca:?}"), &format!("{bare:?}"));
    let service = rig.start().await;
    let stats = rig.until_settled().await;
    assert_eq!((view(&stats, "name").dead, view(&stats, "plain").dead), (0, 0));
    rig.handlers.extend([("name", secure), ("plain", plain)]);
    assert_eq!(rig.assert_balanced().repeats, 0);
    service.stop().await;
}

/// It comes and goes while events come; now it is noticed that it is away, now not; it goes in the middle of requests. It goes
/// less often than `max_attempts`: nothing dies.
#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_flaps_gets_everything_in_order() {
    let mut rig = Rig::new(&[("all", "concurrency = 5")], FAST).await;
    rig.handler("all").answer(|_| Answer::Slow(Duration::from_millis(2), 200));
    let service = rig.start().await;
    let mut in_hand = 0;
    let taken = |all: &[Received]| all.iter().filter(|one| one.status == 200).count();
    for round in 0..10 {
        let before = taken(&rig.handler("all").received());
        (0..30).for_each(|n| drop(rig.message(n % 8, "x", &["all"])));
        within("some deliveries", rig.handler("all").until(|all| taken(all) >= before + 10)).await;
        rig.handler("all").down();
        in_hand += rig.handler("all").received().iter().filter(|one| one.status == 0).count();
        (0..10).for_each(|n| drop(rig.message(n % 8, "x", &["all"])));
        if round % 2 == 0 {
            rig.until("it is told", |stats| view(stats, "all").state == DestinationState::Down).await;
        }
        rig.handler("all").up().await.expect("up");
    }
    let stats = rig.until_settled().await;
    assert_eq!((view(&stats, "all").dead, view(&stats, "all").delivered), (0, 400));
    let balance = rig.books(&BTreeSet::new());
    assert!(balance.balanced() && in_hand > 0, "{in_hand} requests were in hand: {balance}");
    service.stop().await;
}
