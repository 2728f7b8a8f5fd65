//! The example for authors of handlers (`examples/handler.rs`), against the real service: it takes what the service sends,
//! does each event once, and believes nobody else. The one in Python is run by `tests/handlers/run`.

#[allow(dead_code, reason = "an example has a main of its own")]
#[path = "../../examples/handler.rs"]
pub(crate) mod example;

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use axum::http::HeaderMap;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use event_router::sim::handler::Received;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::Value;
use sha2::Sha256;
use tokio::net::TcpListener;

use self::example::Failure;
use crate::rig::{Rig, view};

const OLD: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX";
const NEW: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// What the example has done, in order: chat and text.
type Done = Arc<Mutex<Vec<(i64, String)>>>;

/// The example on a port of its own, with work that fails as the text says.
async fn start(secret: &str) -> (String, Done) {
    let done = Done::default();
    let (kept, mut late) = (Arc::clone(&done), HashSet::new());
    let work = move |event: &Value| {
        let text = event["text"].as_str().unwrap_or_default().to_owned();
        match text.as_str() {
            "never" => return Err(Failure::Never("never")),
            "late" if late.insert(event["event_id"].to_string()) => return Err(Failure::NotNow(0)),
            _ => kept.lock().expect("no panic").push((event["peer_id"].as_i64().unwrap_or_default(), text)),
        }
        Ok(())
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}/", listener.local_addr().expect("an address"));
    let router = example::router(example::keys(secret).expect("a key"), Box::new(work));
    drop(tokio::spawn(async move { axum::serve(listener, router).await }));
    (url, done)
}

async fn post(url: &str, headers: &HeaderMap, body: &[u8]) -> (u16, String) {
    let mut headers = headers.clone();
    // The one of the body as it was would cut another.
    headers.remove("content-length");
    let request = reqwest::Client::new().post(url).headers(headers).body(body.to_vec());
    let answer = request.send().await.expect("an answer");
    (answer.status().as_u16(), answer.text().await.expect("a body"))
}

/// A request as the service sent it, signed anew by the old secret as of `timestamp`.
fn signed(received: &Received, timestamp: u64) -> HeaderMap {
    let key = STANDARD.decode(OLD.trim_start_matches("whsec_")).expect("base64");
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).expect("a key");
    mac.update(format!("{}.{timestamp}.", received.event_id).as_bytes());
    mac.update(&received.body);
    let signature = format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()));
    let mut headers = received.headers.clone();
    headers.insert("webhook-timestamp", timestamp.into());
    headers.insert("webhook-signature", signature.parse().expect("a header"));
    headers
}

#[tokio::test(flavor = "multi_thread")]
async fn the_example_does_each_event_once_in_the_order_of_its_chat() {
    let (url, done) = start(NEW).await;
    // Half of a rotation: the handler knows the new secret only, the service signs by both. And everything comes twice.
    let table = format!("url = {url:?}\nsecret = [{OLD:?}, {NEW:?}]\ninitial_interval = \"20ms\"");
    let rest = format!("[destinations.example]\n{table}\n[destinations.again]\n{table}");
    let mut rig = Rig::new(&[("other", "")], &rest).await;
    let service = rig.start().await;
    for text in ["a", "late", "b", "never", "c", "late", "d"] {
        (1..=4).for_each(|chat| drop(rig.message(chat, text, &["other"])));
    }
    let stats = rig.until_settled().await;
    for name in ["example", "again"] {
        assert_eq!((view(&stats, name).delivered, view(&stats, name).dead), (4 * 6, 4));
    }
    let done = done.lock().expect("no panic").clone();
    for chat in 1..=4 {
        let of_chat: Vec<_> = done.iter().filter(|(peer, _)| *peer == chat).map(|(_, text)| text.as_str()).collect();
        assert_eq!(of_chat, ["a", "late", "b", "c", "late", "d"]);
    }
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_example_believes_only_what_is_signed_and_fresh() {
    let mut rig = Rig::new(&[("all", &format!("secret = {OLD:?}"))], "").await;
    let service = rig.start().await;
    rig.message(1, "x", &["all"]);
    rig.until_settled().await;
    service.stop().await;
    let sent = rig.handler("all").received().pop().expect("a request");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();

    let (url, done) = start(OLD).await;
    let mut other_body = sent.body.to_vec();
    other_body.extend_from_slice(b" ");
    let without = |name: &str| {
        let mut headers = sent.headers.clone();
        headers.remove(name);
        headers
    };
    let mut wrong = sent.headers.clone();
    wrong.insert(
        "webhook-signature",
        "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE= v1,word v2,x".parse().expect("text"),
    );
    let mut other_id = sent.headers.clone();
    other_id.insert("webhook-id", "other".parse().expect("text"));
    for (what, headers, body) in [
        ("another body", sent.headers.clone(), other_body.as_slice()),
        ("another id", other_id, &sent.body),
        ("another signature", wrong, &sent.body),
        ("no signature", without("webhook-signature"), &sent.body),
        ("no id", without("webhook-id"), &sent.body),
        ("no timestamp", without("webhook-timestamp"), &sent.body),
        ("an old one", signed(&sent, now - 301), &sent.body),
        ("one of tomorrow", signed(&sent, now + 86_400), &sent.body),
    ] {
        let (status, words) = post(&url, &headers, body).await;
        assert_eq!(status, 401, "{what}: {words}");
    }
    let (stranger, _) = start(NEW).await;
    assert_eq!(post(&stranger, &sent.headers, &sent.body).await.0, 401);
    assert!(done.lock().expect("no panic").is_empty());

    assert_eq!(post(&url, &sent.headers, &sent.body).await, (200, "done".to_owned()));
    assert_eq!(post(&url, &sent.headers, &sent.body).await, (200, "done before".to_owned()));
    assert_eq!(post(&url, &signed(&sent, now - 200), &sent.body).await, (200, "done before".to_owned()));
    assert_eq!(done.lock().expect("no panic").len(), 1);
}
