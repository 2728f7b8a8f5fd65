//! VK on a bad night: whatever it answers, nothing that it still has is lost, and what it lost is recorded.

use std::time::Duration;

use event_router::clock::Clock;
use event_router::domain::time::Moment;
use event_router::outbox::views::Stats;
use event_router::sim::vk_server::{Fault, Settings};
use serde_json::Value;

use crate::rig::{Rig, within};

/// Events before, at and after a fault all arrive, unless VK itself forgot them: then there is a gap.
async fn check(fault: Fault, gaps: usize) {
    let mut rig = Rig::new(&[("all", "")], "").await;
    let service = rig.start().await;
    for n in 0..5 {
        rig.message(n, "before", &["all"]);
    }
    rig.until_settled().await;
    // The fault comes with the poll that waits; events pushed right after are still VK's.
    let polls = rig.vk.polls().len();
    rig.vk.inject(fault);
    within("the next poll", rig.vk.until(|vk| vk.polls().len() > polls)).await;
    for n in 0..5 {
        rig.message(n, "after", &["all"]);
    }
    rig.until_settled().await;
    let balance = rig.assert_balanced();
    assert_eq!(balance.repeats, 0, "{fault:?}");
    assert_eq!(rig.gaps().await.len(), gaps, "{fault:?}");
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_to_an_answer_that_makes_no_sense() {
    for fault in
        [Fault::Failed1Nowhere, Fault::FailedUnknown, Fault::Html502, Fault::Json500, Fault::NoTs, Fault::Garbage]
    {
        check(fault, 0).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_to_a_connection_that_breaks_or_a_body_without_an_end() {
    for fault in [Fault::Cut, Fault::Huge, Fault::Restart] {
        check(fault, 0).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_to_a_connection_that_breaks_or_an_answer_that_is_late() {
    for fault in [Fault::Restart, Fault::Slow(Duration::from_millis(300))] {
        check(fault, 0).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_when_the_key_expires() {
    check(Fault::Failed2, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_vk_forgot_is_a_gap_from_the_ts_asked_with_to_the_one_it_gave() {
    for (fault, words) in [(Fault::Failed1, "failed 1"), (Fault::Failed3, "failed 3")] {
        let mut rig = Rig::new(&[("all", "")], "").await;
        let service = rig.start().await;
        rig.message(1, "read", &["all"]);
        rig.until_settled().await;
        service.stop().await;
        let from = rig.vk.head();
        for _ in 0..7 {
            rig.message(1, "forgotten", &["all"]);
        }
        rig.served.truncate(1);
        rig.vk.inject(fault);
        let service = rig.start().await;
        within("a poll after the gap", rig.vk.until(|vk| vk.polls().last() == Some(&vk.head()))).await;
        rig.message(1, "after", &["all"]);
        rig.until_settled().await;
        rig.assert_balanced();
        let gaps = rig.gaps().await;
        assert_eq!(gaps.len(), 1, "{fault:?}");
        let gap = &gaps[0];
        assert_eq!(
            (gap.from_ts.clone(), gap.to_ts.clone(), gap.distance),
            (from.to_string(), (from + 7).to_string(), Some(7))
        );
        assert!(gap.cause.starts_with(words) && gap.last_heard.is_some(), "{gap:?}");
        assert!(gap.away_seconds.is_some(), "{gap:?}");
        service.stop().await;
    }
}

/// The process is killed while answers come: whatever it has asked with is on disk.
#[tokio::test(flavor = "multi_thread")]
async fn no_ts_is_asked_with_before_it_is_on_disk() {
    let mut rig = Rig::new(&[("all", "")], "").await;
    for round in 0..10 {
        let before = rig.vk.polls().len();
        let mut child = rig.spawn();
        within("a poll", rig.vk.until(|vk| vk.polls().len() > before)).await;
        for n in 0..40 {
            rig.message(n % 7, "x", &["all"]);
            if n % 8 == round % 8 {
                let asked = rig.vk.polls().len();
                within("a further poll", rig.vk.until(|vk| vk.polls().len() > asked)).await;
            }
        }
        child.kill().await.expect("killed");
        let asked = rig.vk.polls().into_iter().max().expect("a poll");
        let committed: u64 = rig.stats().await.checkpoints[0].ts.parse().expect("a number");
        assert!(asked <= committed, "asked with {asked}, on disk is {committed}");
    }
    let service = rig.start().await;
    rig.until_settled().await;
    rig.assert_balanced();
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_vk_refuses_leaves_delivery_alone_and_says_what_to_do() {
    let mut rig = Rig::new(&[("all", "")], "").await;
    rig.handler("all").down();
    let service = rig.start().await;
    rig.message(1, "waits", &["all"]);
    rig.until("the event is in the outbox", |stats| stats.log_next == 2).await;
    service.stop().await;
    rig.vk.inject_call("groups.getLongPollServer", Fault::ApiError(5));
    rig.handler("all").up().await.expect("up");
    let service = rig.start_unseen();
    rig.until("delivery goes on without VK", |stats| stats.live && stats.destinations[0].delivered == 1).await;
    let stats = rig
        .until("the trouble is told", |stats| stats.polling.as_ref().is_some_and(|polling| polling.problem.is_some()))
        .await;
    let problem = stats.polling.and_then(|polling| polling.problem).expect("told");
    assert!(problem.contains("error 5") && problem.contains("make a new token"), "{problem}");
    let ready = rig.run(&["health", "--ready"]).await;
    assert_eq!((ready.status.code(), String::from_utf8_lossy(&ready.stdout).contains("error 5")), (Some(1), true));
    assert!(rig.run(&["health"]).await.status.success(), "alive all the same");
    assert_eq!(rig.vk.calls("groups.getLongPollServer"), 2, "asked once a start, then slowly");
    service.stop().await;
}

/// Each class of VK's errors in words that say what to do; the service is alive, not ready, and asks slowly.
#[tokio::test(flavor = "multi_thread")]
async fn every_class_of_error_is_told_in_words_that_help() {
    const METHOD: &str = "groups.getLongPollServer";
    let rig = Rig::new(&[("all", "")], "").await;
    for (code, words) in [
        (10, "error 10"),
        (29, "it is tried again slowly"),
        (5, "make a new token"),
        (15, "the right 'community management'"),
        (27, "make a new token"),
        (28, "make a new token"),
        (100, "check vk.group_id"),
        (125, "check vk.group_id"),
    ] {
        let calls = rig.vk.calls(METHOD);
        // Until it was looked at, however soon it is asked again.
        (0..100).for_each(|_| rig.vk.inject_call(METHOD, Fault::ApiError(code)));
        let service = rig.start_unseen();
        within("the call", rig.vk.until(|vk| vk.calls(METHOD) > calls)).await;
        let told = |stats: &event_router::outbox::views::Stats| {
            let problem = stats.polling.as_ref().and_then(|polling| polling.problem.clone());
            stats.live && problem.is_some_and(|problem| problem.contains(words))
        };
        rig.until(&format!("{code}: {words}"), told).await;
        assert_eq!(rig.run(&["health", "--ready"]).await.status.code(), Some(1), "{code}");
        assert!(rig.run(&["health"]).await.status.success(), "{code}");
        // Only what passes by itself is asked again within seconds.
        assert!(code == 10 || rig.vk.calls(METHOD) == calls + 1, "{code}");
        service.stop().await;
        rig.vk.spare_calls();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_never_waits_longer_for_a_name_than_allowed() {
    let mut rig = Rig::new(&[("all", "")], "[enrichment]\ntimeout = \"2s\"").await;
    rig.vk.inject_call("users.get", Fault::Hang);
    let service = rig.start().await;
    let start = std::time::Instant::now();
    rig.message(2_000_000_001, "nameless", &["all"]);
    rig.until_settled().await;
    // The call itself would be given up after ten seconds only.
    assert!(start.elapsed() < std::time::Duration::from_secs(9), "{:?}", start.elapsed());
    let body: Value = serde_json::from_slice(&rig.handler("all").received()[0].body).expect("JSON");
    assert_eq!((&body["user_name"], &body["peer_name"]), (&Value::Null, &Value::from("Беседа 1")));
    service.stop().await;
}

/// VK takes one call a second: names come late or not at all, events all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_limit_of_calls_costs_names_and_no_event() {
    let mut rig = Rig::against(Settings { calls_a_second: Some(1), ..Settings::default() }, &[("all", "")]).await;
    let service = rig.start().await;
    for n in 0..60 {
        rig.message(n, "x", &["all"]);
    }
    rig.until_settled().await;
    let balance = rig.assert_balanced();
    assert_eq!((balance.repeats, rig.gaps().await.len()), (0, 0));
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_that_cannot_be_read_is_kept_and_harms_no_neighbour() {
    let mut rig = Rig::new(&[("all", "")], "").await;
    let service = rig.start().await;
    rig.message(1, "before", &["all"]);
    rig.vk.push("{\"type\":\"message_new\",\"object\":[7]}".to_owned());
    rig.vk.push("42".to_owned());
    rig.message(1, "after", &["all"]);
    let stats = rig.until_settled().await;
    assert_eq!(stats.quarantined, 2);
    let shown: Value = rig.json(&["outbox", "show", "q1"]).await;
    assert_eq!(shown["raw"], "{\"type\":\"message_new\",\"object\":[7]}");
    assert_eq!(shown["reason"], "the object of message_new is no JSON object");
    rig.assert_balanced();
    service.stop().await;
}

/// Some sessions silently stop bringing events: they are renewed in time, with the ts kept, and nothing is lost or repeated;
/// while VK gives none, the old one goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_renewed_when_it_is_old_and_the_old_one_serves_until_then() {
    const METHOD: &str = "groups.getLongPollServer";
    let mut rig = Rig::with_vk(&[("all", "")], "session_max_age = \"1s\"").await;
    let service = rig.start().await;
    for round in 2..5 {
        rig.message(round, "x", &["all"]);
        let renewed = rig.vk.until(|vk| vk.calls(METHOD) >= round.unsigned_abs());
        within("a renewal", renewed).await;
        if round == 3 {
            rig.vk.inject_call(METHOD, Fault::ApiError(29));
        }
    }
    rig.until_settled().await;
    let balance = rig.assert_balanced();
    assert_eq!((balance.repeats, rig.gaps().await.len()), (0, 0));
    service.stop().await;
}

/// A token that has lost its right gives no new session: that is trouble although events still come, and it ends with it.
#[tokio::test(flavor = "multi_thread")]
async fn a_renewal_that_only_a_person_can_mend_is_trouble_while_the_old_session_serves() {
    const METHOD: &str = "groups.getLongPollServer";
    let mut rig = Rig::with_vk(&[("all", "")], "session_max_age = \"1h\"").await;
    let service = rig.start_by(Clock::hasty(Moment(1_790_000_000_000), 5000));
    within("the first poll", rig.vk.until(|vk| !vk.polls().is_empty())).await;
    (0..1000).for_each(|_| rig.vk.inject_call(METHOD, Fault::ApiError(15)));
    let problem = |stats: &Stats| stats.polling.as_ref().and_then(|polling| polling.problem.clone());
    let is_told = |stats: &Stats| problem(stats).is_some_and(|words| words.contains("the one there is will end"));
    let stats = rig.until("it is told", is_told).await;
    assert!(problem(&stats).is_some_and(|words| words.contains("community management")), "{:?}", stats.polling);
    rig.message(1, "it still comes", &["all"]);
    rig.until_settled().await;
    rig.until("it is still told", is_told).await;
    rig.vk.spare_calls();
    rig.until("a new session", |stats| problem(stats).is_none()).await;
    rig.assert_balanced();
    service.stop().await;
}

/// What will never come because it is off is said at the start, with the place to change it; `check --online` says the same.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_community_has_switched_off_is_said() {
    let rig = Rig::new(&[("buttons", "when = [{ event_type = [\"button_pressed\"] }]")], "").await;
    let settings = serde_json::json!({ "is_enabled": true, "api_version": "5.80", "events": { "message_new": 1, "message_event": 0 } });
    rig.vk.set_community(settings);
    let mut child = rig.spawn();
    within("the question", rig.vk.until(|vk| vk.calls("groups.getLongPollSettings") > 0 && !vk.polls().is_empty()))
        .await;
    let log = || std::fs::read_to_string(rig.dir.path().join("log")).unwrap_or_default();
    let said = async {
        while !log().contains("destination buttons waits for button_pressed, but message_event is off") {
            tokio::task::yield_now().await;
        }
    };
    within("a line in the log", said).await;
    assert!(log().contains("old shape of API 5.80"), "{}", log());
    child.kill().await.expect("killed");
    let output = rig.run(&["check", "--online"]).await;
    let words = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && words.contains("note: destination buttons waits for button_pressed"), "{words}");
    rig.vk.set_community(serde_json::json!({ "is_enabled": false, "api_version": "5.199", "events": {} }));
    let output = rig.run(&["check", "--online"]).await;
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && words.contains("Long Poll is off, so no event comes"), "{words}");
}

/// `failed` 1 may send us back: a gap says so, what comes again is dropped, and what is new arrives.
#[tokio::test(flavor = "multi_thread")]
async fn a_ts_that_goes_backwards_repeats_nothing_and_loses_nothing() {
    let mut rig = Rig::new(&[("all", "")], "").await;
    let service = rig.start().await;
    for n in 0..10 {
        rig.message(n, "read", &["all"]);
    }
    rig.until_settled().await;
    let before = rig.vk.head();
    let again = rig.vk.go_back(4);
    within("to be sent back", rig.vk.until(|vk| vk.polls().last() == Some(&(before - 4)))).await;
    for update in again {
        rig.vk.push(update);
    }
    for n in 0..3 {
        rig.message(n, "new", &["all"]);
    }
    let stats = rig.until_settled().await;
    let gaps = rig.gaps().await;
    assert_eq!((gaps.len(), gaps[0].distance, stats.repeats), (1, Some(-4), 4), "{gaps:?}");
    assert_eq!(rig.assert_balanced().repeats, 0);
    service.stop().await;
}

/// After a bad night VK sends us to another ts again and again, since its history is short and much goes on: we go there at
/// once, before that is gone as well.
#[tokio::test(flavor = "multi_thread")]
async fn where_vk_sends_us_we_go_at_once_although_the_night_was_bad() {
    let mut rig = Rig::new(&[("all", "")], "").await;
    let service = rig.start_by(Clock::hasty(Moment(1_790_000_000_000), 10));
    within("the first poll", rig.vk.until(|vk| !vk.polls().is_empty())).await;
    rig.message(1, "before", &["all"]);
    rig.until_settled().await;
    // At this pace thirty seconds of backoff take three: three of them at least four and a half, whatever the jitter.
    let polls = rig.vk.polls().len();
    (0..7).for_each(|_| rig.vk.inject(Fault::Html502));
    (0..4).for_each(|_| rig.vk.inject(Fault::Failed1));
    within("the first of them", async { while rig.gaps().await.is_empty() {} }).await;
    let start = std::time::Instant::now();
    within("the last of them", rig.vk.until(|vk| vk.polls().len() >= polls + 11)).await;
    assert_eq!(rig.gaps().await.len(), 1, "it is the same ts each time");
    assert!(start.elapsed() < std::time::Duration::from_millis(3_500), "{:?}", start.elapsed());
    rig.message(1, "after", &["all"]);
    rig.until_settled().await;
    rig.assert_balanced();
    service.stop().await;
}
