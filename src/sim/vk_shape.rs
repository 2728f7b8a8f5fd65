//! The shape of an update by the version of the community's Long Poll settings, whatever version a client calls with: from
//! 5.103 on a new message comes wrapped with what the client can show, before it came bare, and before 5.80 it was another
//! object altogether. Pure. Deliberately absent: reading shapes, which is the client's burden.

use serde_json::{Value, json};

use crate::domain::event::CHAT_BASE;

/// A version like 5.199, as two numbers; what is none is the newest.
pub(super) fn version(text: &str) -> (u32, u32) {
    let parse = |text: &str| {
        let (major, minor) = text.split_once('.')?;
        Some((major.parse().ok()?, minor.parse().ok()?))
    };
    parse(text).unwrap_or((u32::MAX, 0))
}

/// An update as VK writes it: what it is stands before its object, in every version that was seen.
#[must_use]
pub fn written(update: &Value) -> String {
    let Some(keys) = update.as_object() else { return update.to_string() };
    let rank = |key: &str| ["group_id", "type", "event_id", "v"].iter().position(|known| *known == key);
    let mut pairs: Vec<(&String, &Value)> = keys.iter().collect();
    pairs.sort_by_key(|(key, _)| (*key == "object", rank(key).unwrap_or(usize::MAX)));
    let pairs: Vec<String> = pairs.into_iter().map(|(key, value)| format!("{}:{value}", json!(key))).collect();
    format!("{{{}}}", pairs.join(","))
}

/// An update of the newest shape, in the shape of this version.
pub(super) fn shaped(mut update: Value, by: &str) -> Value {
    let version = version(by);
    let kind = update["type"].as_str().unwrap_or_default().to_owned();
    if !matches!(kind.as_str(), "message_new" | "message_reply" | "message_edit") {
        return update;
    }
    if kind == "message_new" && version < (5, 103) && update["object"]["message"].is_object() {
        update["object"] = update["object"]["message"].take();
    }
    if version < (5, 80) {
        update["object"] = ancient(&update["object"]);
    }
    if update.get("v").is_some() {
        update["v"] = json!(by);
    }
    update
}

/// A message as it was before 5.80.
fn ancient(message: &Value) -> Value {
    let mut old = json!({
        "id": message["id"], "date": message["date"], "out": message["out"], "user_id": message["from_id"],
        "read_state": 0, "title": "", "body": message["text"], "owner_ids": []
    });
    if let Some(chat) = message["peer_id"].as_i64().filter(|peer| *peer > CHAT_BASE) {
        old["chat_id"] = json!(chat - CHAT_BASE);
    }
    for kept in ["attachments", "geo", "payload"] {
        let full = |value: &&Value| value.as_array().is_none_or(|list| !list.is_empty());
        if let Some(value) = message.get(kept).filter(full) {
            old[kept] = value.clone();
        }
    }
    if let Some(forwards) = message["fwd_messages"].as_array().filter(|list| !list.is_empty()) {
        let all =
            forwards.iter().map(|one| json!({ "user_id": one["from_id"], "date": one["date"], "body": one["text"] }));
        old["fwd_messages"] = all.collect();
    }
    old
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_update_is_stands_before_its_object() {
        let update = json!({ "object": { "b": 1, "a": "x" }, "secret": "s", "type": "group_join", "group_id": 7 });
        let text = written(&update);
        assert_eq!(text, r#"{"group_id":7,"type":"group_join","secret":"s","object":{"a":"x","b":1}}"#);
        assert_eq!(written(&json!([1])), "[1]");
    }

    #[test]
    fn a_new_message_is_wrapped_bare_or_ancient() {
        let message = json!({ "id": 0, "date": 5, "out": 0, "from_id": 7, "peer_id": CHAT_BASE + 2, "text": "hi",
            "attachments": [], "fwd_messages": [{ "from_id": 8, "date": 4, "text": "yo" }] });
        let update =
            json!({ "type": "message_new", "v": "5.199", "object": { "message": message, "client_info": {} } });
        let object = |by: &str| shaped(update.clone(), by)["object"].take();
        assert_eq!(object("5.103"), update["object"]);
        assert_eq!(object("5.102"), message);
        assert_eq!(object("5.80"), message);
        let ancient = json!({ "id": 0, "date": 5, "out": 0, "user_id": 7, "read_state": 0, "title": "", "body": "hi",
            "owner_ids": [], "chat_id": 2, "fwd_messages": [{ "user_id": 8, "date": 4, "body": "yo" }] });
        assert_eq!(object("5.50"), ancient);
        assert_eq!(shaped(update.clone(), "5.50")["v"], "5.50");
    }

    #[test]
    fn replies_and_edits_are_always_bare_and_the_rest_is_as_it_is() {
        let reply = json!({ "type": "message_reply", "object": { "from_id": 7, "text": "hi" } });
        assert_eq!(shaped(reply.clone(), "5.199"), reply);
        assert_eq!(shaped(reply, "5.79")["object"]["body"], "hi");
        let press = json!({ "type": "message_event", "object": { "user_id": 7 } });
        assert_eq!(shaped(press.clone(), "5.50"), press);
    }
}
