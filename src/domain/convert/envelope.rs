//! The envelope of an update: `{"type", "group_id", "event_id", "object", …}` in any order. Deliberately absent: judging
//! what it holds.

use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::message::Place;
use super::read::Body;
use super::shapes::{Button, FromObject, Loose, Reaction};

/// What an update says of itself.
#[derive(Default)]
pub(super) struct Envelope<'a> {
    pub(super) kind: Loose<'a>,
    pub(super) group_id: Loose<'a>,
    pub(super) event_id: Loose<'a>,
    pub(super) object: Object<'a>,
}

/// Its object, read or as it came.
pub(super) enum Object<'a> {
    Read(Body<'a>),
    Raw(Option<&'a RawValue>),
}

impl Default for Object<'_> {
    fn default() -> Self {
        Self::Raw(None)
    }
}

/// The shapes that objects of known types have.
#[derive(Clone, Copy)]
pub(super) enum Shape {
    Message(Place),
    Button,
    Reaction,
}

impl Shape {
    /// The shape of a type's object, if the type is known.
    pub(super) fn of(kind: &str) -> Option<Self> {
        match kind {
            "message_new" => Some(Self::Message(Place::New)),
            "message_edit" | "message_reply" => Some(Self::Message(Place::Bare)),
            "message_event" => Some(Self::Button),
            "message_reaction_event" => Some(Self::Reaction),
            _ => None,
        }
    }
}

impl<'de> DeserializeSeed<'de> for Shape {
    type Value = Body<'de>;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Body<'de>, D::Error> {
        match self {
            Self::Message(place) => place.deserialize(deserializer).map(Body::Message),
            Self::Button => FromObject::<Button<'de>>::new().deserialize(deserializer).map(Body::Button),
            Self::Reaction => FromObject::<Reaction>::new().deserialize(deserializer).map(Body::Reaction),
        }
    }
}

/// Reads an envelope. With `at_once`, an object whose known type stands before it is read on the way.
pub(super) fn read(text: &str, at_once: bool) -> Result<Envelope<'_>, serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let envelope = (&mut deserializer).deserialize_map(Fields { at_once })?;
    deserializer.end()?;
    Ok(envelope)
}

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum Key {
    Type,
    GroupId,
    EventId,
    Object,
    #[serde(other)]
    Other,
}

struct Fields {
    at_once: bool,
}

impl<'de> Visitor<'de> for Fields {
    type Value = Envelope<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an update")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Envelope<'de>, A::Error> {
        let mut envelope = Envelope::default();
        while let Some(key) = map.next_key()? {
            match key {
                Key::Type if matches!(envelope.object, Object::Read(_)) => {
                    return Err(A::Error::custom("a second type, after the object was read by the first"));
                }
                Key::Type => envelope.kind = map.next_value()?,
                Key::GroupId => envelope.group_id = map.next_value()?,
                Key::EventId => envelope.event_id = map.next_value()?,
                Key::Object => {
                    let shape = match &envelope.kind {
                        Loose::Text(kind) if self.at_once => Shape::of(kind),
                        _ => None,
                    };
                    envelope.object = match shape {
                        Some(shape) => Object::Read(map.next_value_seed(shape)?),
                        None => Object::Raw(map.next_value()?),
                    };
                }
                Key::Other => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(envelope)
    }
}
