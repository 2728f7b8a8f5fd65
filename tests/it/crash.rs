//! SIGKILL of the real binary, again and again, in traffic: nothing is lost, order holds, repeats are the same.

use event_router::sim::script::Script;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::rig::{Rig, within};

const KILLS: u64 = 20;

fn seed() -> u64 {
    let seed = std::env::var("CRASH_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or_else(|| u64::from(std::process::id()));
    eprintln!("repeat with CRASH_SEED={seed}");
    seed
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_kills_in_traffic_lose_nothing_and_keep_order() {
    let seed = seed();
    let mut random = StdRng::seed_from_u64(seed);
    let by_type = [
        ("commands", "when = [{ event_type = [\"command_call\"] }]"),
        ("messages", "when = [{ event_type = [\"message_new\"] }]"),
        ("buttons", "when = [{ event_type = [\"button_pressed\"] }]"),
    ];
    let mut rig = Rig::new(&by_type, "[delivery]\ninitial_interval = \"50ms\"\nmax_interval = \"200ms\"").await;
    let mut script = Script::new(seed, rig.vk.group_id(), 12);
    let mut malformed = 0;
    let mut child = rig.spawn();
    within("the first poll", rig.vk.until(|vk| !vk.polls().is_empty())).await;
    for kill in 0..KILLS {
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
        if kill % 3 > 0 {
            let messages = rig.handler("messages").clone();
            let vk = rig.vk.clone();
            let reached = messages.until(|all| all.len() >= goal || vk.polls().last() == Some(&vk.head()));
            within("some deliveries", reached).await;
        } else {
            within("a poll", rig.vk.until(|vk| vk.polls().len() >= started)).await;
        }
        child.kill().await.expect("killed");
        child = rig.spawn();
    }
    let stats = rig.until_settled().await;
    child.kill().await.expect("killed");
    assert_eq!((stats.quarantined, stats.gaps), (malformed, 0));
    let balance = rig.assert_balanced();
    eprintln!("{KILLS} kills: {balance}");
    // The store opens for the verbs as well, and holds the same.
    let offline = rig.stats().await;
    assert!(!offline.live && offline.destinations.iter().all(|view| view.pending == 0 || view.pending <= 1000));
}
