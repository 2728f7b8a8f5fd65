//! A simulated handler: takes requests, remembers them, answers as it is told. `down` closes its port, `up` opens the same
//! one again. Deliberately absent: any idea of order or loss (`books`).

use std::collections::HashSet;
use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::connect_info::Connected;
use axum::extract::{ConnectInfo, DefaultBodyLimit, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use axum::serve::IncomingStream;
use futures_util::{StreamExt, stream};
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::tls::{Door, Identity};

/// A request that came.
#[derive(Clone, Debug)]
pub struct Received {
    /// `webhook-id`.
    pub event_id: String,
    /// All headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
    /// The status it was answered with; 0 when it was not.
    pub status: u16,
    /// When it came.
    pub came: Instant,
    /// How many were in hand then, itself among them.
    pub at_once: usize,
}

/// How a request is answered.
#[derive(Clone, Debug)]
pub enum Answer {
    /// With a status and a body.
    Status(u16, &'static str),
    /// With a status and `Retry-After`.
    RetryAfter(u16, &'static str),
    /// With a status that sends elsewhere.
    Elsewhere(u16, String),
    /// With a status and a body that never ends.
    Endless(u16),
    /// With a status, after a while.
    Slow(Duration, u16),
    /// With a status, once it is said.
    Until(watch::Receiver<bool>, u16),
    /// Never.
    Hang,
}

/// How many clients may wait to be let in.
const BACKLOG: u32 = 1024;

type Script = Arc<dyn Fn(&Received) -> Answer + Send + Sync>;

/// A running handler; clones steer the same.
#[derive(Clone)]
pub struct Handler(Arc<Shared>);

struct Shared {
    address: SocketAddr,
    /// Keeps the port from others while it is closed: bound, and never listening.
    _port: TcpSocket,
    identity: Option<Identity>,
    inner: Mutex<Inner>,
    changed: watch::Sender<u64>,
}

struct Inner {
    received: Vec<Received>,
    clients: HashSet<SocketAddr>,
    script: Script,
    tasks: Option<JoinSet<()>>,
    /// What was told to end and may still hold the port.
    ended: Option<JoinSet<()>>,
    endless_bytes: u64,
    in_hand: usize,
}

/// The client at the other end of a connection.
#[derive(Clone, Copy)]
struct Client(SocketAddr);

impl Connected<IncomingStream<'_, Door>> for Client {
    fn connect_info(stream: IncomingStream<'_, Door>) -> Self {
        Self(*stream.remote_addr())
    }
}

impl Handler {
    /// Starts to listen on a free port of this machine; answers 200.
    ///
    /// # Errors
    /// When there is none.
    pub async fn start() -> io::Result<Self> {
        Self::start_with(None).await
    }

    /// The same, over https: its certificate comes from a CA of its own.
    ///
    /// # Errors
    /// When there is no port, or no certificate can be made.
    pub async fn start_tls() -> io::Result<Self> {
        Self::start_with(Some(Identity::new("handler", Ipv4Addr::LOCALHOST.into())?)).await
    }

    /// Starts to listen at this address.
    ///
    /// # Errors
    /// When somebody else has taken it.
    pub async fn start_at(address: SocketAddr) -> io::Result<Self> {
        Self::on(address, None)
    }

    async fn start_with(identity: Option<Identity>) -> io::Result<Self> {
        Self::on((Ipv4Addr::LOCALHOST, 0).into(), identity)
    }

    fn on(address: SocketAddr, identity: Option<Identity>) -> io::Result<Self> {
        let port = bind(address)?;
        let address = port.local_addr()?;
        let script: Script = Arc::new(|_| Answer::Status(200, "ok"));
        let inner = Inner {
            received: Vec::new(),
            clients: HashSet::new(),
            script,
            tasks: None,
            ended: None,
            endless_bytes: 0,
            in_hand: 0,
        };
        let changed = watch::Sender::new(0);
        let shared = Shared { address, _port: port, identity, inner: Mutex::new(inner), changed };
        let handler = Self(Arc::new(shared));
        handler.serve(bind(address)?.listen(BACKLOG)?);
        Ok(handler)
    }

    /// Where it is.
    #[must_use]
    pub fn url(&self) -> String {
        let scheme = if self.0.identity.is_some() { "https" } else { "http" };
        format!("{scheme}://{}/", self.0.address)
    }

    /// The address that it listens at.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.0.address
    }

    /// The certificate of the CA that vouches for it, as a PEM file, when it is reached by https.
    #[must_use]
    pub fn ca_pem(&self) -> Option<&str> {
        self.0.identity.as_ref().map(|identity| identity.ca_pem.as_str())
    }

    /// How requests are answered from now on.
    pub fn answer(&self, script: impl Fn(&Received) -> Answer + Send + Sync + 'static) {
        self.inner().script = Arc::new(script);
    }

    /// Closes the port: connections break, new ones are refused.
    pub fn down(&self) {
        let mut inner = self.inner();
        let tasks = inner.tasks.take();
        inner.ended = tasks.map(|mut tasks| {
            tasks.abort_all();
            tasks
        });
    }

    /// Opens the port again.
    ///
    /// # Errors
    /// When somebody else has taken it.
    pub async fn up(&self) -> io::Result<()> {
        let ended = self.inner().ended.take();
        if let Some(mut ended) = ended {
            while ended.join_next().await.is_some() {}
        }
        self.serve(bind(self.0.address)?.listen(BACKLOG)?);
        Ok(())
    }

    /// Whether the port is open.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.inner().tasks.is_some()
    }

    /// Everything that came, in order.
    #[must_use]
    pub fn received(&self) -> Vec<Received> {
        self.inner().received.clone()
    }

    /// The ids of what was answered with a 2xx, in order.
    #[must_use]
    pub fn taken(&self) -> Vec<String> {
        let inner = self.inner();
        inner.received.iter().filter(|one| (200..300).contains(&one.status)).map(|one| one.event_id.clone()).collect()
    }

    /// How many connections there were.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.inner().clients.len()
    }

    /// How many bytes of endless answers were taken from it.
    #[must_use]
    pub fn endless_bytes(&self) -> u64 {
        self.inner().endless_bytes
    }

    /// Waits until what came satisfies something.
    pub async fn until(&self, mut fact: impl FnMut(&[Received]) -> bool) {
        let mut changed = self.0.changed.subscribe();
        while !fact(&self.inner().received) {
            if changed.changed().await.is_err() {
                return;
            }
        }
    }

    fn serve(&self, listener: TcpListener) {
        let router = Router::new().fallback(any(take)).layer(DefaultBodyLimit::disable()).with_state(self.clone());
        let door = Door::new(listener, self.0.identity.as_ref());
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let service = router.into_make_service_with_connect_info::<Client>();
            // It ends with the handler.
            let _ended = axum::serve(door, service).await;
        });
        self.inner().tasks = Some(tasks);
    }

    /// A request is answered some time after it came.
    fn late(&self, place: usize, status: u16) -> u16 {
        self.inner().received[place].status = status;
        self.0.changed.send_modify(|count| *count += 1);
        status
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A socket at an address that others of this handler may have, too.
fn bind(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.set_reuseport(true)?;
    socket.bind(address)?;
    Ok(socket)
}

/// A request that is being answered.
struct InHand(Handler);

impl Drop for InHand {
    fn drop(&mut self) {
        self.0.inner().in_hand -= 1;
    }
}

async fn take(
    State(handler): State<Handler>,
    ConnectInfo(Client(client)): ConnectInfo<Client>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let event_id = headers.get("webhook-id").and_then(|id| id.to_str().ok()).unwrap_or_default().to_owned();
    let mut received = Received { event_id, headers, body, status: 0, came: Instant::now(), at_once: 0 };
    let script = Arc::clone(&handler.inner().script);
    let answer = script(&received);
    if let Answer::Status(status, _)
    | Answer::RetryAfter(status, _)
    | Answer::Elsewhere(status, _)
    | Answer::Endless(status) = answer
    {
        received.status = status;
    }
    let place = {
        let mut inner = handler.inner();
        inner.clients.insert(client);
        inner.in_hand += 1;
        received.at_once = inner.in_hand;
        inner.received.push(received);
        inner.received.len() - 1
    };
    let _in_hand = InHand(handler.clone());
    handler.0.changed.send_modify(|count| *count += 1);
    let respond = |status: u16, body: &'static str| {
        (StatusCode::from_u16(status).unwrap_or(StatusCode::OK), body).into_response()
    };
    match answer {
        Answer::Status(status, body) => respond(status, body),
        Answer::RetryAfter(status, after) => {
            ([(header::RETRY_AFTER, HeaderValue::from_static(after))], respond(status, "")).into_response()
        }
        Answer::Elsewhere(status, url) => ([(header::LOCATION, url)], respond(status, "")).into_response(),
        Answer::Endless(status) => {
            let more = stream::repeat(Bytes::from_static(&[b'x'; 4096])).inspect(move |chunk| {
                handler.inner().endless_bytes += chunk.len() as u64;
            });
            let mut response = respond(status, "");
            *response.body_mut() = Body::from_stream(more.map(Ok::<_, Infallible>));
            response.headers_mut().remove(header::CONTENT_LENGTH);
            response
        }
        Answer::Slow(span, status) => {
            tokio::time::sleep(span).await;
            respond(handler.late(place, status), "ok")
        }
        Answer::Until(mut said, status) => {
            // Who was to say so may have gone.
            let _said = said.wait_for(|said| *said).await;
            respond(handler.late(place, status), "ok")
        }
        Answer::Hang => std::future::pending().await,
    }
}
