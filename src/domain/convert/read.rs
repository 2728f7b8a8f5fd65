//! The text of an update to a typed one, or to what goes into quarantine. Deliberately absent: writing, names.

use std::borrow::Cow;
use std::collections::HashMap;

use serde::de::DeserializeSeed;
use serde_json::value::RawValue;
use sha1::{Digest, Sha1};

use super::envelope::{self, Object, Shape};
use super::message::Message;
use super::shapes::{Anything, Button, Int, Loose, Reaction};
use crate::domain::event::CHAT_BASE;
use crate::domain::ids::{EventId, GroupId, Ts};

/// The longest name of a type that is believed, in bytes.
const TYPE_BYTES: usize = 128;
/// The highest number of a message in its conversation that is believed.
const LAST_CMID: i64 = u32::MAX as i64;
/// How much of a reason is kept, in characters.
const REASON_CHARS: usize = 300;

/// An update that was read.
pub struct Update<'a> {
    pub(super) raw: &'a str,
    pub(super) group: GroupId,
    pub(super) event_id: EventId,
    pub(super) kind: Cow<'a, str>,
    pub(super) body: Body<'a>,
    pub(super) user_id: Option<i64>,
    pub(super) peer_id: Option<i64>,
}

/// What its object is. The types that have a shape of their own are *known*: their object must be readable, else the
/// update goes into quarantine. Every other object is passed on as it is, whatever it is.
pub(super) enum Body<'a> {
    /// In a box, which it was read into.
    Message(Box<Message<'a>>),
    Button(Button<'a>),
    Reaction(Reaction),
    Other(Option<&'a RawValue>),
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

impl<'a> Update<'a> {
    /// VK's object as it came. A second look at the update, for those who asked for objects.
    pub(super) fn object(&self) -> Option<&'a RawValue> {
        match (&self.body, envelope::read(self.raw, false)) {
            (Body::Other(object), _) => *object,
            (_, Ok(envelope::Envelope { object: Object::Raw(object), .. })) => object,
            (_, _) => None,
        }
    }

    /// The community it belongs to.
    #[must_use]
    pub fn group(&self) -> GroupId {
        self.group
    }

    /// The id that its event has.
    #[must_use]
    pub fn event_id(&self) -> &EventId {
        &self.event_id
    }

    /// The conversation and the number in it of a message that is new, as far as VK tells them.
    #[must_use]
    pub fn new_message(&self) -> Option<(i64, i64)> {
        match &self.body {
            Body::Message(message) if matches!(self.kind.as_ref(), "message_new" | "message_reply") => {
                message.peer_id.zip(message.cmid.filter(|cmid| (1..=LAST_CMID).contains(cmid)))
            }
            _ => None,
        }
    }

    /// The names that it would like.
    #[must_use]
    pub fn wanted(&self) -> Wanted {
        Wanted {
            user: self.user_id.filter(|user| named(*user)),
            other_side: self.peer_id.filter(|peer| named(*peer)),
            chat: self.peer_id.filter(|peer| *peer > CHAT_BASE),
        }
    }
}

/// Whether someone with a name can have this id: zero is nobody, and below the mirror of [`CHAT_BASE`] are addresses of
/// e-mail, which VK's look-ups of communities refuse.
fn named(id: i64) -> bool {
    id != 0 && (-CHAT_BASE..=CHAT_BASE).contains(&id)
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

/// Reads one update that could not be read before; `made` is the id that was made for it then.
///
/// # Errors
/// Why it still cannot be read.
pub fn read_again<'a>(group: GroupId, made: &EventId, raw: &'a str) -> Result<Update<'a>, String> {
    read(group, raw, &mut || made.clone()).map_err(|reason| reason.chars().take(REASON_CHARS).collect())
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
    // The object is typed on the way where its type is known by then. Whatever stands in the way of that, the slower
    // reading decides and tells why: the order of VK's keys never makes a difference.
    let envelope = match envelope::read(raw, true) {
        Ok(envelope) => envelope,
        Err(_) => envelope::read(raw, false).map_err(|error| format!("the update: {}", without_texts(&error)))?,
    };
    let kind = match envelope.kind {
        Loose::Text(kind) => kind,
        Loose::Absent => return Err("the update has no type".to_owned()),
        Loose::Flag(_) | Loose::Int(_) | Loose::Object | Loose::Else => {
            return Err("the type of the update is no text".to_owned());
        }
    };
    if kind.is_empty() || kind.len() > TYPE_BYTES {
        return Err(format!("the type of the update has {} bytes; 1 to {TYPE_BYTES} are believed", kind.len()));
    }
    let group = envelope.group_id.int().and_then(|id| GroupId::new(id).ok()).unwrap_or(group);
    let event_id = envelope.event_id.text().and_then(|id| EventId::parse(&id).ok());
    let body = match (envelope.object, Shape::of(&kind)) {
        (Object::Read(body), _) => body,
        (Object::Raw(object), Some(shape)) => read_object(shape, &kind, object)?,
        (Object::Raw(object), None) => Body::Other(object),
    };
    let (user_id, peer_id) = who_and_where(group, &kind, &body);
    Ok(Update { raw, group, event_id: event_id.unwrap_or_else(made), kind, body, user_id, peer_id })
}

/// An error of the parser without the texts that it quotes: they are people's words, and reasons are logged.
fn without_texts(error: &serde_json::Error) -> String {
    let words = error.to_string();
    match (words.split_once(": string \""), words.rsplit_once(", expected ")) {
        (Some((what, _)), Some((_, expected))) => format!("{what}: a text, expected {expected}"),
        _ => words,
    }
}

fn read_object<'a>(shape: Shape, kind: &str, object: Option<&'a RawValue>) -> Result<Body<'a>, String> {
    let text = object.map(RawValue::get).ok_or_else(|| format!("{kind} without an object"))?;
    if !text.starts_with('{') {
        return Err(format!("the object of {kind} is no JSON object"));
    }
    let read = shape.deserialize(&mut serde_json::Deserializer::from_str(text));
    read.map_err(|error| format!("the object of {kind}: {}", without_texts(&error)))
}

fn who_and_where(group: GroupId, kind: &str, body: &Body<'_>) -> (Option<i64>, Option<i64>) {
    let number = |id: Option<Int>| id.map(|Int(id)| id);
    match body {
        Body::Message(message) => (message.author(group.get()), message.peer_id),
        Body::Button(button) => (number(button.user_id), number(button.peer_id)),
        Body::Reaction(reaction) => (number(reaction.reacted_id), number(reaction.peer_id)),
        Body::Other(object) => {
            let text = object.map(RawValue::get).filter(|text| text.starts_with('{'));
            let anything: Anything<'_> = text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
            (anything.who(kind), anything.peer(kind))
        }
    }
}
