//! A handler in Rust, to begin from: it believes only what is signed and fresh, does each event once, and answers so that
//! event-router knows what to do next. Run it:
//!
//!     WEBHOOK_SECRET=whsec_… cargo run --example handler -- 127.0.0.1:7560
//!
//! Several secrets have blanks between. It needs axum, tokio, serde_json, base64, hmac and sha2. Deliberately absent: a
//! database. What is done is remembered in memory; keep it where your work goes, in the same transaction.

use std::collections::{HashSet, VecDeque};
use std::env;
use std::error::Error;
use std::io::{self, Write};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::Value;
use sha2::Sha256;
use tokio::net::TcpListener;
use tokio::sync::Mutex;

/// How far a timestamp may be from our clock: who has an old request cannot use it again.
const TOLERANCE_SECONDS: u64 = 300;
/// How many ids are remembered. Repeats come soon after a failure, or by a replay, which is as old as what is kept.
const REMEMBERED: usize = 100_000;
/// The largest event that is taken.
const BODY_BYTES: usize = 16 << 20;

/// Why an event is not done.
#[derive(Debug)]
pub(crate) enum Failure {
    /// It can never be done: event-router keeps it as a dead letter and goes on with the chat.
    Never(&'static str),
    /// Something that we need is away: nothing is sent to us for so many seconds, and nothing is lost.
    NotNow(u32),
}

type Work = Box<dyn FnMut(&Value) -> Result<(), Failure> + Send>;

struct Handler {
    keys: Vec<Vec<u8>>,
    state: Mutex<Done>,
}

/// What was done. The lock is held while an event is worked on, so that a repeat that comes meanwhile waits for the first.
struct Done {
    ids: HashSet<String>,
    order: VecDeque<String>,
    work: Work,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let keys = keys(&env::var("WEBHOOK_SECRET")?)?;
    let address = env::args().nth(1).unwrap_or_else(|| "127.0.0.1:7560".to_owned());
    let listener = TcpListener::bind(address).await?;
    writeln!(io::stdout(), "READY http://{}", listener.local_addr()?)?;
    Ok(axum::serve(listener, router(keys, Box::new(print))).await?)
}

/// The work: yours goes here.
fn print(event: &Value) -> Result<(), Failure> {
    let event_type = event["event_type"].as_str().ok_or(Failure::Never("this is no event"))?;
    let (id, peer, text) = (&event["event_id"], &event["peer_id"], &event["text"]);
    writeln!(io::stdout(), "{id} {event_type} in {peer}: {text}").map_err(|_| Failure::NotNow(5))
}

/// The keys of `whsec_… whsec_…`.
pub(crate) fn keys(secrets: &str) -> Result<Vec<Vec<u8>>, Box<dyn Error>> {
    let key = |secret: &str| {
        let base64 = secret.strip_prefix("whsec_").ok_or("a secret begins with whsec_")?;
        Ok(STANDARD.decode(base64).map_err(|_| "behind whsec_ a secret is base64")?)
    };
    secrets.split_whitespace().map(key).collect()
}

/// Takes events, does each once.
pub(crate) fn router(keys: Vec<Vec<u8>>, work: Work) -> Router {
    let state = Mutex::new(Done { ids: HashSet::new(), order: VecDeque::new(), work });
    let handler = Arc::new(Handler { keys, state });
    Router::new().route("/", post(take)).layer(DefaultBodyLimit::max(BODY_BYTES)).with_state(handler)
}

async fn take(State(handler): State<Arc<Handler>>, headers: HeaderMap, body: Bytes) -> Response {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    // The bytes as they came: JSON that was read and written again may have others.
    let id = match verify(&handler.keys, &headers, &body, now) {
        Ok(id) => id,
        Err(why) => return (StatusCode::UNAUTHORIZED, why).into_response(),
    };
    let Ok(event) = serde_json::from_slice::<Value>(&body) else {
        return (StatusCode::BAD_REQUEST, "this is no JSON").into_response();
    };
    let mut done = handler.state.lock().await;
    if done.ids.contains(id) {
        // A repeat: the first time our answer did not arrive. It is delivered.
        return (StatusCode::OK, "done before").into_response();
    }
    match (done.work)(&event) {
        Ok(()) => done.remember(id),
        Err(Failure::Never(why)) => return (StatusCode::UNPROCESSABLE_ENTITY, why).into_response(),
        Err(Failure::NotNow(seconds)) => {
            let after = [(header::RETRY_AFTER, seconds.to_string())];
            return (StatusCode::SERVICE_UNAVAILABLE, after, "not now").into_response();
        }
    }
    (StatusCode::OK, "done").into_response()
}

impl Done {
    fn remember(&mut self, id: &str) {
        self.ids.insert(id.to_owned());
        self.order.push_back(id.to_owned());
        if self.order.len() > REMEMBERED {
            self.order.pop_front().map(|oldest| self.ids.remove(&oldest));
        }
    }
}

/// The id of a request that one of the keys has signed, lately; else why it is not believed.
pub(crate) fn verify<'h>(
    keys: &[Vec<u8>],
    headers: &'h HeaderMap,
    body: &[u8],
    now: u64,
) -> Result<&'h str, &'static str> {
    let header = |name| headers.get(name).and_then(|value| value.to_str().ok()).ok_or("a webhook header is missing");
    let (id, timestamp) = (header("webhook-id")?, header("webhook-timestamp")?);
    let made = timestamp.parse::<u64>().map_err(|_| "the timestamp is no number")?;
    if made.abs_diff(now) > TOLERANCE_SECONDS {
        return Err("the timestamp is too far from now; are both clocks right?");
    }
    for signature in header("webhook-signature")?.split(' ') {
        // Signatures of other versions may stand beside.
        let Some(Ok(signature)) = signature.strip_prefix("v1,").map(|base64| STANDARD.decode(base64)) else { continue };
        for key in keys {
            let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { continue };
            [id.as_bytes(), b".", timestamp.as_bytes(), b".", body].iter().for_each(|part| mac.update(part));
            // Takes as long for a wrong one as for a right one.
            if mac.verify_slice(&signature).is_ok() {
                return Ok(id);
            }
        }
    }
    Err("no signature is right; is the secret the same on both sides?")
}
