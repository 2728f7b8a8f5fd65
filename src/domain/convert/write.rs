//! A typed update to the event: its body in one pass, the contract's keys in the contract's order. Deliberately absent:
//! looking names up; a [`NameBook`] holds what is known.

use std::borrow::Cow;
use std::collections::HashMap;

use bytes::Bytes;
use chrono::FixedOffset;
use serde::Serialize;
use serde::ser::{SerializeSeq, SerializeStruct, Serializer};
use serde_json::value::RawValue;

use super::Settings;
use super::mend::mend_surrogates;
use super::read::{Body, Update};
use super::shapes::{Button, Int, Message, Reaction, Text};
use crate::domain::event::{CHAT_BASE, Event, chat_of};
use crate::domain::time::Moment;

/// A name and a nick; either may be unknown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Name {
    /// "First Last", or a community's name.
    pub name: Option<String>,
    /// `domain`, or a screen name.
    pub nick: Option<String>,
}

/// The names that are known for the updates of an answer. Who is not in it is null.
#[derive(Clone, Debug, Default)]
pub struct NameBook {
    people: HashMap<i64, Name>,
    chats: HashMap<i64, Option<String>>,
}

impl NameBook {
    /// A user, or a community under its negative id.
    pub fn insert_person(&mut self, id: i64, name: Name) {
        self.people.insert(id, name);
    }

    /// The title of a chat, by its peer.
    pub fn insert_chat(&mut self, peer_id: i64, title: Option<String>) {
        self.chats.insert(peer_id, title);
    }

    fn name(&self, id: Option<i64>) -> Option<&str> {
        self.people.get(&id?)?.name.as_deref()
    }

    fn nick(&self, id: Option<i64>) -> Option<&str> {
        self.people.get(&id?)?.nick.as_deref()
    }

    fn peer(&self, peer_id: Option<i64>) -> Option<&str> {
        match peer_id? {
            peer if peer > CHAT_BASE => self.chats.get(&peer)?.as_deref(),
            peer => self.name(Some(peer)),
        }
    }
}

/// The moment of conversion as events carry it; made once for all updates of an answer.
#[derive(Clone, Debug)]
pub struct Stamp {
    at: Moment,
    datetime: String,
}

impl Stamp {
    /// The moment `at`, with `datetime` at `offset`.
    #[must_use]
    pub fn new(at: Moment, offset: FixedOffset) -> Self {
        Self { at, datetime: at.local(offset) }
    }
}

/// The first ten keys, which every event has.
#[derive(Serialize)]
struct Head<'a> {
    ts: i64,
    datetime: &'a str,
    event_type: &'a str,
    event_id: &'a str,
    user_id: Option<i64>,
    user_name: Option<&'a str>,
    user_nick: Option<&'a str>,
    peer_id: Option<i64>,
    peer_name: Option<&'a str>,
    chat_id: Option<i64>,
}

impl Update<'_> {
    /// The event that it becomes.
    #[must_use]
    pub fn into_event(self, names: &NameBook, stamp: &Stamp, settings: &Settings) -> Event {
        let event_type = match &self.body {
            Body::Message(message) if self.kind == "message_new" && is_command(message.text(), settings) => {
                "command_call"
            }
            Body::Button(_) => "button_pressed",
            Body::Reaction(_) => "reaction_changed",
            Body::Message(_) | Body::Other => &self.kind,
        };
        let head = Head {
            ts: stamp.at.unix_seconds(),
            datetime: &stamp.datetime,
            event_type,
            event_id: self.event_id.as_str(),
            user_id: self.user_id,
            user_name: names.name(self.user_id),
            user_nick: names.nick(self.user_id),
            peer_id: self.peer_id,
            peer_name: names.peer(self.peer_id),
            chat_id: chat_of(self.peer_id),
        };
        let object = self.object.filter(|_| settings.object);
        let body = write(&head, &self.body, object, self.object);
        Event {
            group: self.group,
            event_type: event_type.to_owned(),
            event_id: self.event_id.clone(),
            user_id: self.user_id,
            peer_id: self.peer_id,
            received_at: stamp.at,
            body: Bytes::from(body),
        }
    }
}

fn is_command(text: &str, settings: &Settings) -> bool {
    settings.command_prefixes.iter().any(|prefix| text.starts_with(prefix.as_str()))
}

fn write(head: &Head<'_>, body: &Body<'_>, object: Option<&RawValue>, always: Option<&RawValue>) -> Vec<u8> {
    let mut out = Writer::new(head);
    match body {
        Body::Message(message) => {
            out.key("cmid", &message.cmid());
            out.key("text", message.text());
            out.key("reply", &message.reply_message.as_deref().map(Nested));
            out.key("forward", &Forward(message));
            out.key("attachments", &Kinds(message));
        }
        Body::Button(button) => write_button(&mut out, button),
        Body::Reaction(Reaction { cmid, conversation_message_id, reaction_id, .. }) => {
            out.key("cmid", &cmid.or(*conversation_message_id).map(|Int(id)| id));
            out.key("reaction_id", &reaction_id.map(|Int(id)| id));
        }
        Body::Other => {
            out.raw("object", always);
            return out.end();
        }
    }
    if object.is_some() {
        out.raw("object", object);
    }
    out.end()
}

fn write_button(out: &mut Writer, button: &Button<'_>) {
    out.key("cmid", &button.conversation_message_id.or(button.cmid).map(|Int(id)| id));
    out.key("button_event_id", &button.event_id);
    match button.payload.map(payload) {
        Some(Payload::AsItCame(raw)) => out.raw("payload", Some(raw)),
        Some(Payload::Parsed(raw)) => out.raw("payload", Some(&raw)),
        None => out.raw("payload", None),
    }
}

enum Payload<'a> {
    AsItCame(&'a RawValue),
    Parsed(Box<RawValue>),
}

/// A string that holds valid JSON is its value; anything else stays what it is.
fn payload(raw: &RawValue) -> Payload<'_> {
    let text: Option<Text<'_>> = serde_json::from_str(raw.get()).ok();
    let value = text.and_then(|text| RawValue::from_string(mend_surrogates(&text.0).trim().to_owned()).ok());
    value.map_or(Payload::AsItCame(raw), Payload::Parsed)
}

/// Writes an object key by key, in order, into one buffer.
struct Writer(Vec<u8>);

impl Writer {
    fn new(head: &Head<'_>) -> Self {
        let mut writer = Self(Vec::with_capacity(1024));
        writer.value(head);
        writer.0.pop();
        writer
    }

    fn key(&mut self, key: &str, value: &(impl Serialize + ?Sized)) {
        self.0.extend_from_slice(b",\"");
        self.0.extend_from_slice(key.as_bytes());
        self.0.extend_from_slice(b"\":");
        self.value(value);
    }

    /// A value as it came, on one line: a line break in valid JSON is white space, and an event is one line of NDJSON.
    fn raw(&mut self, key: &str, value: Option<&RawValue>) {
        let text = value.map_or("null", RawValue::get);
        self.0.extend_from_slice(b",\"");
        self.0.extend_from_slice(key.as_bytes());
        self.0.extend_from_slice(b"\":");
        self.0.extend(text.bytes().filter(|byte| !matches!(byte, b'\n' | b'\r')));
    }

    fn value(&mut self, value: &(impl Serialize + ?Sized)) {
        serde_json::to_writer(&mut self.0, value).expect("invariant: our values are plain and a buffer takes all");
    }

    fn end(mut self) -> Vec<u8> {
        self.0.push(b'}');
        self.0
    }
}

/// A reply or a forward, and what is nested in it.
struct Nested<'a>(&'a Message<'a>);

impl Serialize for Nested<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let message = self.0;
        let mut out = serializer.serialize_struct("Nested", 7)?;
        out.serialize_field("user_id", &message.sender())?;
        out.serialize_field("cmid", &message.cmid())?;
        out.serialize_field("text", message.text())?;
        out.serialize_field("date", &message.date.map(|Int(date)| date))?;
        out.serialize_field("attachments", &Kinds(message))?;
        out.serialize_field("reply", &message.reply_message.as_deref().map(Nested))?;
        out.serialize_field("forward", &Forward(message))?;
        out.end()
    }
}

struct Forward<'a>(&'a Message<'a>);

impl Serialize for Forward<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.fwd_messages.iter().flatten().map(Nested))
    }
}

struct Kinds<'a>(&'a Message<'a>);

impl Serialize for Kinds<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut out = serializer.serialize_seq(None)?;
        for kind in self.0.kinds() {
            out.serialize_element::<Cow<'_, str>>(&kind)?;
        }
        out.end()
    }
}
