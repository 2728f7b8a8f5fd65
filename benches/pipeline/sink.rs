//! A handler that costs next to nothing: HTTP/1.1 as far as reqwest speaks it, on a thread of its own, the same for both
//! sides. It reads a request, says 200, and counts the events; it notes when each came if it is asked to. Deliberately
//! absent: failures (`event_router::sim::handler` has them), any look at a body.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Handle};
use tokio::sync::{Notify, oneshot};

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
/// More than a request of a hundred events has.
const BUFFER_BYTES: usize = 128 << 10;

/// A runtime on a thread of its own; it ends with the process.
pub(crate) fn aside(name: &str) -> Handle {
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    let handle = runtime.handle().clone();
    let run = move || runtime.block_on(std::future::pending::<()>());
    thread::Builder::new().name(name.to_owned()).spawn(run).expect("a thread");
    handle
}

/// The handler; clones are the same.
#[derive(Clone)]
pub(crate) struct Sink(Arc<Shared>);

struct Shared {
    url: String,
    /// Events that came.
    taken: AtomicU64,
    /// How many are waited for.
    wanted: AtomicU64,
    reached: Notify,
    /// The numbers of events and when they came, if that is noted.
    times: Option<Mutex<Vec<(u64, Instant)>>>,
    /// How long an answer takes.
    takes: Duration,
    /// How long they took, all together, in nanoseconds: a timer is never early.
    took: AtomicU64,
}

impl Sink {
    pub(crate) async fn start(notes_times: bool) -> Self {
        Self::made(notes_times, Duration::ZERO).await
    }

    /// One whose answers take so long, each for itself.
    pub(crate) async fn slow(takes: Duration) -> Self {
        Self::made(false, takes).await
    }

    async fn made(notes_times: bool, takes: Duration) -> Self {
        let (tell, told) = oneshot::channel();
        aside("handler").spawn(async move {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let shared = Arc::new(Shared {
                url: format!("http://{}/", listener.local_addr().expect("an address")),
                taken: AtomicU64::new(0),
                wanted: AtomicU64::new(u64::MAX),
                reached: Notify::new(),
                times: notes_times.then(Mutex::default),
                takes,
                took: AtomicU64::new(0),
            });
            drop(tell.send(Self(Arc::clone(&shared))));
            while let Ok((stream, _)) = listener.accept().await {
                stream.set_nodelay(true).expect("set");
                tokio::spawn(serve(stream, Arc::clone(&shared)));
            }
        });
        told.await.expect("it listens")
    }

    pub(crate) fn url(&self) -> &str {
        &self.0.url
    }

    /// Events that came so far.
    pub(crate) fn taken(&self) -> u64 {
        self.0.taken.load(Ordering::SeqCst)
    }

    /// How long an answer took on average.
    pub(crate) fn took(&self) -> Duration {
        Duration::from_nanos(self.0.took.load(Ordering::SeqCst) / self.taken().max(1))
    }

    /// Waits until so many have come in all.
    pub(crate) async fn reaches(&self, wanted: u64) {
        self.0.wanted.store(wanted, Ordering::SeqCst);
        while self.taken() < wanted {
            self.0.reached.notified().await;
        }
        self.0.wanted.store(u64::MAX, Ordering::SeqCst);
    }

    /// What was noted since this was last asked.
    pub(crate) fn times(&self) -> Vec<(u64, Instant)> {
        self.0.times.as_ref().map(|times| std::mem::take(&mut *times.lock().expect("sound"))).unwrap_or_default()
    }
}

async fn serve(mut stream: TcpStream, shared: Arc<Shared>) {
    let mut buffer = Vec::with_capacity(BUFFER_BYTES);
    loop {
        while let Some(request) = Request::parse(&buffer) {
            let (number, events, length) = (request.number, request.events, request.length);
            if let Some(times) = &shared.times {
                times.lock().expect("sound").push((number, Instant::now()));
            }
            buffer.drain(..length);
            if !shared.takes.is_zero() {
                let start = Instant::now();
                tokio::time::sleep(shared.takes).await;
                let took = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
                shared.took.fetch_add(took, Ordering::SeqCst);
            }
            // Who has an answer finds its events counted.
            let taken = shared.taken.fetch_add(events, Ordering::SeqCst) + events;
            // Who went away is asked nothing more.
            let Ok(()) = stream.write_all(ANSWER).await else { return };
            if taken >= shared.wanted.load(Ordering::SeqCst) {
                shared.reached.notify_one();
            }
        }
        if stream.read_buf(&mut buffer).await.unwrap_or(0) == 0 {
            return;
        }
    }
}

/// A whole request.
struct Request {
    /// What the event's id says, read as a number.
    number: u64,
    events: u64,
    /// Bytes, head included.
    length: usize,
}

impl Request {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let head = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
        let text = std::str::from_utf8(&bytes[..head]).expect("text");
        let (mut number, mut events, mut body) = (0, 1, 0);
        for (name, value) in text.split("\r\n").filter_map(|line| line.split_once(": ")) {
            match name {
                "content-length" => body = value.parse().expect("a length"),
                "webhook-id" => {
                    let (id, count) = value.split_once('+').unwrap_or((value, "1"));
                    number = u64::from_str_radix(&id[id.len().saturating_sub(16)..], 16).expect("a number");
                    events = count.parse().expect("a count");
                }
                _ => {}
            }
        }
        let length = head + 4 + body;
        (bytes.len() >= length).then_some(Self { number, events, length })
    }
}
