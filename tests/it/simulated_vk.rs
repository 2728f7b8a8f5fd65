//! The simulated VK and the service as two that have never met: over https, on a night of everything, with keys that wear out,
//! a history that is short, and every shape of event; and the document that tells authors of bots about it.

use std::fs;
use std::process::Stdio;

use event_router::sim::vk_plan::{CALL_FAULTS, LIMITS, NIGHT_WORD, POLL_FAULTS, TARGETS, plan};
use event_router::sim::vk_server::Settings;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::rig::{Rig, within};

const SESSION: &str = "groups.getLongPollServer";

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_a_ca_that_is_not_named_is_refused_and_nothing_is_lost() {
    let mut rig = Rig::against(Settings { tls: true, ..Settings::default() }, &[("all", "")]).await;
    let named = fs::read_to_string(rig.config()).expect("read");
    let service = rig.start().await;
    rig.message(1, "over https", &["all"]);
    let before = rig.until_settled().await;
    assert!(rig.vk.url().starts_with("https://"));
    service.stop().await;

    // Not named: the reason and the remedy are told, and the ts stays where it is.
    let unnamed: Vec<_> = named.lines().filter(|line| !line.starts_with("ca_file")).collect();
    fs::write(rig.config(), unnamed.join("\n")).expect("written");
    let polls = rig.vk.polls().len();
    rig.message(1, "meanwhile", &["all"]);
    let service = rig.start_unseen();
    let told = |stats: &event_router::outbox::views::Stats| {
        stats.polling.as_ref().and_then(|polling| polling.problem.clone()).unwrap_or_default()
    };
    let stats = rig.until("the certificate is told", |stats| told(stats).contains("certificate")).await;
    assert!(told(&stats).contains("name its CA in vk.ca_file"), "{}", told(&stats));
    assert_eq!(stats.checkpoints[0].ts, before.checkpoints[0].ts);
    let online = rig.run(&["check", "--online"]).await;
    let words = String::from_utf8_lossy(&online.stderr).into_owned();
    assert!(online.status.code() == Some(75) && words.contains("certificate"), "{words}");
    service.stop().await;
    assert_eq!(rig.vk.polls().len(), polls, "nobody polled");

    fs::write(rig.config(), &named).expect("written");
    let online = rig.run(&["check", "--online"]).await;
    assert!(online.status.success(), "{}", String::from_utf8_lossy(&online.stderr));
    let service = rig.start().await;
    rig.until_settled().await;
    assert_eq!((rig.assert_balanced().repeats, rig.gaps().await.len()), (0, 0));
    service.stop().await;

    fs::remove_file(rig.dir.path().join("ca.pem")).expect("removed");
    let output = rig.run(&["run"]).await;
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(78) && words.contains("vk.ca_file: found no such file"), "{words}");
}

/// Everything that goes wrong at night and loses nothing: the books balance, and nothing came twice.
#[tokio::test(flavor = "multi_thread")]
async fn a_night_of_everything_loses_and_repeats_nothing() {
    for seed in [3, 4] {
        let mut settings = Settings { seed, ..Settings::default() };
        plan(NIGHT_WORD, &mut settings).expect("a night");
        let mut rig = Rig::against(settings, &[("all", "")]).await;
        let service = rig.start().await;
        for round in 0..30 {
            let polls = rig.vk.polls().len();
            for n in 0..3 {
                rig.message(2_000_000_001 + (round + n) % 4, "in the night", &["all"]);
            }
            within("the next poll", rig.vk.until(|vk| vk.polls().len() > polls)).await;
        }
        rig.until_settled().await;
        assert_eq!((rig.assert_balanced().repeats, rig.gaps().await.len()), (0, 0), "seed {seed}");
        assert!(rig.vk.calls(SESSION) > 1, "the seed {seed} brings no night");
        service.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_live_for_two_polls_lose_nothing() {
    let mut rig = Rig::against(Settings { key_polls: Some(2), ..Settings::default() }, &[("all", "")]).await;
    let service = rig.start().await;
    for n in 0..12 {
        let polls = rig.vk.polls().len();
        rig.message(n, "x", &["all"]);
        within("the next poll", rig.vk.until(|vk| vk.polls().len() > polls)).await;
    }
    rig.until_settled().await;
    assert_eq!((rig.assert_balanced().repeats, rig.gaps().await.len()), (0, 0));
    assert!(rig.vk.calls(SESSION) >= 4, "{}", rig.vk.calls(SESSION));
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_history_that_is_too_short_is_a_gap_to_where_it_begins() {
    let mut rig = Rig::against(Settings { window: 3, ..Settings::default() }, &[("all", "")]).await;
    let service = rig.start().await;
    rig.message(1, "read", &["all"]);
    rig.until_settled().await;
    service.stop().await;
    for _ in 0..5 {
        rig.message(1, "out of the window, or in it", &["all"]);
    }
    // The second and the third are out of it.
    rig.served.drain(1..3);
    let service = rig.start().await;
    rig.until_settled().await;
    rig.assert_balanced();
    let gaps = rig.gaps().await;
    let told: Vec<_> = gaps.iter().map(|gap| (gap.from_ts.as_str(), gap.to_ts.as_str(), gap.distance)).collect();
    assert_eq!(told, [("1001", "1003", Some(2))]);
    service.stop().await;
}

/// The shape is the community's setting, whatever version we call with; the event that comes of it is the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_the_same_event_in_every_shape() {
    let rig = Rig::new(&[("all", "")], "").await;
    let service = rig.start().await;
    for (n, version) in ["5.199", "5.103", "5.102", "5.80", "5.79", "5.50"].iter().enumerate() {
        rig.vk.set_community(json!({ "is_enabled": true, "api_version": version, "events": { "message_reply": 0 } }));
        let message = json!({ "id": 0, "date": 1, "out": 0, "from_id": 100, "peer_id": 2_000_000_002, "text": "hi",
            "conversation_message_id": 5, "attachments": [], "fwd_messages": [] });
        rig.vk.push("{\"type\":\"message_reply\",\"object\":{}}".to_owned());
        let event_id = rig.vk.push_message(message);
        rig.until_settled().await;
        let received = rig.handler("all").received();
        assert_eq!(received.len(), n + 1, "what is off does not come");
        let event: Value = serde_json::from_slice(&received[n].body).expect("JSON");
        let expected = json!([event_id, "message_new", 100, 2_000_000_002, 2, "hi"]);
        let keys = ["event_id", "event_type", "user_id", "peer_id", "chat_id", "text"].map(|key| event[key].clone());
        assert_eq!(json!(keys), expected, "{version}: {event}");
    }
    service.stop().await;
}

/// The command alone: https by a CA that it writes down, and updates of a file given letter by letter.
#[tokio::test(flavor = "multi_thread")]
async fn updates_of_a_file_come_untouched_over_https() {
    let rig = Rig::new(&[("all", "")], "").await;
    let (ca, events) = (rig.dir.path().join("ca.pem"), rig.dir.path().join("events"));
    let updates = ["{\"type\":\"z\", \"object\":{\"b\":1.0,\"a\":\"\\u0041\"}}", "{\"type\" : \"a\"}", "7"];
    fs::write(&events, format!("[{},\n {}]\n{}\n", updates[0], updates[1], updates[2])).expect("written");
    let mut command = rig.command(&["simulate", "--rate", "0", "--pace", "100", "--faults", "key=9"]);
    command.arg("--events").arg(&events).arg("--tls-ca").arg(&ca).stdout(Stdio::piped());
    let mut child = command.spawn().expect("started");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let line = within("the word READY", lines.next_line()).await.expect("read").expect("a line");
    let url = line.strip_prefix("READY ").expect("READY").to_owned();
    let ca = reqwest::Certificate::from_pem(&fs::read(&ca).expect("the CA")).expect("a certificate");
    let client = reqwest::Client::builder().tls_certs_only([ca]).build().expect("a client");
    let get = async |url: String| {
        let answer = client.get(url).send().await.expect("an answer");
        String::from_utf8(answer.bytes().await.expect("a body").to_vec()).expect("text")
    };
    let session = get(format!("{url}/method/{SESSION}?group_id=218730916&access_token=t&v=5.199")).await;
    let session: Value = serde_json::from_str(&session).expect("JSON");
    let word = |key: &str| session["response"][key].as_str().expect("text").to_owned();
    assert_eq!(word("server"), format!("{url}/lp"));
    let (mut ts, mut given) = (word("ts"), String::new());
    // The updates may come in one answer or in several.
    while ts != "1003" {
        let answer = get(format!("{}?act=a_check&key={}&ts={ts}&wait=5", word("server"), word("key"))).await;
        given += &answer;
        let answer: Value = serde_json::from_str(&answer).expect("JSON");
        ts = answer["ts"].as_str().expect("a text").to_owned();
    }
    assert!(updates.iter().all(|update| given.contains(update)), "{given}");
    assert_eq!(lines.next_line().await.expect("read").as_deref(), Some("POLLED"));
    child.kill().await.expect("killed");
}

#[test]
fn the_document_tells_every_word_of_faults() {
    let document = include_str!("../../docs/SIMULATOR.md");
    let faults = POLL_FAULTS.iter().chain(&CALL_FAULTS).map(|(name, _)| *name);
    let words = faults.chain(TARGETS.map(|(name, _)| name)).chain([NIGHT_WORD]).map(str::to_owned);
    for word in words.chain(LIMITS.map(|name| format!("{name}=N"))) {
        assert!(document.contains(&format!("| `{word}` |")), "docs/SIMULATOR.md does not tell `{word}`");
    }
}
