//! What drains: an outbox on disk in which events of many chats wait, the worker that delivers them, and beside it the bare
//! loop that posts the same bodies with the same headers. Deliberately absent: measuring.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use event_router::app::worker::Worker;
use event_router::attempts::Attempts;
use event_router::clock::Clock;
use event_router::delivery::{BackoffSettings, Sender, Settings};
use event_router::domain::event::{Event, Source};
use event_router::domain::ids::{DestinationName, EventId, GroupId, Ts};
use event_router::metrics::Metrics;
use event_router::outbox::space::Limits;
use event_router::outbox::{self, Append, Outbox};
use event_router::status::Status;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::redirect::Policy;
use reqwest::{Client, Url};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// How many bytes the body of an event has.
pub(crate) const BODY_BYTES: usize = 483;
pub(crate) const CHATS: u64 = 200;
/// Events of one append.
const AT_ONCE: u64 = 1000;
const TIMEOUT: Duration = Duration::from_secs(10);

/// What both sides do.
#[derive(Clone, Copy)]
pub(crate) struct Manner {
    pub(crate) concurrency: usize,
    pub(crate) batch_max: usize,
}

/// An outbox with one destination.
pub(crate) struct Backlog {
    pub(crate) outbox: Outbox,
    pub(crate) name: DestinationName,
    status: Status,
}

impl Backlog {
    pub(crate) async fn open(dir: &Path, retention: Duration) -> Self {
        let name = DestinationName::parse("all").expect("a name");
        let limits = Limits { max_bytes: 1 << 40, min_free_bytes: 0 };
        let settings = outbox::Settings { dir: dir.to_owned(), retention, limits };
        let clock = Clock::system();
        let outbox = Outbox::open(settings, vec![name.clone()], "bench", TIMEOUT, clock.clone()).await;
        Self { outbox: outbox.expect("opened"), name, status: Status::new(clock.now()) }
    }

    /// Puts in the events of these numbers.
    pub(crate) async fn fill(&self, from: u64, to: u64) {
        let destination = self.outbox.destination(&self.name).expect("registered");
        for from in (from..to).step_by(AT_ONCE as usize) {
            let to = to.min(from + AT_ONCE);
            let events = (from..to).map(|number| (event(number), Source::Live, vec![destination])).collect();
            let (group, ts) = (GroupId::new(1).expect("an id"), Ts::parse(&to.to_string()).expect("a ts"));
            let append = Append {
                group,
                ts,
                events,
                unrouted: 0,
                quarantined: Vec::new(),
                gap: None,
                heard: None,
                last_answer: None,
            };
            self.outbox.append(append).await.expect("committed");
        }
    }

    /// The worker of the destination, as the service makes it.
    pub(crate) fn worker(&self, url: &str, manner: Manner, backoff: BackoffSettings) -> Worker {
        let settings = Settings {
            name: self.name.clone(),
            url: url.to_owned(),
            headers: Vec::new(),
            keys: Vec::new(),
            ca: Vec::new(),
            timeout: TIMEOUT,
            concurrency: manner.concurrency,
            batch_max: manner.batch_max,
            max_attempts: 12,
            max_age: None,
            reject_on: vec![400, 406, 413, 415, 422],
            backoff,
        };
        Worker {
            name: self.name.clone(),
            id: self.outbox.destination(&self.name).expect("registered"),
            backoff,
            concurrency: manner.concurrency,
            batch_max: manner.batch_max,
            max_attempts: settings.max_attempts,
            max_age: None,
            sender: Sender::new(&settings).expect("a sender"),
            outbox: self.outbox.clone(),
            attempts: Attempts::default(),
            attempting: Metrics::default().attempting(&self.name),
            status: self.status.clone(),
            clock: Clock::system(),
            seed: 1,
        }
    }
}

/// Runs a worker until something has come about, then stops it: what was in flight is answered and everything is settled on disk.
pub(crate) async fn run_until(worker: Worker, fact: impl Future<Output = ()>) {
    let stop = CancellationToken::new();
    let (_orders, asked) = mpsc::channel(1);
    let running = tokio::spawn(worker.run(asked, stop.clone()));
    fact.await;
    stop.cancel();
    running.await.expect("no panic").expect("a clean end");
}

/// The event of a number.
pub(crate) fn event(number: u64) -> Event {
    let id = format!("{number:040x}");
    let mut body = format!("{{\"event_id\":\"{id}\",\"text\":\"");
    body.push_str(&"x".repeat(BODY_BYTES - 2 - body.len()));
    body.push_str("\"}");
    Event {
        group: GroupId::new(1).expect("an id"),
        event_type: "message_new".into(),
        user_id: Some(5),
        peer_id: Some(2_000_000_000 + (number % CHATS).cast_signed()),
        received_at: Clock::system().now(),
        body: Bytes::from(body),
        event_id: EventId::parse(&id).expect("an id"),
    }
}

/// A request of the bare loop.
pub(crate) struct Post {
    id: String,
    body: Bytes,
}

/// The requests that bring the events of these numbers, so many in each.
pub(crate) fn posts(from: u64, to: u64, batch_max: usize) -> Vec<Post> {
    let post = |first: u64| {
        let last = to.min(first + batch_max as u64);
        let bodies: Vec<Bytes> = (first..last).map(|number| event(number).body).collect();
        match bodies.as_slice() {
            [body] if batch_max == 1 => Post { id: format!("{first:040x}"), body: body.clone() },
            all => {
                let list = all.join(&b","[..]);
                Post { id: format!("{first:040x}+{}", all.len()), body: [b"[", list.as_slice(), b"]"].concat().into() }
            }
        }
    };
    (from..to).step_by(batch_max).map(post).collect()
}

/// The client of the bare loop, made as ours is.
pub(crate) fn client(concurrency: usize) -> Client {
    let client = Client::builder().redirect(Policy::none()).no_proxy().timeout(TIMEOUT).tcp_nodelay(true);
    client.pool_max_idle_per_host(concurrency).build().expect("a client")
}

/// One bare request with the headers of ours.
pub(crate) async fn post(client: &Client, url: &Url, post: &Post) {
    let mut headers = HeaderMap::with_capacity(8);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert("webhook-id", HeaderValue::from_str(&post.id).expect("text"));
    headers.insert("webhook-timestamp", HeaderValue::from(1_709_107_923));
    headers.insert("x-event-type", HeaderValue::from_static("message_new"));
    headers.insert("x-event-seq", HeaderValue::from(123_456));
    headers.insert("x-event-attempt", HeaderValue::from(1));
    let answer = client.post(url.clone()).headers(headers).body(post.body.clone()).send().await.expect("an answer");
    assert!(answer.status().is_success(), "{}", answer.status());
    answer.bytes().await.expect("a body");
}

/// The bare loop: so many tasks, each of which posts what is next.
pub(crate) async fn post_all(client: &Client, url: &str, posts: Vec<Post>, concurrency: usize) {
    let url = Url::parse(url).expect("a url");
    let shared = Arc::new((posts, AtomicUsize::new(0)));
    let mut tasks = JoinSet::new();
    for _ in 0..concurrency {
        let (client, url, shared) = (client.clone(), url.clone(), Arc::clone(&shared));
        tasks.spawn(async move {
            let (posts, next) = &*shared;
            while let Some(one) = posts.get(next.fetch_add(1, Ordering::Relaxed)) {
                post(&client, &url, one).await;
            }
        });
    }
    tasks.join_all().await;
}
