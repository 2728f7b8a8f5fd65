//! Replays and what operators change: by group, no faster than asked, cancelled, killed in the middle; and that all of it is
//! written down. Deliberately absent: that a replay delivers at all (`delivery_faults`), expired events (`discards`).

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use event_router::outbox::audit::AuditView;
use event_router::outbox::groups::GroupView;
use event_router::outbox::replay::ReplayView;
use event_router::outbox::views::Row;
use event_router::sim::handler::{Answer, Received};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::Value;
use tokio::sync::watch;

use crate::rig::{FAST, Rig, text, view, within};

fn replays_of(rig: &Rig, number: u64) -> Vec<Received> {
    let number = number.to_string();
    let is_ours =
        |one: &Received| one.headers.get("x-event-replay").is_some_and(|told| told.as_bytes() == number.as_bytes());
    rig.handler("all").received().into_iter().filter(is_ours).collect()
}

/// Waits until replay 1 has sent so many requests.
async fn until_sent(rig: &Rig, count: usize) {
    within("requests of the replay", async {
        while replays_of(rig, 1).len() < count {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

async fn words(rig: &Rig, words: &[&str]) -> String {
    let output = rig.run(&[&["outbox"], words].concat()).await;
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// So many dead letters, refused with these statuses in turn.
async fn dead(rig: &mut Rig, count: usize, statuses: &'static [u16]) {
    rig.handler("all").answer(move |one| {
        let at = text(one).parse::<usize>().unwrap_or(0);
        Answer::Status(statuses[at % statuses.len()], if at % 2 == 0 { "no such chat" } else { "" })
    });
    for at in 0..count {
        rig.message(i64::try_from(at % 7).expect("small"), &at.to_string(), &["all"]);
    }
    rig.until("they are dead", |stats| view(stats, "all").dead == count as u64).await;
}

async fn until_over(rig: &Rig, number: u64) -> ReplayView {
    within("the replay is over", async {
        loop {
            let all: Vec<ReplayView> = rig.json(&["outbox", "replays"]).await;
            let ours = all.into_iter().find(|view| view.number == number).expect("it is listed");
            if ours.ended.is_some() {
                return ours;
            }
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_grouped_by_cause_and_replayed_and_discarded_by_group() {
    let mut rig = Rig::new(&[("all", "")], FAST).await;
    let service = rig.start().await;
    dead(&mut rig, 30, &[422, 422, 400]).await;
    let groups: Vec<GroupView> = rig.json(&["outbox", "list", "--group"]).await;
    let told: Vec<(&str, u64)> =
        groups.iter().map(|group| (group.cause.as_deref().unwrap_or("?"), group.count)).collect();
    assert_eq!(told[..2], [("refused: HTTP 422", 20), ("refused: HTTP 400", 10)]);
    let example = groups[0].example.to_string();
    let shown: Value = rig.json(&["outbox", "show", &example]).await;
    assert_eq!(shown["deliveries"][0]["reason"], "the handler refused it with HTTP 422", "{shown}");
    let table = words(&rig, &["list", "--group"]).await;
    assert!(
        table.contains("--destination all --state dead --cause 'refused: HTTP 422'") && table.contains("no such chat"),
        "{table}"
    );
    let rows: Vec<Row> = rig.json(&["outbox", "list", "--cause", "refused: HTTP 400"]).await;
    assert_eq!(rows.len(), 10);
    // The handler is mended: one group again, the other out.
    rig.handler("all").answer(|_| Answer::Status(200, ""));
    let made = words(&rig, &["replay", "--cause", "refused: HTTP 422", "--yes", "--reason", "mended"]).await;
    assert!(made.contains("replay 1: 20 dead letters of all to be delivered again; it begins now"), "{made}");
    let over = until_over(&rig, 1).await;
    assert_eq!((over.matched, over.succeeded, over.failed, over.cancelled), (20, 20, 0, false));
    service.stop().await;
    let groups: Vec<GroupView> = rig.json(&["outbox", "list", "--group"]).await;
    assert_eq!((groups.len(), groups[0].count), (1, 10));
    let gone = words(&rig, &["discard", "--destination", "all", "--cause", "refused: HTTP 400", "--yes"]).await;
    assert!(gone.contains("10 rows discarded"), "{gone}");
    let audit: Vec<AuditView> = rig.json(&["outbox", "audit"]).await;
    let told: Vec<_> =
        audit.iter().map(|one| (one.what.as_str(), one.reason.as_deref(), one.offline, one.changed)).collect();
    assert_eq!(
        told,
        [
            ("replay --cause \"refused: HTTP 422\"", Some("mended"), false, Some(20)),
            ("discard --destination all --state dead --cause \"refused: HTTP 400\"", None, true, Some(10)),
        ]
    );
}

/// The rate is a bound from below on the time it takes: no slow machine breaks it. Its last letter is held until live traffic
/// was seen to go on beside it.
#[tokio::test(flavor = "multi_thread")]
async fn a_replay_goes_no_faster_than_asked_and_live_traffic_does_not_wait_for_it() {
    let mut rig = Rig::new(&[("all", "timeout = \"60s\"")], FAST).await;
    let service = rig.start().await;
    dead(&mut rig, 21, &[422]).await;
    let (release, held) = watch::channel(false);
    rig.handler("all").answer(move |one| match text(one).as_str() {
        "20" => Answer::Until(held.clone(), 200),
        _ => Answer::Status(200, ""),
    });
    let before = Instant::now();
    let made = words(&rig, &["replay", "--destination", "all", "--rate", "20", "--yes"]).await;
    assert!(made.starts_with("replay 1: 21 dead letters"), "{made}");
    rig.message(1, "live", &["all"]);
    within("live goes on", rig.handler("all").until(|all| all.iter().any(|one| text(one) == "live"))).await;
    assert!(!rig.stats().await.replays.is_empty());
    release.send_replace(true);
    let over = until_over(&rig, 1).await;
    assert!(before.elapsed() >= Duration::from_millis(20 * 50 - 5), "{:?}", before.elapsed());
    assert_eq!((over.succeeded, over.failed, over.rate()), (21, 0, Some(20.0)));
    for (asked, told) in [
        (["replay", "--state", "dead", "--rate", "0"], "is no number from 0.001"),
        (["replay", "--state", "quarantined", "--rate", "5"], "is only converted"),
    ] {
        let output = rig.run(&[&["outbox"], &asked[..]].concat()).await;
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!((output.status.code(), words.contains(told)), (Some(2), true), "{words}");
    }
    service.stop().await;
}

/// So slow that only the first one has its turn: cancelled, the rest stays dead, also after a restart.
#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_replay_leaves_the_rest_as_it_is_live_and_offline() {
    for live in [true, false] {
        let mut rig = Rig::new(&[("all", "")], FAST).await;
        let service = rig.start().await;
        dead(&mut rig, 10, &[422]).await;
        rig.handler("all").answer(|_| Answer::Status(200, ""));
        words(&rig, &["replay", "--destination", "all", "--rate", "0.001", "--yes"]).await;
        rig.until("the first is delivered", |stats| view(stats, "all").dead == 9).await;
        let mut running = Some(service);
        if !live {
            running.take().expect("runs").stop().await;
        }
        let told = words(&rig, &["cancel", "1", "--reason", "not yet"]).await;
        assert!(told.contains("replay 1 is cancelled: 1 delivered, 0 failed, 9 rows left alone"), "{told}");
        let again = words(&rig, &["cancel", "1"]).await;
        assert!(again.contains("replay 1 is over"), "{again}");
        let nobody = words(&rig, &["cancel", "7"]).await;
        assert!(nobody.contains("there is no replay 7; `outbox replays` lists them"), "{nobody}");
        let listed: Vec<ReplayView> = rig.json(&["outbox", "replays"]).await;
        assert!(listed.len() == 1 && listed[0].cancelled && listed[0].ended.is_some(), "{listed:?}");
        if let Some(running) = running {
            running.stop().await;
        }
        let running = rig.start().await;
        rig.message(3, "live", &["all"]);
        let stats = rig.until("live goes on", |stats| view(stats, "all").delivered == 2).await;
        assert_eq!((view(&stats, "all").dead, stats.replays.len(), replays_of(&rig, 1).len()), (9, 0, 1));
        let audit: Vec<AuditView> = rig.json(&["outbox", "audit"]).await;
        let cancelled = audit.iter().find(|one| one.what == "cancel 1").expect("written down");
        assert_eq!(
            (cancelled.reason.as_deref(), cancelled.changed, cancelled.offline),
            (Some("not yet"), Some(1), !live)
        );
        running.stop().await;
    }
}

/// What was settled when the process died is not sent again, and nothing is left out.
#[tokio::test(flavor = "multi_thread")]
async fn a_replay_that_is_killed_goes_on_and_repeats_nothing_that_was_settled() {
    let seed = u64::from(std::process::id());
    eprintln!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut rig = Rig::new(&[("all", "")], FAST).await;
    let service = rig.start().await;
    dead(&mut rig, 300, &[422]).await;
    service.stop().await;
    // Every ninth is refused once more.
    rig.handler("all")
        .answer(|one| Answer::Status(if text(one).parse::<u64>().unwrap_or(1) % 9 == 0 { 422 } else { 200 }, ""));
    let made = words(&rig, &["replay", "--destination", "all", "--rate", "200", "--yes"]).await;
    assert!(
        made.contains("replay 1: 300 dead letters of all to be delivered again; it begins at the next start"),
        "{made}"
    );
    for _ in 0..4 {
        let mut process = rig.spawn();
        let enough = replays_of(&rig, 1).len() + random.random_range(5..60);
        until_sent(&rig, enough).await;
        process.kill().await.expect("killed");
        // What the outbox says now is what it may send.
        let left: Vec<Row> = rig.json(&["outbox", "list", "--state", "dead", "--limit", "1000"]).await;
        let listed: Vec<ReplayView> = rig.json(&["outbox", "replays"]).await;
        let left: BTreeSet<String> = left.into_iter().map(|row| row.event_id).collect();
        let (before, settled) = (replays_of(&rig, 1).len(), listed[0].succeeded + listed[0].failed);
        assert_eq!(left.len() as u64, 300 - listed[0].succeeded, "{listed:?}");
        let mut process = rig.spawn();
        let more = before + 5;
        until_sent(&rig, more).await;
        process.kill().await.expect("killed");
        let after = &replays_of(&rig, 1)[before..];
        assert!(
            after.iter().all(|one| left.contains(&one.event_id)),
            "settled, and sent again; {settled} were settled"
        );
    }
    let service = rig.start().await;
    let over = until_over(&rig, 1).await;
    let stats = rig.stats().await;
    let all = view(&stats, "all");
    assert_eq!((all.delivered, all.dead, over.succeeded), (266, 34, 266), "{over:?}");
    assert_eq!(over.failed, 34);
    let sent: BTreeSet<String> = replays_of(&rig, 1).into_iter().map(|one| one.event_id).collect();
    assert_eq!(sent.len(), 300);
    service.stop().await;
    let sound = rig.run(&["outbox", "verify"]).await;
    assert!(sound.status.success(), "{}", String::from_utf8_lossy(&sound.stdout));
}

#[tokio::test(flavor = "multi_thread")]
async fn pauses_and_their_ends_are_written_down_and_an_unknown_destination_is_no_change() {
    let rig = Rig::new(&[("all", "")], FAST).await;
    let service = rig.start().await;
    words(&rig, &["pause", "all", "--for", "90s", "--reason", "new version"]).await;
    words(&rig, &["resume", "all"]).await;
    words(&rig, &["resume", "all"]).await;
    let nobody = words(&rig, &["pause", "nobody"]).await;
    assert!(nobody.contains("nobody") && nobody.contains("all"), "{nobody}");
    let audit: Vec<AuditView> = rig.json(&["outbox", "audit"]).await;
    let told: Vec<_> = audit.iter().map(|one| (one.what.as_str(), one.reason.as_deref(), one.changed)).collect();
    let expected = [
        ("pause all --for 1m30s", Some("new version"), Some(1)),
        ("resume all", None, Some(1)),
        ("resume all", None, Some(0)),
    ];
    assert_eq!(told, expected);
    service.stop().await;
}

/// A cancelled replay is asked for again while some of it is in flight: that is not sent once more.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_cancelled_replay_has_in_flight_the_next_one_does_not_send_again() {
    let mut rig = Rig::new(&[("all", "timeout = \"60s\"")], "").await;
    let service = rig.start().await;
    dead(&mut rig, 40, &[422]).await;
    let (release, held) = watch::channel(false);
    rig.handler("all").answer(move |_| Answer::Until(held.clone(), 200));
    words(&rig, &["replay", "--destination", "all", "--yes"]).await;
    until_sent(&rig, 1).await;
    words(&rig, &["cancel", "1"]).await;
    words(&rig, &["replay", "--destination", "all", "--yes"]).await;
    release.send_replace(true);
    until_over(&rig, 2).await;
    let stats = rig.stats().await;
    assert_eq!((view(&stats, "all").delivered, view(&stats, "all").dead), (40, 0));
    let sent: Vec<String> =
        [replays_of(&rig, 1), replays_of(&rig, 2)].concat().into_iter().map(|one| one.event_id).collect();
    assert_eq!((sent.len(), sent.iter().collect::<BTreeSet<_>>().len()), (40, 40));
    service.stop().await;
}

/// A letter that fails without end on a quiet destination holds its replay; discarded, it is sent no more and the replay ends.
/// One that was still to come is not sent at all.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_discarded_leaves_the_replay_that_holds_it() {
    let mut rig = Rig::new(&[("all", "max_attempts = 100000")], FAST).await;
    let service = rig.start().await;
    dead(&mut rig, 3, &[422]).await;
    let rows: Vec<Row> = rig.json(&["outbox", "list", "--state", "dead"]).await;
    let ids: Vec<String> = rows.into_iter().map(|row| row.event_id).collect();
    let bad = ids[0].clone();
    rig.handler("all").answer(move |one| Answer::Status(if one.event_id == bad { 500 } else { 200 }, ""));
    words(&rig, &["replay", "--destination", "all", "--rate", "0.25", "--yes"]).await;
    until_sent(&rig, 1).await;
    // First the one that would be sent after eight seconds.
    for id in [&ids[2], &ids[0]] {
        let gone = words(&rig, &["discard", id, "--yes"]).await;
        assert!(gone.contains("1 row discarded"), "{gone}");
    }
    let over = until_over(&rig, 1).await;
    assert_eq!((over.matched, over.succeeded, over.failed, over.gone()), (3, 1, 0, 2));
    assert!(replays_of(&rig, 1).iter().all(|one| one.event_id != ids[2]), "discarded, and sent");
    service.stop().await;
}

/// With no other traffic nothing would ever count: but what is replayed is dead already.
#[tokio::test(flavor = "multi_thread")]
async fn a_letter_that_fails_again_and_again_ends_its_replay_and_the_next_one_begins() {
    let mut rig = Rig::new(&[("all", "max_attempts = 3")], FAST).await;
    let service = rig.start().await;
    dead(&mut rig, 2, &[422]).await;
    rig.handler("all").answer(|one| Answer::Status(if text(one) == "0" { 500 } else { 200 }, ""));
    words(&rig, &["replay", "--cause", "refused: HTTP 422", "--yes"]).await;
    let told = words(&rig, &["replay", "--destination", "all", "--yes"]).await;
    assert!(told.contains("behind replay 1") || !told.contains("waits"), "{told}");
    let (one, two) = (until_over(&rig, 1).await, until_over(&rig, 2).await);
    assert_eq!((one.succeeded, one.failed, two.failed), (1, 1, 1), "{one:?} {two:?}");
    assert_eq!(replays_of(&rig, 1).iter().filter(|one| text(one) == "0").count(), 3);
    let groups: Vec<GroupView> = rig.json(&["outbox", "list", "--group"]).await;
    assert_eq!(groups[0].cause.as_deref(), Some("given up: HTTP 500"));
    service.stop().await;
}

/// Its handler has a pause, is gone, or is no more: that is told, and nobody waits before a bar that never moves.
#[tokio::test(flavor = "multi_thread")]
async fn a_replay_that_cannot_go_on_says_what_it_waits_for() {
    let mut rig = Rig::new(&[("all", ""), ("here", "")], FAST).await;
    let service = rig.start().await;
    dead(&mut rig, 2, &[422]).await;
    words(&rig, &["pause", "all"]).await;
    let told = words(&rig, &["replay", "--destination", "all", "--yes"]).await;
    assert!(told.contains("it waits: all is paused: `outbox resume all`"), "{told}");
    let typo = rig.run(&["outbox", "replay", "--destination", "al", "--yes"]).await;
    assert!(!typo.status.success() && String::from_utf8_lossy(&typo.stderr).contains("all"), "{typo:?}");
    service.stop().await;
    rig.detach("all", "here");
    let service = rig.start().await;
    let table = words(&rig, &["replays"]).await;
    assert!(table.contains("all is not in the configuration"), "{table}");
    assert!(words(&rig, &["cancel", "1"]).await.contains("is cancelled"));
    service.stop().await;
}

/// What became a dead letter after the replay was made is not meant; what an earlier replay has refused since is.
#[tokio::test(flavor = "multi_thread")]
async fn a_replay_means_what_was_dead_when_it_was_made() {
    let mut rig = Rig::new(&[("all", "")], FAST).await;
    let service = rig.start().await;
    dead(&mut rig, 4, &[422]).await;
    words(&rig, &["pause", "all"]).await;
    words(&rig, &["replay", "--destination", "all", "--yes"]).await;
    words(&rig, &["replay", "--destination", "all", "--yes"]).await;
    rig.message(1, "5", &["all"]);
    rig.until("it waits", |stats| view(stats, "all").pending == 1).await;
    words(&rig, &["resume", "all"]).await;
    let (one, two) = (until_over(&rig, 1).await, until_over(&rig, 2).await);
    assert_eq!((one.failed, two.failed), (4, 4), "{one:?} {two:?}");
    assert_eq!(rig.until_settled().await.destinations.iter().map(|view| view.dead).sum::<u64>(), 5);
    service.stop().await;
}
