//! The log: records to stderr, and from a level on to the workstream log of the contract. The latter is bounded in memory,
//! never waits, never speaks of itself; what did not arrive is counted. Deliberately absent: log files and their rotation,
//! sending a record twice.

use std::fmt::{self, Write as _};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use reqwest::redirect::Policy;
use serde::Serialize;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{FilterFn, LevelFilter, filter_fn};
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

use super::settings::WorkstreamSettings;

/// How many records wait to be sent at most; what comes then is dropped and counted.
pub const QUEUED_RECORDS: usize = 1024;
/// The longest text of a record, in bytes; a longer one is cut.
pub const TEXT_BYTES: usize = 4096;
/// How long the endpoint may take for one record.
const POST_PATIENCE: Duration = Duration::from_secs(5);
/// How long the service waits, when it stops, for records that are still to be sent.
const FLUSH_PATIENCE: Duration = Duration::from_millis(500);

/// What the targets of our own records begin with.
const OURS: &str = "event_router";

/// Starts logging for the process. `json` is for programs, else a line a record for people.
///
/// # Errors
/// When something else has started it before.
pub fn init(json: bool, level: Level, workstream: Option<WorkstreamLayer>) -> Result<(), String> {
    let plain = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_target(false);
    let workstream = workstream.map(|layer| {
        let level = layer.level;
        layer.with_filter(at_least(level, None))
    });
    let registry = tracing_subscriber::registry().with(workstream);
    let color = std::io::IsTerminal::is_terminal(&std::io::stderr()) && std::env::var_os("NO_COLOR").is_none();
    // Libraries may show what is secret in their chatter, and never in a warning.
    let filter = at_least(level, Some(level.min(Level::WARN)));
    let result = match json {
        true => registry.with(plain.json().flatten_event(true).with_filter(filter)).try_init(),
        false => registry.with(plain.with_ansi(color).compact().with_filter(filter)).try_init(),
    };
    result.map_err(|error| error.to_string())
}

/// Our own records from `ours` on, those of libraries from `libraries` on, if at all. The hint spares everything less
/// important the way to the filter.
fn at_least(ours: Level, libraries: Option<Level>) -> FilterFn<impl Fn(&Metadata<'_>) -> bool> {
    let hint = LevelFilter::from_level(libraries.map_or(ours, |libraries| libraries.max(ours)));
    let filter = move |metadata: &Metadata<'_>| {
        let limit = if metadata.target().starts_with(OURS) { Some(ours) } else { libraries };
        limit.is_some_and(|limit| *metadata.level() <= limit)
    };
    filter_fn(filter).with_max_level_hint(hint)
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
    client: reqwest::Client,
    url: crate::secret::Secret,
    dropped: Arc<AtomicU64>,
}

/// What did not arrive: the queue was full, the endpoint answered no 2xx in time, or the service ended before.
#[derive(Clone, Debug)]
pub struct Dropped(Arc<AtomicU64>);

impl Dropped {
    /// How many records did not arrive so far.
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
    let (queue, records) = mpsc::channel(QUEUED_RECORDS);
    let dropped = Arc::new(AtomicU64::new(0));
    let client = reqwest::Client::builder().timeout(POST_PATIENCE).no_proxy().redirect(Policy::none()).build();
    let client = client.map_err(|error| error.without_url().to_string())?;
    let layer =
        WorkstreamLayer { records: queue, dropped: Arc::clone(&dropped), name: name.to_owned(), level: settings.level };
    let sender = WorkstreamSender { records, client, url: settings.url.clone(), dropped: Arc::clone(&dropped) };
    Ok((layer, sender, Dropped(dropped)))
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for WorkstreamLayer {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        // Records of libraries are not sent: those of HTTP would come from our own sending.
        if *metadata.level() > self.level || !metadata.target().starts_with(OURS) {
            return;
        }
        let mut text = Text::default();
        event.record(&mut text);
        let mode = metadata.level().as_str().to_lowercase();
        let record = Record { name: &self.name, mode: &mode, text: &text.whole() };
        // Full or closed: either way nobody waits.
        let queued = serde_json::to_string(&record).is_ok_and(|record| self.records.try_send(record).is_ok());
        if !queued {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// A record as the contract shows it.
#[derive(Serialize)]
struct Record<'a> {
    name: &'a str,
    mode: &'a str,
    text: &'a str,
}

impl WorkstreamSender {
    /// Sends until `stop`, then what is left for a moment. A record that cannot be sent is counted and gone: the log never
    /// holds up the service.
    pub async fn run(mut self, mut stop: oneshot::Receiver<()>) {
        let deadline = loop {
            let next = tokio::select! {
                biased;
                _ = &mut stop => None,
                next = self.records.recv() => next,
            };
            let Some(record) = next else { break Instant::now() + FLUSH_PATIENCE };
            let mut posted = pin!(self.post(record));
            let stopped = tokio::select! {
                biased;
                () = &mut posted => false,
                _ = &mut stop => true,
            };
            if stopped {
                // The record at hand goes on being sent: sent anew, it could arrive twice.
                let deadline = Instant::now() + FLUSH_PATIENCE;
                if timeout_at(deadline, posted).await.is_err() {
                    self.count(1);
                }
                break deadline;
            }
        };
        self.flush(deadline).await;
    }

    /// Sends what has queued up until the deadline, and counts the rest.
    async fn flush(&mut self, deadline: Instant) {
        self.records.close();
        while let Ok(Some(record)) = timeout_at(deadline, self.records.recv()).await {
            if timeout_at(deadline, self.post(record)).await.is_err() {
                self.count(1);
                break;
            }
        }
        self.count(self.records.len() as u64);
    }

    async fn post(&self, record: String) {
        let request = self.client.post(self.url.expose()).header("content-type", "application/json").body(record);
        // Speaking of a failure would be speaking of itself; it is counted instead.
        if !request.send().await.is_ok_and(|answer| answer.status().is_success()) {
            self.count(1);
        }
    }

    fn count(&self, records: u64) {
        self.dropped.fetch_add(records, Ordering::Relaxed);
    }
}

/// A record as text: its message, then its fields as `key=value`.
#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Text {
    /// The message and the fields, cut to [`TEXT_BYTES`].
    fn whole(self) -> String {
        let mut text = self.message + &self.fields;
        if text.len() > TEXT_BYTES {
            text.truncate(text.floor_char_boundary(TEXT_BYTES - '…'.len_utf8()));
            text.push('…');
        }
        text.trim_start().to_owned()
    }
}

impl Visit for Text {
    fn record_str(&mut self, field: &Field, value: &str) {
        // Writing to a String does not fail.
        let _written = match field.name() {
            "message" => write!(self.message, "{value}"),
            name if value.is_empty() || value.contains([' ', '"', '=', '\n']) => {
                write!(self.fields, " {name}={value:?}")
            }
            name => write!(self.fields, " {name}={value}"),
        };
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let _written = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}
