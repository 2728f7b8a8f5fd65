//! `simulate`: the simulated VK alone, for any VK client; or a handler alone, for a service without handlers yet.
//! Deliberately absent: what they do (`sim`).
#![allow(clippy::print_stdout, reason = "the command line speaks on stdout")]

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use serde_json::value::RawValue;
use tokio::net::TcpListener;
use tokio::time::{Interval, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::exit::{Exit, Failure, say};
use crate::sim::onlooker;
use crate::sim::script::Script;
use crate::sim::vk_plan::plan;
use crate::sim::vk_server::{Settings, VkServer};

/// How many chats the invented updates come from.
const CHATS: u32 = 20;

/// Words of `simulate`.
#[derive(Debug, Args)]
#[command(
    after_help = "Point a client at it: event-router with vk.api_url = the printed URL; others by replacing https://api.vk.ru.\n\nFaults are words with commas, each optionally @N for about one in N: failed2@20,cut,session29@10,key=30, or night for a mix of all that loses nothing. docs/SIMULATOR.md tells all of them."
)]
pub(super) struct SimulateArgs {
    /// Where to listen
    #[arg(long, default_value = "127.0.0.1:0", value_name = "A")]
    listen: SocketAddr,
    /// Updates that wait from the start: a JSON array, or one JSON a line
    #[arg(long, value_name = "FILE")]
    events: Option<PathBuf>,
    /// Updates of --events a second; 0 gives all of them at once
    #[arg(long, default_value_t = 0.0, value_name = "N")]
    pace: f64,
    /// Invented updates a second; 0 is none
    #[arg(long, default_value_t = 1.0, value_name = "N")]
    rate: f64,
    /// The same seed invents the same
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// What goes wrong
    #[arg(long, default_value = "", value_name = "LIST")]
    faults: String,
    /// The community
    #[arg(long, default_value_t = 218_730_916, value_name = "ID")]
    group: i64,
    /// The version in the community's Long Poll settings: the shape of invented events
    #[arg(long, default_value = "5.199", value_name = "V")]
    api_version: String,
    /// Serve https, and write the CA's certificate to this file
    #[arg(long, value_name = "FILE")]
    tls_ca: Option<PathBuf>,
    /// Be a handler instead, which takes every event and tells each on a line
    #[arg(long, conflicts_with_all = ["events", "pace", "rate", "seed", "faults", "group", "api_version", "tls_ca"])]
    handler: bool,
}

pub(super) async fn run(args: SimulateArgs, stop: CancellationToken) -> Result<Exit, Failure> {
    if args.handler {
        return look_on(args.listen, stop).await;
    }
    let numbers = args.api_version.split('.').map(|part| part.parse::<u32>().ok()).collect::<Option<Vec<_>>>();
    if numbers.is_none_or(|numbers| numbers.len() != 2) {
        return Err(Failure::usage("--api-version: expected a version like 5.199"));
    }
    let (listen, group_id, seed, tls) = (args.listen, args.group, args.seed, args.tls_ca.is_some());
    let mut settings = Settings { listen, group_id, seed, tls, ..Settings::default() };
    settings.api_version.clone_from(&args.api_version);
    plan(&args.faults, &mut settings).map_err(|words| Failure::usage(format!("--faults: {words}")))?;
    for (name, rate) in [("--rate", args.rate), ("--pace", args.pace)] {
        if !(0.0..=100_000.0).contains(&rate) {
            return Err(Failure::usage(format!("{name}: expected a number from 0 to 100000")));
        }
    }
    let waiting = args.events.as_deref().map(read).transpose()?.unwrap_or_default();
    let server = VkServer::start(settings)
        .await
        .map_err(|error| Failure::new(format!("cannot listen on {}: {error}", args.listen)))?;
    if let (Some(file), Some(pem)) = (&args.tls_ca, server.ca_pem()) {
        std::fs::write(file, pem).map_err(|error| Failure::new(format!("{}: {error}", file.display())))?;
    }
    println!("READY {}", server.url());
    // A new session starts at the newest ts: what waits is given once somebody listens.
    tokio::select! {
        () = stop.cancelled() => return Ok(Exit::Done),
        () = server.until(|server| !server.polls().is_empty()) => say("POLLED\n")?,
    }
    tokio::select! {
        () = stop.cancelled() => return Ok(Exit::Done),
        _ = async { tokio::join!(give(&server, waiting, args.pace), invent(&server, &args)) } => {}
    }
    stop.cancelled().await;
    Ok(Exit::Done)
}

/// Gives what waits: so many a second, or at once.
async fn give(server: &VkServer, waiting: Vec<String>, pace: f64) {
    let mut ticks = every(pace);
    for update in waiting {
        if let Some(ticks) = &mut ticks {
            ticks.tick().await;
        }
        server.push(update);
    }
}

/// Gives what is invented: so many a second, or nothing.
async fn invent(server: &VkServer, args: &SimulateArgs) {
    let Some(mut ticks) = every(args.rate) else { return };
    let mut script = Script::new(args.seed, args.group, CHATS);
    loop {
        ticks.tick().await;
        // Real clients end at an update that cannot be read; those are for our own tests.
        let sound = std::iter::repeat_with(|| script.invent()).find(|invented| invented.served.is_some());
        if let Some(invented) = sound {
            // It is our own JSON.
            server.push_shaped(serde_json::from_str(&invented.update).unwrap_or_default());
        }
    }
}

/// Nobody waits for the next one longer than this.
const SLOWEST: Duration = Duration::from_secs(86_400);

/// So many ticks a second, those that were missed too.
fn every(rate: f64) -> Option<Interval> {
    (rate > 0.0).then(|| {
        let mut ticks = interval(Duration::try_from_secs_f64(1.0 / rate).unwrap_or(SLOWEST).min(SLOWEST));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        ticks
    })
}

/// A handler that takes everything.
async fn look_on(listen: SocketAddr, stop: CancellationToken) -> Result<Exit, Failure> {
    let told = |error| Failure::new(format!("cannot listen on {listen}: {error}"));
    let listener = TcpListener::bind(listen).await.map_err(told)?;
    println!("READY http://{}", listener.local_addr().map_err(told)?);
    tokio::select! {
        () = stop.cancelled() => Ok(Exit::Done),
        ended = onlooker::serve(listener, |line| drop(say(&format!("{line}\n")))) => ended.map(|()| Exit::Done).map_err(told),
    }
}

/// The updates of a file, each as it stands there.
fn read(path: &Path) -> Result<Vec<String>, Failure> {
    let told = |words: String| Failure::new(format!("{}: {words}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| told(error.to_string()))?;
    let values = serde_json::Deserializer::from_str(&text).into_iter().collect::<Result<Vec<Box<RawValue>>, _>>();
    let mut updates = Vec::new();
    for value in values.map_err(|error| told(format!("no JSON: {error}")))? {
        match value.get().starts_with('[') {
            true => updates.extend(serde_json::from_str::<Vec<Box<RawValue>>>(value.get()).unwrap_or_default()),
            false => updates.push(value),
        }
    }
    Ok(updates.into_iter().map(|update| update.get().to_owned()).collect())
}
