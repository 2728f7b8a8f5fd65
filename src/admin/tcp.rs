//! The operator's door on TCP: the same router as on the socket, behind a guard. Without a token it is read-only, shows no
//! bodies, and answers only who asks for it by an address or as localhost, so that no page of a browser can read it by way of
//! a name of its own. With one, all but the two health checks and the page itself need it. Deliberately absent: what is
//! answered (`api`), TLS (a proxy does that).

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::serve::Listener;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep, sleep};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::api::{Door, router};
use super::dashboard::observe;
use super::socket::AdminError;
use crate::secret::Secret;

/// How many connections there are at once; who brings one more waits.
const CONNECTIONS: usize = 64;
/// How long a connection may have nothing to read or write. A page hears something each second, a tail every fifteen.
const IDLE: Duration = Duration::from_secs(150);
/// How long the head of an answer may take; the rest of a stream takes as long as it takes.
const PATIENCE: Duration = Duration::from_secs(120);
/// What a browser is told: nothing from elsewhere, nowhere else to be shown, nothing kept.
const HEADERS: [(header::HeaderName, &str); 5] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::CACHE_CONTROL, "no-store"),
];

/// Whether whoever asks may see the bodies of events, and what handlers said of them: an answer may repeat its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bodies(pub(super) bool);

/// A TCP address that listens.
#[derive(Debug)]
pub struct Tcp {
    listener: TcpListener,
    token: Option<Secret>,
}

impl Tcp {
    /// Listens.
    ///
    /// # Errors
    /// When somebody else does already, or the machine has no such address.
    pub async fn bind(listen: SocketAddr, token: Option<Secret>) -> Result<Self, AdminError> {
        let listener = TcpListener::bind(listen).await;
        Ok(Self { listener: listener.map_err(|source| AdminError::Listen { listen, source })?, token })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        self.listener.local_addr().ok()
    }

    /// Answers until `stop`.
    ///
    /// # Errors
    /// When it breaks.
    pub async fn serve(self, door: Door, stop: CancellationToken) -> Result<(), AdminError> {
        tokio::select! {
            result = self.answer(door.clone()) => result,
            // Whoever is connected when the service stops is let go.
            () = observe(door, stop.clone()) => Ok(()),
        }
    }

    async fn answer(self, door: Door) -> Result<(), AdminError> {
        let (stop, places) = (door.stop.clone(), Arc::new(Semaphore::new(CONNECTIONS)));
        let app = router(door).layer(from_fn_with_state(Arc::new(self.token), admit));
        let listener = Bounded { listener: self.listener, places, stop };
        axum::serve(listener, app).await.map_err(AdminError::Serve)
    }
}

async fn admit(State(token): State<Arc<Option<Secret>>>, mut request: Request, next: Next) -> Response {
    let path = request.uri().path();
    let reads = [Method::GET, Method::HEAD].contains(request.method());
    let open = ["/", "/healthz", "/readyz"].contains(&path) || path.starts_with("/assets/");
    let refusal = match token.as_ref() {
        Some(token) if !open && !is_known(request.headers(), token) => {
            let words = "this needs `authorization: Bearer <admin.token>`";
            let mut answer = refused(StatusCode::UNAUTHORIZED, words);
            answer.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            Some(answer)
        }
        None if !is_direct(request.headers()) => {
            Some(refused(StatusCode::FORBIDDEN, "without admin.token ask for it by its address, or as localhost"))
        }
        None if is_from_elsewhere(request.headers()) => {
            Some(refused(StatusCode::FORBIDDEN, "without admin.token no other page is answered"))
        }
        None if !reads => {
            Some(refused(StatusCode::FORBIDDEN, "without admin.token nothing is changed here; use the command line"))
        }
        None if ["/api/v1/export", "/api/v1/tail"].contains(&path) => {
            Some(refused(StatusCode::FORBIDDEN, "without admin.token no bodies are shown; use the command line"))
        }
        _ => None,
    };
    let mut answer = match refusal {
        Some(answer) => answer,
        None => {
            request.extensions_mut().insert(Bodies(token.is_some()));
            let late = |_| refused(StatusCode::SERVICE_UNAVAILABLE, "this took too long");
            match reads {
                true => tokio::time::timeout(PATIENCE, next.run(request)).await.unwrap_or_else(late),
                // What changes something takes as long as it takes: it must not be cut in the middle.
                false => next.run(request).await,
            }
        }
    };
    for (name, value) in HEADERS {
        answer.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    answer
}

fn refused(status: StatusCode, words: &str) -> Response {
    (status, Json(json!({ "error": words }))).into_response()
}

/// Whether the token was sent. How long the comparison takes tells nothing of how far it was right.
fn is_known(headers: &HeaderMap, token: &Secret) -> bool {
    let sent = headers.get(header::AUTHORIZATION).map(HeaderValue::as_bytes);
    let sent = sent.and_then(|sent| sent.strip_prefix(b"Bearer ")).unwrap_or_default();
    let (sent, known) = (sent, token.expose().as_bytes());
    let differ = sent.iter().zip(known).fold(0, |differ, (one, other)| differ | (one ^ other));
    // A length is no secret.
    sent.len() == known.len() && std::hint::black_box(differ) == 0
}

/// Whether a browser asks for a page of somebody else's: it could read nothing, but make us work.
fn is_from_elsewhere(headers: &HeaderMap) -> bool {
    headers.get("sec-fetch-site").is_some_and(|site| site != "same-origin" && site != "none")
}

/// Whether it was asked for by an address or as localhost.
fn is_direct(headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(header::HOST).and_then(|host| host.to_str().ok()) else { return false };
    let name = match host.rsplit_once(':') {
        _ if host.parse::<IpAddr>().is_ok() => host,
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let name = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
}

/// A listener that lets in so many at once.
struct Bounded {
    listener: TcpListener,
    places: Arc<Semaphore>,
    stop: CancellationToken,
}

impl Listener for Bounded {
    type Io = Placed;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        // The semaphore is never closed.
        let Ok(place) = Arc::clone(&self.places).acquire_owned().await else { return std::future::pending().await };
        let (stream, address) = Listener::accept(&mut self.listener).await;
        let stopped = Box::pin(self.stop.clone().cancelled_owned());
        (Placed { stream, idle: Box::pin(sleep(IDLE)), stopped, _place: place }, address)
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

/// A connection and its place. It ends when nothing has gone through it for long, and when the service stops: whoever neither
/// reads nor writes must not keep others out, nor hold the outbox.
struct Placed {
    stream: TcpStream,
    idle: Pin<Box<Sleep>>,
    stopped: Pin<Box<WaitForCancellationFutureOwned>>,
    _place: OwnedSemaphorePermit,
}

impl Placed {
    /// What came of a read or a write; an end, where it waits and has no more time.
    fn in_time<T>(&mut self, cx: &mut Context<'_>, came: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if came.is_ready() {
            self.idle.as_mut().reset(Instant::now() + IDLE);
            return came;
        }
        if self.stopped.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        if self.idle.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Poll::Pending
    }
}

impl AsyncRead for Placed {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let came = Pin::new(&mut self.stream).poll_read(cx, buf);
        self.in_time(cx, came)
    }
}

impl AsyncWrite for Placed {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let came = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.in_time(cx, came)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_known_only_whole() {
        let token = Secret::new("s3cret-token");
        let known = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, HeaderValue::from_str(text).expect("a value"));
            is_known(&headers, &token)
        };
        assert!(known("Bearer s3cret-token"));
        for wrong in
            ["Bearer s3cret-toke", "Bearer s3cret-tokeX", "Bearer s3cret-token2", "s3cret-token", "Bearer ", ""]
        {
            assert!(!known(wrong), "{wrong}");
        }
        assert!(!is_known(&HeaderMap::new(), &token));
    }

    #[test]
    fn a_name_that_is_not_ours_is_not_direct() {
        let direct = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, HeaderValue::from_str(text).expect("a value"));
            is_direct(&headers)
        };
        for ours in ["127.0.0.1:9180", "localhost", "LOCALHOST:80", "[::1]:9180", "::1", "172.19.0.6"] {
            assert!(direct(ours), "{ours}");
        }
        for other in ["example.org", "example.org:9180", "127.0.0.1.example.org", "localhost.example.org:80", ""] {
            assert!(!direct(other), "{other}");
        }
    }
}
