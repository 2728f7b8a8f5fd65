//! What a handler sees of a request (contract §3), on the wire: headers, signatures, TLS; and what a strange answer costs.

use std::collections::BTreeSet;
use std::fs;

use event_router::sim::handler::{Answer, Handler, Received};
use serde_json::Value;

use crate::handlers::example::{keys, verify};
use crate::rig::{Rig, view};

const FAST: &str = "[delivery]\ninitial_interval = \"20ms\"\nmax_interval = \"100ms\"";
const OLD: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX";
const NEW: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

fn header<'r>(received: &'r Received, name: &str) -> &'r str {
    received.headers.get(name).map(|value| value.to_str().expect("text")).unwrap_or_default()
}

fn number(received: &Received, name: &str) -> u64 {
    header(received, name).parse().unwrap_or_else(|_| panic!("{name}: {:?}", received.headers))
}

/// Whether somebody who knows these secrets believes a request, by another implementation than the service's.
fn believed(received: &Received, secrets: &str) -> bool {
    let now = number(received, "webhook-timestamp");
    verify(&keys(secrets).expect("keys"), &received.headers, &received.body, now) == Ok(received.event_id.as_str())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_has_the_headers_of_the_contract_and_no_others() {
    let secrets = format!("secret = [{OLD:?}, {NEW:?}]");
    let mut rig = Rig::new(&[("signed", secrets.as_str()), ("unsigned", "")], FAST).await;
    rig.handler("signed").answer(|received| {
        match (header(received, "x-event-attempt"), header(received, "x-event-replay")) {
            (_, "1") => Answer::Status(200, ""),
            ("1", _) => Answer::Status(500, ""),
            ("2", _) => Answer::Status(404, ""),
            _ => Answer::Status(422, ""),
        }
    });
    let service = rig.start().await;
    let before = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs();
    let id = rig.message(1, "Привет, мир", &["signed", "unsigned"]);
    rig.until_settled().await;
    rig.json::<Value>(&["outbox", "replay", &id, "--yes"]).await;
    rig.until("the replay is done", |stats| stats.replays.is_empty() && view(stats, "signed").delivered == 1).await;
    rig.assert_balanced();

    let mut received = rig.handler("signed").received();
    received.append(&mut rig.handler("unsigned").received());
    let own = ["content-type", "webhook-id", "webhook-timestamp", "x-event-type", "x-event-seq", "x-event-attempt"];
    let http = ["accept", "content-length", "host", "user-agent"];
    for one in &received {
        let (signed, replayed) =
            (one.headers.contains_key("webhook-signature"), one.headers.contains_key("x-event-replay"));
        let mut expected: BTreeSet<_> = own.into_iter().chain(http).collect();
        expected.extend(signed.then_some("webhook-signature"));
        expected.extend(replayed.then_some("x-event-replay"));
        assert_eq!(one.headers.keys().map(|name| name.as_str()).collect::<BTreeSet<_>>(), expected);
        let page = include_str!("../../docs/HANDLERS.md");
        let untold = expected.iter().find(|name| !http.contains(name) && !page.contains(&format!("| `{name}` |")));
        assert_eq!(untold, None, "docs/HANDLERS.md does not tell it");
        assert_eq!(header(one, "content-type"), "application/json");
        assert_eq!((header(one, "webhook-id"), header(one, "x-event-type")), (id.as_str(), "message_new"));
        assert_eq!(number(one, "x-event-seq"), 1);
        assert!((before..before + 60).contains(&number(one, "webhook-timestamp")));
        let body: Value = serde_json::from_slice(&one.body).expect("JSON");
        assert_eq!((&body["event_id"], &body["text"]), (&Value::from(id.as_str()), &Value::from("Привет, мир")));
    }
    let told = received.iter().map(|one| {
        let signatures = header(one, "webhook-signature").split(' ').filter(|word| word.starts_with("v1,")).count();
        (header(one, "x-event-attempt"), header(one, "x-event-replay"), signatures)
    });
    // The last is of the handler that has no secret.
    let expected = [("1", "", 2), ("2", "", 2), ("3", "", 2), ("4", "1", 2), ("1", "", 0)];
    assert_eq!(told.collect::<Vec<_>>(), expected);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_attempt_is_signed_over_what_is_sent_by_every_secret_and_by_no_other() {
    let (one, both) = (format!("secret = {OLD:?}"), format!("secret = [{OLD:?}, {NEW:?}]"));
    let mut rig = Rig::new(&[("one", one.as_str()), ("both", both.as_str())], FAST).await;
    rig.handler("both").answer(|received| match header(received, "x-event-attempt") {
        "1" => Answer::Status(500, ""),
        _ => Answer::Status(200, ""),
    });
    let service = rig.start().await;
    for n in 0..10 {
        rig.message(n % 3, "и слова, и 'quotes' \" \u{1F600}", &["one", "both"]);
    }
    rig.until_settled().await;
    rig.assert_balanced();
    service.stop().await;
    let stranger = "whsec_AQECAwQFBgcICQoLDA0ODxAREhMUFRYX";
    for (name, by_new) in [("one", false), ("both", true)] {
        let received = rig.handler(name).received();
        assert!(received.len() >= 10);
        for one in received {
            assert!(believed(&one, OLD) && believed(&one, &format!("{stranger} {OLD}")), "{:?}", one.headers);
            assert_eq!(believed(&one, NEW), by_new, "{:?}", one.headers);
            assert!(!believed(&one, stranger));
            let mut longer = one.body.to_vec();
            longer.push(b' ');
            assert!(!believed(&Received { body: longer.into(), ..one.clone() }, OLD));
            let mut later = one.clone();
            later.headers.insert("webhook-timestamp", (number(&one, "webhook-timestamp") + 1).into());
            assert!(!believed(&later, OLD));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_is_not_followed_but_tried_again() {
    let elsewhere = Handler::start().await.expect("a handler");
    for status in [301, 302, 303, 307, 308] {
        let mut rig = Rig::new(&[("all", &format!("secret = {OLD:?}"))], FAST).await;
        let url = elsewhere.url();
        rig.handler("all").answer(move |received| match header(received, "x-event-attempt") {
            "1" => Answer::Elsewhere(status, url.clone()),
            _ => Answer::Status(200, ""),
        });
        let service = rig.start().await;
        rig.message(1, "x", &["all"]);
        rig.until_settled().await;
        rig.assert_balanced();
        assert_eq!((rig.handler("all").received().len(), elsewhere.received().len()), (2, 0), "{status}");
        service.stop().await;
    }
}

/// The status decides; of the body no more is read than is worth a connection.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_without_an_end_is_read_up_to_a_bound() {
    // What the system holds between the two sides comes on top.
    const MOST_BYTES: u64 = 32 << 20;
    for (status, delivered, dead) in [(200, 1, 0), (422, 0, 1)] {
        let mut rig = Rig::new(&[("all", "timeout = \"30s\"")], FAST).await;
        rig.handler("all").answer(move |_| Answer::Endless(status));
        let service = rig.start().await;
        let id = rig.message(1, "x", &["all"]);
        let stats = rig.until_settled().await;
        assert_eq!((view(&stats, "all").delivered, view(&stats, "all").dead), (delivered, dead));
        let bytes = rig.handler("all").endless_bytes();
        assert!(bytes < MOST_BYTES, "{bytes} bytes were read");
        if dead > 0 {
            let shown: Value = rig.json(&["outbox", "show", &id]).await;
            assert_eq!(shown["deliveries"][0]["history"][0]["excerpt"], "x".repeat(512));
        }
        assert_eq!(rig.handler("all").received().len(), 1);
        service.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_whose_certificate_is_not_believed_is_told_and_waited_for_until_its_ca_is_named() {
    let handler = Handler::start_tls().await.expect("a handler");
    let table = format!("[destinations.tls]\nurl = {:?}\nsecret = {OLD:?}\n", handler.url());
    assert!(handler.url().starts_with("https://"));
    let mut rig = Rig::new(&[("plain", "")], &format!("{FAST}\n{table}")).await;
    let service = rig.start().await;
    for n in 0..20 {
        rig.message(n % 4, "x", &["plain", "tls"]);
    }
    let stats = rig.until("the certificate is told", |stats| {
        view(stats, "tls").why.contains("UnknownIssuer") && view(stats, "plain").delivered == 20
    });
    let stats = stats.await;
    let why = &view(&stats, "tls").why;
    assert!(why.contains("name it in ca_file of this destination"), "{why}");
    assert_eq!((view(&stats, "tls").pending, view(&stats, "tls").dead), (20, 0));
    assert_eq!((handler.received().len(), handler.connections()), (0, 0), "nothing is sent to a stranger");
    service.stop().await;

    let ca = rig.dir.path().join("handler.pem");
    fs::write(&ca, handler.ca_pem().expect("a CA")).expect("written");
    let config = fs::read_to_string(rig.config()).expect("read");
    let named = config.replace(&table, &format!("{table}ca_file = {ca:?}\n"));
    assert_ne!(named, config);
    fs::write(rig.config(), named).expect("written");
    let service = rig.start().await;
    for n in 0..100 {
        rig.message(n % 4, "x", &["plain", "tls"]);
    }
    rig.until_settled().await;
    assert!(handler.connections() <= 20, "{} connections", handler.connections());
    rig.handlers.insert("tls", handler);
    assert_eq!(rig.assert_balanced().repeats, 0);
    assert!(rig.handler("tls").received().iter().all(|one| believed(one, OLD)));
    service.stop().await;
}
