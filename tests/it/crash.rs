//! SIGKILL of the real binary, again and again: in traffic, outages, retention and shutdown; while it opens the outbox; while
//! it copies the outbox into a new generation. Nothing is lost, order holds, repeats are the same. `CRASH_SEED` repeats a run,
//! `CRASH_KILLS` makes it longer.

use std::fs;
use std::path::Path;
use std::time::Duration;

use event_router::domain::event::Source;
use event_router::outbox::verify::verify;
use event_router::outbox::{Change, Outbox, Place, Store, inspect};
use event_router::sim::script::Script;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::task::yield_now;

use crate::rig::{Rig, within};
use crate::store_rig::{append, copy, event, fill, look_on, names, pending, settings, settlement};

/// How many kills, where `default` are enough.
fn kills(default: u64) -> u64 {
    std::env::var("CRASH_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(default)
}

fn seed() -> u64 {
    let seed = std::env::var("CRASH_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or_else(|| u64::from(std::process::id()));
    eprintln!("repeat with CRASH_SEED={seed}");
    seed
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_in_traffic_outages_retention_and_shutdown_lose_nothing_and_keep_order() {
    let seed = seed();
    let mut random = StdRng::seed_from_u64(seed);
    let by_type = [
        ("commands", "when = [{ event_type = [\"command_call\"] }]"),
        ("messages", "when = [{ event_type = [\"message_new\"] }]"),
        ("buttons", "when = [{ event_type = [\"button_pressed\"] }]"),
    ];
    let kills = kills(24);
    let mut rig = Rig::with_outbox(
        &by_type,
        "[delivery]\ninitial_interval = \"50ms\"\nmax_interval = \"200ms\"",
        "retention = \"0s\"",
    )
    .await;
    let mut script = Script::new(seed, rig.vk.group_id(), 12);
    let mut malformed = 0;
    let mut child = rig.spawn();
    within("the first poll", rig.vk.until(|vk| !vk.polls().is_empty())).await;
    for kill in 0..kills {
        for _ in 0..random.random_range(20..150) {
            let invented = script.invent();
            rig.vk.push(invented.update);
            match invented.served {
                Some(served) => rig.served.push(served),
                None => malformed += 1,
            }
        }
        // Now in the middle of deliveries, now of a commit, now of the start.
        let goal = rig.handler("messages").received().len() + random.random_range(0..40);
        let started = rig.vk.polls().len() + random.random_range(0..2);
        match random.random_range(0..4) {
            0 => rig.handler("messages").down(),
            1 if !rig.handler("messages").is_up() => rig.handler("messages").up().await.expect("up again"),
            _ => {}
        }
        if kill % 3 > 0 && rig.handler("messages").is_up() {
            let messages = rig.handler("messages").clone();
            let vk = rig.vk.clone();
            let reached = messages.until(|all| all.len() >= goal || vk.polls().last() == Some(&vk.head()));
            within("some deliveries", reached).await;
        } else {
            within("a poll", rig.vk.until(|vk| vk.polls().len() >= started)).await;
        }
        if kill % 4 == 3 {
            // It dies while it stops.
            terminate(&child);
            let moment = Duration::from_millis(random.random_range(0..60));
            let _still_there = tokio::time::timeout(moment, child.wait()).await;
        }
        child.kill().await.expect("killed");
        child = rig.spawn();
    }
    if !rig.handler("messages").is_up() {
        rig.handler("messages").up().await.expect("up again");
    }
    let stats = rig.until_settled().await;
    child.kill().await.expect("killed");
    assert_eq!((stats.quarantined, stats.gaps), (malformed, 0));
    let balance = rig.assert_balanced();
    eprintln!("{kills} kills: {balance}");
    // The store opens for the verbs as well, and holds the same.
    let offline = rig.stats().await;
    assert!(!offline.live && offline.destinations.iter().all(|view| view.pending == 0 || view.pending <= 1000));
}

fn terminate(child: &tokio::process::Child) {
    let id = child.id().and_then(|id| rustix::process::Pid::from_raw(id.cast_signed())).expect("a process");
    rustix::process::kill_process(id, rustix::process::Signal::TERM).expect("sent");
}

fn pending_of(dir: &Path) -> Vec<(String, u64, u64)> {
    let store = Store::open_existing(dir, "test", Duration::from_secs(5)).expect("it opens");
    let told = verify(store.kv.as_ref(), &mut |_, _| {}).expect("read");
    assert!(told.sound, "{:?}", told.findings);
    let stats = inspect::stats(store.kv.as_ref(), "", &[], crate::store_rig::NOW).expect("stats");
    stats.destinations.into_iter().map(|view| (view.name, view.pending, view.dead)).collect()
}

/// The configuration of a service whose handlers are away: what waits, waits.
async fn away() -> Rig {
    let names = ["buttons", "commands", "messages"].map(|name| (name, "when = [{ event_type = [\"message_new\"] }]"));
    let rig = Rig::with_outbox(&names, "[delivery]\ninitial_interval = \"60s\"", "retention = \"0s\"").await;
    rig.handlers.values().for_each(event_router::sim::handler::Handler::down);
    rig
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_while_the_outbox_is_opened_leave_it_as_it_was() {
    let mut random = StdRng::seed_from_u64(seed());
    let rig = away().await;
    fill(&rig.data(), 40).await;
    let before = pending_of(&rig.data());
    for kill in 0..kills(150) {
        let mut child = rig.spawn();
        let moment = Duration::from_micros(random.random_range(0..60_000));
        let early = tokio::time::timeout(moment, child.wait()).await;
        assert!(early.is_err(), "kill {kill}: it ended by itself: {}", log_of(&rig));
        child.kill().await.expect("killed");
        if kill % 25 == 0 {
            assert_eq!(pending_of(&rig.data()), before, "kill {kill}");
        }
    }
    assert_eq!(pending_of(&rig.data()), before);
}

fn log_of(rig: &Rig) -> String {
    fs::read_to_string(rig.dir.path().join("log")).unwrap_or_default()
}

/// An outbox of over 64 MiB of which most was delivered: the next start copies it.
async fn drained(dir: &Path) {
    let mut settings = settings(dir);
    settings.retention = Duration::ZERO;
    let clock = event_router::clock::Clock::system();
    let outbox = Outbox::open(settings, names(), "test", Duration::from_secs(5), clock).await.expect("opened");
    let mut number = 0;
    for ts in 1..=60 {
        let batch = (0..50).map(|_| {
            number += 1;
            (event(number, 5, 16_000), Source::Live, vec![0])
        });
        outbox.append(append(ts, batch.collect())).await.expect("committed");
    }
    let (id, mut cursor, events) = pending(&outbox, "buttons").await;
    let last = events.len() - 300;
    let changes = events.into_iter().take(last).map(|queued| {
        cursor.settle(queued.seq);
        Change::Delivered { seq: queued.seq, from: Place::Log, tried: false }
    });
    let changes = changes.collect();
    outbox.settle_durably(settlement(id, &cursor, changes)).await.expect("settled");
    look_on(&outbox, &["commands", "messages"]).await;
    let log_from = async || {
        outbox.read_store(|kv| inspect::stats(kv, "", &[], crate::store_rig::NOW)).await.expect("stats").log_from
    };
    within("the log to be deleted", async { while log_from().await < 2600 {} }).await;
    outbox.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_while_a_new_generation_is_made_leave_everything_there() {
    let mut random = StdRng::seed_from_u64(seed());
    let rig = away().await;
    let model = rig.dir.path().join("model");
    drained(&model).await;
    // What the service does at its start, until the store is copied: deleting, and copying.
    let (mut copied, mut half) = (0, 0);
    // Each costs a second: an eighth of them.
    let kills = kills(128).div_ceil(8);
    for kill in 0..kills {
        if rig.data().exists() {
            fs::remove_dir_all(rig.data()).expect("removed");
        }
        copy(&model, &rig.data());
        let mut child = rig.spawn();
        let there = |number: u32| rig.data().join(format!("generation-{number:06}")).exists();
        if kill % 4 > 0 {
            let begun = async {
                while !there(2) {
                    yield_now().await;
                }
            };
            within("a copy", begun).await;
        }
        let moment = Duration::from_millis(random.random_range(0..600));
        let early = tokio::time::timeout(moment, child.wait()).await;
        assert!(early.is_err(), "kill {kill}: it ended by itself: {}", log_of(&rig));
        child.kill().await.expect("killed");
        copied += u64::from(!there(1));
        half += u64::from(there(1) && there(2));
        let now = pending_of(&rig.data());
        assert_eq!(now[0], ("buttons".to_owned(), 300, 0), "kill {kill}");
    }
    assert!(half + copied > 0, "no kill came near a copy");
    eprintln!("{kills} kills: {half} with two generations there, {copied} after the old one was gone");
}
