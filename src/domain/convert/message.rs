//! A message of any version of VK's API, read in one pass into what an event says of it, and the payload of a text button,
//! which only routing looks at. Three versions differ:
//!
//! - since 5.103 `message_new` wraps it: `{"message": …, "client_info": …}`; edits and replies stay bare;
//! - below 5.103 the object is the message;
//! - below 5.80 `user_id` is the other side of the dialog, `body` the text, `chat_id` the chat's number.
//!
//! A key that is there twice counts the last time, as everywhere in JSON. Deliberately absent: what no event says.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use serde_json::value::RawValue;

use super::shapes::{Int, Loose, Text};
use crate::domain::event::CHAT_BASE;

/// What an event says of a message.
#[derive(Debug)]
pub(super) struct Message<'a> {
    /// Who wrote it; below 5.80, the other side of the dialog.
    sender: Option<i64>,
    /// Whether the community wrote it although `sender` is the other side.
    ours: bool,
    /// Where it was written.
    pub(super) peer_id: Option<i64>,
    /// Its number in the conversation.
    pub(super) cmid: Option<i64>,
    /// Seconds since the epoch.
    pub(super) date: Option<i64>,
    /// What it says.
    pub(super) text: Cow<'a, str>,
    /// What it answers.
    pub(super) reply: Option<Box<Message<'a>>>,
    /// What it forwards.
    pub(super) forward: Vec<Message<'a>>,
    /// The kinds of its attachments in VK's order and lower case, then `geo`.
    pub(super) kinds: Vec<Cow<'a, str>>,
    /// The payload of the text button that wrote it, as VK wrote it; nobody parses it here.
    pub(super) payload: Option<&'a RawValue>,
}

impl Message<'_> {
    /// Who wrote it, in the community `group`.
    pub(super) fn author(&self, group: i64) -> Option<i64> {
        if self.ours { Some(-group) } else { self.sender }
    }

    /// Who wrote a nested one.
    pub(super) fn sender(&self) -> Option<i64> {
        self.sender
    }
}

/// Where a message stands, and so what its key `message` is.
#[derive(Clone, Copy)]
pub(super) enum Place {
    /// The object of `message_new`: the message that this wraps.
    New,
    /// The object of an edit or a reply: the same only where nobody wrote this and it was written nowhere.
    Bare,
    /// In another message: nothing.
    Nested,
}

impl<'de> DeserializeSeed<'de> for Place {
    type Value = Box<Message<'de>>;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Box<Message<'de>>, D::Error> {
        deserializer.deserialize_map(Fields(self))
    }
}

/// A message in another, or in what wraps it.
struct Boxed<'a>(Box<Message<'a>>);

impl<'de: 'a, 'a> Deserialize<'de> for Boxed<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Fields(Place::Nested)).map(Self)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Message<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Fields(Place::Nested)).map(|message| *message)
    }
}

/// The fields as VK wrote them, before it is known which version wrote them.
#[derive(Default)]
struct Found<'a> {
    date: Option<Int>,
    from_id: Option<Int>,
    peer_id: Option<Int>,
    conversation_message_id: Option<Int>,
    cmid: Option<Int>,
    text: Option<Text<'a>>,
    reply: Option<Boxed<'a>>,
    forward: Option<Vec<Message<'a>>>,
    attachments: Option<Kinds<'a>>,
    geo: Loose<'a>,
    user_id: Option<Int>,
    chat_id: Option<Int>,
    out: Loose<'a>,
    body: Option<Text<'a>>,
    payload: Option<&'a RawValue>,
}

impl<'a> Found<'a> {
    fn message(self) -> Message<'a> {
        let mut kinds = self.attachments.map_or_else(Vec::new, |Kinds(kinds)| kinds);
        if matches!(self.geo, Loose::Object) {
            kinds.push(Cow::Borrowed("geo"));
        }
        let old_chat = || self.chat_id.map(|Int(chat)| chat.saturating_add(CHAT_BASE));
        let user_id = self.user_id.map(|Int(user)| user);
        Message {
            sender: self.from_id.map(|Int(from)| from).or(user_id),
            ours: self.from_id.is_none() && user_id.is_some() && self.out.is_set(),
            peer_id: self.peer_id.map(|Int(peer)| peer).or_else(old_chat).or(user_id),
            cmid: self.conversation_message_id.or(self.cmid).map(|Int(id)| id),
            date: self.date.map(|Int(date)| date),
            text: self.text.or(self.body).map_or(Cow::Borrowed(""), |Text(text)| text),
            reply: self.reply.map(|Boxed(message)| message),
            forward: self.forward.unwrap_or_default(),
            kinds,
            payload: self.payload,
        }
    }
}

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum Key {
    Message,
    Date,
    FromId,
    PeerId,
    ConversationMessageId,
    Cmid,
    Text,
    ReplyMessage,
    FwdMessages,
    Attachments,
    Geo,
    UserId,
    ChatId,
    Out,
    Body,
    Payload,
    #[serde(other)]
    Other,
}

struct Fields(Place);

/// In a box from the start: it is handed on through many hands, and it is large.
impl<'de> Visitor<'de> for Fields {
    type Value = Box<Message<'de>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a message")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = Found::default();
        let mut wrapped = None;
        let mut perhaps_wrapped: Option<&'de RawValue> = None;
        while let Some(key) = map.next_key()? {
            match key {
                Key::Message => match self.0 {
                    Place::New => wrapped = map.next_value::<Option<Boxed<'de>>>()?.map(|Boxed(message)| message),
                    Place::Bare => perhaps_wrapped = map.next_value()?,
                    Place::Nested => drop(map.next_value::<IgnoredAny>()?),
                },
                Key::Date => found.date = map.next_value()?,
                Key::FromId => found.from_id = map.next_value()?,
                Key::PeerId => found.peer_id = map.next_value()?,
                Key::ConversationMessageId => found.conversation_message_id = map.next_value()?,
                Key::Cmid => found.cmid = map.next_value()?,
                Key::Text => found.text = map.next_value()?,
                Key::ReplyMessage => found.reply = map.next_value()?,
                Key::FwdMessages => found.forward = map.next_value()?,
                Key::Attachments => found.attachments = map.next_value()?,
                Key::Geo => found.geo = map.next_value()?,
                Key::UserId => found.user_id = map.next_value()?,
                Key::ChatId => found.chat_id = map.next_value()?,
                Key::Out => found.out = map.next_value()?,
                Key::Body => found.body = map.next_value()?,
                Key::Payload => found.payload = map.next_value()?,
                Key::Other => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        if let Some(inner) = perhaps_wrapped.filter(|_| found.from_id.is_none() && found.peer_id.is_none()) {
            let Boxed(message) = serde_json::from_str(inner.get()).map_err(A::Error::custom)?;
            wrapped = Some(message);
        }
        Ok(wrapped.unwrap_or_else(|| Box::new(found.message())))
    }
}

/// The kinds of a list of attachments. One that tells no kind is left out; none can fail the message.
struct Kinds<'a>(Vec<Cow<'a, str>>);

impl<'de: 'a, 'a> Deserialize<'de> for Kinds<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List;
        impl<'de> Visitor<'de> for List {
            type Value = Kinds<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of attachments")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut kinds = Vec::new();
                while let Some(Kind(kind)) = seq.next_element()? {
                    kinds.extend(kind);
                }
                Ok(Kinds(kinds))
            }
        }
        deserializer.deserialize_seq(List)
    }
}

/// The kind of one attachment, if it tells one.
struct Kind<'a>(Option<Cow<'a, str>>);

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum AttachmentKey {
    Type,
    #[serde(other)]
    Other,
}

impl<'de: 'a, 'a> Deserialize<'de> for Kind<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Kind<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an attachment")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut kind = Loose::Absent;
                while let Some(key) = map.next_key()? {
                    match key {
                        AttachmentKey::Type => kind = map.next_value()?,
                        AttachmentKey::Other => drop(map.next_value::<IgnoredAny>()?),
                    }
                }
                Ok(Kind(kind.text().map(lower)))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Kind(None))
            }
            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(Kind(None))
            }
            fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
                Ok(Kind(None))
            }
            fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
                Ok(Kind(None))
            }
            fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
                Ok(Kind(None))
            }
            fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
                Ok(Kind(None))
            }
            fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
                Ok(Kind(None))
            }
        }
        deserializer.deserialize_any(Any)
    }
}

fn lower(kind: Cow<'_, str>) -> Cow<'_, str> {
    if kind.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_') {
        return kind;
    }
    Cow::Owned(kind.to_lowercase())
}
