//! The words of the command line (contract §5) and how the small ones are read: ages, moments, ranges. Deliberately absent:
//! doing anything.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::domain::time::Moment;
use crate::outbox::views::{ListState, Selector};

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

/// Which events.
#[derive(Debug, Default, Args)]
pub(super) struct SelectorArgs {
    /// Of this destination
    #[arg(long, value_name = "D")]
    pub(super) destination: Option<String>,
    /// In this state
    #[arg(long, value_enum)]
    pub(super) state: Option<StateArg>,
    /// Of this type, like `message_new`
    #[arg(long = "type", value_name = "T")]
    pub(super) event_type: Option<String>,
    /// In this conversation (`peer_id`)
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    pub(super) peer: Option<i64>,
    /// By this user (`user_id`)
    #[arg(long, value_name = "U", allow_negative_numbers = true)]
    pub(super) user: Option<i64>,
    /// Received no earlier: an age (`2h`) or RFC 3339
    #[arg(long, value_name = "T")]
    pub(super) since: Option<String>,
    /// Received no later: an age (`2h`) or RFC 3339
    #[arg(long, value_name = "T")]
    pub(super) until: Option<String>,
    /// Positions from A to B, both included; either may be left out
    #[arg(long, value_name = "A..B", value_parser = seq_range)]
    pub(super) seq: Option<(Option<u64>, Option<u64>)>,
    /// Dead (or, as --state says, expired or quarantined) for this cause, as `list --group` shows it
    #[arg(long, value_name = "WORDS")]
    pub(super) cause: Option<String>,
}

/// A state to ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum StateArg {
    /// Not settled yet
    Pending,
    /// Taken by the handler
    Delivered,
    /// Refused, or given up
    Dead,
    /// Too old when it would have been sent
    Expired,
    /// Taken out by an operator
    Discarded,
    /// Could not be read
    Quarantined,
}

impl StateArg {
    /// Whether what is in this state has a cause, and can be done again.
    pub(super) fn has_cause(self) -> bool {
        matches!(self, Self::Dead | Self::Expired | Self::Quarantined)
    }
}

impl SelectorArgs {
    /// Whether nothing was said.
    #[must_use]
    pub(super) fn is_empty(&self) -> bool {
        let none = [self.destination.is_none(), self.event_type.is_none(), self.since.is_none(), self.until.is_none()];
        none.iter().all(|none| *none)
            && self.state.is_none()
            && self.peer.is_none()
            && self.user.is_none()
            && self.seq.is_none()
            && self.cause.is_none()
    }

    /// What is asked of the outbox.
    ///
    /// # Errors
    /// When a moment is none.
    pub(super) fn selector(self, now: Moment) -> Result<Selector, String> {
        if self.cause.is_some() && self.state.is_some_and(|state| !state.has_cause()) {
            return Err("--cause: what is dead, expired or quarantined has one".to_owned());
        }
        let moment = |name: &str, text: Option<String>| text.map(|text| moment(name, &text, now)).transpose();
        let (from_seq, to_seq) = self.seq.unwrap_or_default();
        Ok(Selector {
            destination: self.destination,
            state: self.state.map(|state| match state {
                StateArg::Pending => ListState::Pending,
                StateArg::Delivered => ListState::Delivered,
                StateArg::Expired => ListState::Expired,
                StateArg::Discarded => ListState::Discarded,
                StateArg::Dead => ListState::Dead,
                StateArg::Quarantined => ListState::Quarantined,
            }),
            event_type: self.event_type,
            peer: self.peer,
            user: self.user,
            since_ms: moment("--since", self.since)?,
            until_ms: moment("--until", self.until)?,
            from_seq,
            to_seq,
            cause: self.cause,
            limit: None,
        })
    }
}

fn moment(name: &str, text: &str, now: Moment) -> Result<i64, String> {
    if let Ok(age) = humantime::parse_duration(text) {
        return Ok(now.0.saturating_sub(i64::try_from(age.as_millis()).unwrap_or(i64::MAX)));
    }
    let told = |_| format!("{name}: {text:?} is neither an age like 2h nor a moment like 2024-02-28T11:12:03+03:00");
    Moment::parse_rfc3339(text).map(|moment| moment.0).map_err(told)
}

/// The time between two, in microseconds, where so many a second are allowed.
fn interval_us(text: &str) -> Result<u64, String> {
    let rate = text.parse::<f64>().ok().filter(|rate| (0.001..=100_000.0).contains(rate));
    let rate = rate.ok_or_else(|| format!("{text:?} is no number from 0.001 to 100000"))?;
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 10 to 1e9")]
    let interval = (1_000_000.0 / rate).round() as u64;
    Ok(interval)
}

fn seq_range(text: &str) -> Result<(Option<u64>, Option<u64>), String> {
    let told = || "expected positions like 10..20, 10.., ..20 or 10".to_owned();
    let number = |part: &str| if part.is_empty() { Ok(None) } else { part.parse().map(Some).map_err(|_| told()) };
    let range = match text.split_once("..") {
        Some((from, to)) => (number(from)?, number(to)?),
        None => (number(text)?, number(text)?),
    };
    match range {
        (None, None) => Err(told()),
        (Some(from), Some(to)) if from > to => Err(format!("{from} is above {to}")),
        range => Ok(range),
    }
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
    fn a_range_of_positions_is_read() {
        assert_eq!(seq_range("3..9"), Ok((Some(3), Some(9))));
        assert_eq!(seq_range("3.."), Ok((Some(3), None)));
        assert_eq!(seq_range("..9"), Ok((None, Some(9))));
        assert_eq!(seq_range("7"), Ok((Some(7), Some(7))));
        for bad in ["", "..", "9..3", "x", "1..x", "-1"] {
            assert!(seq_range(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_rate_is_a_number_a_second() {
        assert_eq!((interval_us("5"), interval_us("0.2"), interval_us("3")), (Ok(200_000), Ok(5_000_000), Ok(333_333)));
        for bad in ["0", "-1", "x", "nan", "inf", "1e9", ""] {
            assert!(interval_us(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_moment_is_an_age_or_rfc_3339() {
        let now = Moment(1_700_000_000_000);
        assert_eq!(moment("--since", "2h", now), Ok(now.0 - 7_200_000));
        assert_eq!(moment("--since", "2023-11-14T22:13:20Z", now), Ok(now.0));
        assert!(
            moment("--since", "yesterday", now).expect_err("refused").starts_with("--since: \"yesterday\" is neither")
        );
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
