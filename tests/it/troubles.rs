//! Whoever is woken at night: for each of ten troubles one command names the trouble and the remedy. With `--nocapture` the
//! words are shown. Deliberately absent: how each trouble is survived (the other tests), how tables look (`commands`).
#![allow(clippy::print_stdout, reason = "the words are there to be read")]

use std::fs;
use std::time::Duration;

use event_router::outbox::Store;
use event_router::sim::handler::Answer;
use event_router::sim::vk_server::Fault;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::rig::{FAST, Rig, Running, view, within};

/// What a command says, and that it has all of `parts`.
async fn says(rig: &Rig, words: &[&str], exit: i32, parts: &[&str]) {
    let output = rig.run(words).await;
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    println!("\n$ event-router {}\n{text}", words.join(" "));
    assert_eq!(output.status.code(), Some(exit), "{words:?}: {text}");
    for part in parts {
        assert!(text.contains(part), "{words:?} does not say {part:?}: {text}");
    }
}

const STATS: &[&str] = &["outbox", "stats"];

/// Starts a service that VK, or the disk, does not let poll.
async fn start_in_trouble(rig: &Rig) -> Running {
    let service = rig.start_unseen();
    within("its door is open", async { while !rig.run(&["health"]).await.status.success() {} }).await;
    service
}

/// One destination, a service that runs, two chats with an event each.
async fn with_handler(answer: Option<Answer>) -> (Rig, Running) {
    let mut rig = Rig::new(&[("messages", "")], FAST).await;
    match answer {
        Some(answer) => rig.handler("messages").answer(move |_| answer.clone()),
        None => rig.handler("messages").down(),
    }
    let service = rig.start().await;
    for chat in [1, 2] {
        rig.message(chat, "x", &["messages"]);
    }
    (rig, service)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_is_down() {
    let (rig, service) = with_handler(None).await;
    rig.until("it is down", |stats| view(stats, "messages").why.starts_with("down")).await;
    let parts =
        ["DOWN", "Connection refused", "does it run, and is destinations.messages.url right?", "goes on by itself"];
    says(&rig, STATS, 0, &parts).await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_refuses() {
    let (rig, service) = with_handler(Some(Answer::Status(422, "no such field"))).await;
    rig.until("all are dead", |stats| view(stats, "messages").dead == 2).await;
    says(&rig, STATS, 0, &["2 dead letters", "event-router outbox list --destination messages --group"]).await;
    let parts = ["refused: HTTP 422", "no such field", "event-router outbox replay", "event-router outbox discard"];
    says(&rig, &["outbox", "list", "--group"], 0, &parts).await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_path() {
    let (rig, service) = with_handler(Some(Answer::Status(404, "not found"))).await;
    rig.until("it is down", |stats| view(stats, "messages").why.starts_with("down")).await;
    says(&rig, STATS, 0, &["DOWN", "HTTP 404", "is the path in destinations.messages.url right?"]).await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_was_revoked() {
    let rig = Rig::new(&[("messages", "")], "").await;
    let config = fs::read_to_string(rig.config()).expect("read").replace("a-secret-token", "a-revoked-token");
    fs::write(rig.config(), config).expect("written");
    let service = start_in_trouble(&rig).await;
    rig.until("VK has said so", |stats| stats.polling.as_ref().is_some_and(|polling| polling.problem.is_some())).await;
    let remedy = "make a new token in the community's settings (API usage) and put it into vk.token (TOKEN)";
    says(&rig, STATS, 0, &["polling", "in trouble", remedy]).await;
    says(&rig, &["check", "--online"], 77, &[remedy]).await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn long_poll_that_is_off() {
    let rig = Rig::new(&[("messages", "")], "").await;
    rig.vk.set_community(json!({ "is_enabled": false, "api_version": "5.199", "events": {} }));
    let parts = ["Long Poll is off, so no event comes", "turn it on in the community settings"];
    says(&rig, &["check", "--online"], 1, &parts).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_full() {
    let rig = Rig::with_outbox(&[("messages", "")], "", "min_free_bytes = \"1000TiB\"").await;
    let service = start_in_trouble(&rig).await;
    rig.until("it is full", |stats| stats.full.is_some()).await;
    says(&rig, STATS, 0, &["FULL", "outbox.min_free_bytes", "VK may forget", "free some space on it"]).await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_that_is_held() {
    let rig = Rig::new(&[("messages", "")], "").await;
    rig.start().await.stop().await;
    let held = Store::open_existing(&rig.data(), "a test", Duration::ZERO).expect("opened");
    let parts = ["is in use by", "a test", "nothing answers at", "end that process"];
    says(&rig, STATS, 75, &parts).await;
    drop(held);
}

/// The kernel lets in whoever knocks at it: nothing was said for a minute.
#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_hangs() {
    let rig = Rig::new(&[("messages", "")], "").await;
    let child = rig.spawn();
    within("the first poll", rig.vk.until(|vk| !vk.polls().is_empty())).await;
    let id = child.id().expect("it runs");
    let pid = Pid::from_raw(id.cast_signed()).expect("a number");
    kill_process(pid, Signal::STOP).expect("sent");
    let parts = [format!("process {id} (run)"), "does not answer: it hangs".to_owned(), "end that process".to_owned()];
    says(&rig, STATS, 75, &parts.each_ref().map(String::as_str)).await;
    says(&rig, &["health"], 1, &["does not answer"]).await;
    kill_process(pid, Signal::KILL).expect("sent");
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_that_were_given_up() {
    let rest = "[delivery]\ninitial_interval = \"1ms\"\nmax_interval = \"5ms\"\nmax_attempts = 2";
    let mut rig = Rig::new(&[("messages", "")], rest).await;
    rig.handler("messages").answer(|received| match crate::rig::text(received).as_str() {
        "bad" => Answer::Status(500, "it broke"),
        _ => Answer::Status(200, ""),
    });
    let service = rig.start().await;
    rig.message(1, "bad", &["messages"]);
    within("it is given up", async {
        while rig.stats().await.destinations[0].dead == 0 {
            rig.message(2, "good", &["messages"]);
        }
    })
    .await;
    says(&rig, STATS, 0, &["1 dead letter", "event-router outbox list --destination messages --group"]).await;
    let parts = ["given up: HTTP 500", "it broke", "event-router outbox replay", "event-router outbox discard"];
    says(&rig, &["outbox", "list", "--group"], 0, &parts).await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gap() {
    let rig = Rig::new(&[("messages", "")], "").await;
    let service = rig.start().await;
    rig.vk.inject(Fault::Failed3);
    rig.until("a gap", |stats| stats.gaps == 1).await;
    says(&rig, STATS, 0, &["VK has lost events", "event-router outbox gaps"]).await;
    says(&rig, &["outbox", "gaps"], 0, &["failed 3", "vk.backfill is off"]).await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_destination_that_is_paused() {
    let rig = Rig::new(&[("messages", "")], "").await;
    let service = rig.start().await;
    says(&rig, &["outbox", "pause", "messages", "--reason", "a new version"], 0, &[]).await;
    says(&rig, STATS, 0, &["PAUSED", "a new version", "event-router outbox resume messages"]).await;
    service.stop().await;
}
