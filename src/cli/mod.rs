//! Floor 3, the command line: words in, words out, exit codes. One file a command.
//!
//! Deliberately absent: anything that the service decides.

mod access;
mod args;
mod care;
mod change;
mod check;
mod completions;
mod convert;
mod demo;
mod demo_picture;
mod exit;
mod health;
mod outbox;
mod render;
mod route;
mod run;
mod selector;
mod simulate;
mod stats;
mod tail;
mod tail_line;
mod trouble;
mod updates;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use args::{Cli, Command, OutboxVerb};
use exit::{Exit, Failure, ended};

use crate::app::supervise;
use crate::config::{Loaded, Problems, Source, load};

/// Everything that the binary does.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    // Another library may have installed it: that is as good.
    let _installed = rustls::crypto::ring::default_provider().install_default();
    let result = Builder::new_multi_thread().enable_all().build().map_err(Failure::from).and_then(|runtime| {
        let result = runtime.block_on(command(cli));
        // Whatever still blocks (a read of the terminal) must not hold the process.
        runtime.shutdown_background();
        result
    });
    ended(result)
}

async fn command(cli: Cli) -> Result<Exit, Failure> {
    let config = || configuration(cli.config.clone());
    match cli.command {
        Command::Run => {
            // A signal may come before the configuration is read.
            let stop = on_signals()?;
            run::run(config()?, stop).await
        }
        Command::Demo(args) => demo::run(args.seed, on_signals()?).await,
        Command::Simulate(args) => simulate::run(args, on_signals()?).await,
        Command::Check { online } => check::run(config()?, online).await,
        Command::Completions { shell } => completions::run(shell),
        Command::Convert(args) => convert::run(&args, &config()?.events),
        Command::Route(args) => {
            let loaded = config()?;
            route::run(&args, &loaded.events.clone(), &loaded.rules()?)
        }
        Command::Health { ready } => health::run(&config()?.outbox.dir, ready).await,
        Command::Outbox { json, verb: OutboxVerb::Events(verb) } => {
            let (dir, configured) = outbox_of(config()?);
            outbox::run(&dir, &configured, verb, json).await
        }
        Command::Outbox { json, verb: OutboxVerb::Tail(args) } => {
            tail::run(&config()?.outbox.dir, args, json, on_signals()?).await
        }
        Command::Outbox { json, verb: OutboxVerb::Care(verb) } => care::run(&config()?.outbox.dir, verb, json).await,
        Command::Outbox { json, verb: OutboxVerb::Change(verb) } => {
            let (dir, configured) = outbox_of(config()?);
            change::run(&dir, configured, verb, json).await
        }
    }
}

/// Where the outbox is, and the destinations of the configuration, if they are known.
fn outbox_of(loaded: Loaded) -> (PathBuf, Vec<String>) {
    let dir = loaded.outbox.dir.clone();
    let rules = loaded.rules().unwrap_or_default();
    (dir, rules.into_iter().map(|(name, _)| name.to_string()).collect())
}

fn configuration(file: Option<PathBuf>) -> Result<Loaded, Problems> {
    let env = std::env::vars_os().filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)));
    load(&Source { file, env: env.collect() })
}

/// SIGTERM or SIGINT stops; a second one ends the process at once.
#[allow(clippy::exit, reason = "a second signal ends the process at once: contract §7")]
fn on_signals() -> Result<CancellationToken, Failure> {
    let stop = CancellationToken::new();
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let token = stop.clone();
    let listen = async move {
        for turn in 0..2 {
            tokio::select! {
                _ = term.recv() => {}
                _ = int.recv() => {}
            }
            token.cancel();
            if turn == 1 {
                std::process::exit(1);
            }
        }
    };
    drop(supervise::beside(listen));
    Ok(stop)
}
