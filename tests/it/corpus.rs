//! Real updates through the whole service: from a simulated VK over the outbox to a handler. Where `VK_CORPUS` names a
//! folder of real updates, those; else the project's own. Deliberately absent: faults on the way (`polling_faults`,
//! `delivery_faults`), what an update becomes (`convert`, `types`).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use event_router::domain::event::Event;
use event_router::domain::ids::Lane;
use serde_json::Value;

use crate::convert::{body, convert_asked, corpus, fixtures};
use crate::rig::Rig;

/// The first ts of the simulated VK.
const FIRST_TS: u64 = 1000;

/// The project's own updates.
fn own() -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(fixtures()).expect("read").map(|entry| entry.expect("an entry").path()).collect();
    names.sort();
    let text = |path| fs::read_to_string(path).expect("read");
    let mut all: Vec<String> = names
        .into_iter()
        .filter(|path| !path.ends_with("types.json") && !path.to_string_lossy().ends_with(".event.json"))
        .map(|path| text(path).trim().to_owned())
        .collect();
    let types: Vec<Value> = serde_json::from_str(&text(fixtures().join("types.json"))).expect("JSON");
    all.extend(types.iter().map(|one| one["update"].to_string()));
    all
}

/// The same updates, but for ids of events that stand in several: whoever published those has blanked them, and VK's are
/// never the same. Each becomes one of its own; the rest of the text stays.
fn with_ids_of_their_own(updates: Vec<String>) -> Vec<String> {
    let id = |update: &str| -> Option<String> {
        serde_json::from_str::<Value>(update).expect("JSON")["event_id"].as_str().map(str::to_owned)
    };
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    updates.iter().filter_map(|update| id(update)).for_each(|id| *counts.entry(id).or_default() += 1);
    let one = |(number, update): (usize, String)| match id(&update) {
        Some(id) if counts[&id] > 1 => ["", " "].into_iter().fold(update, |update, space| {
            let field = |id: &str| format!("\"event_id\":{space}\"{id}\"");
            update.replace(&field(&id), &field(&format!("{id}-{number}")))
        }),
        _ => update,
    };
    updates.into_iter().enumerate().map(one).collect()
}

/// What conversion alone makes of the updates of the answers that these polls brought: each knows the ts that was asked with.
fn converted_alone(polls: &BTreeSet<u64>, updates: &[String]) -> Vec<Event> {
    let end = FIRST_TS + updates.len() as u64;
    let mut events = Vec::new();
    let bounds: Vec<u64> = polls.iter().copied().chain([end]).collect();
    for answer in bounds.windows(2) {
        let place = |ts: u64| usize::try_from(ts - FIRST_TS).expect("a place");
        let raw: Vec<&str> = updates[place(answer[0])..place(answer[1])].iter().map(String::as_str).collect();
        let read = convert_asked(&answer[0].to_string(), &raw, false);
        events.extend(read.into_iter().map(|event| event.unwrap_or_else(|bad| panic!("{}: {}", bad.reason, bad.raw))));
    }
    events
}

/// What of an event does not depend on when it was converted and on whose names were known.
fn without_moment_and_names(body: &str) -> (Value, String) {
    let mut head: Value = serde_json::from_str(body).expect("JSON");
    for key in ["ts", "datetime", "user_name", "user_nick", "peer_name"] {
        head[key].take();
    }
    // All that stands behind the names, byte for byte.
    let (_, rest) = body.split_once(r#","chat_id":"#).expect("a key of every event");
    (head, rest.to_owned())
}

fn lanes(events: impl Iterator<Item = (Lane, String)>) -> BTreeMap<Lane, Vec<String>> {
    let mut lanes: BTreeMap<Lane, Vec<String>> = BTreeMap::new();
    events.for_each(|(lane, id)| lanes.entry(lane).or_default().push(id));
    lanes
}

#[tokio::test(flavor = "multi_thread")]
async fn every_real_update_comes_out_once_in_order_per_chat_and_as_conversion_alone_has_it() {
    let real = corpus();
    let updates = with_ids_of_their_own(if real.is_empty() { own() } else { real });
    let rig = Rig::new(&[("all", "")], "").await;
    // A new community starts at VK's newest ts; what comes then waits, and is read in answers as full as they get.
    rig.start().await.stop().await;
    for update in &updates {
        rig.vk.push(update.clone());
    }
    let service = rig.start().await;
    let stats = rig.until_settled().await;
    service.stop().await;

    let polls = rig.vk.polls().into_iter().filter(|ts| *ts < rig.vk.head()).collect();
    let expected = converted_alone(&polls, &updates);
    assert_eq!(expected.len(), updates.len());
    let known: BTreeMap<String, &Event> = expected.iter().map(|event| (event.event_id.to_string(), event)).collect();
    assert_eq!(known.len(), updates.len(), "every id is one of its own, those that were made too");

    let received = rig.handler("all").received();
    assert!(received.iter().all(|one| one.status == 200));
    let event = |id: &str| *known.get(id).unwrap_or_else(|| panic!("nobody sent {id}"));
    for one in &received {
        let text = std::str::from_utf8(&one.body).expect("UTF-8");
        assert_eq!(without_moment_and_names(text), without_moment_and_names(&body(event(&one.event_id))));
    }
    let taken = received.iter().map(|one| (event(&one.event_id).lane(), one.event_id.clone()));
    let sent = expected.iter().map(|event| (event.lane(), event.event_id.to_string()));
    assert_eq!(lanes(taken), lanes(sent), "each once, in VK's order per chat");

    assert_eq!((stats.quarantined, stats.gaps, stats.repeats, stats.unrouted), (0, 0, 0, 0));
    assert_eq!(stats.log_next, updates.len() as u64 + 1);
    eprintln!("corpus: {} of {}", received.len(), updates.len());
}
