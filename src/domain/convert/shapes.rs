//! What VK's objects look like: borrowed, tolerant, every version at once. Source of the shapes: VK's published schema of
//! API 5.199 and what older versions were seen to send. Deliberately absent: fields that no event uses.

use std::borrow::Cow;
use std::fmt;

use serde::de::{self, Deserializer, IgnoredAny, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::domain::event::CHAT_BASE;

/// Text that is borrowed where it has no escapes.
#[derive(Deserialize, Serialize, Debug, Clone)]
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
                // Whole numbers up to 2^53 are exact.
                if number.fract() == 0.0 && number.abs() <= 9_007_199_254_740_992.0 {
                    Ok(Int(number as i64))
                } else {
                    Err(E::custom("a number that is no integer"))
                }
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

/// The envelope of an update. What it must have is checked by `read`, so that the reason can be told.
#[derive(Deserialize)]
pub(super) struct Envelope<'a> {
    #[serde(rename = "type", borrow)]
    pub(super) kind: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) group_id: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) event_id: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) object: Option<&'a RawValue>,
}

/// A message of any version. `Inner` is what stands under `message`: nothing that a message itself has.
#[derive(Deserialize)]
#[serde(bound(deserialize = "Inner: Deserialize<'de>"))]
pub(super) struct Message<'a, Inner = IgnoredAny> {
    message: Option<Inner>,
    pub(super) date: Option<Int>,
    pub(super) from_id: Option<Int>,
    pub(super) peer_id: Option<Int>,
    conversation_message_id: Option<Int>,
    cmid: Option<Int>,
    #[serde(borrow)]
    text: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) fwd_messages: Option<Vec<Message<'a>>>,
    #[serde(borrow)]
    pub(super) reply_message: Option<Box<Message<'a>>>,
    #[serde(borrow)]
    attachments: Option<Vec<Attachment<'a>>>,
    geo: Option<IgnoredAny>,
    // Below 5.80.
    user_id: Option<Int>,
    chat_id: Option<Int>,
    out: Option<Int>,
    #[serde(borrow)]
    body: Option<Text<'a>>,
}

#[derive(Deserialize)]
struct Attachment<'a> {
    #[serde(rename = "type", borrow)]
    kind: Option<Text<'a>>,
}

/// The object of `message_new`: since 5.103 a wrapper of the message, before it the message itself.
pub(super) type Wrapper<'a> = Message<'a, Box<Message<'a>>>;

impl<'a> Wrapper<'a> {
    /// The message.
    pub(super) fn into_message(self) -> Box<Message<'a>> {
        match self.message {
            Some(inner) => inner,
            None => Box::new(Message {
                message: None,
                date: self.date,
                from_id: self.from_id,
                peer_id: self.peer_id,
                conversation_message_id: self.conversation_message_id,
                cmid: self.cmid,
                text: self.text,
                fwd_messages: self.fwd_messages,
                reply_message: self.reply_message,
                attachments: self.attachments,
                geo: self.geo,
                user_id: self.user_id,
                chat_id: self.chat_id,
                out: self.out,
                body: self.body,
            }),
        }
    }
}

impl Message<'_> {
    /// Whether it is not a message but a wrapper of one.
    pub(super) fn is_wrapper(&self) -> bool {
        self.message.is_some() && self.from_id.is_none() && self.peer_id.is_none()
    }

    /// Its number in its conversation, under either of its names.
    pub(super) fn cmid(&self) -> Option<i64> {
        self.conversation_message_id.or(self.cmid).map(|Int(id)| id)
    }

    /// Who wrote it. Below 5.80 the community's own messages name the other side and are marked `out`.
    pub(super) fn author(&self, group: i64) -> Option<i64> {
        let ours = self.from_id.is_none() && self.user_id.is_some() && self.out == Some(Int(1));
        if ours { Some(-group) } else { self.sender() }
    }

    /// Who wrote a nested one: its author, below 5.80 its user.
    pub(super) fn sender(&self) -> Option<i64> {
        self.from_id.or(self.user_id).map(|Int(id)| id)
    }

    /// Where it was written. Below 5.80: the chat's number, else the other side.
    pub(super) fn peer(&self) -> Option<i64> {
        let old_chat = || self.chat_id.map(|Int(chat)| chat.saturating_add(CHAT_BASE));
        self.peer_id.map(|Int(peer)| peer).or_else(old_chat).or(self.user_id.map(|Int(user)| user))
    }

    /// What it says.
    pub(super) fn text(&self) -> &str {
        self.text.as_ref().or(self.body.as_ref()).map_or("", |text| &text.0)
    }

    /// The kinds of its attachments in VK's order, then `geo`.
    pub(super) fn kinds(&self) -> impl Iterator<Item = Cow<'_, str>> {
        let kinds = self.attachments.iter().flatten().filter_map(|attachment| attachment.kind.as_ref());
        let lower = kinds.map(|kind| match kind.0.bytes().any(|byte| !byte.is_ascii_lowercase() && byte != b'_') {
            true => Cow::Owned(kind.0.to_lowercase()),
            false => Cow::Borrowed(kind.0.as_ref()),
        });
        lower.chain(self.geo.iter().map(|_| Cow::Borrowed("geo")))
    }
}

/// A press on a button.
#[derive(Deserialize)]
pub(super) struct Button<'a> {
    pub(super) user_id: Option<Int>,
    pub(super) peer_id: Option<Int>,
    pub(super) conversation_message_id: Option<Int>,
    pub(super) cmid: Option<Int>,
    #[serde(borrow)]
    pub(super) event_id: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) payload: Option<&'a RawValue>,
}

/// A reaction that was set or taken back.
#[derive(Deserialize)]
pub(super) struct Reaction {
    pub(super) reacted_id: Option<Int>,
    pub(super) peer_id: Option<Int>,
    pub(super) cmid: Option<Int>,
    pub(super) conversation_message_id: Option<Int>,
    pub(super) reaction_id: Option<Int>,
}

/// Who and where of any other object; each as it came, for a field that is not what it seems must not fail the event.
#[derive(Deserialize, Default)]
pub(super) struct Anything<'a> {
    #[serde(borrow)]
    from_id: Option<&'a RawValue>,
    #[serde(borrow)]
    user_id: Option<&'a RawValue>,
    #[serde(borrow)]
    reacted_id: Option<&'a RawValue>,
    #[serde(borrow)]
    liker_id: Option<&'a RawValue>,
    #[serde(borrow)]
    deleter_id: Option<&'a RawValue>,
    #[serde(borrow)]
    admin_id: Option<&'a RawValue>,
    #[serde(borrow)]
    owner_id: Option<&'a RawValue>,
    #[serde(borrow)]
    to_id: Option<&'a RawValue>,
    #[serde(borrow)]
    peer_id: Option<&'a RawValue>,
}

impl Anything<'_> {
    /// Who did it: whoever deleted, else the author, the user, the one who reacted or liked, the administrator, the owner.
    pub(super) fn who(&self, kind: &str) -> Option<i64> {
        let deleter = self.deleter_id.filter(|_| kind.ends_with("_delete"));
        let by_rank =
            [deleter, self.from_id, self.user_id, self.reacted_id, self.liker_id, self.admin_id, self.owner_id];
        by_rank.into_iter().find_map(int)
    }

    /// In which conversation. Someone who types to the community does so in the dialog with it.
    pub(super) fn peer(&self, kind: &str) -> Option<i64> {
        int(self.peer_id).or_else(|| match kind {
            "message_typing_state" => match int(self.to_id) {
                Some(to) if to > 0 => Some(to),
                _ => int(self.from_id),
            },
            "message_read" => int(self.from_id),
            _ => None,
        })
    }
}

fn int(raw: Option<&RawValue>) -> Option<i64> {
    serde_json::from_str::<Int>(raw?.get()).ok().map(|Int(number)| number)
}
