//! Which events: the words of the command line that choose them (contract §5), and how the small ones are read: ages, moments,
//! ranges. Deliberately absent: choosing (`outbox::lookup`).

use clap::{Args, ValueEnum};

use crate::domain::time::Moment;
use crate::outbox::views::{ListState, Selector};

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
    use super::*;

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
    fn a_moment_is_an_age_or_rfc_3339() {
        let now = Moment(1_700_000_000_000);
        assert_eq!(moment("--since", "2h", now), Ok(now.0 - 7_200_000));
        assert_eq!(moment("--since", "2023-11-14T22:13:20Z", now), Ok(now.0));
        assert!(
            moment("--since", "yesterday", now).expect_err("refused").starts_with("--since: \"yesterday\" is neither")
        );
    }
}
