//! The text of an update to a typed one, or to what goes into quarantine. Deliberately absent: writing, names.

use std::collections::HashMap;

use serde_json::value::RawValue;
use sha1::{Digest, Sha1};

use super::shapes::{Anything, Button, Envelope, Int, Message, Reaction, Text, Wrapper};
use crate::domain::event::CHAT_BASE;
use crate::domain::ids::{EventId, GroupId, Ts};

/// The longest name of a type that is believed, in bytes.
const TYPE_BYTES: usize = 128;
/// How much of a reason is kept, in characters.
const REASON_CHARS: usize = 300;

/// An update that was read.
pub struct Update<'a> {
    pub(super) group: GroupId,
    pub(super) event_id: EventId,
    pub(super) kind: String,
    pub(super) object: Option<&'a RawValue>,
    pub(super) body: Body<'a>,
    pub(super) user_id: Option<i64>,
    pub(super) peer_id: Option<i64>,
}

/// What its object is.
pub(super) enum Body<'a> {
    Message(Box<Message<'a>>),
    Button(Button<'a>),
    Reaction(Reaction),
    Other,
}

/// An update that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quarantined {
    /// The update as it came.
    pub raw: String,
    /// What is wrong with it.
    pub reason: String,
    /// An id made of it.
    pub event_id: EventId,
}

/// The names that an update would like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Who did it.
    pub user: Option<i64>,
    /// The other side of a dialog.
    pub other_side: Option<i64>,
    /// The chat, as a peer.
    pub chat: Option<i64>,
}

impl Wanted {
    /// Everyone whose name is wanted; negative is a community.
    pub fn people(self) -> impl Iterator<Item = i64> {
        self.user.into_iter().chain(self.other_side)
    }
}

impl Update<'_> {
    /// The names that it would like.
    #[must_use]
    pub fn wanted(&self) -> Wanted {
        Wanted {
            user: self.user_id,
            other_side: self.peer_id.filter(|peer| *peer <= CHAT_BASE),
            chat: self.peer_id.filter(|peer| *peer > CHAT_BASE),
        }
    }
}

/// Reads the updates of one answer that was asked for with `asked`. `updates` is mended text; the n-th result is the n-th
/// update's.
#[must_use]
pub fn read_answer<'a>(group: GroupId, asked: &Ts, updates: &[&'a str]) -> Vec<Result<Update<'a>, Quarantined>> {
    let mut seen: HashMap<&str, u32> = HashMap::new();
    let one = |raw: &&'a str| {
        let mut made = || {
            let count = seen.entry(raw).or_insert(0);
            *count += 1;
            make_id(group, asked, raw, *count - 1)
        };
        read(group, raw, &mut made).map_err(|reason| Quarantined {
            raw: (*raw).to_owned(),
            reason: reason.chars().take(REASON_CHARS).collect(),
            event_id: made(),
        })
    };
    updates.iter().map(one).collect()
}

/// The id of an update that VK sent without one: SHA-1 over the community, the ts that was asked with and how many
/// identical updates precede it in the answer, each in decimal and ended by a line feed, then the update's bytes.
fn make_id(group: GroupId, asked: &Ts, raw: &str, before: u32) -> EventId {
    let digest = Sha1::digest(format!("{group}\n{asked}\n{before}\n{raw}"));
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    EventId::parse(&hex).expect("invariant: forty hex digits are an event id")
}

fn read<'a>(group: GroupId, raw: &'a str, made: &mut dyn FnMut() -> EventId) -> Result<Update<'a>, String> {
    if !raw.trim_start().starts_with('{') {
        return Err("the update is no JSON object".to_owned());
    }
    let envelope: Envelope<'a> =
        serde_json::from_str(raw).map_err(|error| format!("the update: {}", without_texts(&error)))?;
    let kind = envelope.kind.ok_or("the update has no type")?;
    let kind: Text<'a> =
        serde_json::from_str(kind.get()).map_err(|_| "the type of the update is no text".to_owned())?;
    let kind = kind.0.into_owned();
    if kind.is_empty() || kind.len() > TYPE_BYTES {
        return Err(format!("the type of the update has {} bytes; 1 to {TYPE_BYTES} are believed", kind.len()));
    }
    // What is no community is not believed: the one that was asked for stands in.
    let said = envelope.group_id.and_then(|id| serde_json::from_str::<Int>(id.get()).ok());
    let group = said.and_then(|Int(id)| GroupId::new(id).ok()).unwrap_or(group);
    let event_id = envelope.event_id.and_then(|id| serde_json::from_str::<EventId>(id.get()).ok());
    let object = envelope.object;
    let (body, user_id, peer_id) = read_object(group, &kind, object)?;
    Ok(Update { group, event_id: event_id.unwrap_or_else(made), kind, object, body, user_id, peer_id })
}

/// An error of the parser without the texts that it quotes: they are people's words, and reasons are logged.
fn without_texts(error: &serde_json::Error) -> String {
    let words = error.to_string();
    match (words.split_once(": string \""), words.rsplit_once(", expected ")) {
        (Some((what, _)), Some((_, expected))) => format!("{what}: a text, expected {expected}"),
        _ => words,
    }
}

type WhoAndWhere<'a> = (Body<'a>, Option<i64>, Option<i64>);

fn read_object<'a>(group: GroupId, kind: &str, object: Option<&'a RawValue>) -> Result<WhoAndWhere<'a>, String> {
    let known = || {
        let text = object.map(RawValue::get).ok_or_else(|| format!("{kind} without an object"))?;
        if text.starts_with('{') { Ok(text) } else { Err(format!("the object of {kind} is no JSON object")) }
    };
    let told = |error: serde_json::Error| format!("the object of {kind}: {}", without_texts(&error));
    Ok(match kind {
        "message_new" | "message_edit" | "message_reply" => {
            let text = known()?;
            let read_wrapper = || serde_json::from_str::<Wrapper<'a>>(text).map(Wrapper::into_message).map_err(told);
            let message = match kind {
                "message_new" => read_wrapper()?,
                _ => {
                    let bare: Box<Message<'a>> = serde_json::from_str(text).map_err(told)?;
                    if bare.is_wrapper() { read_wrapper()? } else { bare }
                }
            };
            let (who, peer) = (message.author(group.get()), message.peer());
            (Body::Message(message), who, peer)
        }
        "message_event" => {
            let button: Button<'a> = serde_json::from_str(known()?).map_err(told)?;
            let (who, peer) = (button.user_id.map(|id| id.0), button.peer_id.map(|id| id.0));
            (Body::Button(button), who, peer)
        }
        "message_reaction_event" => {
            let reaction: Reaction = serde_json::from_str(known()?).map_err(told)?;
            let (who, peer) = (reaction.reacted_id.map(|id| id.0), reaction.peer_id.map(|id| id.0));
            (Body::Reaction(reaction), who, peer)
        }
        _ => {
            let object = object.map(RawValue::get).filter(|text| text.starts_with('{'));
            let anything: Anything<'a> = object.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
            (Body::Other, anything.who(kind), anything.peer(kind))
        }
    })
}
