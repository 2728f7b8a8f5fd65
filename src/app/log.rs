//! The log: records to stderr, and from a level on to the workstream log of the contract. The latter is bounded in memory,
//! never waits, never speaks of itself; what it had to drop is counted. Deliberately absent: log files and their rotation.

use std::fmt::{self, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use reqwest::redirect::Policy;
use serde_json::json;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{FilterFn, filter_fn};
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

use super::settings::WorkstreamSettings;

/// How many records wait to be sent at most; what comes then is dropped and counted.
pub const QUEUED_RECORDS: usize = 1024;
/// How much of a record is sent, in characters.
const TEXT_CHARS: usize = 4096;
/// How long the endpoint may take for one record.
const POST_PATIENCE: Duration = Duration::from_secs(5);
/// How long the service waits, when it stops, for records that are still to be sent.
const FLUSH_PATIENCE: Duration = Duration::from_millis(500);

/// Starts logging for the process. `json` is for programs, else a line a record for people.
///
/// # Errors
/// When something else has started it before.
pub fn init(json: bool, level: Level, workstream: Option<WorkstreamLayer>) -> Result<(), String> {
    let plain = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_target(false);
    let registry = tracing_subscriber::registry().with(workstream);
    let color = std::io::IsTerminal::is_terminal(&std::io::stderr()) && std::env::var_os("NO_COLOR").is_none();
    let result = match json {
        true => registry.with(plain.json().flatten_event(true).with_filter(ours(level))).try_init(),
        false => registry.with(plain.with_ansi(color).compact().with_filter(ours(level))).try_init(),
    };
    result.map_err(|error| error.to_string())
}

/// Our own records from `level` on; those of libraries, which may show what is secret, only as warnings.
fn ours(level: Level) -> FilterFn<impl Fn(&Metadata<'_>) -> bool> {
    filter_fn(move |metadata| {
        let limit = if metadata.target().starts_with("event_router") { level } else { level.min(Level::WARN) };
        *metadata.level() <= limit
    })
}

/// Sends records to the workstream log.
pub struct WorkstreamLayer {
    records: mpsc::Sender<String>,
    dropped: Arc<AtomicU64>,
    name: String,
    level: Level,
}

/// The sending half: a future for `supervise` to spawn.
pub struct WorkstreamSender {
    records: mpsc::Receiver<String>,
    dropped: Arc<AtomicU64>,
    client: reqwest::Client,
    url: crate::secret::Secret,
}

/// What is left of a workstream log when it has been started: the count of what it dropped, and the way to end it.
#[derive(Clone, Debug)]
pub struct Dropped(Arc<AtomicU64>);

impl Dropped {
    /// How many records were dropped so far.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Makes both halves. TLS must have been set up.
///
/// # Errors
/// When the HTTP client cannot be made.
pub fn workstream(
    settings: &WorkstreamSettings,
    name: &str,
) -> Result<(WorkstreamLayer, WorkstreamSender, Dropped), String> {
    let (sender, records) = mpsc::channel(QUEUED_RECORDS);
    let dropped = Arc::new(AtomicU64::new(0));
    let client = reqwest::Client::builder().timeout(POST_PATIENCE).no_proxy().redirect(Policy::none()).build();
    let client = client.map_err(|error| error.without_url().to_string())?;
    let layer = WorkstreamLayer {
        records: sender,
        dropped: Arc::clone(&dropped),
        name: name.to_owned(),
        level: settings.level,
    };
    let sender = WorkstreamSender { records, dropped: Arc::clone(&dropped), client, url: settings.url.clone() };
    Ok((layer, sender, Dropped(dropped)))
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for WorkstreamLayer {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        // Records of libraries are not sent: those of HTTP would come from our own sending.
        if *metadata.level() > self.level || !metadata.target().starts_with("event_router") {
            return;
        }
        let mut text = Text::default();
        event.record(&mut text);
        let mode = metadata.level().as_str().to_lowercase();
        let text: String = text.message.chars().chain(text.fields.chars()).take(TEXT_CHARS).collect();
        let record = json!({ "name": self.name, "mode": mode, "text": text });
        if let Err(TrySendError::Full(_) | TrySendError::Closed(_)) = self.records.try_send(record.to_string()) {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl WorkstreamSender {
    /// Sends until `stop`, then what is left for a moment. A record that cannot be sent is gone: the log never holds up
    /// the service.
    pub async fn run(mut self, stop: oneshot::Receiver<()>) {
        let rest = tokio::select! {
            biased;
            _ = stop => true,
            () = self.send_all() => false,
        };
        if rest {
            self.records.close();
            // What is not sent in time is gone with the process.
            let _late = timeout(FLUSH_PATIENCE, self.send_all()).await;
        }
    }

    async fn send_all(&mut self) {
        while let Some(record) = self.records.recv().await {
            let request = self.client.post(self.url.expose()).header("content-type", "application/json").body(record);
            // Speaking of a failure would be speaking of itself: it is counted.
            if !request.send().await.is_ok_and(|answer| answer.status().is_success()) {
                self.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// A record as text: its message, then its fields.
#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Visit for Text {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            self.message.push_str(value);
        } else {
            // Writing to a String does not fail.
            let _written = write!(self.fields, " {}={value:?}", field.name());
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let _written = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}
