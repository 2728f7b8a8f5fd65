//! `simulate`: the simulated VK alone, for any VK client.
#![allow(clippy::print_stdout, reason = "the command line speaks on stdout")]

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use serde_json::value::RawValue;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::exit::{Exit, Failure};
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
}

pub(super) async fn run(args: SimulateArgs, stop: CancellationToken) -> Result<Exit, Failure> {
    let numbers = args.api_version.split('.').map(|part| part.parse::<u32>().ok()).collect::<Option<Vec<_>>>();
    if numbers.is_none_or(|numbers| numbers.len() != 2) {
        return Err(Failure::usage("--api-version: expected a version like 5.199"));
    }
    let (listen, group_id, seed, tls) = (args.listen, args.group, args.seed, args.tls_ca.is_some());
    let mut settings = Settings { listen, group_id, seed, tls, ..Settings::default() };
    settings.api_version = args.api_version;
    plan(&args.faults, &mut settings).map_err(|words| Failure::usage(format!("--faults: {words}")))?;
    if !(0.0..=100_000.0).contains(&args.rate) {
        return Err(Failure::usage("--rate: expected a number from 0 to 100000"));
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
        () = server.until(|server| !server.polls().is_empty()) => {}
    }
    for update in waiting {
        server.push(update);
    }
    if args.rate <= 0.0 {
        stop.cancelled().await;
        return Ok(Exit::Done);
    }
    let mut script = Script::new(args.seed, args.group, CHATS);
    let mut ticks = interval(Duration::from_secs_f64(1.0 / args.rate));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(Exit::Done),
            _ = ticks.tick() => {}
        }
        // Real clients end at an update that cannot be read; those are for our own tests.
        let sound = std::iter::repeat_with(|| script.invent()).find(|invented| invented.served.is_some());
        if let Some(invented) = sound {
            // It is our own JSON.
            server.push_shaped(serde_json::from_str(&invented.update).unwrap_or_default());
        }
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
