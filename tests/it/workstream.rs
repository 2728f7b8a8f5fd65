//! The workstream log: records arrive in the contract's shape; an endpoint that is slow or dead slows nobody.

use std::time::Instant;

use event_router::app::log::{QUEUED_RECORDS, workstream};
use event_router::app::settings::WorkstreamSettings;
use event_router::secret::Secret;
use event_router::sim::handler::{Answer, Handler};
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tracing_subscriber::layer::SubscriberExt;

use crate::rig::within;

fn speak(count: usize) {
    for number in 0..count {
        tracing::info!(target: "event_router::test", number, name = "x y", "a record");
        tracing::debug!(target: "event_router::test", "below the level");
        tracing::warn!(target: "hyper", "of a library");
    }
}

fn settings(url: &str) -> WorkstreamSettings {
    WorkstreamSettings { url: Secret::new(url), level: tracing::Level::INFO }
}

#[tokio::test(flavor = "multi_thread")]
async fn records_arrive_in_order_and_in_the_contracts_shape() {
    drop(rustls::crypto::ring::default_provider().install_default());
    let handler = Handler::start().await.expect("a handler");
    let (layer, sender, dropped) = workstream(&settings(&handler.url()), "the service").expect("made");
    tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || speak(20));
    let (_end, ended) = oneshot::channel();
    tokio::spawn(sender.run(ended));
    within("all records", handler.until(|all| all.len() == 20)).await;
    let bodies: Vec<Value> =
        handler.received().iter().map(|one| serde_json::from_slice(&one.body).expect("JSON")).collect();
    for (number, body) in bodies.iter().enumerate() {
        assert_eq!(
            *body,
            json!({ "name": "the service", "mode": "info", "text": format!("a record number={number} name=\"x y\"") })
        );
    }
    assert_eq!(dropped.count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_hangs_or_is_gone_slows_nobody_and_what_is_dropped_is_counted() {
    drop(rustls::crypto::ring::default_provider().install_default());
    let handler = Handler::start().await.expect("a handler");
    handler.answer(|_| Answer::Hang);
    for url in [handler.url(), "http://127.0.0.1:1/".to_owned()] {
        let (layer, sender, dropped) = workstream(&settings(&url), "x").expect("made");
        let start = Instant::now();
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || speak(QUEUED_RECORDS + 100));
        assert!(start.elapsed().as_secs() < 2, "{:?}", start.elapsed());
        assert_eq!(dropped.count(), 100);
        let (end, ended) = oneshot::channel();
        let sending = tokio::spawn(sender.run(ended));
        drop(end);
        within("the end of the sender", sending).await.expect("no panic");
        assert!(start.elapsed().as_secs() < 5, "stopping does not wait for it: {:?}", start.elapsed());
    }
}
