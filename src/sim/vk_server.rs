//! A simulated VK on one port: what it keeps, and the hands that steer it. It answers as VK was seen to: `ts` counts updates
//! and is text, `failed` 1 carries a number, an older `ts` brings the same again, events have the shape of the community's
//! settings, and types that are off do not come.
//!
//! Faults are put into a queue, each spoils one poll, or one call of a method; or they come by a plan. Deliberately absent: HTTP
//! (`vk_http`), any parsing that the service shares.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::tls::{Door, Identity};
pub use super::vk_faults::Fault;
use super::vk_history::History;
use super::vk_limits::Limits;
use super::vk_messages::{Messages, message};
use super::vk_plan::Plan;
use super::vk_shape::{shaped, version, written};
use super::{vk_api, vk_http};

/// How many updates are given to those who ask with an older ts, unless a server is told otherwise.
const WINDOW: u64 = 1_000_000;

/// How a server behaves.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Whether it is reached by https only, with a certificate of its own CA ([`VkServer::ca_pem`]).
    pub tls: bool,
    /// The community.
    pub group_id: i64,
    /// The version in the community's Long Poll settings: the shape of its events.
    pub api_version: String,
    /// The token it takes; any but none, when there is nothing here.
    pub token: Option<String>,
    /// The ts of the first update, less one.
    pub first_ts: u64,
    /// How many of the last updates VK still has.
    pub window: u64,
    /// How many polls a key lives, if not for ever.
    pub key_polls: Option<u64>,
    /// How long a key lives, if not for ever.
    pub key_span: Option<Duration>,
    /// How many calls a second are taken; more are error 6.
    pub calls_a_second: Option<usize>,
    /// How many calls of `groups.getLongPollServer` a minute are taken; more are error 29.
    pub sessions_a_minute: Option<u64>,
    /// Faults that come by themselves.
    pub plan: Plan,
    /// Seed of the plan.
    pub seed: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            tls: false,
            group_id: 218_730_916,
            api_version: "5.199".to_owned(),
            token: None,
            first_ts: 1000,
            window: WINDOW,
            key_polls: None,
            key_span: None,
            calls_a_second: None,
            sessions_a_minute: None,
            plan: Plan::default(),
            seed: 1,
        }
    }
}

/// A running server; clones steer the same.
#[derive(Clone)]
pub struct VkServer(Arc<Shared>);

struct Shared {
    url: String,
    ca_pem: Option<String>,
    settings: Settings,
    inner: Mutex<Inner>,
    changed: watch::Sender<u64>,
    task: Mutex<Option<JoinHandle<()>>>,
}

/// What changes while a server runs.
pub(super) struct Inner {
    pub(super) history: History,
    pub(super) messages: Messages,
    pub(super) limits: Limits,
    key: Key,
    pub(super) faults: VecDeque<Fault>,
    pub(super) call_faults: HashMap<String, VecDeque<Fault>>,
    /// The community's Long Poll settings.
    community: Value,
    /// Types that are off.
    off: HashSet<String>,
    pub(super) polls: Vec<u64>,
    pub(super) answers: Vec<(u64, Instant)>,
    pub(super) calls: HashMap<String, u64>,
    /// How many messages were given an event id here.
    invented: u64,
}

/// The key of Long Poll that holds now. It is bound to nothing: who has it may poll.
struct Key {
    number: u64,
    polls: u64,
    since: Instant,
}

impl Inner {
    fn set_community(&mut self, settings: Value) {
        let off = |value: &Value| value == &json!(0) || value == &json!(false);
        let events = settings["events"].as_object().into_iter().flatten();
        self.off = events.filter(|(_, value)| off(value)).map(|(name, _)| name.clone()).collect();
        self.community = settings;
    }

    fn api_version(&self) -> &str {
        self.community["api_version"].as_str().unwrap_or_default()
    }

    /// Adds an update unless its type is off; returns the newest ts.
    fn take(&mut self, update: String) -> u64 {
        // A type is looked for only where it matters.
        let off = !self.off.is_empty()
            && serde_json::from_str::<Value>(&update)
                .is_ok_and(|update| update["type"].as_str().is_some_and(|name| self.off.contains(name)));
        if !off {
            return self.history.push(update);
        }
        if let Some(message) = message(&update) {
            self.messages.add(&message);
        }
        self.history.head()
    }

    pub(super) fn expire_key(&mut self) {
        self.key = Key { number: self.key.number + 1, polls: 0, since: Instant::now() };
    }

    pub(super) fn key(&self) -> String {
        format!("key-{}", self.key.number)
    }

    /// A poll has come with the key that holds: it may have been one too many.
    pub(super) fn wear_key(&mut self, settings: &Settings) {
        self.key.polls += 1;
        if settings.key_polls.is_some_and(|most| self.key.polls > most) {
            self.expire_key();
        }
    }

    /// An old key holds no longer.
    pub(super) fn age_key(&mut self, settings: &Settings) {
        if settings.key_span.is_some_and(|span| self.key.since.elapsed() >= span) {
            self.expire_key();
        }
    }

    /// The community's Long Poll settings.
    pub(super) fn community(&self) -> &Value {
        &self.community
    }

    /// Changes the settings as `groups.setLongPollSettings` asks.
    pub(super) fn change_community(&mut self, words: &HashMap<String, String>) {
        let mut settings = self.community.clone();
        for (name, word) in words {
            match name.as_str() {
                "enabled" => settings["is_enabled"] = json!(word != "0"),
                "api_version" => settings["api_version"] = json!(word),
                name if settings["events"].get(name).is_some() => {
                    settings["events"][name] = json!(u8::from(word != "0"))
                }
                _ => {}
            }
        }
        self.set_community(settings);
    }
}

impl VkServer {
    /// Starts to listen.
    ///
    /// # Errors
    /// When the address cannot be had.
    pub async fn start(settings: Settings) -> io::Result<Self> {
        let listener = TcpListener::bind(settings.listen).await?;
        let identity = settings.tls.then(|| Identity::new("VK", settings.listen.ip())).transpose()?;
        let scheme = if settings.tls { "https" } else { "http" };
        let url = format!("{scheme}://{}", listener.local_addr()?);
        let mut inner = Inner {
            history: History::new(settings.first_ts, settings.window),
            messages: Messages::default(),
            limits: Limits::default(),
            key: Key { number: 1, polls: 0, since: Instant::now() },
            faults: VecDeque::new(),
            call_faults: HashMap::new(),
            community: Value::Null,
            off: HashSet::new(),
            polls: Vec::new(),
            answers: Vec::new(),
            calls: HashMap::new(),
            invented: 0,
        };
        inner.set_community(vk_api::community(&settings.api_version));
        let door = Door::new(listener, identity.as_ref());
        let server = Self(Arc::new(Shared {
            url,
            ca_pem: identity.map(|identity| identity.ca_pem),
            settings,
            inner: Mutex::new(inner),
            changed: watch::Sender::new(0),
            task: Mutex::new(None),
        }));
        let task = tokio::spawn(vk_http::serve(door, server.clone()));
        *server.0.task.lock().unwrap_or_else(PoisonError::into_inner) = Some(task);
        Ok(server)
    }

    /// `http://…` or `https://…`: the value of `vk.api_url`.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.0.url
    }

    /// The certificate of the CA that vouches for this server, as a PEM file, when it is reached by https.
    #[must_use]
    pub fn ca_pem(&self) -> Option<&str> {
        self.0.ca_pem.as_deref()
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

    /// Adds an update, as text that is passed on untouched; returns its ts. One whose type is off does not come.
    pub fn push(&self, update: String) -> u64 {
        let ts = self.inner().take(update);
        self.wake();
        ts
    }

    /// Adds an update of the newest shape, which comes in the shape of the community's settings; returns its ts.
    pub fn push_shaped(&self, update: Value) -> u64 {
        let mut inner = self.inner();
        let told = written(&shaped(update.clone(), inner.api_version()));
        if version(inner.api_version()) < (5, 80) {
            // Such an update does not tell which message it is.
            if let Some(message) = message(&update.to_string()) {
                inner.messages.add(&message);
            }
        }
        let ts = inner.take(told);
        drop(inner);
        self.wake();
        ts
    }

    /// Adds a new message, given as the newest API tells it; returns the id of its event.
    pub fn push_message(&self, message: Value) -> String {
        let event_id = {
            let mut inner = self.inner();
            inner.invented += 1;
            format!("5eed{:036x}", inner.invented)
        };
        let shown = json!({ "button_actions": ["text", "callback"], "keyboard": true, "inline_keyboard": true,
            "carousel": true, "lang_id": 0 });
        self.push_shaped(
            json!({ "group_id": self.group_id(), "type": "message_new", "event_id": event_id, "v": "5.199",
            "object": { "message": message, "client_info": shown } }),
        );
        event_id
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

    /// Spoils the next poll that has no fault before it.
    pub fn inject(&self, fault: Fault) {
        self.inner().faults.push_back(fault);
        self.wake();
    }

    /// Spoils the next call of a method.
    pub fn inject_call(&self, method: &str, fault: Fault) {
        self.inner().call_faults.entry(method.to_owned()).or_default().push_back(fault);
    }

    /// Calls are spoiled no more.
    pub fn spare_calls(&self) {
        self.inner().call_faults.clear();
    }

    /// Polls are spoiled no more.
    pub fn spare_polls(&self) {
        self.inner().faults.clear();
    }

    /// Sets what the community's Long Poll settings are: which types are on, and the version that shapes events.
    pub fn set_community(&self, settings: Value) {
        self.inner().set_community(settings);
    }

    /// The key that was given out is worth nothing any more.
    pub fn expire_key(&self) {
        self.inner().expire_key();
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

    /// Every poll that was answered with what there is: the ts it was asked with, and when.
    #[must_use]
    pub fn answers(&self) -> Vec<(u64, Instant)> {
        self.inner().answers.clone()
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

    pub(super) fn settings(&self) -> &Settings {
        &self.0.settings
    }

    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.0.changed.subscribe()
    }

    pub(super) fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn wake(&self) {
        self.0.changed.send_modify(|count| *count += 1);
    }
}
