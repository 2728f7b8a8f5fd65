//! The messages of a simulated community, as `messages.getByConversationMessageId` tells them: what updates brought them, in
//! the state after the last edit, long after history has forgotten the updates. Updates are read only when somebody asks.
//! Deliberately absent: history (`vk_history`), any reading that the service shares.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use serde_json::{Value, json};

/// How many messages a call may ask for.
const MESSAGES_A_CALL: usize = 100;

/// An error of the API: its number, and its own words behind the usual ones.
pub(super) type Refused = (i64, String);

/// All messages, by conversation and number in it.
#[derive(Debug, Default)]
pub(super) struct Messages {
    by_peer: HashMap<i64, BTreeMap<i64, Value>>,
    /// How many updates of the history were read.
    read: usize,
    /// Messages whose updates never came, as their type is off.
    unseen: Vec<Value>,
    deleted: HashSet<(i64, i64)>,
    closed: HashSet<i64>,
}

impl Messages {
    /// A message that no update of the history tells of as it is here.
    pub(super) fn add(&mut self, message: &Value) {
        self.unseen.push(message.clone());
        self.keep(message.clone());
    }

    /// This message is deleted: VK leaves it out.
    pub(super) fn delete(&mut self, peer: i64, cmid: i64) {
        self.deleted.insert((peer, cmid));
    }

    /// VK refuses to tell of this conversation, or not any more.
    pub(super) fn close(&mut self, peer: i64, closed: bool) {
        if closed {
            self.closed.insert(peer)
        } else {
            self.closed.remove(&peer)
        };
    }

    /// History went back: everything is read anew.
    pub(super) fn reread(&mut self) {
        self.by_peer.clear();
        self.read = 0;
        for message in self.unseen.clone() {
            self.keep(message);
        }
    }

    /// The answer to `messages.getByConversationMessageId`, given all updates.
    pub(super) fn answer(&mut self, words: &HashMap<String, String>, updates: &[String]) -> Result<Value, Refused> {
        let invalid = |what: &str| (100, what.to_owned());
        let peer: i64 = words
            .get("peer_id")
            .and_then(|peer| peer.trim().parse().ok())
            .ok_or_else(|| invalid("peer_id is undefined"))?;
        let list = words.get("conversation_message_ids").map(String::as_str).unwrap_or_default();
        let ids: Vec<&str> = list.split(',').filter(|id| !id.trim().is_empty()).collect();
        if ids.is_empty() {
            return Err(invalid("conversation_message_ids is undefined"));
        }
        if ids.len() > MESSAGES_A_CALL {
            return Err(invalid("conversation_message_ids has too many values"));
        }
        let ids: Option<BTreeSet<i64>> = ids.iter().map(|id| id.trim().parse().ok()).collect();
        let ids = ids.ok_or_else(|| invalid("conversation_message_ids should be integers"))?;
        if self.closed.contains(&peer) {
            return Err((917, String::new()));
        }
        for update in updates.get(self.read..).unwrap_or_default() {
            if let Some(message) = message(update) {
                self.keep(message);
            }
        }
        self.read = updates.len();
        let found = |id: &i64| self.by_peer.get(&peer)?.get(id).filter(|_| !self.deleted.contains(&(peer, *id)));
        let items: Vec<&Value> = ids.iter().filter_map(found).collect();
        Ok(json!({ "count": items.len(), "items": items }))
    }

    fn keep(&mut self, message: Value) {
        if let (Some(peer), Some(cmid)) = (message["peer_id"].as_i64(), message["conversation_message_id"].as_i64()) {
            self.by_peer.entry(peer).or_default().insert(cmid, message);
        }
    }
}

/// The message that an update tells of, if it does.
pub(super) fn message(update: &str) -> Option<Value> {
    let mut update: Value = serde_json::from_str(update).ok()?;
    let wrapped = match update["type"].as_str()? {
        "message_new" => update["object"].get_mut("message").map(Value::take),
        "message_reply" | "message_edit" => None,
        _ => return None,
    };
    let message = wrapped.unwrap_or_else(|| update["object"].take());
    message.is_object().then_some(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn update(kind: &str, cmid: i64, text: &str) -> String {
        let message = json!({ "peer_id": 7, "conversation_message_id": cmid, "text": text });
        let object = if kind == "message_new" { json!({ "message": message }) } else { message };
        json!({ "type": kind, "object": object }).to_string()
    }

    /// What is told of the messages asked for: their texts in order, or the error.
    fn check(messages: &mut Messages, updates: &[String], ids: &str, expected: Result<&[&str], i64>) {
        let words = [("peer_id", "7"), ("conversation_message_ids", ids)];
        let words = words.map(|(name, word)| (name.to_owned(), word.to_owned())).into();
        let told = messages.answer(&words, updates).map_err(|(code, _)| code);
        let texts = told.as_ref().map_err(|code| *code).map(|told| {
            let items = told["items"].as_array().expect("items");
            assert_eq!(told["count"], items.len());
            items.iter().map(|item| item["text"].as_str().expect("a text")).collect::<Vec<_>>()
        });
        assert_eq!(texts, expected.map(<[&str]>::to_vec), "asked for {ids}");
    }

    #[test]
    fn messages_are_told_in_order_as_they_are_after_the_last_edit() {
        let mut updates = vec![update("message_new", 3, "c"), update("message_new", 1, "a"), "garbage".to_owned()];
        let mut messages = Messages::default();
        check(&mut messages, &updates, "3,2,1,1", Ok(&["a", "c"]));
        updates.extend([update("message_reply", 2, "b"), update("message_edit", 3, "c, edited")]);
        check(&mut messages, &updates, "1,2,3", Ok(&["a", "b", "c, edited"]));
        updates.pop();
        messages.reread();
        messages.delete(7, 1);
        check(&mut messages, &updates, "1,2,3", Ok(&["b", "c"]));
    }

    #[test]
    fn what_cannot_be_asked_is_an_error_of_vk() {
        let mut messages = Messages::default();
        let ids = |count: i64| (1..=count).map(|id| id.to_string()).collect::<Vec<_>>().join(",");
        check(&mut messages, &[], &ids(100), Ok(&[]));
        check(&mut messages, &[], &ids(101), Err(100));
        check(&mut messages, &[], "", Err(100));
        check(&mut messages, &[], "1,x", Err(100));
        messages.close(7, true);
        check(&mut messages, &[], "1", Err(917));
        messages.close(7, false);
        check(&mut messages, &[], "1", Ok(&[]));
    }
}
