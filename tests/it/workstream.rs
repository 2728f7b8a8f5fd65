//! The workstream log over real HTTP: what is posted, in which order; and that no endpoint, however bad, slows the service.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::http::HeaderMap;
use axum::routing::post;
use event_router::app::log::{Dropped, QUEUED_RECORDS, TEXT_BYTES, workstream};
use event_router::app::settings::WorkstreamSettings;
use event_router::secret::Secret;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinHandle;
use tracing::subscriber::DefaultGuard;
use tracing::{Level, debug, error, info, trace, warn};
use tracing_subscriber::layer::SubscriberExt;

/// An endpoint that tells what it gets and answers when it has a permit.
struct Endpoint {
    at: SocketAddr,
    bodies: mpsc::UnboundedReceiver<String>,
    permits: Arc<Semaphore>,
}

impl Endpoint {
    async fn start(permits: usize, status: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let at = listener.local_addr().expect("an address");
        let (tell, bodies) = mpsc::unbounded_channel();
        let permits = Arc::new(Semaphore::new(permits));
        let gate = Arc::clone(&permits);
        let answer = move |headers: HeaderMap, body: String| async move {
            assert_eq!(headers["content-type"], "application/json");
            tell.send(body).expect("the test listens");
            gate.acquire().await.expect("open").forget();
            axum::http::StatusCode::from_u16(status).expect("a status")
        };
        drop(tokio::spawn(async move { axum::serve(listener, Router::new().route("/log", post(answer))).await }));
        Self { at, bodies, permits }
    }

    async fn next(&mut self) -> String {
        tokio::time::timeout(Duration::from_secs(30), self.bodies.recv()).await.expect("in time").expect("a body")
    }

    fn rest(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.bodies.try_recv().ok()).collect()
    }
}

/// A workstream log that takes the records of this thread.
struct Log {
    guard: DefaultGuard,
    dropped: Dropped,
    end: oneshot::Sender<()>,
    sending: JoinHandle<()>,
}

impl Log {
    fn start(at: SocketAddr, level: Level) -> Self {
        // Another test may have installed it already.
        let _installed = rustls::crypto::ring::default_provider().install_default();
        let settings = WorkstreamSettings { url: Secret::new(format!("http://{at}/log")), level };
        let (layer, sender, dropped) = workstream(&settings, "the service").expect("a client");
        let guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(layer));
        let (end, ended) = oneshot::channel();
        Self { guard, dropped, end, sending: tokio::spawn(sender.run(ended)) }
    }

    /// Ends it and gives how many records did not arrive.
    async fn end(self) -> u64 {
        drop(self.end);
        self.sending.await.expect("no panic");
        drop(self.guard);
        self.dropped.count()
    }
}

#[tokio::test]
async fn records_arrive_in_order_in_the_shape_of_the_contract() {
    let mut endpoint = Endpoint::start(Semaphore::MAX_PERMITS, 200).await;
    let log = Log::start(endpoint.at, Level::INFO);
    info!(target: "event_router::app", dir = "data", why = "it is \"full\"", seq = 42, "the service runs");
    debug!(target: "event_router::app", "less important than wanted");
    warn!(target: "hyper::client", "of a library");
    warn!(target: "event_router::vk", error = %std::io::Error::other("no route"), failed = true, "VK is away");
    error!(target: "event_router::outbox", "диск полон");
    info!(target: "event_router::outbox", empty = "");
    let got = [endpoint.next().await, endpoint.next().await, endpoint.next().await, endpoint.next().await];
    let shape = |mode: &str, text: &str| format!(r#"{{"name":"the service","mode":"{mode}","text":{text:?}}}"#);
    assert_eq!(
        got,
        [
            shape("info", "the service runs dir=data why=\"it is \\\"full\\\"\" seq=42"),
            shape("warn", "VK is away error=no route failed=true"),
            shape("error", "диск полон"),
            shape("info", "empty=\"\""),
        ]
    );
    assert_eq!(log.end().await, 0);
    assert_eq!(endpoint.rest(), [""; 0]);
}

#[tokio::test]
async fn a_long_record_is_cut_between_characters() {
    let mut endpoint = Endpoint::start(Semaphore::MAX_PERMITS, 200).await;
    let log = Log::start(endpoint.at, Level::INFO);
    info!(target: "event_router::app", "{}", "ы".repeat(TEXT_BYTES));
    let body: serde_json::Value = serde_json::from_str(&endpoint.next().await).expect("JSON");
    let text = body["text"].as_str().expect("a text");
    assert!(text.len() <= TEXT_BYTES && text.len() > TEXT_BYTES - 4 && text.ends_with("ы…"), "{}", text.len());
    assert_eq!(log.end().await, 0);
}

#[tokio::test]
async fn what_has_queued_up_is_sent_when_the_service_stops() {
    let mut endpoint = Endpoint::start(Semaphore::MAX_PERMITS, 204).await;
    let log = Log::start(endpoint.at, Level::INFO);
    for number in 0..20 {
        info!(target: "event_router::app", number, "one of many");
    }
    // Nothing was sent yet: on this thread nothing has run but the loop.
    assert_eq!(log.end().await, 0);
    let texts: Vec<String> = endpoint.rest();
    let expected =
        |number: i32| format!(r#"{{"name":"the service","mode":"info","text":"one of many number={number}"}}"#);
    assert_eq!(texts, (0..20).map(expected).collect::<Vec<_>>());
}

#[tokio::test]
async fn an_endpoint_that_hangs_slows_nobody_and_what_is_dropped_is_counted() {
    let mut endpoint = Endpoint::start(0, 200).await;
    let log = Log::start(endpoint.at, Level::INFO);
    info!(target: "event_router::app", "the first");
    endpoint.next().await;
    let start = Instant::now();
    for number in 0..QUEUED_RECORDS + 7 {
        info!(target: "event_router::app", number, "behind it");
    }
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    assert_eq!(log.dropped.count(), 7);
    let start = Instant::now();
    assert_eq!(log.end().await, 7 + 1 + QUEUED_RECORDS as u64);
    assert!(start.elapsed() < Duration::from_secs(4), "the end is bounded, not as patient as one record");
}

#[tokio::test]
async fn an_endpoint_that_recovers_gets_what_was_kept_once() {
    let mut endpoint = Endpoint::start(0, 200).await;
    let log = Log::start(endpoint.at, Level::INFO);
    for number in 0..3 {
        info!(target: "event_router::app", number, "kept");
    }
    let first = endpoint.next().await;
    endpoint.permits.add_permits(3);
    let all = [first, endpoint.next().await, endpoint.next().await];
    for (number, body) in all.iter().enumerate() {
        assert!(body.contains(&format!("number={number}")), "{body}");
    }
    assert_eq!(log.end().await, 0);
    assert_eq!(endpoint.rest(), [""; 0]);
}

#[tokio::test]
async fn an_endpoint_that_is_away_or_refuses_is_counted() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let nobody = listener.local_addr().expect("an address");
    drop(listener);
    let refusing = Endpoint::start(Semaphore::MAX_PERMITS, 503).await;
    for at in [nobody, refusing.at] {
        let log = Log::start(at, Level::INFO);
        for number in 0..3 {
            info!(target: "event_router::app", number, "lost");
        }
        assert_eq!(log.end().await, 3);
    }
}

#[tokio::test]
async fn sending_makes_no_records_that_are_sent() {
    let mut endpoint = Endpoint::start(Semaphore::MAX_PERMITS, 200).await;
    // On this thread the sender's own records, at the finest level, would come here.
    let log = Log::start(endpoint.at, Level::TRACE);
    trace!(target: "event_router::app", "the only one");
    assert!(endpoint.next().await.contains("the only one"));
    assert_eq!(log.end().await, 0);
    assert_eq!(endpoint.rest(), [""; 0]);
}
