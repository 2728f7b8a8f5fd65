//! No secret reaches the log, whatever goes wrong and however much is logged.

use event_router::sim::vk_server::Fault;

use crate::rig::{Rig, within};

const SIGNING: &str = "whsec_aGlkZGVuIGtleSBvZiB0aGUgc2lnbmF0dXJlcw==";

#[tokio::test(flavor = "multi_thread")]
async fn a_log_at_trace_level_of_a_bad_night_holds_no_secret() {
    let rest = "[log]\nlevel = \"trace\"\n[delivery]\ninitial_interval = \"20ms\"\nmax_interval = \"100ms\"";
    let table = format!("headers = {{ authorization = \"Bearer hidden-header\" }}\nsecret = \"{SIGNING}\"");
    let mut rig = Rig::new(&[("all", table.as_str())], rest).await;
    for fault in [Fault::ApiError(29), Fault::Garbage] {
        rig.vk.inject_call("users.get", fault);
    }
    // Each sends the token back with what was asked.
    rig.vk.inject_call("groups.getLongPollSettings", Fault::ApiError(14));
    rig.vk.inject_call("messages.getConversationsById", Fault::ApiError(15));
    let mut child = rig.spawn();
    within("the first poll", rig.vk.until(|vk| !vk.polls().is_empty())).await;
    rig.handler("all").down();
    for fault in [Fault::Failed2, Fault::Html502, Fault::Cut, Fault::Garbage, Fault::NoTs, Fault::Failed3] {
        rig.vk.inject(fault);
        // An answer that can be used between two faults keeps the waits short.
        rig.message(1, "words-of-a-person", &["all"]);
        within("polling goes on", rig.vk.until(|vk| vk.polls().last() == Some(&vk.head()))).await;
    }
    rig.message(1, "words-of-a-person", &["all"]);
    rig.until("an outage is in the log", |stats| stats.destinations[0].waiting_chats > 0).await;
    rig.handler("all").up().await.expect("up");
    rig.until("all is delivered", |stats| stats.destinations[0].pending == 0).await;
    child.kill().await.expect("killed");
    let log = std::fs::read_to_string(rig.dir.path().join("log")).expect("read");
    assert!(log.contains("attempt failed") && log.contains("502"), "the night was logged: {log}");
    for secret in [
        "a-secret-token",
        "hidden-header",
        &SIGNING[6..],
        "hidden key of",
        "key-1",
        "key-2",
        "key-3",
        "words-of-a-person",
    ] {
        assert!(!log.contains(secret), "{secret} shows: {log}");
    }
}
