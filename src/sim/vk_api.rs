//! The methods of the simulated API that are about names and settings: invented people, communities and chats whose names
//! follow from their ids. Deliberately absent: Long Poll (`vk_server`).

use std::collections::HashMap;

use axum::Json;
use serde_json::{Value, json};

use crate::domain::event::CHAT_BASE;

const FIRST: [&str; 8] = ["Анна", "Борис", "Вера", "Глеб", "Дарья", "Егор", "Жанна", "Захар"];
const LAST: [&str; 8] = ["Лось", "Соболь", "Заяц", "Сорока", "Синица", "Стриж", "Рысь", "Клест"];

/// An error as the API answers it.
pub fn error(code: i64, message: &str) -> Json<Value> {
    Json(json!({ "error": { "error_code": code, "error_msg": message, "request_params": [] } }))
}

/// The answer of a method.
pub fn answer(method: &str, words: &HashMap<String, String>, group_id: i64) -> Json<Value> {
    let ids = |name: &str| -> Vec<i64> {
        words
            .get(name)
            .map(|list| list.split(',').filter_map(|id| id.trim().parse().ok()).collect())
            .unwrap_or_default()
    };
    let response = match method {
        "users.get" => ids("user_ids").into_iter().filter(|id| *id > 0).map(user).collect(),
        "groups.getById" => {
            let mut all = [ids("group_ids"), ids("group_id")].concat();
            if all.is_empty() {
                all.push(group_id);
            }
            let groups: Vec<_> = all
                .into_iter()
                .map(|id| json!({ "id": id, "name": format!("Сообщество {id}"), "screen_name": format!("club{id}") }))
                .collect();
            json!({ "groups": groups, "profiles": [] })
        }
        "messages.getConversationsById" => {
            let items: Vec<_> = ids("peer_ids").into_iter().filter(|peer| !no_admin(*peer)).map(conversation).collect();
            json!({ "count": items.len(), "items": items })
        }
        "groups.getLongPollSettings" => {
            let types = [
                "message_new",
                "message_event",
                "message_edit",
                "message_reply",
                "message_reaction_event",
                "group_join",
            ];
            let events: serde_json::Map<_, _> = types.iter().map(|name| ((*name).to_owned(), json!(1))).collect();
            json!({ "is_enabled": true, "api_version": "5.199", "events": events })
        }
        _ => return error(3, "Unknown method passed"),
    };
    Json(json!({ "response": response }))
}

/// A user that ends in 13 is deleted.
fn user(id: i64) -> Value {
    if id % 100 == 13 {
        return json!({ "id": id, "first_name": "DELETED", "last_name": "", "deactivated": "deleted" });
    }
    let pick = |list: [&'static str; 8], by: i64| list[usize::try_from(by.rem_euclid(8)).unwrap_or(0)];
    json!({ "id": id, "first_name": pick(FIRST, id), "last_name": pick(LAST, id / 8), "domain": format!("id{id}"), "is_closed": false })
}

/// The community is no admin of chats that end in 7: VK tells nothing of them.
fn no_admin(peer: i64) -> bool {
    peer > CHAT_BASE && (peer - CHAT_BASE) % 10 == 7
}

fn conversation(peer: i64) -> Value {
    if peer > CHAT_BASE {
        let id = peer - CHAT_BASE;
        json!({ "peer": { "id": peer, "type": "chat", "local_id": id }, "chat_settings": { "title": format!("Беседа {id}"), "members_count": 5 } })
    } else {
        json!({ "peer": { "id": peer, "type": if peer < 0 { "group" } else { "user" }, "local_id": peer.abs() } })
    }
}
