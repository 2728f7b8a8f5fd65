//! A simulated VK on one port: the API under `/method/`, Long Poll under `/lp`. Keeps every update it was given, and answers
//! as VK was seen to: `ts` counts updates and is text, `failed` 1 carries a number, an older `ts` brings the same again.
//!
//! Faults are put into a queue and each spoils one poll, or one call of a method. Deliberately absent: any parsing that the
//! service shares.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::vk_api;
use super::vk_faults;
pub use super::vk_faults::Fault;
use super::vk_history::History;
use super::vk_messages::Messages;

/// The longest that a poll is held.
const LONGEST_WAIT: u64 = 90;
/// How many updates are given to those who ask with an older ts, unless a server is told otherwise.
const WINDOW: u64 = 1_000_000;

/// How a server behaves.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where it listens.
    pub listen: SocketAddr,
    /// The community.
    pub group_id: i64,
    /// The token it takes; any, when there is none.
    pub token: Option<String>,
    /// The ts of the first update, less one.
    pub first_ts: u64,
    /// How many of the last updates VK still has.
    pub window: u64,
    /// A name for the faults that come by themselves: about one in so many polls.
    pub schedule: Vec<(Fault, u64)>,
    /// Seed of the schedule.
    pub seed: u64,
}

impl Default for Settings {
    fn default() -> Self {
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        Self {
            listen,
            group_id: 218_730_916,
            token: None,
            first_ts: 1000,
            window: WINDOW,
            schedule: Vec::new(),
            seed: 1,
        }
    }
}

/// A running server; clones steer the same.
#[derive(Clone)]
pub struct VkServer(Arc<Shared>);

struct Shared {
    url: String,
    settings: Settings,
    inner: Mutex<Inner>,
    changed: watch::Sender<u64>,
    task: Mutex<Option<JoinHandle<()>>>,
}

struct Inner {
    history: History,
    messages: Messages,
    key: u64,
    faults: VecDeque<Fault>,
    call_faults: HashMap<String, VecDeque<Fault>>,
    /// What the community's Long Poll settings are, if not as usual.
    community: Option<Value>,
    polls: Vec<u64>,
    calls: HashMap<String, u64>,
    schedule_state: u64,
}

impl VkServer {
    /// Starts to listen.
    ///
    /// # Errors
    /// When the address cannot be had.
    pub async fn start(settings: Settings) -> io::Result<Self> {
        let listener = TcpListener::bind(settings.listen).await?;
        let url = format!("http://{}", listener.local_addr()?);
        let inner = Inner {
            history: History::new(settings.first_ts, settings.window),
            messages: Messages::default(),
            key: 1,
            faults: VecDeque::new(),
            call_faults: HashMap::new(),
            community: None,
            polls: Vec::new(),
            calls: HashMap::new(),
            schedule_state: settings.seed | 1,
        };
        let shared =
            Shared { url, settings, inner: Mutex::new(inner), changed: watch::Sender::new(0), task: Mutex::new(None) };
        let server = Self(Arc::new(shared));
        let router =
            Router::new().route("/method/{name}", any(call)).route("/lp", any(poll)).with_state(server.clone());
        let task = tokio::spawn(async move {
            // It ends with the server; a broken listener shows as refused connections.
            let _ended = axum::serve(listener, router).await;
        });
        *server.0.task.lock().unwrap_or_else(PoisonError::into_inner) = Some(task);
        Ok(server)
    }

    /// `http://…`: the value of `vk.api_url`.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.0.url
    }

    /// The community.
    #[must_use]
    pub fn group_id(&self) -> i64 {
        self.0.settings.group_id
    }

    /// Stops at once; connections break.
    pub fn stop(&self) {
        if let Some(task) = self.0.task.lock().unwrap_or_else(PoisonError::into_inner).take() {
            task.abort();
        }
    }

    /// Adds an update, as text; returns its ts.
    pub fn push(&self, update: String) -> u64 {
        let ts = self.inner().history.push(update);
        self.wake();
        ts
    }

    /// Goes back by `count` updates, as a VK that was restored: who asks with a later ts is sent back. Answers what they were.
    pub fn go_back(&self, count: usize) -> Vec<String> {
        let mut inner = self.inner();
        let gone = inner.history.go_back(count);
        inner.messages.reread();
        drop(inner);
        self.wake();
        gone
    }

    /// VK forgets every update up to now: who asks with an older ts gets `failed` 1. Messages can still be asked for.
    pub fn forget(&self) {
        self.inner().history.forget();
        self.wake();
    }

    /// VK has only the last so many updates from now on.
    pub fn set_window(&self, window: u64) {
        self.inner().history.set_window(window);
        self.wake();
    }

    /// A message that no update tells of; `messages.getByConversationMessageId` knows it.
    pub fn add_message(&self, message: &Value) {
        self.inner().messages.add(message);
    }

    /// A message is deleted: `messages.getByConversationMessageId` leaves it out.
    pub fn delete_message(&self, peer: i64, cmid: i64) {
        self.inner().messages.delete(peer, cmid);
    }

    /// VK refuses to tell of a conversation's messages (error 917), or not any more.
    pub fn close_conversation(&self, peer: i64, closed: bool) {
        self.inner().messages.close(peer, closed);
    }

    /// Spoils the next poll that has no fault before it.
    pub fn inject(&self, fault: Fault) {
        self.inner().faults.push_back(fault);
        self.wake();
    }

    /// Spoils the next call of a method.
    pub fn inject_call(&self, method: &str, fault: Fault) {
        self.inner().call_faults.entry(method.to_owned()).or_default().push_back(fault);
    }

    /// Sets what the community's Long Poll settings are.
    pub fn set_community(&self, settings: Value) {
        self.inner().community = Some(settings);
    }

    /// The key that was given out is worth nothing any more.
    pub fn expire_key(&self) {
        self.inner().key += 1;
        self.wake();
    }

    /// The newest ts.
    #[must_use]
    pub fn head(&self) -> u64 {
        self.inner().history.head()
    }

    /// Every update that was pushed, in order.
    #[must_use]
    pub fn updates(&self) -> Vec<String> {
        self.inner().history.updates().to_vec()
    }

    /// Every ts that was polled with, in order.
    #[must_use]
    pub fn polls(&self) -> Vec<u64> {
        self.inner().polls.clone()
    }

    /// How often a method was called.
    #[must_use]
    pub fn calls(&self, method: &str) -> u64 {
        self.inner().calls.get(method).copied().unwrap_or(0)
    }

    /// Waits until something is so.
    pub async fn until(&self, mut fact: impl FnMut(&Self) -> bool) {
        let mut changed = self.0.changed.subscribe();
        while !fact(self) {
            if changed.changed().await.is_err() {
                return;
            }
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        self.0.changed.send_modify(|count| *count += 1);
    }

    /// What spoils this poll: what was put into the queue, else what the schedule says.
    fn next_fault(&self) -> Option<Fault> {
        let mut inner = self.inner();
        if let Some(fault) = inner.faults.pop_front() {
            return Some(fault);
        }
        for (fault, every) in &self.0.settings.schedule {
            // A plain xorshift: the same seed gives the same nights.
            let mut state = inner.schedule_state;
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            inner.schedule_state = state;
            if state.is_multiple_of(*every) {
                return Some(*fault);
            }
        }
        None
    }

    /// A session whose polls go where the client has found us: we may listen on every address.
    fn session(&self, host: Option<&str>) -> Value {
        let key = self.inner().key;
        let url = host.map_or_else(|| self.0.url.clone(), |host| format!("http://{host}"));
        json!({ "key": format!("key-{key}"), "server": format!("{url}/lp"), "ts": self.head().to_string() })
    }

    /// What a poll with this ts brings now: an answer, or nothing yet.
    fn answer(&self, ts: u64) -> Option<String> {
        self.inner().history.answer(ts)
    }
}

async fn call(
    State(server): State<VkServer>,
    Path(name): Path<String>,
    headers: HeaderMap,
    Query(query): Query<HashMap<String, String>>,
    body: Bytes,
) -> Response {
    let mut words = query;
    words.extend(form(&body));
    let bearer = headers
        .get("authorization")
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.strip_prefix("Bearer "));
    let token = words.get("access_token").map(String::as_str).or(bearer);
    let fault = {
        let mut inner = server.inner();
        *inner.calls.entry(name.clone()).or_default() += 1;
        inner.call_faults.get_mut(&name).and_then(VecDeque::pop_front)
    };
    server.wake();
    if let Some(fault) = fault {
        return spoiled(&server, fault, 0).await;
    }
    if server.0.settings.token.as_deref().is_some_and(|wanted| token != Some(wanted)) {
        return vk_api::error(5, "User authorization failed: invalid access_token (4).").into_response();
    }
    match name.as_str() {
        "groups.getLongPollServer" => {
            let host = headers.get("host").and_then(|host| host.to_str().ok());
            axum::Json(json!({ "response": server.session(host) })).into_response()
        }
        "groups.getLongPollSettings" if server.inner().community.is_some() => {
            axum::Json(json!({ "response": server.inner().community })).into_response()
        }
        "messages.getByConversationMessageId" => {
            let inner = &mut *server.inner();
            match inner.messages.answer(&words, inner.history.updates()) {
                Ok(told) => axum::Json(json!({ "response": told })).into_response(),
                Err((code, message)) => vk_api::error(code, &message).into_response(),
            }
        }
        _ => vk_api::answer(&name, &words, server.0.settings.group_id).into_response(),
    }
}

async fn poll(State(server): State<VkServer>, Query(query): Query<HashMap<String, String>>, body: Bytes) -> Response {
    let mut words = query;
    words.extend(form(&body));
    let ts: u64 = words.get("ts").and_then(|ts| ts.parse().ok()).unwrap_or(0);
    let wait = words.get("wait").and_then(|wait| wait.parse().ok()).unwrap_or(25).min(LONGEST_WAIT);
    server.inner().polls.push(ts);
    let mut changed = server.0.changed.subscribe();
    server.wake();
    let answer = timeout(Duration::from_secs(wait), async {
        loop {
            changed.mark_unchanged();
            let key = format!("key-{}", server.inner().key);
            if words.get("key") != Some(&key) {
                return json!({ "failed": 2 }).to_string().into_response();
            }
            if let Some(fault) = server.next_fault() {
                return spoiled(&server, fault, ts).await;
            }
            if let Some(answer) = server.answer(ts) {
                return answer.into_response();
            }
            if changed.changed().await.is_err() {
                return StatusCode::SERVICE_UNAVAILABLE.into_response();
            }
        }
    });
    answer.await.unwrap_or_else(|_| format!("{{\"ts\":\"{ts}\",\"updates\":[]}}").into_response())
}

async fn spoiled(server: &VkServer, fault: Fault, ts: u64) -> Response {
    match fault {
        Fault::Failed1 => {
            server.forget();
            json!({ "failed": 1, "ts": server.head() }).to_string().into_response()
        }
        Fault::Failed2 => {
            server.inner().key += 1;
            json!({ "failed": 2 }).to_string().into_response()
        }
        Fault::Failed3 => {
            server.forget();
            server.inner().key += 1;
            json!({ "failed": 3 }).to_string().into_response()
        }
        Fault::Hang => std::future::pending().await,
        Fault::ApiError(code) => vk_api::error(code, "An error on command").into_response(),
        other => {
            let empty = || format!("{{\"ts\":\"{ts}\",\"updates\":[]}}");
            vk_faults::body(other, || server.answer(ts).unwrap_or_else(empty))
        }
    }
}

/// A form, or nothing where the body is none.
fn form(body: &[u8]) -> HashMap<String, String> {
    let url = reqwest::Url::parse("http://form/").ok().map(|mut url| {
        url.set_query(std::str::from_utf8(body).ok().filter(|text| !text.is_empty()));
        url.query_pairs().into_owned().collect()
    });
    url.unwrap_or_default()
}
