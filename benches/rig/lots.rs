//! Lots of updates to convert, our conversion of them, and its floor: a bare typed pass of serde_json over the same bytes,
//! borrowed in and serialized out, which decides nothing, names nobody and makes no event. Deliberately absent: measuring.

use std::borrow::Cow;

use chrono::FixedOffset;
use event_router::domain::convert::{NameBook, Settings, Stamp, mend, read_answer};
use event_router::domain::ids::{GroupId, Ts};
use event_router::domain::time::Moment;
use event_router::sim::script::Script;
use serde::{Deserialize, Serialize};
use serde_json::json;

/// What the floor reads and writes: the fields that an event has.
#[derive(Deserialize, Serialize)]
struct Update<'a> {
    group_id: Option<i64>,
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    event_id: Cow<'a, str>,
    #[serde(borrow)]
    object: Object<'a>,
}

#[derive(Deserialize, Serialize)]
struct Object<'a> {
    #[serde(borrow)]
    message: Option<Message<'a>>,
    user_id: Option<i64>,
    peer_id: Option<i64>,
    conversation_message_id: Option<i64>,
    #[serde(borrow)]
    payload: Option<&'a serde_json::value::RawValue>,
}

#[derive(Deserialize, Serialize)]
struct Message<'a> {
    date: Option<i64>,
    from_id: Option<i64>,
    peer_id: Option<i64>,
    conversation_message_id: Option<i64>,
    #[serde(borrow)]
    text: Cow<'a, str>,
    #[serde(borrow, default)]
    fwd_messages: Vec<Message<'a>>,
    #[serde(borrow)]
    reply_message: Option<Box<Message<'a>>>,
    #[serde(borrow, default)]
    attachments: Vec<Attachment<'a>>,
}

#[derive(Deserialize, Serialize)]
struct Attachment<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
}

/// A hundred updates, as VK gives them under load.
pub(crate) struct Lot {
    pub(crate) name: &'static str,
    pub(crate) updates: Vec<String>,
}

/// The contract's message, its button, and what a simulated community sends.
pub(crate) fn lots() -> [Lot; 3] {
    let mut script = Script::new(1, 218_730_916, 20);
    let mixed = std::iter::from_fn(|| Some(script.invent()))
        .filter(|one| one.served.is_some())
        .map(|one| one.update)
        .take(100)
        .collect();
    [
        Lot { name: "seed message", updates: vec![seed_message(); 100] },
        Lot { name: "button", updates: vec![button(); 100] },
        Lot { name: "mixed lot", updates: mixed },
    ]
}

fn seed_message() -> String {
    json!({ "group_id": 218_730_916, "type": "message_new", "event_id": "8dd52b4d7c822b78db23db85bf351c7114e46b36", "v": "5.199", "object": {
        "message": { "date": 1_709_107_922, "from_id": 206_295_116, "id": 0, "version": 10_001_452, "out": 0, "important": false, "is_hidden": false,
            "attachments": [], "conversation_message_id": 2708, "fwd_messages": [], "text": "Hi!", "peer_id": 2_000_000_002_i64, "random_id": 0 },
        "client_info": { "button_actions": ["text", "vkpay", "open_app", "location", "open_link", "callback", "intent_subscribe", "intent_unsubscribe"],
            "keyboard": true, "inline_keyboard": true, "carousel": true, "lang_id": 0 } } })
    .to_string()
}

fn button() -> String {
    json!({ "group_id": 218_730_916, "type": "message_event", "event_id": "e93488a3813b59f6c6b53ee51f59103e2a9240d6", "v": "5.199", "object": {
        "user_id": 206_295_116, "peer_id": 2_000_000_002_i64, "event_id": "ac89a3425ec3",
        "payload": { "keyboard_owner_id": 206_295_116, "call_action": "test" }, "conversation_message_id": 2618 } })
    .to_string()
}

/// The bare pass; the bytes that it wrote.
pub(crate) fn floor(updates: &[String]) -> usize {
    let mut bytes = 0;
    for update in updates {
        let read: Update<'_> = serde_json::from_str(update).expect("the floor reads it");
        bytes += serde_json::to_vec(&read).expect("written").len();
    }
    bytes
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
    pub(crate) fn convert(&self, updates: &[String]) -> usize {
        let mended: Vec<Cow<'_, str>> = updates.iter().map(|update| mend(update.as_bytes())).collect();
        let texts: Vec<&str> = mended.iter().map(AsRef::as_ref).collect();
        let stamp = Stamp::new(Moment(1_709_107_923_000), self.settings.utc_offset);
        let events = read_answer(self.group, &self.ts, &texts).into_iter().flatten();
        events.map(|update| update.into_event(&self.names, &stamp, &self.settings).body.len()).sum()
    }
}
