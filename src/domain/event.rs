//! The event: what `convert` makes of an update, what is routed, stored and sent. Its body is the contract's JSON,
//! written once; nothing after conversion parses it again.

use std::borrow::Cow;

use bytes::Bytes;

use super::ids::{EventId, GroupId, Lane};
use super::time::Moment;

/// `peer_id` of chat number 0; a chat is a peer above it.
pub const CHAT_BASE: i64 = 2_000_000_000;

/// A converted event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The community it belongs to.
    pub group: GroupId,
    /// VK's envelope id, or one made of the update.
    pub event_id: EventId,
    /// The contract's name of its type, e.g. `command_call`, or VK's own name.
    pub event_type: Cow<'static, str>,
    /// Who did it; negative is a community.
    pub user_id: Option<i64>,
    /// The conversation it happened in.
    pub peer_id: Option<i64>,
    /// When the service converted it.
    pub received_at: Moment,
    /// The request body: UTF-8 JSON, one object, the contract's keys in the contract's order.
    pub body: Bytes,
}

impl Event {
    /// What order is kept within.
    #[must_use]
    pub fn lane(&self) -> Lane {
        Lane::of(self.group, self.peer_id, self.user_id)
    }

    /// The chat's number, when it happened in one.
    #[must_use]
    pub fn chat_id(&self) -> Option<i64> {
        chat_of(self.peer_id)
    }
}

/// An event's type: the names that nearly all events have are written down once.
#[must_use]
pub fn type_name(name: &str) -> Cow<'static, str> {
    const COMMON: [&str; 6] =
        ["message_new", "command_call", "button_pressed", "message_reply", "message_edit", "reaction_changed"];
    let common = COMMON.into_iter().find(|common| *common == name);
    common.map_or_else(|| Cow::Owned(name.to_owned()), Cow::Borrowed)
}

/// `peer_id` less 2000000000 for a chat, else nothing.
#[must_use]
pub fn chat_of(peer_id: Option<i64>) -> Option<i64> {
    peer_id.filter(|peer| *peer > CHAT_BASE).map(|peer| peer - CHAT_BASE)
}

/// An event with its place in the outbox: what workers hold and attempts send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Queued {
    /// Its position.
    pub seq: super::ids::Seq,
    /// Where it came from.
    pub source: Source,
    /// The event.
    pub event: Event,
}

/// How an event reached us.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Source {
    /// From an answer of Long Poll.
    #[default]
    Live,
    /// Fetched back after a gap.
    Backfill,
}
