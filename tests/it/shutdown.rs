//! The end: SIGTERM stops within eight seconds with 0, whatever is in flight; nothing is lost by it.

use std::time::{Duration, Instant};

use event_router::outbox::Store;
use event_router::sim::handler::Answer;
use rustix::process::{Pid, Signal, kill_process};

use crate::rig::{Rig, within};

fn send(child: &tokio::process::Child, signal: Signal) {
    let pid = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)).expect("it runs");
    kill_process(pid, signal).expect("sent");
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_under_load_ends_with_zero_in_time_and_loses_nothing() {
    for (signal, answer, requests) in [
        (Signal::TERM, Answer::Slow(Duration::from_millis(100), 200), 16),
        (Signal::INT, Answer::Hang, 16),
        // Two failing chats are an outage: then one request at a time is sent, ever more rarely.
        (Signal::TERM, Answer::Status(500, ""), 2),
    ] {
        let mut rig = Rig::new(&[("all", "")], "").await;
        rig.handler("all").answer(move |_| answer.clone());
        let mut child = rig.spawn();
        within("the first poll", rig.vk.until(|vk| !vk.polls().is_empty())).await;
        for n in 0..400 {
            rig.message(n % 40, "x", &["all"]);
        }
        within("the first requests", rig.handler("all").until(|all| all.len() >= requests)).await;
        let start = Instant::now();
        send(&child, signal);
        let status = within("the end", child.wait()).await.expect("waited");
        assert!(status.success() && start.elapsed() < Duration::from_secs(8), "{status} after {:?}", start.elapsed());
        rig.handler("all").answer(|_| Answer::Status(200, ""));
        let _child = rig.spawn();
        rig.until_settled().await;
        let balance = rig.books(&Default::default());
        assert!(balance.balanced(), "{balance}");
    }
}

/// It waited for the lock to its end, and was killed by whoever had asked it to stop.
#[tokio::test(flavor = "multi_thread")]
async fn sigterm_ends_a_service_that_waits_for_the_outbox_at_once() {
    let rig = Rig::new(&[("all", "")], "").await;
    rig.start().await.stop().await;
    let held = Store::open_existing(&rig.data(), "a test", Duration::ZERO).expect("opened");
    let mut child = rig.spawn();
    let log = || std::fs::read_to_string(rig.dir.path().join("log")).expect("read");
    within("it waits", async {
        while !log().contains("it is waited for") {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let start = Instant::now();
    send(&child, Signal::TERM);
    let status = within("the end", child.wait()).await.expect("waited");
    assert!(status.success() && start.elapsed() < Duration::from_secs(8), "{status} after {:?}", start.elapsed());
    drop(held);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_at_once() {
    let mut rig = Rig::new(&[("all", "")], "").await;
    rig.handler("all").answer(|_| Answer::Hang);
    let mut child = rig.spawn();
    within("the first poll", rig.vk.until(|vk| !vk.polls().is_empty())).await;
    rig.message(1, "x", &["all"]);
    within("the request", rig.handler("all").until(|all| !all.is_empty())).await;
    let start = Instant::now();
    send(&child, Signal::TERM);
    // The socket goes with the first signal: then the second one is the second.
    within("the first signal is seen", async {
        while tokio::net::UnixStream::connect(rig.data().join("admin.sock")).await.is_ok() {}
    })
    .await;
    send(&child, Signal::TERM);
    let status = within("the end", child.wait()).await.expect("waited");
    assert!(!status.success() && start.elapsed() < Duration::from_secs(4), "{status} after {:?}", start.elapsed());
}

/// Two services on one directory: one has it, the other waits and takes over when the first is killed. A verb that comes
/// while a service starts, or ends, waits for a moment and answers.
#[tokio::test(flavor = "multi_thread")]
async fn a_second_service_waits_for_the_directory_and_takes_over() {
    let mut rig = Rig::new(&[("all", "when = [{ event_type = [\"message_new\"] }]")], "").await;
    let mut first = rig.spawn();
    within("the first poll", rig.vk.until(|vk| !vk.polls().is_empty())).await;
    let mut second = rig.spawn();
    for n in 0..50 {
        rig.message(n % 5, "x", &["all"]);
    }
    within("some deliveries", rig.handler("all").until(|all| all.len() >= 10)).await;
    first.kill().await.expect("killed");
    for n in 0..50 {
        rig.message(n % 5, "y", &["all"]);
    }
    // It takes up what the first has left, and polls on.
    rig.until_settled().await;
    assert!(second.try_wait().expect("asked").is_none(), "the second one runs");
    second.kill().await.expect("killed");
    rig.assert_balanced();
    for _ in 0..12 {
        let mut starting = rig.spawn();
        let stats = rig.stats().await;
        assert!(stats.destinations.iter().all(|view| view.pending == 0 || view.routed > 0));
        starting.kill().await.expect("killed");
    }
}
