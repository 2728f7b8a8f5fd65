//! Limits: a long outage fills what the outbox may use, or the whole volume; polling stops and says so, delivery goes on, and
//! polling goes on by itself. Nothing is lost, nothing is dropped. `FULL_DISK_DIR` names a small volume (48 MiB) for the last.

use std::path::PathBuf;
use std::time::Duration;

use event_router::outbox::views::Stats;
use serde_json::json;
use tokio::process::Child;

use crate::rig::{Rig, within};

const CONFIG: &str = "[delivery]\ninitial_interval = \"50ms\"\nmax_interval = \"200ms\"";

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Gives VK a hundred messages of 30 KB.
fn load(rig: &mut Rig) {
    let long = "x".repeat(30_000);
    for number in 0..100 {
        let message = json!({ "from_id": 100, "peer_id": 2_000_000_000 + number % 20, "text": long, "date": 1, "conversation_message_id": number });
        let lane = format!("peer {}", 2_000_000_000 + number % 20);
        rig.update("message_new", json!({ "message": message }), &lane, &["messages"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn at_max_bytes_polling_stops_says_why_and_goes_on_by_itself() {
    let messages = [("messages", "when = [{ event_type = [\"message_new\"] }]")];
    let mut rig = Rig::with_outbox(&messages, CONFIG, "max_bytes = \"16MiB\"\nmin_free_bytes = \"0B\"").await;
    rig.handler("messages").down();
    let mut child = rig.spawn();
    let full = fill_up(&mut rig).await;
    assert!(full.used_bytes < 24 << 20, "{}", full.used_bytes);
    assert!(full.destinations[0].pending > 200, "{:?}", full.destinations[0]);
    let why = &full.full.as_ref().expect("full").why;
    assert!(why.contains("outbox.max_bytes = 16 MiB"), "{why}");
    let ready = rig.run(&["health", "--ready"]).await;
    let words = text(&ready.stdout) + &text(&ready.stderr);
    assert!(!ready.status.success() && words.contains("want of room") && words.contains("VK may forget"), "{words}");
    let stats = text(&rig.run(&["outbox", "stats"]).await.stdout);
    assert!(stats.contains("FULL") && stats.contains("VK may forget what was not taken"), "{stats}");
    // Killed and started again it is as full as before.
    child.kill().await.expect("killed");
    child = rig.spawn();
    rig.until("no room, again", |stats| stats.live && stats.full.is_some()).await;
    rig.handler("messages").up().await.expect("up again");
    rig.until_settled().await;
    // The last of what was delivered may be about to be deleted still.
    let stats = rig.until("there is room again", |stats| stats.full.is_none()).await;
    assert_eq!(stats.gaps, 0, "{stats:?}");
    child.kill().await.expect("killed");
    rig.assert_balanced();
    let log = std::fs::read_to_string(rig.dir.path().join("log")).expect("read");
    assert!(log.contains("polling stops: no room") && log.contains("polling goes on"), "{log}");
}

/// Lets events come until there is no room for more.
async fn fill_up(rig: &mut Rig) -> Stats {
    within("the first poll", rig.vk.until(|vk| !vk.polls().is_empty())).await;
    loop {
        load(rig);
        let head = rig.vk.head().to_string();
        let taken = |stats: &Stats| stats.full.is_some() || stats.checkpoints.iter().any(|one| one.ts == head);
        let stats = rig.until("the events, or no room", taken).await;
        if stats.full.is_some() {
            // More comes than will be taken.
            load(rig);
            return stats;
        }
    }
}

/// Waits until all is delivered. An answer of VK may be larger than what was kept free: then the service ends with 75 and is
/// started again, as whoever supervises it does, and the reserve lets it open and drain.
async fn settled_at_last(rig: &Rig, child: &mut Child) -> Stats {
    let head = rig.vk.head().to_string();
    let settled = async {
        loop {
            if let Some(ended) = child.try_wait().expect("asked") {
                assert_eq!(ended.code(), Some(75), "{}", log_of(rig));
                *child = rig.spawn();
            }
            let output = rig.run(&["outbox", "stats", "--json"]).await;
            let Ok(stats) = serde_json::from_slice::<Stats>(&output.stdout) else { continue };
            let read = stats.checkpoints.iter().any(|one| one.ts == head);
            if stats.live && read && stats.full.is_none() && stats.destinations.iter().all(|view| view.pending == 0) {
                return stats;
            }
        }
    };
    within("everything is delivered", settled).await
}

/// The same at the end of a real volume: now by the limit, now by the system's refusal.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_volume_loses_nothing() {
    let Some(volume) = std::env::var_os("FULL_DISK_DIR").map(PathBuf::from) else {
        eprintln!("skipped: FULL_DISK_DIR names no small volume");
        return;
    };
    let messages = [("messages", "when = [{ event_type = [\"message_new\"] }]")];
    for (round, min_free) in ["8MiB", "0B"].into_iter().enumerate() {
        let dir = volume.join(format!("outbox-{round}"));
        let mut rig = Rig::on(&dir, &messages, CONFIG, &format!("min_free_bytes = {min_free:?}")).await;
        rig.handler("messages").down();
        let mut child = rig.spawn();
        if min_free == "8MiB" {
            let full = fill_up(&mut rig).await;
            assert!(full.full.expect("full").why.contains("min_free_bytes"), "told by its name");
        } else {
            // Nobody stops it in time: the disk refuses, and it ends with a code that says so, as often as it is started.
            within("the first poll", rig.vk.until(|vk| !vk.polls().is_empty())).await;
            let first = async {
                loop {
                    load(&mut rig);
                    let head = rig.vk.head();
                    tokio::select! {
                        ended = child.wait() => return ended.expect("waited for"),
                        () = rig.vk.until(|vk| vk.polls().last() == Some(&head)) => {}
                    }
                }
            };
            let ended = within("the end of the service", first).await;
            assert_eq!(ended.code(), Some(75), "{}", log_of(&rig));
            // Started again it lives on the reserve, with polling stopped; or it is full at once and ends so again.
            child = rig.spawn();
            let waits = async {
                loop {
                    if let Some(ended) = child.try_wait().expect("asked") {
                        return ended.code() == Some(75);
                    }
                    // What was left may fit into the reserve: more comes.
                    if rig.vk.polls().last() == Some(&rig.vk.head()) {
                        load(&mut rig);
                    }
                    let output = rig.run(&["outbox", "stats", "--json"]).await;
                    let stats = serde_json::from_slice::<Stats>(&output.stdout);
                    if stats.is_ok_and(|stats| stats.live && stats.full.is_some()) {
                        return true;
                    }
                }
            };
            assert!(within("a full volume, again", waits).await, "{}", log_of(&rig));
            let told = log_of(&rig);
            assert!(told.contains("nothing acknowledged is lost") && told.contains("No space left"), "{told}");
            // Somebody makes the volume larger.
            let grown = std::process::Command::new("mount").args(["-o", "remount,size=256m"]).arg(&volume).status();
            assert!(grown.is_ok_and(|status| status.success()), "the volume can be made larger");
        }
        rig.handler("messages").up().await.expect("up again");
        let stats = settled_at_last(&rig, &mut child).await;
        assert!(stats.full.is_none() && stats.gaps == 0, "{stats:?}");
        rig.assert_balanced();
        child.kill().await.expect("killed");
        let verified = rig.run(&["outbox", "verify"]).await;
        assert_eq!(verified.status.code(), Some(0), "{}", text(&verified.stdout));
        std::fs::remove_dir_all(&dir).expect("removed");
        let _emptied = tokio::time::timeout(Duration::from_millis(50), std::future::pending::<()>()).await;
    }
}

fn log_of(rig: &Rig) -> String {
    std::fs::read_to_string(rig.dir.path().join("log")).unwrap_or_default()
}
