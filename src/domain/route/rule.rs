//! What a destination can ask for, and whether an event is that. The decision is made in one place, [`Table::failed`], from
//! which `explain` makes its words. Deliberately absent: words.

use serde_json::{Map, Value};

use super::pattern::Pattern;
use super::payload::difference;
use crate::domain::convert::Facts;

/// What may be asked of an event. What is not there holds; all that is there must.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conditions {
    /// The event's type is one of these.
    pub event_type: Option<Vec<String>>,
    /// It happened in one of these chats (numbers of chats, not peers).
    pub chat_id: Option<Vec<i64>>,
    /// It happened in one of these conversations.
    pub peer_id: Option<Vec<i64>>,
    /// One of these did it; negative is a community.
    pub user_id: Option<Vec<i64>>,
    /// It happened in a chat, or (false) not in one.
    pub chat: Option<bool>,
    /// Its text begins with one of these.
    pub text_prefix: Option<Vec<String>>,
    /// Something in its text matches this.
    pub text_regex: Option<Pattern>,
    /// The message has an attachment of one of these kinds.
    pub attachment: Option<Vec<String>>,
    /// Its payload has each of these keys with an equal value; in tables likewise.
    pub payload: Option<Map<String, Value>>,
}

/// One table of `when`: it matches when its conditions hold and those of `not` do not all hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// What must hold.
    pub all: Conditions,
    /// What must not hold as a whole.
    pub not: Option<Conditions>,
}

/// What a destination takes: any of the tables, or everything when there is none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule(pub Vec<Table>);

/// A condition of a table, by its key in the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// `event_type`
    EventType,
    /// `chat_id`
    ChatId,
    /// `peer_id`
    PeerId,
    /// `user_id`
    UserId,
    /// `chat`
    Chat,
    /// `text_prefix`
    TextPrefix,
    /// `text_regex`
    TextRegex,
    /// `attachment`
    Attachment,
    /// `payload`
    Payload,
    /// `not`
    Not,
}

impl Key {
    /// The conditions that stand for themselves, in the order in which they are looked at.
    pub(super) const ALONE: [Self; 9] = [
        Self::EventType,
        Self::ChatId,
        Self::PeerId,
        Self::UserId,
        Self::Chat,
        Self::TextPrefix,
        Self::TextRegex,
        Self::Attachment,
        Self::Payload,
    ];

    /// The key in the configuration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::EventType => "event_type",
            Self::ChatId => "chat_id",
            Self::PeerId => "peer_id",
            Self::UserId => "user_id",
            Self::Chat => "chat",
            Self::TextPrefix => "text_prefix",
            Self::TextRegex => "text_regex",
            Self::Attachment => "attachment",
            Self::Payload => "payload",
            Self::Not => "not",
        }
    }
}

impl Conditions {
    /// The first condition that does not hold.
    pub(super) fn failed(&self, facts: &Facts<'_>) -> Option<Key> {
        Key::ALONE.into_iter().find(|key| !self.holds(*key, facts))
    }

    fn holds(&self, key: Key, facts: &Facts<'_>) -> bool {
        let one_of = |list: &Option<Vec<i64>>, value: Option<i64>| {
            list.as_ref().is_none_or(|list| value.is_some_and(|value| list.contains(&value)))
        };
        match key {
            Key::EventType => self.event_type.as_ref().is_none_or(|types| types.iter().any(|t| t == facts.event_type)),
            Key::ChatId => one_of(&self.chat_id, facts.chat_id()),
            Key::PeerId => one_of(&self.peer_id, facts.peer_id),
            Key::UserId => one_of(&self.user_id, facts.user_id),
            Key::Chat => self.chat.is_none_or(|wanted| facts.chat_id().is_some() == wanted),
            Key::TextPrefix => self.text_prefix.as_ref().is_none_or(|prefixes| {
                facts.text.is_some_and(|text| prefixes.iter().any(|prefix| text.starts_with(prefix.as_str())))
            }),
            Key::TextRegex => {
                self.text_regex.as_ref().is_none_or(|pattern| facts.text.is_some_and(|text| pattern.is_found_in(text)))
            }
            Key::Attachment => self.attachment.as_ref().is_none_or(|wanted| {
                facts.attachments.is_some_and(|kinds| kinds.iter().any(|kind| wanted.iter().any(|one| one == kind)))
            }),
            Key::Payload => {
                self.payload.as_ref().is_none_or(|wanted| difference(wanted, facts.payload.value()).is_none())
            }
            // `not` is no condition of its own: the table looks at it.
            Key::Not => true,
        }
    }
}

impl Table {
    /// The first condition that does not hold; none when the table matches.
    #[must_use]
    pub fn failed(&self, facts: &Facts<'_>) -> Option<Key> {
        let excluded = || self.not.as_ref().is_some_and(|not| not.failed(facts).is_none());
        self.all.failed(facts).or_else(|| excluded().then_some(Key::Not))
    }
}

impl Rule {
    /// Whether the destination takes the event.
    #[must_use]
    pub fn takes(&self, facts: &Facts<'_>) -> bool {
        self.0.is_empty() || self.0.iter().any(|table| table.failed(facts).is_none())
    }
}
