//! What an operator takes out for good: it is gone from where it was, it is told of for as long as the event is in the log, the
//! books hold, and nothing else is touched.

use std::time::{Duration, Instant};

use event_router::outbox::views::{Row, Stats};
use event_router::sim::handler::Answer;
use serde_json::Value;

use crate::rig::{FAST, Rig, text, view};

fn books_hold(stats: &Stats) {
    for view in &stats.destinations {
        let sum = view.pending + view.delivered + view.dead + view.expired + view.discarded;
        assert_eq!(view.routed, sum, "{view:?}");
    }
}

async fn discard(rig: &Rig, words: &[&str]) -> String {
    let output = rig.run(&[&["outbox", "discard"], words, &["--yes"]].concat()).await;
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

async fn sound(rig: &Rig) {
    let output = rig.run(&["outbox", "verify"]).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

/// A lone chat that always fails: nothing counts, so that it waits for ever; taken out by its id, its chat goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_pending_event_taken_out_unblocks_its_chat_live_and_offline() {
    for live in [true, false] {
        let mut rig = Rig::new(&[("all", "")], FAST).await;
        rig.handler("all").answer(|received| Answer::Status(if text(received) == "bad" { 500 } else { 200 }, ""));
        let service = rig.start().await;
        let bad = rig.message(1, "bad", &["all"]);
        rig.served.pop();
        rig.message(1, "good", &["all"]);
        rig.until("it fails", |stats| view(stats, "all").waiting_chats == 1 && view(stats, "all").pending == 2).await;
        let mut running = Some(service);
        if !live {
            running.take().expect("runs").stop().await;
        }
        // It may be in flight at that very moment.
        let mut words = discard(&rig, &[&bad]).await;
        while words.contains("being sent at this moment") {
            words = discard(&rig, &[&bad]).await;
        }
        assert!(words.contains("1 row discarded"), "{words}");
        if !live {
            running = Some(rig.start().await);
        }
        let stats = rig.until_settled().await;
        let all = view(&stats, "all");
        assert_eq!((all.delivered, all.discarded, all.dead), (1, 1, 0));
        books_hold(&stats);
        let balance = rig.books(&std::collections::BTreeSet::new());
        assert!(balance.balanced(), "{balance}");
        let shown: Value = rig.json(&["outbox", "show", &bad]).await;
        assert_eq!(shown["deliveries"][0]["state"], "discarded", "{shown}");
        let rows: Vec<Row> = rig.json(&["outbox", "list", "--state", "discarded"]).await;
        assert_eq!(rows.iter().map(|row| row.event_id.as_str()).collect::<Vec<_>>(), [bad.as_str()]);
        assert!(discard(&rig, &[&bad]).await.contains("nothing matches"));
        sound(&rig).await;
        running.expect("runs").stop().await;
    }
}

/// Dead letters go by selector, of one destination; a replay finds them no more.
#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_go_and_are_told_of() {
    let mut rig = Rig::new(&[("a", ""), ("b", "")], FAST).await;
    for name in ["a", "b"] {
        rig.handler(name).answer(|received| Answer::Status(if text(received) == "bad" { 422 } else { 200 }, "no"));
    }
    let service = rig.start().await;
    for n in 0..300 {
        rig.message(n % 5, if n % 2 == 0 { "bad" } else { "good" }, &["a", "b"]);
    }
    let stats = rig.until_settled().await;
    assert_eq!((view(&stats, "a").dead, view(&stats, "b").dead), (150, 150));
    let output = rig.run(&["outbox", "discard", "--destination", "a"]).await;
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(words.contains("150 rows would be discarded for good; say --yes"), "{words}");
    let narrow = discard(&rig, &["--state", "pending", "--destination", "a", "--peer", "3"]).await;
    assert!(narrow.contains("name it with --destination alone"), "{narrow}");
    assert!(discard(&rig, &["--destination", "a", "--peer", "3"]).await.contains("30 rows discarded"));
    assert!(discard(&rig, &["--destination", "a"]).await.contains("120 rows discarded"));
    let stats = rig.stats().await;
    let (a, b) = (view(&stats, "a"), view(&stats, "b"));
    assert_eq!((a.dead, a.discarded, b.dead, b.discarded), (0, 150, 150, 0));
    books_hold(&stats);
    let rows: Vec<Row> = rig.json(&["outbox", "list", "--state", "discarded", "--limit", "1000"]).await;
    assert_eq!(rows.len(), 150);
    assert!(
        rows[0].deliveries[0].reason.as_deref().is_some_and(|words| words.contains("it was dead: ")),
        "{:?}",
        rows[0]
    );
    sound(&rig).await;
    service.stop().await;
    sound(&rig).await;
    assert!(discard(&rig, &["--state", "dead", "--destination", "b"]).await.contains("150 rows discarded"));
    books_hold(&rig.stats().await);
}

/// One chat blocks, everything behind it is delivered, then the destination leaves the configuration: what waits goes, what was
/// delivered stays delivered.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_delivered_before_it_was_detached_is_not_discarded() {
    // However slow the machine: the bad one is not given up.
    let mut rig = Rig::new(&[("gone", "max_attempts = 100000"), ("here", "")], FAST).await;
    rig.handler("gone").answer(|received| Answer::Status(if text(received) == "bad" { 500 } else { 200 }, ""));
    let service = rig.start().await;
    (0..3).for_each(|_| drop(rig.message(1, "bad", &["gone", "here"])));
    for n in 0..600 {
        rig.message(2 + n % 9, "good", &["gone", "here"]);
    }
    rig.until("all but one chat is delivered", |stats| view(stats, "gone").delivered == 600).await;
    service.stop().await;
    rig.detach("gone", "here");
    let service = rig.start().await;
    let (one, two) = tokio::join!(
        discard(&rig, &["--state", "pending", "--destination", "gone"]),
        discard(&rig, &["--state", "pending", "--destination", "gone"]),
    );
    assert!(one.contains("discarded") || two.contains("discarded"), "{one} {two}");
    let stats = rig.until("it is all gone", |stats| view(stats, "gone").pending == 0).await;
    let gone = view(&stats, "gone");
    assert_eq!((gone.delivered, gone.discarded), (600, 3), "{gone:?}");
    books_hold(&stats);
    sound(&rig).await;
    service.stop().await;
}

/// All that waits for a destination which left the configuration, in the log and aside.
#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_a_detached_destination_goes_at_once_and_a_configured_one_keeps_its_own() {
    check_detached(false).await;
    check_detached(true).await;
}

async fn check_detached(stopped: bool) {
    let mut rig = Rig::new(&[("gone", ""), ("here", "")], FAST).await;
    rig.handler("gone").down();
    rig.handler("here").down();
    let service = rig.start().await;
    for n in 0..700 {
        rig.message(n % 9, "x", &["gone", "here"]);
    }
    let head = rig.vk.head().to_string();
    rig.until("all is read", |stats| stats.checkpoints[0].ts == head).await;
    let words = discard(&rig, &["--state", "pending", "--destination", "gone"]).await;
    assert!(words.contains("it is not detached"), "{words}");
    assert!(discard(&rig, &["--state", "pending"]).await.contains("name it with --destination"));
    service.stop().await;
    rig.detach("gone", "here");
    // Stopped it is the same; here some of it goes so.
    assert!(discard(&rig, &["--state", "pending", "--destination", "here"]).await.contains("it is not detached"));
    if stopped {
        let words = discard(&rig, &["--state", "pending", "--destination", "gone"]).await;
        assert!(words.contains("700 rows discarded"), "{words}");
        let stats = rig.stats().await;
        assert_eq!((view(&stats, "gone").pending, view(&stats, "gone").discarded), (0, 700));
        books_hold(&stats);
        sound(&rig).await;
        return;
    }
    let service = rig.start().await;
    assert_eq!(view(&rig.stats().await, "gone").pending, 700);
    let words = discard(&rig, &["--state", "pending", "--destination", "gone"]).await;
    assert!(words.contains("700 rows discarded"), "{words}");
    let stats = rig.stats().await;
    assert_eq!((view(&stats, "gone").pending, view(&stats, "gone").discarded), (0, 700));
    assert_eq!((view(&stats, "here").pending, view(&stats, "here").discarded), (700, 0));
    books_hold(&stats);
    rig.handler("here").up().await.expect("up");
    rig.until("the other gets its own", |stats| view(stats, "here").delivered == 700).await;
    sound(&rig).await;
    service.stop().await;
}

/// What waits is pending, however old it is: only when it would be sent is it too old.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_paused_expires_only_when_it_would_be_sent() {
    let mut rig = Rig::new(&[("all", "max_age = \"1s\"")], FAST).await;
    let service = rig.start().await;
    assert!(rig.run(&["outbox", "pause", "all"]).await.status.success());
    (0..4).for_each(|n| drop(rig.message(n, "x", &["all"])));
    rig.until("they wait", |stats| view(stats, "all").pending == 4).await;
    let taken = Instant::now();
    let stats = rig.until("they are too old", |_| taken.elapsed() > Duration::from_secs(2)).await;
    assert_eq!((view(&stats, "all").pending, view(&stats, "all").expired), (4, 0));
    assert!(rig.run(&["outbox", "resume", "all"]).await.status.success());
    rig.until("they expire", |stats| view(stats, "all").expired == 4).await;
    assert!(rig.handler("all").received().is_empty());
    service.stop().await;
}

/// What is too old when it would be sent is expired, not sent; a replay sends it all the same, while it is in the log.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_old_expires_instead_of_being_sent_and_can_be_replayed() {
    let mut rig = Rig::new(&[("buttons", "max_age = \"3s\""), ("all", "")], FAST).await;
    rig.handler("buttons").down();
    let service = rig.start().await;
    let ids: Vec<String> = (0..40).map(|n| rig.message(n % 4, "x", &["buttons", "all"])).collect();
    rig.until("the other has everything", |stats| view(stats, "all").delivered == 40).await;
    // Each is pending, or was too old when it would have been sent.
    let stats = rig.until("it is down", |stats| view(stats, "buttons").last_error.is_some()).await;
    assert_eq!(view(&stats, "buttons").pending + view(&stats, "buttons").expired, 40);
    rig.until("they grow old", |stats| view(stats, "buttons").expired > 0).await;
    rig.handler("buttons").up().await.expect("up");
    let fresh = rig.message(1, "fresh", &["buttons", "all"]);
    let stats = rig.until_settled().await;
    let buttons = view(&stats, "buttons");
    assert_eq!((buttons.expired, buttons.delivered, buttons.dead), (40, 1, 0), "{buttons:?}");
    books_hold(&stats);
    assert_eq!(rig.handler("buttons").received().iter().filter(|one| one.status == 200).count(), 1);
    let shown: Value = rig.json(&["outbox", "show", &ids[0]]).await;
    let states: Vec<&str> = shown["deliveries"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|one| one["state"].as_str().expect("a word"))
        .collect();
    assert!(states.contains(&"expired") && states.contains(&"delivered"), "{shown}");
    let rows: Vec<Row> = rig.json(&["outbox", "list", "--state", "expired"]).await;
    assert_eq!(rows.len(), 40);
    assert!(discard(&rig, &["--state", "expired", "--peer", "0"]).await.contains("10 rows discarded"));
    let one = rows.iter().find(|row| row.peer_id == Some(1)).and_then(|row| row.seq).expect("a row").to_string();
    assert!(discard(&rig, &[&one, "--destination", "buttons"]).await.contains("1 row discarded"));
    let output = rig.run(&["outbox", "replay", "--state", "expired", "--destination", "buttons", "--yes"]).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let stats = rig.until("they are sent", |stats| view(stats, "buttons").delivered == 30).await;
    let buttons = view(&stats, "buttons");
    assert_eq!((buttons.expired, buttons.discarded, buttons.dead), (0, 11, 0), "{buttons:?}");
    books_hold(&stats);
    let replayed = rig.handler("buttons").received();
    let replayed = replayed.iter().filter(|one| one.headers.contains_key("x-event-replay")).count();
    assert_eq!(replayed, 29);
    assert!(rig.handler("buttons").received().iter().any(|one| one.event_id == fresh));
    sound(&rig).await;
    service.stop().await;
    sound(&rig).await;
}
