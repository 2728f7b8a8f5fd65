//! Quarantine from end to end: an update that could not be read is listed, shown raw, exported, converted again when it can be
//! read, live and offline, or discarded.

use event_router::outbox::operator::Discarded;
use event_router::outbox::records::QuarantineRecord;
use event_router::outbox::views::{Row, Shown};
use serde_json::json;

use crate::rig::{Rig, within};
use crate::store_rig::{NOW, append, names, settings};

/// An outbox in which an earlier version put into quarantine what the present one can read, and what nobody can.
async fn rig() -> Rig {
    let rig = Rig::new(&[("messages", "when = [{ event_type = [\"message_new\"] }]")], "").await;
    let clock = event_router::clock::Clock::standing(NOW);
    let patience = std::time::Duration::from_secs(5);
    let outbox = event_router::outbox::Outbox::open(settings(&rig.data()), names(), "test", patience, clock);
    let outbox = outbox.await.expect("opened");
    let mut first = append(5, Vec::new());
    let group = rig.vk.group_id();
    for (number, text) in [(1, "one"), (2, "two")] {
        let message =
            json!({ "from_id": 100, "peer_id": 7, "text": text, "date": 1, "conversation_message_id": number });
        let update = json!({ "type": "message_new", "object": { "message": message }, "group_id": group });
        first.quarantined.push(record(group, &format!("made-{number}"), update.to_string().as_bytes()));
    }
    first.quarantined.push(record(group, "made-3", b"{\"type\":\"message_new\",\n \"object\":7}"));
    outbox.append(first).await.expect("committed");
    outbox.close().await;
    rig
}

fn record(group: i64, id: &str, raw: &[u8]) -> QuarantineRecord {
    let reason = "an earlier version could not read it".to_owned();
    QuarantineRecord { group, at: NOW, reason, event_id: id.to_owned(), raw: raw.to_vec() }
}

fn lines(output: &std::process::Output) -> Vec<String> {
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_be_read_now_is_converted_and_delivered_and_the_rest_is_discarded() {
    let rig = rig().await;
    let listed: Vec<Row> = rig.json(&["outbox", "list", "--state", "quarantined"]).await;
    assert_eq!(listed.iter().map(|row| row.quarantine).collect::<Vec<_>>(), [Some(1), Some(2), Some(3)]);
    let shown: Shown = rig.json(&["outbox", "show", "q3"]).await;
    assert!(shown.raw.is_some_and(|raw| raw.contains("\"object\":7")));
    let raw = rig.run(&["outbox", "export", "--state", "quarantined"]).await;
    assert_eq!(lines(&raw).len(), 3, "one line each: {:?}", lines(&raw));
    // Stopped, it is only written down.
    let planned = rig.run(&["outbox", "replay", "q1", "--yes"]).await;
    assert!(planned.status.success() && lines(&planned)[0].contains("at the next start"), "{planned:?}");
    let running = rig.start().await;
    within("the first one", rig.handler("messages").until(|all| !all.is_empty())).await;
    let body: serde_json::Value = serde_json::from_slice(&rig.handler("messages").received()[0].body).expect("JSON");
    assert_eq!((&body["text"], &body["event_id"], &body["cmid"]), (&json!("one"), &json!("made-1"), &json!(1)));
    // Running, it happens at once.
    let unclear = rig.run(&["outbox", "replay", "--state", "quarantined"]).await;
    assert_eq!(unclear.status.code(), Some(2), "without --yes and a terminal nothing happens");
    let made = rig.run(&["outbox", "replay", "--state", "quarantined", "--yes"]).await;
    assert!(
        made.status.success() && lines(&made)[0].contains("2 updates in quarantine to be converted again"),
        "{made:?}"
    );
    within("the second one", rig.handler("messages").until(|all| all.len() == 2)).await;
    rig.until("the replay is done", |stats| {
        let delivered: u64 = stats.destinations.iter().map(|view| view.delivered).sum();
        stats.replays.is_empty() && stats.quarantined == 1 && delivered == 2
    })
    .await;
    let left: Vec<Row> = rig.json(&["outbox", "list", "--state", "quarantined"]).await;
    assert!(left[0].reason.as_ref().is_some_and(|reason| !reason.contains("earlier version")), "{left:?}");
    // What nobody can read is discarded, and not twice.
    let done: Discarded = rig.json(&["outbox", "discard", "q3", "--yes"]).await;
    assert_eq!((done.matched, done.done), (1, true));
    let again: Discarded = rig.json(&["outbox", "discard", "--state", "quarantined", "--yes"]).await;
    assert_eq!(again.matched, 0);
    let verified = rig.run(&["outbox", "verify"]).await;
    assert!(verified.status.success(), "{verified:?}");
    let all = rig.run(&["outbox", "export"]).await;
    assert_eq!(lines(&all).iter().filter(|line| line.contains("\"made-")).count(), 2, "{:?}", lines(&all));
    running.stop().await;
    let offline = rig.run(&["outbox", "export", "--type", "message_new"]).await;
    assert_eq!(lines(&offline).len(), 2);
}
