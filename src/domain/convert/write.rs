//! A typed update to the event: its body in one pass, the contract's keys in the contract's order. Deliberately absent:
//! looking names up; a [`NameBook`] holds what is known.

use std::borrow::Cow;
use std::collections::HashMap;

use bytes::{BufMut, Bytes, BytesMut};
use serde::Serialize;
use serde::de::IgnoredAny;
use serde::ser::{SerializeStruct, Serializer};
use serde_json::value::RawValue;

use super::Settings;
use super::mend::mend_surrogates;
use super::message::Message;
use super::read::{Body, Update};
use super::shapes::{Int, Text};
use crate::domain::event::{CHAT_BASE, Event, chat_of, type_name};
use crate::domain::time::Moment;

/// What the keys that every event has take, with names of common length, in bytes.
const HEAD_BYTES: usize = 448;
/// The most bytes of a block in which several bodies stand. An event that waits keeps its whole block in memory; one that was
/// read back from the outbox keeps a chunk of this size.
const BLOCK_BYTES: usize = 16 << 10;

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

/// What the events of one answer are written with: one moment, one block of memory behind the other.
#[derive(Debug)]
pub struct Writing<'a> {
    at: Moment,
    datetime: String,
    settings: &'a Settings,
    blocks: Blocks,
}

impl<'a> Writing<'a> {
    /// For about as many `updates`, at the moment `at`.
    #[must_use]
    pub fn new(at: Moment, settings: &'a Settings, updates: usize) -> Self {
        let block_bytes = updates.saturating_mul(HEAD_BYTES).min(BLOCK_BYTES);
        let blocks = Blocks { rest: BytesMut::new(), block_bytes };
        Self { at, datetime: at.local(settings.utc_offset), settings, blocks }
    }
}

/// Bodies that stand behind one another: to make room for each of them alone takes longer than to write it.
#[derive(Debug)]
struct Blocks {
    rest: BytesMut,
    block_bytes: usize,
}

impl Blocks {
    /// Where a body of about so many bytes goes.
    fn place(&mut self, bytes: usize) -> Writer<'_> {
        // Of a body that outgrew its room more may be left than a block has: nobody else is to keep that in memory.
        if !(bytes..=self.block_bytes).contains(&self.rest.capacity()) {
            self.rest = BytesMut::with_capacity(bytes.max(self.block_bytes));
        }
        Writer(&mut self.rest)
    }
}

/// A key as it stands between two values.
macro_rules! key {
    ($name:literal) => {
        concat!(",\"", $name, "\":")
    };
}

impl Update<'_> {
    /// The event that it becomes.
    #[must_use]
    pub fn into_event(self, names: &NameBook, writing: &mut Writing<'_>) -> Event {
        let Writing { at, datetime, settings, blocks } = writing;
        let event_type = self.event_type(settings);
        let object = if settings.object { self.object() } else { None };
        let mut out = blocks.place(room(&self.body, object));
        out.key("{\"ts\":", &at.unix_seconds());
        out.key(key!("datetime"), datetime.as_str());
        self.write_head(&mut out, event_type, names);
        write_rest(&mut out, &self.body, object);
        Event {
            body: out.end(),
            event_type: type_name(event_type),
            group: self.group,
            event_id: self.event_id,
            user_id: self.user_id,
            peer_id: self.peer_id,
            received_at: *at,
        }
    }

    /// The contract's name of its type.
    pub(super) fn event_type(&self, settings: &Settings) -> &str {
        match &self.body {
            Body::Message(message) if self.kind == "message_new" && is_command(&message.text, settings) => {
                "command_call"
            }
            Body::Button(_) => "button_pressed",
            Body::Reaction(_) => "reaction_changed",
            Body::Message(_) | Body::Other(_) => &self.kind,
        }
    }

    /// What every event has behind its moment.
    fn write_head(&self, out: &mut Writer<'_>, event_type: &str, names: &NameBook) {
        out.key(key!("event_type"), event_type);
        out.key(key!("event_id"), self.event_id.as_str());
        out.key(key!("user_id"), &self.user_id);
        out.key(key!("user_name"), &names.name(self.user_id));
        out.key(key!("user_nick"), &names.nick(self.user_id));
        out.key(key!("peer_id"), &self.peer_id);
        out.key(key!("peer_name"), &names.peer(self.peer_id));
        out.key(key!("chat_id"), &chat_of(self.peer_id));
    }
}

fn is_command(text: &str, settings: &Settings) -> bool {
    settings.command_prefixes.iter().any(|prefix| text.starts_with(prefix.as_str()))
}

/// The keys that depend on what happened.
fn write_rest(out: &mut Writer<'_>, body: &Body<'_>, object: Option<&RawValue>) {
    match body {
        Body::Message(message) => {
            out.key(key!("cmid"), &message.cmid);
            out.key(key!("text"), message.text.as_ref());
            out.key(key!("reply"), &message.reply.as_deref().map(Nested));
            out.key(key!("forward"), &Forward(&message.forward));
            out.key(key!("attachments"), &message.kinds);
        }
        Body::Button(button) => {
            out.key(key!("cmid"), &button.cmid());
            out.key(key!("button_event_id"), &button.event_id.as_ref().map(|Text(id)| id));
            out.raw(key!("payload"), button.payload.map_or(Cow::Borrowed("null"), payload).as_ref());
        }
        Body::Reaction(reaction) => {
            out.key(key!("cmid"), &reaction.cmid());
            out.key(key!("reaction_id"), &reaction.reaction_id.map(|Int(id)| id));
        }
        Body::Other(object) => {
            out.raw(key!("object"), object.map_or("null", RawValue::get));
            return;
        }
    }
    if let Some(object) = object {
        out.raw(key!("object"), object.get());
    }
}

/// About how many bytes a body takes: enough that few grow, little enough that few waste.
fn room(body: &Body<'_>, object: Option<&RawValue>) -> usize {
    let own = match body {
        Body::Message(message) => message.text.len() + 256 * message.forward.len(),
        Body::Button(button) => button.payload.map_or(0, |payload| payload.get().len()),
        Body::Reaction(_) => 0,
        Body::Other(object) => object.map_or(0, |object| object.get().len()),
    };
    HEAD_BYTES + own + object.map_or(0, |object| object.get().len())
}

/// A string that holds valid JSON is its value; anything else stays what it is.
pub(super) fn payload(raw: &RawValue) -> Cow<'_, str> {
    let as_it_came = Cow::Borrowed(raw.get());
    if !raw.get().starts_with('"') {
        return as_it_came;
    }
    let Ok(Text(text)) = serde_json::from_str::<Text<'_>>(raw.get()) else { return as_it_came };
    let mended = mend_surrogates(&text);
    match serde_json::from_str::<IgnoredAny>(&mended) {
        Ok(_) => Cow::Owned(mended.into_owned()),
        Err(_) => as_it_came,
    }
}

/// Writes an object key by key, in order, into one block. What it wrote is always one line.
struct Writer<'a>(&'a mut BytesMut);

impl Writer<'_> {
    fn key(&mut self, key: &str, value: &(impl Serialize + ?Sized)) {
        self.0.extend_from_slice(key.as_bytes());
        self.value(value);
    }

    /// JSON as it came, on one line: a line break in valid JSON is white space, and an event is one line of NDJSON.
    fn raw(&mut self, key: &str, json: &str) {
        self.0.extend_from_slice(key.as_bytes());
        if json.contains('\n') || json.contains('\r') {
            self.0.extend(json.bytes().filter(|byte| !matches!(byte, b'\n' | b'\r')));
        } else {
            self.0.extend_from_slice(json.as_bytes());
        }
    }

    fn value(&mut self, value: &(impl Serialize + ?Sized)) {
        serde_json::to_writer((&mut *self.0).writer(), value)
            .expect("invariant: our values are plain and a block grows");
    }

    fn end(self) -> Bytes {
        self.0.put_u8(b'}');
        self.0.split().freeze()
    }
}

/// A reply or a forward, and what is nested in it.
struct Nested<'a>(&'a Message<'a>);

impl Serialize for Nested<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let message = self.0;
        let mut out = serializer.serialize_struct("Nested", 7)?;
        out.serialize_field("user_id", &message.sender())?;
        out.serialize_field("cmid", &message.cmid)?;
        out.serialize_field("text", &message.text)?;
        out.serialize_field("date", &message.date)?;
        out.serialize_field("attachments", &message.kinds)?;
        out.serialize_field("reply", &message.reply.as_deref().map(Nested))?;
        out.serialize_field("forward", &Forward(&message.forward))?;
        out.end()
    }
}

struct Forward<'a>(&'a [Message<'a>]);

impl Serialize for Forward<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(Nested))
    }
}
