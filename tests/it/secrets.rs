//! No secret reaches the log, the metrics, the statistics or the page, whatever goes wrong and however much is logged.

use std::fs;

use event_router::sim::vk_server::Fault;
use reqwest::{Client, StatusCode};

use crate::admin::address;
use crate::rig::{Rig, within};

const SIGNING: &str = "whsec_aGlkZGVuIGtleSBvZiB0aGUgc2lnbmF0dXJlcw==";
const ADMIN: &str = "hidden-token-of-the-operator";

/// Every secret that the configuration or VK's answers hold, and what a person wrote.
const SECRETS: [&str; 11] = [
    "a-secret-token",
    "hidden-header",
    "aGlkZGVuIGtleSBvZi",
    "hidden key of",
    "key-1",
    "key-2",
    "key-3",
    "words-of-a-person",
    ADMIN,
    "hidden-in-a-url",
    "hidden-path-of-the-workstream",
];

#[tokio::test(flavor = "multi_thread")]
async fn a_log_at_trace_level_of_a_bad_night_holds_no_secret() {
    let rest = "[log]\nlevel = \"trace\"\n[delivery]\ninitial_interval = \"20ms\"\nmax_interval = \"100ms\"\n\
        [workstream_log]\nlevel = \"debug\"\nurl = \"http://127.0.0.1:1/hidden-path-of-the-workstream\"";
    let table = format!("headers = {{ authorization = \"Bearer hidden-header\" }}\nsecret = \"{SIGNING}\"");
    let mut rig = Rig::new(&[("all", table.as_str()), ("away", "")], rest).await;
    let address = address();
    let config = fs::read_to_string(rig.config()).expect("read");
    let config = config.replace("listen = \"off\"", &format!("listen = \"{address}\"\ntoken = \"{ADMIN}\""));
    // A destination whose address has what only it should know, and where nobody listens.
    let away = format!("url = {:?}", rig.handler("away").url());
    assert!(config.contains(&away));
    let config = config.replace(&away, "url = \"http://127.0.0.1:1/?key=hidden-in-a-url\"");
    fs::write(rig.config(), config).expect("written");
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
        rig.message(1, "words-of-a-person", &["all", "away"]);
        within("polling goes on", rig.vk.until(|vk| vk.polls().last() == Some(&vk.head()))).await;
    }
    rig.message(1, "words-of-a-person", &["all", "away"]);
    rig.until("an outage is in the log", |stats| stats.destinations[0].waiting_chats > 0).await;

    let client = Client::builder().no_proxy().build().expect("a client");
    let ask = async |path: &str, token: &str| {
        let request = client.get(format!("http://{address}{path}")).header("authorization", format!("Bearer {token}"));
        let answer = within("an answer", request.send()).await.expect("answered");
        (answer.status(), within("all of it", answer.text()).await.expect("text"))
    };
    let pages = [
        "/",
        "/assets/app.js",
        "/metrics",
        "/readyz",
        "/api/v1/stats",
        "/api/v1/gaps",
        "/api/v1/groups",
        "/api/v1/audit",
        "/api/v1/plots",
    ];
    for path in pages {
        let (status, text) = ask(path, ADMIN).await;
        assert!(status == StatusCode::OK || path == "/readyz", "{path}: {status}");
        assert_hides(path, &text);
    }
    let (status, text) = ask("/metrics", "hidden-token-of-the-operatoR").await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    assert_hides("a refusal", &text);

    rig.handler("all").up().await.expect("up");
    let settled = |stats: &event_router::outbox::views::Stats| stats.destinations[0].pending == 0;
    rig.until("all is delivered", settled).await;
    child.kill().await.expect("killed");
    let log = fs::read_to_string(rig.dir.path().join("log")).expect("read");
    assert!(log.contains("attempt failed") && log.contains("502"), "the night was logged: {log}");
    assert_hides("the log", &log);
    for words in [&["outbox", "stats"][..], &["outbox", "list"], &["outbox", "audit"], &["outbox", "gaps"], &["check"]]
    {
        let output = rig.run(words).await;
        let text = [output.stdout, output.stderr].concat();
        assert_hides(&words.join(" "), &String::from_utf8_lossy(&text));
    }
}

#[track_caller]
fn assert_hides(what: &str, text: &str) {
    for secret in SECRETS {
        assert!(!text.contains(secret), "{secret} shows in {what}: {text}");
    }
}
