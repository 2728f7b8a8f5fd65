//! The identifiers. Each is a type of its own and parsing is the only way in, so that one cannot stand where another
//! belongs. Deliberately absent: arithmetic and order on [`Ts`], which VK does not promise to be a number.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha1::{Digest, Sha1};

/// Position of an event in the outbox, from 1, contiguous, never used twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Seq(pub u64);

impl Seq {
    /// The position right after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What an identifier must look like, and what was found instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}: found {found:?}")]
pub struct IdError {
    /// What was expected, in words.
    pub what: &'static str,
    /// What was found (cut to 64 characters).
    pub found: String,
}

fn refuse(what: &'static str, found: &str) -> IdError {
    IdError { what, found: found.chars().take(64).collect() }
}

/// A text that is checked once and shows itself as it is written.
macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $what:literal, $fine:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            #[doc = concat!("# Errors\nUnless it is as it must be: ", $what, ".")]
            pub fn parse(text: &str) -> Result<Self, IdError> {
                let fine: fn(&str) -> bool = $fine;
                if fine(text) { Ok(Self(text.to_owned())) } else { Err(refuse($what, text)) }
            }

            /// The text as written.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;
            fn try_from(text: String) -> Result<Self, IdError> {
                Self::parse(&text)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
    };
}

/// What fits a header, a URL and a key as it is: 1 to 64 letters, digits, `_` and `-`.
fn plain(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

text_id!(
    /// Name of a destination, as its table in the configuration is called.
    DestinationName,
    "a destination's name is 1 to 64 of a-z, A-Z, 0-9, _ and -",
    plain
);

text_id!(
    /// The id of an event: VK's envelope `event_id` (40 hex digits), or one made of the update (`domain::convert`).
    /// It travels as the header `webhook-id`.
    EventId,
    "an event id is 1 to 64 letters, digits, _ and -",
    plain
);

impl EventId {
    /// The id of a message that was fetched back after a gap: SHA-1 over the word `fetched`, the community, the conversation
    /// and the message's number in it, in decimal, each ended by a line feed. The same message always gets the same.
    #[must_use]
    pub fn fetched(group: GroupId, peer: i64, cmid: i64) -> Self {
        let digest = Sha1::digest(format!("fetched\n{}\n{peer}\n{cmid}\n", group.get()));
        Self(digest.iter().map(|byte| format!("{byte:02x}")).collect())
    }
}

/// A VK community, by its positive number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "i64", into = "i64")]
pub struct GroupId(i64);

impl GroupId {
    /// # Errors
    /// When it is not positive.
    pub fn new(id: i64) -> Result<Self, IdError> {
        if id > 0 { Ok(Self(id)) } else { Err(refuse("a community's id is a positive number", &id.to_string())) }
    }

    /// The number.
    #[must_use]
    pub fn get(self) -> i64 {
        self.0
    }
}

impl TryFrom<i64> for GroupId {
    type Error = IdError;
    fn try_from(id: i64) -> Result<Self, IdError> {
        Self::new(id)
    }
}

impl From<GroupId> for i64 {
    fn from(id: GroupId) -> Self {
        id.0
    }
}

impl fmt::Display for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The Long Poll position, exactly as VK wrote it, whether as text or as a number. Opaque: no order, no arithmetic.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Ts(String);

impl Ts {
    /// # Errors
    /// When it is empty, longer than 64 bytes or not printable ASCII: it travels in a URL and is compared by its text.
    pub fn parse(text: &str) -> Result<Self, IdError> {
        if (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic()) {
            Ok(Self(text.to_owned()))
        } else {
            Err(refuse("a ts is 1 to 64 printable ASCII characters", text))
        }
    }

    /// The ts as VK wrote it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// How far VK moved from one ts to another. For gap records only; nothing else may reason about a ts.
    #[must_use]
    pub fn jump(from: &Self, to: &Self) -> TsJump {
        match (from.0.parse::<u64>(), to.0.parse::<u64>()) {
            (Ok(a), Ok(b)) if b >= a => TsJump::Ahead(b - a),
            (Ok(a), Ok(b)) => TsJump::Back(a - b),
            _ => TsJump::Unknown,
        }
    }
}

impl TryFrom<String> for Ts {
    type Error = IdError;
    fn try_from(text: String) -> Result<Self, IdError> {
        Self::parse(&text)
    }
}

impl From<Ts> for String {
    fn from(ts: Ts) -> Self {
        ts.0
    }
}

impl fmt::Display for Ts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// What lies between two [`Ts`], for the reader of a gap record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TsJump {
    /// The new ts is this much higher.
    Ahead(u64),
    /// The new ts is this much lower: what follows may repeat.
    Back(u64),
    /// One of them is no number.
    Unknown,
}

/// A chat in the wide sense: what order is kept within, per destination (contract §1.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Lane {
    /// The community.
    pub group: i64,
    /// What the events of this lane share.
    pub of: LaneOf,
}

/// What the events of a lane share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum LaneOf {
    /// Neither a peer nor a user: one common lane.
    Common,
    /// A conversation: `peer_id`.
    Peer(i64),
    /// No conversation, but someone who did it: `user_id`.
    User(i64),
}

impl Lane {
    /// The lane of an event: its peer, else its user, else the common one.
    #[must_use]
    pub fn of(group: GroupId, peer_id: Option<i64>, user_id: Option<i64>) -> Self {
        let of = match (peer_id, user_id) {
            (Some(peer), _) => LaneOf::Peer(peer),
            (None, Some(user)) => LaneOf::User(user),
            (None, None) => LaneOf::Common,
        };
        Self { group: group.get(), of }
    }
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.of {
            LaneOf::Common => f.write_str("common"),
            LaneOf::Peer(id) => write!(f, "peer {id}"),
            LaneOf::User(id) => write!(f, "user {id}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ts_jump_is_told_only_between_numbers() {
        let ts = |text: &str| Ts::parse(text).expect("a ts");
        assert_eq!(Ts::jump(&ts("10"), &ts("25")), TsJump::Ahead(15));
        assert_eq!(Ts::jump(&ts("25"), &ts("10")), TsJump::Back(15));
        assert_eq!(Ts::jump(&ts("x"), &ts("10")), TsJump::Unknown);
    }

    #[test]
    fn identifiers_refuse_what_does_not_fit_a_header_or_a_url() {
        assert!(DestinationName::parse("a.b").is_err());
        assert!(DestinationName::parse("").is_err());
        assert!(EventId::parse("8dd5 2b").is_err());
        assert!(Ts::parse("1\n2").is_err());
        assert!(GroupId::new(-5).is_err());
    }

    #[test]
    fn a_lane_is_the_peer_then_the_user_then_common() {
        let group = GroupId::new(7).expect("an id");
        assert_eq!(Lane::of(group, Some(5), Some(6)).of, LaneOf::Peer(5));
        assert_eq!(Lane::of(group, None, Some(6)).of, LaneOf::User(6));
        assert_eq!(Lane::of(group, None, None).of, LaneOf::Common);
    }
}
