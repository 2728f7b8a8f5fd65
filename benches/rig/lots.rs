//! Lots of updates to convert, our conversion of them, and its floor: what derived readers and writers of serde_json make of the
//! same bytes, borrowed in, the very same bytes out, told beforehand what each update is. Deliberately absent: measuring.

use std::borrow::Cow;

use chrono::FixedOffset;
use event_router::domain::convert::{NameBook, Settings, Writing, mend, read_answer};
use event_router::domain::event;
use event_router::domain::ids::{GroupId, Ts};
use event_router::domain::time::Moment;
use event_router::sim::script::Script;
use event_router::sim::vk_shape::written;
use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::RawValue;

/// What the floor reads of an update with an object of its type.
#[derive(Deserialize)]
struct Update<'a, T> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    event_id: Cow<'a, str>,
    object: T,
}

#[derive(Deserialize)]
struct Wrapped<'a> {
    #[serde(borrow)]
    message: Message<'a>,
}

#[derive(Deserialize)]
struct Message<'a> {
    from_id: i64,
    peer_id: i64,
    conversation_message_id: i64,
    #[serde(borrow)]
    text: Cow<'a, str>,
    #[serde(borrow)]
    reply_message: Option<Box<Nested<'a>>>,
    #[serde(borrow, default)]
    fwd_messages: Vec<Nested<'a>>,
    #[serde(borrow, default)]
    attachments: Vec<Attachment<'a>>,
}

#[derive(Deserialize, Serialize)]
struct Nested<'a> {
    #[serde(rename(deserialize = "from_id", serialize = "user_id"))]
    user_id: Option<i64>,
    #[serde(rename(deserialize = "conversation_message_id", serialize = "cmid"))]
    cmid: Option<i64>,
    #[serde(borrow)]
    text: Cow<'a, str>,
    date: Option<i64>,
    #[serde(borrow, default)]
    attachments: Vec<Attachment<'a>>,
    #[serde(borrow, rename(deserialize = "reply_message", serialize = "reply"))]
    reply: Option<Box<Nested<'a>>>,
    #[serde(borrow, default, rename(deserialize = "fwd_messages", serialize = "forward"))]
    forward: Vec<Nested<'a>>,
}

#[derive(Deserialize)]
struct Attachment<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
}

impl Serialize for Attachment<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.kind)
    }
}

#[derive(Deserialize)]
struct Button<'a> {
    user_id: i64,
    peer_id: i64,
    conversation_message_id: i64,
    #[serde(borrow)]
    event_id: Cow<'a, str>,
    #[serde(borrow)]
    payload: &'a RawValue,
}

#[derive(Deserialize)]
struct Reaction {
    reacted_id: i64,
    peer_id: i64,
    cmid: i64,
    reaction_id: i64,
}

/// What it writes: the contract's keys, in their order; first those that every event of a chat has.
macro_rules! event {
    ($name:ident { $($key:ident: $type:ty),* }) => {
        #[derive(Serialize)]
        struct $name<'a> {
            ts: i64,
            datetime: &'a str,
            event_type: &'a str,
            event_id: &'a str,
            user_id: i64,
            user_name: Option<&'a str>,
            user_nick: Option<&'a str>,
            peer_id: i64,
            peer_name: Option<&'a str>,
            chat_id: Option<i64>,
            cmid: i64,
            $($key: $type,)*
        }

        impl<'a> $name<'a> {
            fn written(event_type: &'a str, event_id: &'a str, [user_id, peer_id, cmid]: [i64; 3], $($key: $type),*) -> Vec<u8> {
                let (ts, datetime, chat_id) = (AT.unix_seconds(), DATETIME, chat_id(peer_id));
                let (user_name, user_nick, peer_name) = (None, None, None);
                let event = Self { ts, datetime, event_type, event_id, user_id, user_name, user_nick, peer_id, peer_name, chat_id, cmid, $($key,)* };
                serde_json::to_vec(&event).expect("written")
            }
        }
    };
}

event!(MessageEvent {
    text: &'a str,
    reply: Option<&'a Nested<'a>>,
    forward: &'a [Nested<'a>],
    attachments: &'a [Attachment<'a>]
});
event!(ButtonEvent { button_event_id: &'a str, payload: &'a RawValue });
event!(ReactionEvent { reaction_id: i64 });

/// The moment of conversion.
const AT: Moment = Moment(1_709_107_923_000);
const DATETIME: &str = "2024-02-28 11:12:03";

/// What the floor is told of an update: it decides nothing.
#[derive(Clone, Copy)]
enum Kind {
    /// A wrapped message, and the type that its event has.
    Message(&'static str),
    Bare,
    Button,
    Reaction,
}

/// A hundred updates, as VK gives them under load.
pub(crate) struct Lot {
    pub(crate) name: &'static str,
    pub(crate) updates: Vec<String>,
    kinds: Vec<Kind>,
}

/// The contract's message, its button, and what a simulated community sends. Both sides write the same bytes.
pub(crate) fn lots() -> [Lot; 3] {
    let mut script = Script::new(1, 218_730_916, 20);
    let mut mixed = Vec::new();
    while mixed.len() < 100 {
        let update = script.invent().update;
        mixed.extend(kind_of(&update).map(|kind| (update, kind)));
    }
    let (updates, kinds) = mixed.into_iter().unzip();
    let lots = [
        Lot {
            name: "seed message",
            updates: vec![seed_message(); 100],
            kinds: vec![Kind::Message("message_new"); 100],
        },
        Lot { name: "button", updates: vec![button(); 100], kinds: vec![Kind::Button; 100] },
        Lot { name: "mixed lot", updates, kinds },
    ];
    let converting = Converting::default();
    for lot in &lots {
        for (update, kind) in lot.updates.iter().zip(&lot.kinds) {
            let ours = converting.events(&[update]);
            assert_eq!(String::from_utf8_lossy(&ours[0].body), String::from_utf8_lossy(&write(update, *kind)));
        }
    }
    lots
}

/// What the floor can be told of an invented update, if it can read it.
fn kind_of(update: &str) -> Option<Kind> {
    // A place becomes an attachment: that is a decision.
    if update.contains("\"geo\"") {
        return None;
    }
    let value: serde_json::Value = serde_json::from_str(update).expect("JSON");
    let text = value["object"]["message"]["text"].as_str();
    match value["type"].as_str()? {
        "message_new" if text?.starts_with(['/', '!']) => Some(Kind::Message("command_call")),
        "message_new" => Some(Kind::Message("message_new")),
        "message_edit" => Some(Kind::Bare),
        "message_event" => Some(Kind::Button),
        "message_reaction_event" => Some(Kind::Reaction),
        _ => None,
    }
}

fn chat_id(peer_id: i64) -> Option<i64> {
    (peer_id > 2_000_000_000).then(|| peer_id - 2_000_000_000)
}

fn message(event_type: &str, event_id: &str, message: &Message<'_>) -> Vec<u8> {
    let ids = [message.from_id, message.peer_id, message.conversation_message_id];
    let (reply, forward) = (message.reply_message.as_deref(), &message.fwd_messages);
    MessageEvent::written(event_type, event_id, ids, &message.text, reply, forward, &message.attachments)
}

/// What a derived reader and a derived writer make of an update.
fn write(update: &str, kind: Kind) -> Vec<u8> {
    match kind {
        Kind::Message(event_type) => {
            let read: Update<'_, Wrapped<'_>> = serde_json::from_str(update).expect("the floor reads it");
            message(event_type, &read.event_id, &read.object.message)
        }
        Kind::Bare => {
            let read: Update<'_, Message<'_>> = serde_json::from_str(update).expect("the floor reads it");
            message(&read.kind, &read.event_id, &read.object)
        }
        Kind::Button => {
            let read: Update<'_, Button<'_>> = serde_json::from_str(update).expect("the floor reads it");
            let object = &read.object;
            let ids = [object.user_id, object.peer_id, object.conversation_message_id];
            ButtonEvent::written("button_pressed", &read.event_id, ids, &object.event_id, object.payload)
        }
        Kind::Reaction => {
            let read: Update<'_, Reaction> = serde_json::from_str(update).expect("the floor reads it");
            let object = &read.object;
            let ids = [object.reacted_id, object.peer_id, object.cmid];
            ReactionEvent::written("reaction_changed", &read.event_id, ids, object.reaction_id)
        }
    }
}

fn seed_message() -> String {
    written(
        &json!({ "group_id": 218_730_916, "type": "message_new", "event_id": "8dd52b4d7c822b78db23db85bf351c7114e46b36", "v": "5.199", "object": {
        "message": { "date": 1_709_107_922, "from_id": 206_295_116, "id": 0, "version": 10_001_452, "out": 0, "important": false, "is_hidden": false,
            "attachments": [], "conversation_message_id": 2708, "fwd_messages": [], "text": "Hi!", "peer_id": 2_000_000_002_i64, "random_id": 0 },
        "client_info": { "button_actions": ["text", "vkpay", "open_app", "location", "open_link", "callback", "intent_subscribe", "intent_unsubscribe"],
            "keyboard": true, "inline_keyboard": true, "carousel": true, "lang_id": 0 } } }),
    )
}

fn button() -> String {
    written(
        &json!({ "group_id": 218_730_916, "type": "message_event", "event_id": "e93488a3813b59f6c6b53ee51f59103e2a9240d6", "v": "5.199", "object": {
        "user_id": 206_295_116, "peer_id": 2_000_000_002_i64, "event_id": "ac89a3425ec3",
        "payload": { "keyboard_owner_id": 206_295_116, "call_action": "test" }, "conversation_message_id": 2618 } }),
    )
}

/// The bare pass; the bytes that it wrote.
pub(crate) fn floor(lot: &Lot) -> usize {
    lot.updates.iter().zip(&lot.kinds).map(|(update, kind)| write(update, *kind).len()).sum()
}

/// What our conversion needs.
pub(crate) struct Converting {
    settings: Settings,
    group: GroupId,
    ts: Ts,
    names: NameBook,
}

impl Default for Converting {
    fn default() -> Self {
        let utc_offset = FixedOffset::east_opt(3 * 3600).expect("an offset");
        Self {
            settings: Settings { command_prefixes: vec!["/".into(), "!".into()], utc_offset, object: false },
            group: GroupId::new(1).expect("an id"),
            ts: Ts::parse("1").expect("a ts"),
            names: NameBook::default(),
        }
    }
}

impl Converting {
    /// Our pass, from bytes to events; the bytes of their bodies.
    pub(crate) fn convert(&self, lot: &Lot) -> usize {
        self.events(&lot.updates.iter().map(String::as_str).collect::<Vec<_>>())
            .iter()
            .map(|event| event.body.len())
            .sum()
    }

    fn events(&self, updates: &[&str]) -> Vec<event::Event> {
        let mended: Vec<Cow<'_, str>> = updates.iter().map(|update| mend(update.as_bytes())).collect();
        let texts: Vec<&str> = mended.iter().map(AsRef::as_ref).collect();
        let mut writing = Writing::new(AT, &self.settings, updates.len());
        let events = read_answer(self.group, &self.ts, &texts).into_iter().flatten();
        events.map(|update| update.into_event(&self.names, &mut writing)).collect()
    }
}
