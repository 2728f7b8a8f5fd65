//! Handlers that fail in every way: nothing is lost, order holds, nobody waits for somebody else's trouble.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use event_router::outbox::views::DestinationState;
use event_router::sim::handler::{Answer, Received};
use serde_json::Value;

use crate::rig::{FAST, Rig, text, view, within};

/// The first attempt of each event gets `first`, every later one 200.
async fn check(first: Answer) {
    let mut rig = Rig::new(&[("all", "timeout = \"300ms\"")], FAST).await;
    let answer = first.clone();
    rig.handler("all").answer(move |received| match received.headers["x-event-attempt"].to_str() {
        Ok("1") => answer.clone(),
        _ => Answer::Status(200, "ok"),
    });
    let service = rig.start().await;
    for n in 0..12 {
        rig.message(n % 3, "x", &["all"]);
    }
    rig.until_settled().await;
    rig.assert_balanced();
    let twice = rig.handler("all").received().iter().any(|one| one.headers["x-event-attempt"] == "2");
    assert!(twice, "{first:?}");
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_neither_success_nor_refusal_is_tried_again() {
    for status in [301, 401, 404, 408, 425, 429, 500, 503] {
        check(Answer::Status(status, "later")).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_does_not_come_is_tried_again() {
    check(Answer::Hang).await;
    check(Answer::Slow(Duration::from_secs(2), 500)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_a_dead_letter_at_once_with_the_handlers_words_and_can_be_replayed() {
    let mut rig = Rig::new(&[("all", "")], FAST).await;
    rig.handler("all").answer(|received| {
        if text(received) == "bad" { Answer::Status(422, "no such chat") } else { Answer::Status(200, "") }
    });
    let service = rig.start().await;
    rig.message(1, "good", &["all"]);
    let bad = rig.message(1, "bad", &["all"]);
    rig.message(1, "good too", &["all"]);
    let stats = rig.until_settled().await;
    assert_eq!((view(&stats, "all").delivered, view(&stats, "all").dead), (2, 1));
    let dead = BTreeSet::from([("all".to_owned(), bad.clone())]);
    assert!(rig.books(&dead).balanced());
    let shown: Value = rig.json(&["outbox", "show", &bad]).await;
    assert_eq!(shown["deliveries"][0]["reason"], "the handler refused it with HTTP 422");
    assert_eq!(shown["deliveries"][0]["history"][0]["excerpt"], "no such chat");

    let unsure = rig.run(&["outbox", "replay", "--destination", "all"]).await;
    assert_eq!(unsure.status.code(), Some(2), "without a terminal it asks for --yes");
    assert_eq!(rig.run(&["outbox", "replay", "--yes"]).await.status.code(), Some(2), "it wants a selector");
    let planned: Value = rig.json(&["outbox", "replay", "--destination", "all", "--dry-run"]).await;
    assert_eq!((&planned[0]["matched"], &planned[0]["number"]), (&Value::from(1), &Value::Null));
    // Refused again: it stays dead, and the replay ends.
    let made: Value = rig.json(&["outbox", "replay", &bad, "--yes"]).await;
    assert_eq!(made[0]["number"], 1);
    rig.until("the first replay is done", |stats| stats.replays.is_empty()).await;
    rig.handler("all").answer(|_| Answer::Status(200, ""));
    rig.json::<Value>(&["outbox", "replay", "--state", "dead", "--yes"]).await;
    let stats = rig
        .until("the dead letter is delivered", |stats| view(stats, "all").dead == 0 && stats.replays.is_empty())
        .await;
    assert_eq!(view(&stats, "all").delivered, 3);
    let last = rig.handler("all").received().pop().expect("came");
    assert_eq!(
        (last.event_id.as_str(), &last.headers["x-event-replay"]),
        (bad.as_str(), &"2".parse().expect("a header"))
    );
    assert!(rig.books(&BTreeSet::new()).due == 3);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_asked_for_while_the_service_is_stopped_is_made_at_the_next_start() {
    let mut rig = Rig::new(&[("all", "")], FAST).await;
    rig.handler("all").answer(|_| Answer::Status(400, ""));
    let service = rig.start().await;
    for n in 0..100 {
        rig.message(n % 4, "x", &["all"]);
    }
    rig.until_settled().await;
    service.stop().await;
    let made: Value = rig.json(&["outbox", "replay", "--seq", "1..60", "--yes"]).await;
    assert_eq!(made[0]["matched"], 60);
    rig.handler("all").answer(|_| Answer::Status(200, ""));
    let service = rig.start().await;
    let stats = rig.until("the replay is done", |stats| stats.replays.is_empty()).await;
    assert_eq!((view(&stats, "all").delivered, view(&stats, "all").dead), (60, 40));
    rig.served.truncate(60);
    rig.assert_balanced();
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_is_away_is_named_with_its_reason_and_gets_everything_in_order_after() {
    let mut rig = Rig::new(&[("away", ""), ("other", "")], FAST).await;
    let service = rig.start().await;
    rig.handler("away").down();
    for n in 0..400 {
        rig.message(n % 10, "x", &["away", "other"]);
    }
    let stats = rig.until("the outage is told, and the other has everything", |stats| {
        serde_json::to_value(view(stats, "away").state).is_ok_and(|state| state == "down")
            && view(stats, "other").delivered == 400
    });
    let stats = stats.await;
    let away = view(&stats, "away");
    assert!(
        away.why.contains("no connection") && away.pending == 400 && away.next_try.is_some() && away.oldest.is_some(),
        "{away:?}"
    );
    let shown: Value = rig.json(&["outbox", "show", "1"]).await;
    let delivery = shown["deliveries"]
        .as_array()
        .expect("a list")
        .iter()
        .find(|one| one["destination"] == "away")
        .expect("listed")
        .clone();
    assert!(
        delivery["why"].as_str().is_some_and(|why| why.contains("down for")) && delivery["next_try"].is_string(),
        "{delivery}"
    );
    rig.handler("away").up().await.expect("up");
    rig.until_settled().await;
    rig.assert_balanced();
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_lasts_over_a_restart_and_kills_nothing() {
    let mut rig = Rig::new(&[("all", "")], FAST).await;
    rig.handler("all").down();
    for _ in 0..3 {
        let service = rig.start().await;
        for n in 0..50 {
            rig.message(n % 10, "x", &["all"]);
        }
        rig.until("the outage is told", |stats| {
            stats.live && serde_json::to_value(view(stats, "all").state).is_ok_and(|state| state == "down")
        })
        .await;
        service.stop().await;
        let stats = rig.stats().await;
        assert!(view(&stats, "all").why.contains("was down: no connection"), "{:?}", view(&stats, "all"));
    }
    rig.handler("all").up().await.expect("up");
    let service = rig.start().await;
    rig.until_settled().await;
    rig.assert_balanced();
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chat_that_fails_for_long_holds_neither_the_others_nor_the_memory_and_comes_back_in_order() {
    let mut rig = Rig::new(&[("all", "max_attempts = 1000000")], FAST).await;
    rig.handler("all").answer(|received| {
        if received.headers["webhook-id"].is_empty() || text(received) == "blocked" {
            Answer::Status(500, "")
        } else {
            Answer::Status(200, "")
        }
    });
    let service = rig.start().await;
    for n in 0..6000 {
        if n % 2 == 0 {
            rig.message(1, "blocked", &["all"])
        } else {
            rig.message(2 + n % 50, "free", &["all"])
        };
    }
    let stats = rig.until("everyone else has everything", |stats| view(stats, "all").delivered == 3000).await;
    let all = view(&stats, "all");
    assert!(all.aside > 0 && all.pending == 3000, "{all:?}");
    service.stop().await;
    // What is aside survives a restart, and more comes for the same chat.
    let service = rig.start().await;
    rig.message(1, "blocked", &["all"]);
    rig.until("the newest is read", |stats| view(stats, "all").pending == 3001).await;
    rig.handler("all").answer(|_| Answer::Status(200, ""));
    let stats = rig.until_settled().await;
    assert_eq!(view(&stats, "all").aside, 0);
    rig.assert_balanced();
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_after_is_kept() {
    let mut rig = Rig::new(&[("all", "")], FAST).await;
    let asked = AtomicU32::new(0);
    rig.handler("all").answer(move |_| match asked.fetch_add(1, Ordering::SeqCst) {
        0 => Answer::RetryAfter(503, "1"),
        _ => Answer::Status(200, ""),
    });
    let service = rig.start().await;
    rig.message(1, "x", &["all"]);
    let start = std::time::Instant::now();
    within("the first attempt", rig.handler("all").until(|all| !all.is_empty())).await;
    rig.message(2, "held too", &["all"]);
    rig.until_settled().await;
    assert!(start.elapsed() >= Duration::from_millis(900), "{:?}", start.elapsed());
    rig.assert_balanced();
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_kept_and_static_headers_sent() {
    let mut rig = Rig::new(&[("all", "concurrency = 3\nheaders = { authorization = \"Bearer hidden\" }")], "").await;
    let service = rig.start().await;
    for n in 0..300 {
        rig.message(n % 20, "x", &["all"]);
    }
    rig.until_settled().await;
    // A connection whose last answer is still being read is not waited for: now and then there is one more.
    assert!(rig.handler("all").connections() <= 30, "{}", rig.handler("all").connections());
    assert!(rig.handler("all").received().iter().all(|one| one.headers["authorization"] == "Bearer hidden"));
    service.stop().await;
}

/// One bad event in fifty chats: it alone is given up, with what was tried, its chat goes on, and a replay brings it after all.
#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_fails_while_others_are_answered_is_given_up_and_its_chat_goes_on() {
    let mut rig = Rig::new(&[("all", "max_attempts = 4")], FAST).await;
    rig.handler("all").answer(|received| {
        if text(received) == "bad" { Answer::Status(500, "it hurts") } else { Answer::Status(200, "") }
    });
    let service = rig.start().await;
    let bad = rig.message(7, "bad", &["all"]);
    let mut sent = 1;
    // Others talk on until it is given up.
    within("the end of it", async {
        while view(&rig.stats().await, "all").dead == 0 {
            for chat in 0..50 {
                rig.message(chat, "good", &["all"]);
                sent += 1;
            }
            let head = rig.vk.head().to_string();
            rig.until("it is read", |stats| stats.checkpoints[0].ts == head).await;
        }
    })
    .await;
    let stats = rig.until_settled().await;
    assert_eq!((view(&stats, "all").dead, view(&stats, "all").delivered), (1, sent - 1));
    let shown: Value = rig.json(&["outbox", "show", &bad]).await;
    let words = shown.to_string();
    assert!(words.contains("4 failures counted against it while others were answered; the last: HTTP 500"), "{words}");
    assert!(words.contains("it hurts"), "{words}");
    let balance = rig.books(&BTreeSet::from([("all".to_owned(), bad.clone())]));
    assert!(balance.balanced(), "{balance}");
    // A replay is tried anew, and more than once.
    let asked = AtomicU32::new(0);
    rig.handler("all").answer(move |_| match asked.fetch_add(1, Ordering::SeqCst) {
        0 => Answer::Status(500, ""),
        _ => Answer::Status(200, ""),
    });
    assert!(rig.run(&["outbox", "replay", &bad, "--yes"]).await.status.success());
    rig.until("it is delivered after all", |stats| view(stats, "all").dead == 0).await;
    service.stop().await;
}

/// Nobody is answered for a long time, across a restart: nothing is given up, whatever `max_attempts` says.
#[tokio::test(flavor = "multi_thread")]
async fn an_outage_of_many_attempts_gives_nothing_up() {
    let mut rig = Rig::new(&[("all", "max_attempts = 3")], FAST).await;
    let service = rig.start().await;
    // All is well before it.
    (0..5).for_each(|chat| drop(rig.message(chat, "x", &["all"])));
    rig.until_settled().await;
    rig.handler("all").answer(|_| Answer::Status(500, ""));
    // At first one chat alone goes on writing.
    let asked = rig.handler("all").received().len() + 12;
    (0..5).for_each(|_| drop(rig.message(3, "at night", &["all"])));
    rig.until("they wait", |stats| view(stats, "all").pending == 5).await;
    within("twelve attempts", rig.handler("all").until(|received| received.len() >= asked)).await;
    let stats = rig.stats().await;
    assert_eq!((view(&stats, "all").dead, view(&stats, "all").pending), (0, 5));
    service.stop().await;
    for round in 2..=3 {
        let service = rig.start().await;
        for chat in 0..5 {
            rig.message(chat, "x", &["all"]);
        }
        let asked = rig.handler("all").received().len() + 30;
        rig.until("they wait", |stats| view(stats, "all").pending == 5 * round).await;
        within("thirty attempts", rig.handler("all").until(|received| received.len() >= asked)).await;
        assert_eq!(view(&rig.stats().await, "all").pending, 5 * round);
        service.stop().await;
    }
    rig.handler("all").answer(|_| Answer::Status(200, ""));
    let service = rig.start().await;
    let stats = rig.until_settled().await;
    assert_eq!(view(&stats, "all").dead, 0);
    rig.assert_balanced();
    service.stop().await;
}

/// An operator pauses one destination: nothing is sent to it, the others go on, a restart changes nothing; it goes on when it
/// is resumed, or by itself when its time is over.
#[tokio::test(flavor = "multi_thread")]
async fn a_paused_destination_gets_nothing_until_it_is_resumed_and_loses_nothing() {
    let mut rig = Rig::new(&[("calm", ""), ("busy", "")], FAST).await;
    let service = rig.start().await;
    rig.message(1, "before", &["calm", "busy"]);
    rig.until_settled().await;
    let words = |output: &std::process::Output| {
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
    };
    let output = rig.run(&["outbox", "pause", "calm", "--reason", "new version"]).await;
    assert!(
        words(&output)
            .starts_with("calm is paused from now on: new version; it goes on with `event-router outbox resume calm`")
    );
    for n in 0..20 {
        rig.message(n % 4, "while paused", &["calm", "busy"]);
    }
    let stats = rig.until("the other goes on", |stats| view(stats, "busy").delivered == 21).await;
    let calm = view(&stats, "calm");
    assert_eq!((calm.state, calm.pending), (DestinationState::Paused, 20));
    assert!(calm.why.contains("new version"), "{}", calm.why);
    service.stop().await;
    let stats = rig.stats().await;
    assert!(view(&stats, "calm").why.contains("new version"), "{}", view(&stats, "calm").why);
    let service = rig.start().await;
    rig.message(9, "after", &["calm", "busy"]);
    let stats = rig.until("the other goes on", |stats| view(stats, "busy").delivered == 22).await;
    assert_eq!((view(&stats, "calm").delivered, rig.handler("calm").received().len()), (1, 1));
    assert!(rig.run(&["outbox", "resume", "calm"]).await.status.success());
    rig.until_settled().await;
    // By itself, and asked for while nothing runs.
    service.stop().await;
    let output = rig.run(&["outbox", "pause", "calm", "--for", "1s"]).await;
    assert!(words(&output).contains("it goes on by itself in"), "{}", words(&output));
    let service = rig.start().await;
    rig.message(9, "soon", &["calm", "busy"]);
    let stats = rig.until_settled().await;
    assert!(view(&stats, "calm").pause.is_none());
    rig.assert_balanced();
    let output = rig.run(&["outbox", "pause", "nobody"]).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(words(&output).contains("there is no destination \"nobody\"; there are: busy, calm"), "{}", words(&output));
    service.stop().await;
}

/// Several events in one request: all of them, in order per chat; one that is refused is found out alone and takes no other
/// with it.
#[tokio::test(flavor = "multi_thread")]
async fn batches_keep_order_and_a_refusal_inside_one_finds_its_event() {
    let mut rig = Rig::new(&[("all", "batch_max = 50\nconcurrency = 2")], FAST).await;
    rig.handler("all").answer(|received| {
        let bad = String::from_utf8_lossy(&received.body).contains("bad");
        Answer::Status(if bad { 422 } else { 200 }, "no")
    });
    rig.handler("all").down();
    let service = rig.start().await;
    let mut dead = BTreeSet::new();
    for n in 0..600 {
        let id = rig.message(n % 7, if n % 199 == 5 { "bad" } else { "good" }, &["all"]);
        if n % 199 == 5 {
            dead.insert(("all".to_owned(), id));
        }
    }
    let head = rig.vk.head().to_string();
    rig.until("all is read", |stats| stats.checkpoints[0].ts == head).await;
    rig.handler("all").up().await.expect("up");
    let stats = rig.until_settled().await;
    let all = view(&stats, "all");
    assert_eq!((all.dead, all.delivered), (dead.len() as u64, 600 - dead.len() as u64));
    let balance = rig.books(&dead);
    assert!(balance.balanced(), "{balance}");
    let received = rig.handler("all").received();
    let requests = received.iter().filter(|one| one.status > 0).count();
    assert!(requests < 250, "{requests} requests");
    let alone = received.iter().filter(|one| one.status == 422 && one.event_id.ends_with("+1")).count();
    assert_eq!(alone, dead.len(), "only what was sent alone is refused");
    service.stop().await;
}

/// An outage with batches: nothing is given up, nobody is blamed, all of it arrives in order after.
#[tokio::test(flavor = "multi_thread")]
async fn an_outage_with_batches_loses_nothing_over_a_restart() {
    let mut rig = Rig::new(&[("all", "batch_max = 20\nmax_attempts = 2")], FAST).await;
    let service = rig.start().await;
    (0..100).for_each(|n| drop(rig.message(n % 9, "before", &["all"])));
    rig.until_settled().await;
    rig.handler("all").answer(|_| Answer::Status(503, ""));
    (0..300).for_each(|n| drop(rig.message(n % 9, "during", &["all"])));
    let asked = rig.handler("all").received().len() + 20;
    within("twenty attempts", rig.handler("all").until(|received| received.len() >= asked)).await;
    service.stop().await;
    rig.handler("all").answer(|_| Answer::Status(200, ""));
    let service = rig.start().await;
    let stats = rig.until_settled().await;
    assert_eq!((view(&stats, "all").dead, view(&stats, "all").delivered), (0, 400));
    rig.assert_balanced();
    service.stop().await;
}

/// A chat with thousands of events, none of which fails, and a handler that takes its time: one who writes behind them does
/// not wait for all of them. Stopped in the middle, with some of the busy chat in the log and the rest aside, order holds.
#[tokio::test(flavor = "multi_thread")]
async fn a_quiet_chat_does_not_wait_behind_a_busy_one() {
    let mut rig = Rig::new(&[("all", "")], FAST).await;
    rig.handler("all").answer(|_| Answer::Slow(Duration::from_millis(40), 200));
    let service = rig.start().await;
    (0..6000).for_each(|_| drop(rig.message(1, "flood", &["all"])));
    let quiet = rig.message(2, "quiet", &["all"]);
    let came = |received: &[Received]| received.iter().any(|one| one.event_id == quiet);
    within("the quiet one", rig.handler("all").until(came)).await;
    let stats = rig.stats().await;
    assert!(view(&stats, "all").pending > 3000, "{:?}", view(&stats, "all"));
    service.stop().await;
    let stats = rig.stats().await;
    let all = view(&stats, "all");
    assert!(all.aside > 3000 && all.pending > all.aside, "some is in the log, the rest aside: {all:?}");
    rig.handler("all").answer(|_| Answer::Status(200, ""));
    let service = rig.start().await;
    let stats = rig.until_settled().await;
    assert_eq!((view(&stats, "all").aside, view(&stats, "all").delivered), (0, 6001));
    rig.assert_balanced();
    service.stop().await;
}
