//! What VK's objects look like: borrowed, tolerant, every version at once. Source of the shapes: VK's published schema of
//! API 5.199 and what older versions were seen to send.
//!
//! - What an event is made of must be of its kind ([`Int`], [`Text`]): else the update goes into quarantine.
//! - What only describes ([`Loose`]) is taken as it is: of another kind it counts as absent and fails nothing.
//! - An object is never read from a list, although serde would read a struct from one.
//!
//! Deliberately absent: messages (`message`), fields that no event uses.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// Whole numbers up to 2^53 are exact as floating point.
const EXACT: f64 = 9_007_199_254_740_992.0;
/// The `user_id` of a photo that was put up in the community's name: no user did it.
const IN_THE_COMMUNITYS_NAME: i64 = 100;

/// Text that is borrowed where it has no escapes.
#[derive(Deserialize, Debug, Clone)]
#[serde(transparent)]
pub(super) struct Text<'a>(#[serde(borrow)] pub(super) Cow<'a, str>);

/// An integer as VK may write it: a number, a number as text, a bool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Int(pub(super) i64);

impl<'de> Deserialize<'de> for Int {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl Visitor<'_> for Any {
            type Value = Int;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an integer of 64 bits")
            }
            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Int, E> {
                Ok(Int(number))
            }
            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Int, E> {
                i64::try_from(number).map(Int).map_err(|_| E::custom("an integer beyond 64 bits"))
            }
            fn visit_f64<E: de::Error>(self, number: f64) -> Result<Int, E> {
                whole(number).map(Int).ok_or_else(|| E::custom("a number that is no integer"))
            }
            fn visit_bool<E: de::Error>(self, flag: bool) -> Result<Int, E> {
                Ok(Int(i64::from(flag)))
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Int, E> {
                text.trim().parse().map(Int).map_err(|_| E::custom("text that is no integer"))
            }
        }
        deserializer.deserialize_any(Any)
    }
}

fn whole(number: f64) -> Option<i64> {
    (number.fract() == 0.0 && number.abs() <= EXACT).then_some(number as i64)
}

/// A value of which only one kind is of use; reading it never fails.
#[derive(Clone, Debug, Default)]
pub(super) enum Loose<'a> {
    /// There is none, or null.
    #[default]
    Absent,
    /// True or false.
    Flag(bool),
    /// A whole number.
    Int(i64),
    /// A text.
    Text(Cow<'a, str>),
    /// An object.
    Object,
    /// Anything else.
    Else,
}

impl<'a> Loose<'a> {
    /// The text that it is.
    pub(super) fn text(self) -> Option<Cow<'a, str>> {
        match self {
            Self::Text(text) => Some(text),
            Self::Absent | Self::Flag(_) | Self::Int(_) | Self::Object | Self::Else => None,
        }
    }

    /// Whether it is set, which VK writes as true or as 1.
    pub(super) fn is_set(&self) -> bool {
        matches!(self, Self::Flag(true) | Self::Int(1))
    }

    /// The number that it is, or that its text is. True is nobody's id.
    pub(super) fn int(&self) -> Option<i64> {
        match self {
            Self::Int(number) => Some(*number),
            Self::Text(text) => text.trim().parse().ok(),
            Self::Absent | Self::Flag(_) | Self::Object | Self::Else => None,
        }
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Loose<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Loose<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("anything")
            }
            fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
                Ok(Loose::Absent)
            }
            fn visit_bool<E: de::Error>(self, flag: bool) -> Result<Self::Value, E> {
                Ok(Loose::Flag(flag))
            }
            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Self::Value, E> {
                Ok(Loose::Int(number))
            }
            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Self::Value, E> {
                Ok(i64::try_from(number).map_or(Loose::Else, Loose::Int))
            }
            fn visit_f64<E: de::Error>(self, number: f64) -> Result<Self::Value, E> {
                Ok(whole(number).map_or(Loose::Else, Loose::Int))
            }
            fn visit_borrowed_str<E: de::Error>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Loose::Text(Cow::Borrowed(text)))
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Loose::Text(Cow::Owned(text.to_owned())))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Loose::Else)
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Loose::Object)
            }
        }
        deserializer.deserialize_any(Any)
    }
}

/// Reads a `T` from an object, and from nothing else.
pub(super) struct FromObject<T>(PhantomData<T>);

impl<T> FromObject<T> {
    pub(super) fn new() -> Self {
        Self(PhantomData)
    }
}

impl<'de, T: Deserialize<'de>> DeserializeSeed<'de> for FromObject<T> {
    type Value = T;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<T, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for FromObject<T> {
    type Value = T;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }
    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map))
    }
}

/// A press on a button.
#[derive(Deserialize)]
pub(super) struct Button<'a> {
    pub(super) user_id: Option<Int>,
    pub(super) peer_id: Option<Int>,
    conversation_message_id: Option<Int>,
    cmid: Option<Int>,
    #[serde(borrow)]
    pub(super) event_id: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) payload: Option<&'a RawValue>,
}

impl Button<'_> {
    /// The message that has the button; none in inline mode.
    pub(super) fn cmid(&self) -> Option<i64> {
        self.conversation_message_id.or(self.cmid).map(|Int(id)| id)
    }
}

/// A reaction that was set or taken back.
#[derive(Deserialize)]
pub(super) struct Reaction {
    pub(super) reacted_id: Option<Int>,
    pub(super) peer_id: Option<Int>,
    conversation_message_id: Option<Int>,
    cmid: Option<Int>,
    pub(super) reaction_id: Option<Int>,
}

impl Reaction {
    /// The message that was reacted to.
    pub(super) fn cmid(&self) -> Option<i64> {
        self.cmid.or(self.conversation_message_id).map(|Int(id)| id)
    }
}

/// Who and where of any other object.
#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct Anything<'a> {
    #[serde(borrow)]
    from_id: Loose<'a>,
    #[serde(borrow)]
    user_id: Loose<'a>,
    #[serde(borrow)]
    reacted_id: Loose<'a>,
    #[serde(borrow)]
    liker_id: Loose<'a>,
    #[serde(borrow)]
    deleter_id: Loose<'a>,
    #[serde(borrow)]
    admin_id: Loose<'a>,
    #[serde(borrow)]
    owner_id: Loose<'a>,
    #[serde(borrow)]
    to_id: Loose<'a>,
    #[serde(borrow)]
    peer_id: Loose<'a>,
}

impl Anything<'_> {
    /// Who did it: whoever deleted, else the author, the user, the one who reacted or liked, the administrator. Someone who
    /// is blocked or made an officer stands before the administrator, so that all that happens to one person keeps its
    /// order. An owner did nothing, but that what is new and names nobody else was put up in the owner's name.
    pub(super) fn who(&self, kind: &str) -> Option<i64> {
        let deleter = self.deleter_id.int().filter(|_| kind.ends_with("_delete"));
        let by_rank = [&self.from_id, &self.user_id, &self.reacted_id, &self.liker_id, &self.admin_id];
        let someone = deleter.or_else(|| by_rank.into_iter().find_map(Loose::int));
        match kind {
            "photo_new" => someone.filter(|user| *user != IN_THE_COMMUNITYS_NAME).or_else(|| self.owner_id.int()),
            "audio_new" | "video_new" => someone.or_else(|| self.owner_id.int()),
            _ => someone,
        }
    }

    /// In which conversation. Someone who types to the community does so in the dialog with it: `to_id` is negative then.
    pub(super) fn peer(&self, kind: &str) -> Option<i64> {
        self.peer_id.int().or_else(|| match kind {
            "message_typing_state" => self.to_id.int().filter(|to| *to > 0).or_else(|| self.from_id.int()),
            "message_read" => self.from_id.int(),
            _ => None,
        })
    }
}
