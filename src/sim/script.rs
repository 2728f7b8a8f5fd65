//! Seeded invention: a stream of updates of all kinds. The same seed gives the same stream. Deliberately absent: sending it.

use std::collections::HashMap;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

use super::books::Served;
use super::vk_shape::written;
use crate::domain::event::CHAT_BASE;

const TEXTS: [&str; 8] = [
    "Привет всем",
    "hello 👋",
    "где правила?",
    "line one\nline two",
    "\"кавычки\" и \\ черта",
    "ок",
    "спасибо!",
    "1 < 2 && 3 > 2",
];
const COMMANDS: [&str; 4] = ["/help", "!ban @id5", "/weather Москва", "/"];

/// Invents updates.
pub struct Script {
    random: StdRng,
    group_id: i64,
    count: u64,
    chats: i64,
    /// The last message of each conversation: VK numbers them one by one.
    last: HashMap<i64, u64>,
}

/// An invented update and what should become of it.
#[derive(Clone, Debug)]
pub struct Invented {
    /// The update, as VK sends it.
    pub update: String,
    /// The event it becomes; nothing when it goes into quarantine.
    pub served: Option<Served>,
}

impl Script {
    /// A stream of updates in `chats` chats and as many dialogs.
    #[must_use]
    pub fn new(seed: u64, group_id: i64, chats: u32) -> Self {
        Self {
            random: StdRng::seed_from_u64(seed),
            group_id,
            count: 0,
            chats: i64::from(chats.max(1)),
            last: HashMap::new(),
        }
    }

    fn below(&mut self, limit: i64) -> i64 {
        self.random.random_range(0..limit)
    }

    fn pick(&mut self, list: &[&'static str]) -> &'static str {
        let place = self.random.random_range(0..list.len());
        list[place]
    }

    /// The next update. Its events go to `commands`, `messages` or `buttons`, as in the example of the configuration.
    pub fn invent(&mut self) -> Invented {
        self.count += 1;
        let kind = self.below(100);
        let user = 1000 + self.below(60);
        let peer = if kind % 3 == 0 { user } else { CHAT_BASE + 1 + self.below(self.chats) };
        let (name, object, to) = match kind {
            0..56 => {
                let text = format!("{} №{}", self.pick(&TEXTS), self.count);
                (
                    "message_new",
                    json!({ "message": self.new_message(user, peer, &text), "client_info": { "keyboard": true, "lang_id": 0 } }),
                    "messages",
                )
            }
            56..70 => {
                let text = self.pick(&COMMANDS);
                (
                    "message_new",
                    json!({ "message": self.new_message(user, peer, text), "client_info": { "keyboard": true } }),
                    "commands",
                )
            }
            70..84 => {
                let payload = json!({ "keyboard_owner_id": user, "call_action": "test", "n": self.count });
                let press = format!("{:012x}", self.count);
                let object = json!({ "user_id": user, "peer_id": peer, "event_id": press, "payload": payload, "conversation_message_id": self.last(peer) });
                ("message_event", object, "buttons")
            }
            84..89 => (
                "message_reaction_event",
                json!({ "reacted_id": user, "peer_id": peer, "cmid": self.last(peer), "reaction_id": 3 }),
                "",
            ),
            89..93 => ("message_edit", self.message(user, peer, "исправлено"), ""),
            93..95 => ("group_join", json!({ "user_id": user, "join_type": "join" }), ""),
            95..97 => (
                "like_add",
                json!({ "liker_id": user, "object_type": "post", "object_id": 4, "object_owner_id": -self.group_id }),
                "",
            ),
            97..99 => ("something_new_at_vk", json!({ "user_id": user, "unheard_of": [1, { "deep": null }] }), ""),
            _ => return self.malformed(),
        };
        let event_id = self.event_id();
        let update =
            json!({ "group_id": self.group_id, "type": name, "event_id": event_id, "v": "5.199", "object": object });
        let lane = if matches!(name, "group_join" | "like_add" | "something_new_at_vk") {
            format!("user {user}")
        } else {
            format!("peer {peer}")
        };
        let destinations = if to.is_empty() { Vec::new() } else { vec![to.to_owned()] };
        Invented { update: written(&update), served: Some(Served { event_id, lane, destinations }) }
    }

    /// An update that cannot be read, with an id like any other.
    fn malformed(&mut self) -> Invented {
        let update = json!({ "group_id": self.group_id, "type": "message_new", "event_id": self.event_id(), "object": self.count });
        Invented { update: written(&update), served: None }
    }

    fn event_id(&mut self) -> String {
        format!("{:016x}{:016x}{:08x}", self.random.random::<u64>(), self.random.random::<u64>(), self.count)
    }

    /// The number of the last message of a conversation.
    fn last(&self, peer: i64) -> u64 {
        self.last.get(&peer).copied().unwrap_or(1)
    }

    fn new_message(&mut self, user: i64, peer: i64, text: &str) -> Value {
        *self.last.entry(peer).or_default() += 1;
        self.message(user, peer, text)
    }

    fn message(&mut self, user: i64, peer: i64, text: &str) -> Value {
        let mut message = json!({
            "date": 1_709_107_923 + self.count, "from_id": user, "id": 0, "out": 0, "peer_id": peer, "text": text,
            "conversation_message_id": self.last(peer), "fwd_messages": [], "attachments": [], "important": false, "is_hidden": false, "random_id": 0
        });
        match self.below(10) {
            0 => {
                message["attachments"] = json!([{ "type": "photo", "photo": { "id": 1, "sizes": [] } }, { "type": "audio_message", "audio_message": {} }])
            }
            1 => {
                message["reply_message"] = json!({ "date": 1, "from_id": user + 1, "text": "до того", "conversation_message_id": 1, "attachments": [] })
            }
            2 => {
                message["fwd_messages"] = json!([{ "date": 1, "from_id": 7, "text": "раз", "fwd_messages": [{ "date": 2, "from_id": 8, "text": "два" }] }])
            }
            3 => message["payload"] = json!("{\"command\":\"start\"}"),
            4 => message["geo"] = json!({ "type": "point", "coordinates": { "latitude": 55.7, "longitude": 37.6 } }),
            _ => {}
        }
        message
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_invents_the_same() {
        let stream = |seed| {
            let mut script = Script::new(seed, 1, 5);
            (0..200).map(|_| script.invent().update).collect::<Vec<_>>()
        };
        assert_eq!(stream(7), stream(7));
        assert_ne!(stream(7), stream(8));
    }
}
