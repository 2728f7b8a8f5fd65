//! What the tests of the whole service stand on: a simulated VK, simulated handlers, a configuration, and the service, in
//! this process or as one of its own. Facts are waited for, under one limit.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use event_router::app::{self, RunError};
use event_router::clock::Clock;
use event_router::config::{Source, load};
use event_router::metrics::Metrics;
use event_router::outbox::gaps::GapView;
use event_router::outbox::views::{DestinationView, Stats};
use event_router::sim::books::{Balance, Served, Taken, balance};
use event_router::sim::handler::{Handler, Received};
use event_router::sim::vk_server::{Settings, VkServer};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Nothing is waited for longer, not even on a machine that has much else to do.
pub(crate) const PATIENCE: Duration = Duration::from_secs(180);
/// Retries that a test need not wait for.
pub(crate) const FAST: &str = "[delivery]\ninitial_interval = \"20ms\"\nmax_interval = \"100ms\"\ntimeout = \"5s\"";
pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_event-router");

/// Waits for a fact; a test that waits in vain says for what.
pub(crate) async fn within<T>(what: &str, fact: impl Future<Output = T>) -> T {
    timeout(PATIENCE, fact).await.unwrap_or_else(|_| panic!("waited in vain: {what}"))
}

pub(crate) struct Rig {
    pub(crate) dir: TempDir,
    data: PathBuf,
    pub(crate) vk: VkServer,
    pub(crate) handlers: BTreeMap<&'static str, Handler>,
    pub(crate) served: Vec<Served>,
    count: u64,
}

impl Rig {
    /// Handlers by name, each with the text of its table besides `url`; `rest` is the rest of the configuration.
    pub(crate) async fn new(destinations: &[(&'static str, &str)], rest: &str) -> Self {
        Self::with_outbox(destinations, rest, "").await
    }

    /// The same, with more lines for `[outbox]`.
    pub(crate) async fn with_outbox(destinations: &[(&'static str, &str)], rest: &str, outbox: &str) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let data = dir.path().join("data");
        Self::made(Settings::default(), dir, data, destinations, rest, outbox, "").await
    }

    /// The same, with more lines for `[vk]`.
    pub(crate) async fn with_vk(destinations: &[(&'static str, &str)], vk: &str) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let data = dir.path().join("data");
        Self::made(Settings::default(), dir, data, destinations, "", "", vk).await
    }

    /// The same, with a VK that behaves so. One reached by https is believed: its CA lies in the file `ca.pem`.
    pub(crate) async fn against(vk: Settings, destinations: &[(&'static str, &str)]) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let data = dir.path().join("data");
        let more = if vk.tls { format!("ca_file = {:?}", dir.path().join("ca.pem")) } else { String::new() };
        let rig = Self::made(vk, dir, data, destinations, "", "", &more).await;
        if let Some(pem) = rig.vk.ca_pem() {
            fs::write(rig.dir.path().join("ca.pem"), pem).expect("written");
        }
        rig
    }

    /// The same, with the outbox in a directory elsewhere.
    pub(crate) async fn on(data: &Path, destinations: &[(&'static str, &str)], rest: &str, outbox: &str) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        Self::made(Settings::default(), dir, data.to_owned(), destinations, rest, outbox, "").await
    }

    async fn made(
        vk: Settings,
        dir: TempDir,
        data: PathBuf,
        destinations: &[(&'static str, &str)],
        rest: &str,
        outbox: &str,
        more: &str,
    ) -> Self {
        drop(rustls::crypto::ring::default_provider().install_default());
        // A client that forgets its token gets nothing.
        let vk = VkServer::start(Settings { token: Some("a-secret-token".to_owned()), ..vk }).await;
        let vk = vk.expect("a simulated VK");
        let mut handlers = BTreeMap::new();
        let mut config = format!(
            "{rest}\n[vk]\ntoken = \"a-secret-token\"\napi_url = {:?}\ngroup_id = {}\nwait = \"2s\"\n{more}\n[admin]\nlisten = \"off\"\n[outbox]\ndir = {:?}\n{outbox}\n",
            vk.url(),
            vk.group_id(),
            data
        );
        for (name, table) in destinations {
            let handler = Handler::start().await.expect("a handler");
            config += &format!("[destinations.{name}]\nurl = {:?}\n{table}\n", handler.url());
            handlers.insert(*name, handler);
        }
        fs::write(dir.path().join("event-router.toml"), config).expect("written");
        Self { dir, data, vk, handlers, served: Vec::new(), count: 0 }
    }

    pub(crate) fn handler(&self, name: &str) -> &Handler {
        &self.handlers[name]
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.data.clone()
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.dir.path().join("event-router.toml")
    }

    /// Takes a destination out of the configuration, in which `next` follows it.
    pub(crate) fn detach(&self, name: &str, next: &str) {
        let config = fs::read_to_string(self.config()).expect("read");
        let at = |name: &str| config.find(&format!("[destinations.{name}]")).expect("there");
        fs::write(self.config(), format!("{}{}", &config[..at(name)], &config[at(next)..])).expect("written");
    }

    /// Starts the service in this process and waits until it polls.
    pub(crate) async fn start(&self) -> Running {
        let running = self.start_unseen();
        let before = self.vk.polls().len();
        within("the first poll", self.vk.until(|vk| vk.polls().len() > before)).await;
        running
    }

    pub(crate) fn start_unseen(&self) -> Running {
        self.start_by(Clock::system())
    }

    /// Starts the service in this process by another clock.
    pub(crate) fn start_by(&self, clock: Clock) -> Running {
        let source = Source { file: Some(self.config()), env: Vec::new() };
        let settings = load(&source).expect("a sound configuration").service().expect("a whole configuration");
        let stop = CancellationToken::new();
        Running { task: tokio::spawn(app::run(settings, clock, Metrics::default(), stop.clone())), stop }
    }

    /// Starts the service as a process.
    pub(crate) fn spawn(&self) -> Child {
        self.command(&["run"]).spawn().expect("started")
    }

    /// The binary with words, with this configuration, and a clean environment.
    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(BINARY);
        command.args(words).arg("--config").arg(self.config()).env_clear().stdin(Stdio::null()).kill_on_drop(true);
        let log = fs::File::options().append(true).create(true).open(self.dir.path().join("log")).expect("a log");
        command.stdout(Stdio::null()).stderr(Stdio::from(log));
        command
    }

    /// Runs the binary to its end.
    pub(crate) async fn run(&self, words: &[&str]) -> Output {
        let output = self.command(words).stdout(Stdio::piped()).stderr(Stdio::piped()).output();
        within("the end of a command", output).await.expect("run")
    }

    /// What a command says, once it can: while a service opens its outbox it asks to be tried again in a moment.
    pub(crate) async fn json<T: DeserializeOwned>(&self, words: &[&str]) -> T {
        let asked = [words, &["--json"]].concat();
        let output = within(&format!("an answer to {words:?}"), async {
            loop {
                let output = self.run(&asked).await;
                let opens = String::from_utf8_lossy(&output.stderr).contains("it starts, stops, or hangs");
                if output.status.code() != Some(75) || !opens {
                    return output;
                }
            }
        })
        .await;
        let log = || fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
        assert!(output.status.success(), "{words:?}: {}\n{}", String::from_utf8_lossy(&output.stderr), log());
        serde_json::from_slice(&output.stdout).expect("JSON")
    }

    pub(crate) async fn stats(&self) -> Stats {
        self.json(&["outbox", "stats"]).await
    }

    pub(crate) async fn gaps(&self) -> Vec<GapView> {
        self.json(&["outbox", "gaps"]).await
    }

    /// Waits until the statistics satisfy something.
    pub(crate) async fn until(&self, what: &str, mut fact: impl FnMut(&Stats) -> bool) -> Stats {
        within(what, async {
            loop {
                let stats = self.stats().await;
                if fact(&stats) {
                    return stats;
                }
            }
        })
        .await
    }

    /// Waits until everything that VK has was read and nothing is pending.
    pub(crate) async fn until_settled(&self) -> Stats {
        let head = self.vk.head().to_string();
        let settled = |stats: &Stats| {
            stats.checkpoints.iter().any(|checkpoint| checkpoint.ts == head)
                && stats.destinations.iter().all(|view| view.pending == 0)
        };
        self.until("everything is settled", settled).await
    }

    /// Gives VK a message for the destinations named; returns its event id.
    pub(crate) fn message(&mut self, peer: i64, text: &str, to: &[&str]) -> String {
        self.count += 1;
        let message =
            json!({ "from_id": 100, "peer_id": peer, "text": text, "date": 1, "conversation_message_id": self.count });
        self.update("message_new", json!({ "message": message }), &format!("peer {peer}"), to)
    }

    pub(crate) fn update(&mut self, kind: &str, object: Value, lane: &str, to: &[&str]) -> String {
        self.count += 1;
        let event_id = format!("{:040x}", self.count);
        let update = json!({ "group_id": self.vk.group_id(), "type": kind, "event_id": event_id, "v": "5.199", "object": object });
        self.vk.push(update.to_string());
        let destinations = to.iter().map(ToString::to_string).collect();
        self.served.push(Served { event_id: event_id.clone(), lane: lane.to_owned(), destinations });
        event_id
    }

    /// The books, given what is dead.
    pub(crate) fn books(&self, dead: &BTreeSet<(String, String)>) -> Balance {
        let take = |handler: &Handler| {
            let fine = handler.received().into_iter().filter(|one| (200..300).contains(&one.status));
            fine.flat_map(|one| taken(&one)).collect()
        };
        let taken = self.handlers.iter().map(|(name, handler)| ((*name).to_owned(), take(handler))).collect();
        balance(&self.served, &taken, dead)
    }

    pub(crate) fn assert_balanced(&self) -> Balance {
        let balance = self.books(&BTreeSet::new());
        assert!(balance.balanced(), "{balance}");
        balance
    }
}

/// The text of the message that a request brought.
pub(crate) fn text(received: &Received) -> String {
    let body: Value = serde_json::from_slice(&received.body).expect("JSON");
    body["text"].as_str().unwrap_or_default().to_owned()
}

/// What a request brought: one event, or a list of them.
fn taken(one: &Received) -> Vec<Taken> {
    if !one.body.starts_with(b"[") {
        return vec![Taken { event_id: one.event_id.clone(), body: one.body.to_vec() }];
    }
    let all: Vec<&serde_json::value::RawValue> = serde_json::from_slice(&one.body).expect("a list");
    let event = |raw: &&serde_json::value::RawValue| {
        let value: Value = serde_json::from_str(raw.get()).expect("JSON");
        let event_id = value["event_id"].as_str().expect("an id").to_owned();
        Taken { event_id, body: raw.get().as_bytes().to_vec() }
    };
    let events: Vec<Taken> = all.iter().map(event).collect();
    assert_eq!(one.event_id, format!("{}+{}", events[0].event_id, events.len()));
    events
}

pub(crate) fn view<'a>(stats: &'a Stats, name: &str) -> &'a DestinationView {
    stats.destinations.iter().find(|view| view.name == name).expect("a destination")
}

/// The service in this process.
pub(crate) struct Running {
    task: JoinHandle<Result<(), RunError>>,
    stop: CancellationToken,
}

impl Running {
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        within("the end of the service", self.task).await.expect("no panic").expect("a clean end");
    }
}
