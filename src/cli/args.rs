//! The words of the command line (contract §5). Deliberately absent: which events (`selector`), doing anything.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use super::selector::SelectorArgs;

/// Takes the events of a VK community and forwards them, durably and in order per chat, to handler services.
#[derive(Debug, Parser)]
#[command(
    version,
    name = "event-router",
    arg_required_else_help = true,
    after_help = "Examples:\n  event-router demo                          see it work, without a token\n  event-router check && event-router run     check the configuration, then run\n  event-router outbox stats                  what is stuck, since when, why\n  event-router outbox replay --destination messages --dry-run"
)]
pub(super) struct Cli {
    /// The configuration [default: event-router.toml in the working directory]
    #[arg(long, global = true, value_name = "FILE", env = "EVENT_ROUTER_CONFIG")]
    pub(super) config: Option<PathBuf>,
    /// What to do
    #[command(subcommand)]
    pub(super) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run the service, until SIGTERM or Ctrl-C
    #[command(after_help = "Example:\n  TOKEN=… event-router run --config event-router.toml")]
    Run,
    /// Show the whole thing on this machine: a simulated VK, three handlers, an outage, a kill; no token needed
    Demo(DemoArgs),
    /// Be a simulated VK (API and Long Poll on one port) for any VK client; prints `READY http://…`
    Simulate(super::simulate::SimulateArgs),
    /// Check the configuration
    #[command(
        after_help = "Examples:\n  event-router check            what it says, and who takes what\n  event-router check --online   and what VK says to it"
    )]
    Check {
        /// Also ask VK: the token, its rights, the Long Poll settings
        #[arg(long)]
        online: bool,
    },
    #[command(
        after_help = "Examples:\n  event-router convert update.json\n  event-router convert --at 1709107923 < answer.json"
    )]
    /// Convert raw VK updates (one, an array, a Long Poll answer, or one JSON a line) to events, offline
    Convert(ConvertArgs),
    /// Say which destinations take the events of raw VK updates, by which table of `when`, and which condition failed; offline
    #[command(after_help = "Examples:\n  event-router route update.json\n  event-router route --json < updates.ndjson")]
    Route(RouteArgs),
    #[command(
        after_help = "Example:\n  event-router health --ready || echo 'VK does not answer, or the outbox is full'"
    )]
    /// Exit with 0 if the running service is alive
    Health {
        /// Ask whether it is ready: VK answers, the outbox takes
        #[arg(long)]
        ready: bool,
    },
    /// Print completions of these commands for a shell
    #[command(after_help = super::completions::HELP)]
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// Look into the outbox and replay from it, whether the service runs or not
    #[command(visible_alias = "debug")]
    Outbox {
        /// Print JSON
        #[arg(long, global = true)]
        json: bool,
        /// What to do
        #[command(subcommand)]
        verb: OutboxVerb,
    },
}

/// Words of `demo`.
#[derive(Debug, Args)]
pub(super) struct DemoArgs {
    /// Repeat a run exactly: the same events, the same troubles
    #[arg(long)]
    pub(super) seed: Option<u64>,
}

/// Words of `convert`.
#[derive(Debug, Args)]
pub(super) struct ConvertArgs {
    /// A file, or - for standard input
    #[arg(default_value = "-")]
    pub(super) file: PathBuf,
    /// The moment of conversion, in Unix seconds [default: now]
    #[arg(long, value_name = "UNIX")]
    pub(super) at: Option<i64>,
}

/// Words of `route`.
#[derive(Debug, Args)]
pub(super) struct RouteArgs {
    /// A file, or - for standard input
    #[arg(default_value = "-")]
    pub(super) file: PathBuf,
    /// Print JSON, one object a line for each event
    #[arg(long)]
    pub(super) json: bool,
}

/// Verbs of `outbox`.
#[derive(Debug, Subcommand)]
pub(super) enum OutboxVerb {
    /// What is asked of its events
    #[command(flatten)]
    Events(Verb),
    /// What an operator changes
    #[command(flatten)]
    Change(ChangeVerb),
    /// What is done about the outbox itself
    #[command(flatten)]
    Care(CareVerb),
    /// Follow the deliveries of the running service: a line for each attempt, as it ends
    #[command(
        after_help = "Examples:\n  event-router outbox tail --failed\n  event-router outbox tail --destination messages --peer 2000000002 --json"
    )]
    Tail(super::tail::TailArgs),
}

/// Verbs of `outbox` that ask for events, live or offline.
#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Checkpoint, disk, and for each destination: state, pending, dead, oldest, next try, and why
    Stats,
    /// List events
    #[command(
        after_help = "Examples:\n  event-router outbox list --state dead --since 2h\n  event-router outbox list --destination messages --state pending --limit 10\n  event-router outbox list --group"
    )]
    List {
        /// Which
        #[command(flatten)]
        selector: SelectorArgs,
        /// At most so many rows
        #[arg(long, default_value_t = crate::outbox::lookup::DEFAULT_LIMIT, value_parser = clap::value_parser!(u64).range(1..=crate::outbox::lookup::MAX_LIMIT))]
        limit: u64,
        /// Grouped by cause: dead letters, or with --state what is expired or quarantined
        #[arg(long)]
        group: bool,
    },
    #[command(
        after_help = "Examples:\n  event-router outbox show 42\n  event-router outbox show 8dd52b4d7c822b78db23db85bf351c7114e46b36   reads the log: seconds, where it is long\n  event-router outbox show q7"
    )]
    /// Show one event: its body, who takes it, how it goes
    Show {
        /// Position (`42`), event id, or number in quarantine (`q7`)
        id: String,
    },
    /// What VK lost
    Gaps,
    /// Replays: those that are under way, and the latest that are over
    Replays,
    /// What operators have changed, when and why
    Audit,
}

/// Verbs of `outbox` that change what becomes of events, live or offline; each is written down with its reason.
#[derive(Debug, Subcommand)]
pub(super) enum ChangeVerb {
    /// Deliver dead letters again, or with --state expired what was too old; with --state quarantined, convert what could not be read
    #[command(
        after_help = "Examples:\n  event-router outbox replay --destination messages --since 1d --dry-run\n  event-router outbox replay --destination messages --cause 'refused: HTTP 422' --rate 5\n  event-router outbox replay 42 --yes"
    )]
    Replay {
        /// One event: position, event id, or number in quarantine (`q7`)
        id: Option<String>,
        /// Which
        #[command(flatten)]
        selector: SelectorArgs,
        /// At most so many a second, like 5 or 0.2; what fails is tried again as usual
        #[arg(long, value_name = "N", value_parser = interval_us)]
        rate: Option<u64>,
        /// Only say what would be done
        #[arg(long)]
        dry_run: bool,
        /// How sure, and why
        #[command(flatten)]
        sure: Sure,
    },
    /// End a replay before all of it is done
    #[command(after_help = "Example:\n  event-router outbox cancel 3 --reason 'the handler is not mended yet'")]
    Cancel {
        /// Its number, as `outbox replays` shows it
        number: u64,
        /// Why; kept in `outbox audit`
        #[arg(long, value_name = "WORDS")]
        reason: Option<String>,
    },
    /// Take out for good: dead letters, updates in quarantine, one pending event, all of a detached destination
    #[command(
        after_help = "Examples:\n  event-router outbox discard 42 --destination messages\n  event-router outbox discard --destination messages --until 7d --yes\n  event-router outbox discard --state quarantined --until 7d\n  event-router outbox discard --state pending --destination a-detached-one"
    )]
    Discard {
        /// One: position, event id, or number in quarantine (`q7`)
        id: Option<String>,
        /// Which; dead letters unless --state says otherwise
        #[command(flatten)]
        selector: SelectorArgs,
        /// How sure, and why
        #[command(flatten)]
        sure: Sure,
    },
    /// Send nothing to a destination until it is resumed; its events wait in the outbox
    #[command(after_help = "Example:\n  event-router outbox pause messages --for 30m --reason 'new version'")]
    Pause {
        /// The destination
        destination: String,
        /// It ends by itself after this time
        #[arg(long = "for", value_name = "SPAN", value_parser = humantime::parse_duration)]
        span: Option<std::time::Duration>,
        /// Why; shown in `stats`, kept in `outbox audit`
        #[arg(long, value_name = "WORDS")]
        reason: Option<String>,
    },
    #[command(after_help = "Example:\n  event-router outbox resume messages")]
    /// End a pause
    Resume {
        /// The destination
        destination: String,
        /// Why; kept in `outbox audit`
        #[arg(long, value_name = "WORDS")]
        reason: Option<String>,
    },
}

/// Whether rows are changed without a question, and why.
#[derive(Debug, Default, Args)]
pub(super) struct Sure {
    /// Do not ask
    #[arg(long)]
    pub(super) yes: bool,
    /// Why; kept in `outbox audit`
    #[arg(long, value_name = "WORDS")]
    pub(super) reason: Option<String>,
}

/// Verbs of `outbox` that open it in their own ways.
#[derive(Debug, Subcommand)]
pub(super) enum CareVerb {
    #[command(after_help = "Example:\n  event-router outbox verify || echo 'it is damaged'")]
    /// Read everything and check it
    Verify,
    /// With the service stopped: bring what is readable of a damaged outbox into a fresh one
    #[command(after_help = "Example:\n  event-router outbox salvage --into /data/salvaged")]
    Salvage {
        /// A directory that does not exist yet
        #[arg(long, value_name = "DIR")]
        into: PathBuf,
    },
    /// Events as lines of JSON on standard output; with --state quarantined, updates as they came
    #[command(after_help = "Example:\n  event-router outbox export --state dead --since 1d > dead.ndjson")]
    Export {
        /// Which
        #[command(flatten)]
        selector: SelectorArgs,
    },
}

/// The time between two, in microseconds, where so many a second are allowed.
fn interval_us(text: &str) -> Result<u64, String> {
    let rate = text.parse::<f64>().ok().filter(|rate| (0.001..=100_000.0).contains(rate));
    let rate = rate.ok_or_else(|| format!("{text:?} is no number from 0.001 to 100000"))?;
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 10 to 1e9")]
    let interval = (1_000_000.0 / rate).round() as u64;
    Ok(interval)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_tree_of_commands_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_rate_is_a_number_a_second() {
        assert_eq!((interval_us("5"), interval_us("0.2"), interval_us("3")), (Ok(200_000), Ok(5_000_000), Ok(333_333)));
        for bad in ["0", "-1", "x", "nan", "inf", "1e9", ""] {
            assert!(interval_us(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_configuration_is_named_before_or_after_the_command_and_debug_is_outbox() {
        for words in [
            ["event-router", "--config", "x.toml", "debug", "stats"],
            ["event-router", "outbox", "stats", "--config", "x.toml"],
        ] {
            let cli = Cli::try_parse_from(words).expect("read");
            assert_eq!(cli.config, Some(PathBuf::from("x.toml")));
            assert!(matches!(cli.command, Command::Outbox { verb: OutboxVerb::Events(Verb::Stats), json: false }));
        }
    }
}
