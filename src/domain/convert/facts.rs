//! What routing looks at: facts of the typed update, borrowed, so that to know them costs an event nothing. Only a payload
//! must be parsed, which happens once and only when a destination asks for it. Deliberately absent: judging (`route`).

use std::borrow::Cow;
use std::cell::OnceCell;

use serde_json::Value;
use serde_json::value::RawValue;

use super::Settings;
use super::read::{Body, Update};
use super::write::payload;
use crate::domain::event::chat_of;

/// The facts of an update.
#[derive(Debug, Default)]
pub struct Facts<'a> {
    /// The type of the event that it becomes.
    pub event_type: &'a str,
    /// Who did it; negative is a community.
    pub user_id: Option<i64>,
    /// The conversation that it happened in.
    pub peer_id: Option<i64>,
    /// What a message says; may be empty. None when it is no message.
    pub text: Option<&'a str>,
    /// The kinds of a message's attachments, in lower case. None when it is no message.
    pub attachments: Option<&'a [Cow<'a, str>]>,
    /// The payload of the button that was pressed, or that VK wrote into the message when a text button was.
    pub payload: Payload<'a>,
}

impl Facts<'_> {
    /// The chat's number, when it happened in one.
    #[must_use]
    pub fn chat_id(&self) -> Option<i64> {
        chat_of(self.peer_id)
    }
}

/// A payload that is not parsed before somebody asks.
#[derive(Debug, Default)]
pub struct Payload<'a> {
    raw: Option<&'a RawValue>,
    value: OnceCell<Option<Value>>,
}

impl<'a> Payload<'a> {
    /// A payload as VK wrote it.
    #[must_use]
    pub fn new(raw: Option<&'a RawValue>) -> Self {
        Self { raw, value: OnceCell::new() }
    }

    /// Whether there is one.
    #[must_use]
    pub fn is_there(&self) -> bool {
        self.raw.is_some()
    }

    /// Its value: of a text that holds JSON, what that holds. None when there is no payload, or it is beyond what is
    /// parsed (nested more than 127 deep, a number beyond floating point).
    #[must_use]
    pub fn value(&self) -> Option<&Value> {
        self.value.get_or_init(|| serde_json::from_str(&payload(self.raw?)).ok()).as_ref()
    }
}

impl Update<'_> {
    /// What routing looks at. `settings` decide what is a command.
    #[must_use]
    pub fn facts(&self, settings: &Settings) -> Facts<'_> {
        let facts = Facts {
            event_type: self.event_type(settings),
            user_id: self.user_id,
            peer_id: self.peer_id,
            ..Facts::default()
        };
        match &self.body {
            Body::Message(message) => Facts {
                text: Some(&message.text),
                attachments: Some(&message.kinds),
                payload: Payload::new(message.payload),
                ..facts
            },
            Body::Button(button) => Facts { payload: Payload::new(button.payload), ..facts },
            Body::Reaction(_) | Body::Other(_) => facts,
        }
    }
}
