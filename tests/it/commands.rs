//! What every verb of `outbox` says, word for word, on an outbox with every state in it: `tests/snapshots/`, to be read in
//! review. The same outbox says the same live and offline, but for what only a running service knows.

use std::path::Path;
use std::process::Output;

use event_router::outbox::views::{DestinationState, Stats};
use insta::{assert_snapshot, with_settings};
use regex::Regex;
use serde_json::Value;

use crate::every_state::{make, rig};
use crate::rig::{Rig, view, within};

/// Verbs that only look.
pub(crate) const LOOKS: [&[&str]; 24] = [
    &["stats"],
    &["list"],
    &["list", "--group"],
    &["list", "--state", "pending"],
    &["list", "--state", "delivered"],
    &["list", "--state", "dead"],
    &["list", "--state", "expired"],
    &["list", "--state", "discarded"],
    &["list", "--state", "quarantined"],
    &["list", "--state", "quarantined", "--group"],
    &["list", "--limit", "2", "--destination", "messages"],
    &["show", "1"],
    &["show", "3"],
    &["show", "4"],
    &["show", "5"],
    &["show", "6"],
    &["show", "8"],
    &["show", "11"],
    &["show", "12"],
    &["show", "q1"],
    &["replays"],
    &["gaps"],
    &["audit"],
    &["verify"],
];

/// Those that look otherwise while the service runs.
const LOOKS_LIVE: [&[&str]; 7] = [
    &["stats"],
    &["list", "--state", "pending"],
    &["show", "8"],
    &["show", "11"],
    &["show", "12"],
    &["replays"],
    &["verify"],
];

/// Verbs that change something, in this order.
pub(crate) const CHANGES: [&[&str]; 16] = [
    &["replay", "--destination", "mods", "--dry-run"],
    &["replay", "--destination", "mods"],
    &["replay", "--destination", "mods", "--rate", "5", "--yes", "--reason", "mended"],
    &["replay", "--state", "expired", "--dry-run"],
    &["replay", "1", "--yes"],
    &["cancel", "5", "--reason", "not yet"],
    &["cancel", "5"],
    &["cancel", "77"],
    &["discard", "3"],
    &["discard", "3", "--yes"],
    &["discard", "q1", "--yes"],
    &["discard", "--state", "pending", "--destination", "old", "--yes"],
    &["discard", "--state", "pending", "--destination", "mods", "--yes"],
    &["pause", "buttons", "--reason", "a look"],
    &["resume", "buttons"],
    &["pause", "nobody"],
];

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("text")
}

/// What differs from run to run in other words: where it lies, moments, sizes.
fn steady(text: &str, rig: &Rig) -> String {
    let rules = [
        (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", "MOMENT"),
        (r"\d+(\.\d+)? [KMGT]?i?B\b", "SIZE"),
        (r"1day 2h 30m( \d+s)?", "1d 2h"),
        (r"in \d+ records?:", "in N records:"),
        (r"127\.0\.0\.1:\d+", "ADDRESS"),
    ];
    let mut text = text.replace(&rig.data().display().to_string(), "DATA");
    for (pattern, word) in rules {
        text = Regex::new(pattern).expect("a pattern").replace_all(&text, word).into_owned();
    }
    text
}

/// What the moment makes of it: what was tried just now, and waits.
fn timeless(text: &str) -> String {
    let rules = [
        (r"for \d+s:", "for MOMENTS:"),
        (r"committed [^\n]+ ago", "committed LATELY"),
        (r"\b\d+s ago", "JUST NOW"),
        (r"in 5\dm( \d+s)?|in 1h$", "in ALMOST AN HOUR"),
        (r"in \d\d?m( \d+s)?", "SOON"),
    ];
    rules.iter().fold(text.to_owned(), |text, (pattern, word)| {
        Regex::new(pattern).expect("a pattern").replace_all(&text, *word).into_owned()
    })
}

/// A command as it would stand on a terminal's screen.
fn screen(words: &[&str], output: &Output) -> String {
    let code = output.status.code().unwrap_or(-1);
    let code = if code == 0 { String::new() } else { format!("exit {code}\n") };
    format!("$ event-router outbox {}\n{}{}{code}\n", words.join(" "), text(&output.stderr), text(&output.stdout))
}

async fn outbox(rig: &Rig, words: &[&str]) -> Output {
    rig.run(&[&["outbox"], words].concat()).await
}

async fn screens(rig: &Rig, all: &[&[&str]]) -> String {
    let mut screens = String::new();
    for words in all {
        let output = outbox(rig, words).await;
        assert!(!output.stdout.contains(&0x1b), "{words:?}: a pipe is no terminal");
        screens += &steady(&screen(words, &output), rig);
    }
    screens
}

fn kept(name: &str, text: &str) {
    with_settings!({ snapshot_path => "../snapshots", prepend_module_to_snapshot => false, omit_expression => true }, {
        assert_snapshot!(name, text);
    });
}

pub(crate) async fn every_state(dir: &Path) -> Rig {
    let data = dir.join("outbox");
    let rig = rig(&data).await;
    make(&data, &rig).await;
    rig
}

/// Whether the service has tried what it tries on this outbox, and stands as it will stand.
fn at_rest(stats: &Stats) -> bool {
    stats.live
        && view(stats, "messages").state == DestinationState::Down
        && view(stats, "messages").next_try.is_some()
        && view(stats, "commands").waiting_chats == 1
        && stats.polling.as_ref().is_some_and(|polling| polling.heard.is_some())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_verb_says_offline_what_is_there_and_what_to_do() {
    let dir = tempfile::tempdir().expect("a directory");
    let rig = every_state(dir.path()).await;
    kept("offline", &screens(&rig, &LOOKS).await);
    let export = ["export", "--state", "dead"];
    let salvaged = dir.path().join("salvaged");
    let salvage = ["salvage", "--into", salvaged.to_str().expect("text")];
    let mut others = screens(&rig, &[&export, &["tail"], &["show", "99"]]).await;
    others += &screens(&rig, &[&salvage]).await.replace(&salvaged.display().to_string(), "SALVAGED");
    kept("offline_changes", &(others + &screens(&rig, &CHANGES).await));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_verb_says_live_the_same_and_what_only_the_service_knows() {
    let dir = tempfile::tempdir().expect("a directory");
    let rig = every_state(dir.path()).await;
    let mut offline = Vec::new();
    for words in LOOKS {
        offline.push(durable(words, rig.json::<Value>(&[&["outbox"], words].concat()).await));
    }
    let service = rig.start().await;
    rig.until("the service is where it stays", at_rest).await;
    within("the handler that is away was asked", async {
        while rig.json::<Value>(&["outbox", "show", "10"]).await["deliveries"][0]["attempts"] != 1 {}
    })
    .await;
    for (words, offline) in LOOKS.iter().zip(offline) {
        assert_eq!(durable(words, rig.json::<Value>(&[&["outbox"], *words].concat()).await), offline, "{words:?}");
    }
    kept("live", &timeless(&screens(&rig, &LOOKS_LIVE).await));
    kept("live_changes", &timeless(&screens(&rig, &CHANGES).await));
    // VK is heard, whether all that took as long as an idle poll or not: what is told below counts from then.
    let ts = rig.vk.push("{\"type\":\"like_add\",\"object\":{}}".to_owned()).to_string();
    rig.until("it is taken", |stats| stats.checkpoints.iter().any(|checkpoint| checkpoint.ts == ts)).await;
    service.stop().await;
    // No room: polling waits.
    let config = std::fs::read_to_string(rig.config()).expect("read");
    let full = config.replace("retention = ", "min_free_bytes = \"900TiB\"\nretention = ");
    std::fs::write(rig.config(), full).expect("written");
    let service = rig.start_unseen();
    rig.until("it is full", |stats| stats.full.is_some()).await;
    let told = screens(&rig, &[&["stats"]]).await;
    let lines: Vec<&str> = told.lines().filter(|line| line.contains("FULL") || line.contains("polling")).collect();
    assert_snapshot!(timeless(&lines.join("\n")), @r"
    disk        FULL: SIZE in use of at most SIZE, files SIZE, room for SIZE more
    polling     IN TROUBLE, VK not heard since the start
    disk        FULL for MOMENTS: the volume has room for SIZE more, outbox.min_free_bytes is SIZE: free some space on it; VK may forget what was not taken in ALMOST AN HOUR
                → polling goes on by itself as soon as there is room; delivery goes on meanwhile
    ");
    service.stop().await;
}

/// What only a running service knows, or only a moment, taken out.
fn durable(words: &[&str], mut value: Value) -> Value {
    let moment: &[&str] = match words[0] {
        "stats" => &[
            "at",
            "live",
            "polling",
            "max_bytes",
            "full",
            "disk_bytes",
            "live_bytes",
            "used_bytes",
            "room_bytes",
            "committed",
            "state",
            "why",
            "in_flight",
            "waiting_chats",
            "next_try",
            "last_error",
            "last_error_at",
        ],
        "verify" => &["recounted", "records", "bytes"],
        _ => &["why"],
    };
    fn without(value: &mut Value, names: &[&str]) {
        match value {
            Value::Array(values) => values.iter_mut().for_each(|value| without(value, names)),
            Value::Object(object) => {
                object.retain(|name, _| !names.contains(&name.as_str()));
                // The one handler that is away was asked meanwhile.
                if object.get("destination").is_some_and(|name| name == "messages")
                    && object.get("state").is_some_and(|state| state == "pending")
                {
                    object.retain(|name, _| !["attempts", "next_try", "history"].contains(&name.as_str()));
                }
                object.values_mut().for_each(|value| without(value, names));
            }
            _ => {}
        }
    }
    without(&mut value, moment);
    value
}
