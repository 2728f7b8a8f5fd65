//! The running service: opens the outbox, starts the loops, stops them. Deliberately absent: signals and exit codes (`cli`).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use rand::TryRng;
use rand::rngs::SysRng;
use tokio::sync::{mpsc, watch};
use tokio::time::interval;
use tokio_util::sync::CancellationToken;

use super::backfill::Backfill;
use super::community::Community;
use super::converter::Converter;
use super::ingest::Ingest;
use super::reconvert::Reconvert;
use super::settings::Settings;
use super::supervise::Tasks;
use super::worker::Worker;
use crate::admin;
use crate::attempts::Attempts;
use crate::clock::Clock;
use crate::delivery::{Sender, SenderError};
use crate::metrics::Metrics;
use crate::outbox::{Outbox, OutboxError, inspect};
use crate::status::Status;
use crate::vk::{Client, ClientError, Names, NamesStats};

/// How long `run` waits for another process to let go of the outbox.
const LOCK_PATIENCE: Duration = Duration::from_secs(30);
/// How often what was timed is put into histograms.
const TIDY_EVERY: Duration = Duration::from_secs(5);

/// Why the service ended.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The outbox.
    #[error(transparent)]
    Outbox(#[from] OutboxError),
    /// The way to VK.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The way to a destination.
    #[error(transparent)]
    Sender(#[from] SenderError),
    /// The operator's socket.
    #[error(transparent)]
    Admin(#[from] admin::AdminError),
    /// A loop ended that should not.
    #[error("the task {0} ended by itself; please report this")]
    Ended(String),
    /// A loop panicked.
    #[error("a task panicked: {0}; please report this")]
    Panicked(String),
}

/// Runs the service until `stop` or until it cannot go on. What was in flight is finished, what was taken is committed.
///
/// # Errors
/// Why it could not start, or not go on.
pub async fn run(settings: Settings, clock: Clock, metrics: Metrics, stop: CancellationToken) -> Result<(), RunError> {
    // Somebody may have installed it already: that is as good.
    let _installed = rustls::crypto::ring::default_provider().install_default();
    let client = Client::new(&settings.vk)?;
    let senders: Vec<_> = settings.destinations.iter().map(|(to, _)| Sender::new(to)).collect::<Result<_, _>>()?;
    let names: Vec<_> = settings.destinations.iter().map(|(to, _)| to.name.clone()).collect();
    let opening = Outbox::open(settings.outbox.clone(), names.clone(), "run", LOCK_PATIENCE, clock.clone());
    let outbox = tokio::select! {
        biased;
        // Whoever waits for a lock, or for a store to be read, has taken nothing yet.
        () = stop.cancelled() => {
            tracing::info!("stopped before the outbox was open");
            return Ok(());
        }
        opened = opening => opened?,
    };
    outbox.measure(metrics.commits());
    tell_of_detached(&outbox, &names, &clock).await?;

    let (status, attempts) = (Status::new(clock.now()), Attempts::default());
    let mut tasks = Tasks::new(stop.clone());
    let (mut workers, mut orders) = (HashMap::new(), HashMap::new());
    for name in &names {
        // An operator asks for one thing at a time.
        let (sender, receiver) = mpsc::channel(1);
        workers.insert(name.clone(), sender);
        orders.insert(name.clone(), receiver);
    }
    let board = admin::Door {
        workers,
        outbox: outbox.clone(),
        status: status.clone(),
        attempts: attempts.clone(),
        metrics: metrics.clone(),
        clock: clock.clone(),
        configured: names,
        stop: stop.clone(),
        dashboard: admin::Dashboard::default(),
    };
    let socket = admin::Socket::bind(&settings.outbox.dir)?;
    if let Some(listen) = settings.admin.listen {
        let tcp = admin::Tcp::bind(listen, settings.admin.token).await?;
        tracing::info!(address = ?tcp.address(), "the operator's door is open on TCP");
        tasks.spawn("admin on TCP", tcp.serve(board.clone(), stop.clone()));
    }
    tasks.spawn("admin", socket.serve(board, stop.clone()));
    let takes = settings.destinations.iter().map(|(to, rule)| (to.name.clone(), rule.clone())).collect();
    let community = Community { client: client.clone(), destinations: takes };
    tasks.spawn("community", community.run(stop.clone()));
    let mut rules = Vec::new();
    for ((to, rule), sender) in settings.destinations.into_iter().zip(senders) {
        let id = outbox.destination(&to.name).ok_or(OutboxError::Closed)?;
        rules.push((id, rule));
        let asked = orders.remove(&to.name).ok_or(OutboxError::Closed)?;
        let name = format!("worker {}", to.name);
        let worker = Worker {
            attempting: metrics.attempting(&to.name),
            name: to.name,
            id,
            backoff: to.backoff,
            concurrency: to.concurrency,
            batch_max: to.batch_max,
            max_attempts: to.max_attempts,
            max_age: to.max_age,
            sender,
            outbox: outbox.clone(),
            status: status.clone(),
            attempts: attempts.clone(),
            clock: clock.clone(),
            seed: seed(),
        };
        tasks.spawn(&name, worker.run(asked, stop.clone()));
    }
    let names = Names::new(client.clone(), settings.names);
    let converter = Arc::new(Converter { names, rules, events: settings.events, metrics: metrics.clone() });
    read_names(&metrics, &converter);
    tasks.spawn("metrics", tidy(metrics.clone(), stop.clone()));
    let reconvert = Reconvert { converter: Arc::clone(&converter), outbox: outbox.clone(), clock: clock.clone() };
    tasks.spawn("reconvert", reconvert.run(stop.clone()));
    let backfill = settings.vk.backfill;
    let (caught_up, has_caught_up) = watch::channel(());
    if backfill {
        let (client, converter, outbox) = (client.clone(), Arc::clone(&converter), outbox.clone());
        let (group, caught_up) = (settings.vk.group_id, has_caught_up);
        let backfill = Backfill { client, converter, outbox, group, caught_up, clock: clock.clone(), seed: seed() };
        tasks.spawn("backfill", backfill.run(stop.clone()));
    } else {
        // Before a message comes that nobody takes note of: what is kept would be wrong from then on.
        tokio::select! {
            () = stop.cancelled() => {}
            done = outbox.forget_chats(settings.vk.group_id) => done?,
        }
    }
    let ingest = Ingest {
        backfill,
        caught_up,
        converter,
        client,
        outbox: outbox.clone(),
        metrics,
        group: settings.vk.group_id,
        status: status.clone(),
        clock,
        seed: seed(),
    };
    tasks.spawn("ingest", ingest.run(stop.clone()));
    tracing::info!(name = settings.service_name, dir = %settings.outbox.dir.display(), "the service runs");
    let ended = tasks.run(outbox.watch_failure(), outbox.close()).await;
    tracing::info!("the service has stopped");
    ended
}

/// Tells of the calls for names.
fn read_names(metrics: &Metrics, converter: &Arc<Converter>) {
    let read = |name, words, count: fn(NamesStats) -> u64| {
        let converter = Arc::clone(converter);
        metrics.read(name, words, move || count(converter.names.stats()));
    };
    read("event_router_enrichment_calls_total", "Calls of VK's API for names", |names| names.calls);
    read("event_router_enrichment_failures_total", "Of these, calls that brought nothing", |names| names.failures);
    read("event_router_enrichment_cache_hits_total", "Names that were known", |names| names.hits);
    read("event_router_enrichment_cache_misses_total", "Names that were not, and were asked for", |names| names.misses);
}

/// Keeps what was timed little, until `stop`.
async fn tidy(metrics: Metrics, stop: CancellationToken) -> Result<(), RunError> {
    let mut ticks = interval(TIDY_EVERY);
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            _ = ticks.tick() => metrics.tidy(),
        }
    }
}

/// A destination that left the configuration keeps its events: that is said at every start.
async fn tell_of_detached(
    outbox: &Outbox,
    names: &[crate::domain::ids::DestinationName],
    clock: &Clock,
) -> Result<(), OutboxError> {
    let now = clock.now();
    let stats = outbox.read_store(move |kv| inspect::stats(kv, "", &[], now)).await?;
    for view in stats.destinations {
        if view.pending > 0 && !names.iter().any(|name| name.as_str() == view.name) {
            let (destination, pending) = (view.name, view.pending);
            tracing::warn!(
                destination,
                pending,
                "destination is not configured any more and keeps its events: give it back, or discard them"
            );
        }
    }
    Ok(())
}

/// A seed for jitter, told so that a run can be understood afterwards.
fn seed() -> u64 {
    // Without the system's randomness a fixed seed will do: jitter guards against stampedes, nothing more.
    let seed = SysRng.try_next_u64().unwrap_or(1);
    tracing::debug!(seed, "jitter");
    seed
}
