//! The methods of the simulated API that are about names, and the types of events that a community can switch on: invented
//! people, communities and chats whose names follow from their ids. Ids also say who is deleted, banned or nobody, and of which
//! chats VK tells nothing. Deliberately absent: Long Poll and its settings (`vk_server`), messages (`vk_messages`).

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use super::vk_messages::Refused;
use super::vk_shape::version;
use crate::domain::event::CHAT_BASE;

const FIRST: [&str; 8] = ["Анна", "Борис", "Вера", "Глеб", "Дарья", "Егор", "Жанна", "Захар"];
const LAST: [&str; 8] = ["Лось", "Соболь", "Заяц", "Сорока", "Синица", "Стриж", "Рысь", "Клест"];
/// How many ids a call may name.
const USERS_A_CALL: usize = 1000;
const GROUPS_A_CALL: usize = 500;
const PEERS_A_CALL: usize = 100;
/// From this version on `groups.getById` answers an object with two lists.
const GROUPS_IN_AN_OBJECT: (u32, u32) = (5, 139);
/// All types of events, several with one beginning in one word.
const TYPES: [&str; 21] = [
    "message:new,reply,edit,allow,deny,read,typing_state,event,reaction_event",
    "photo:new",
    "photo_comment:new,edit,restore,delete",
    "audio:new",
    "video:new",
    "video_comment:new,edit,restore,delete",
    "wall:post_new,repost",
    "wall_schedule_post:new,delete",
    "wall_reply:new,edit,restore,delete",
    "like:add,remove",
    "board_post:new,edit,restore,delete",
    "market_comment:new,edit,restore,delete",
    "market_order:new,edit",
    "group:join,leave,officers_edit,change_settings,change_photo",
    "user:block,unblock",
    "poll_vote:new",
    "lead_forms:new",
    "app:payload",
    "vkpay:transaction",
    "donut_subscription:create,prolonged,cancelled,expired,price_changed",
    "donut_money:withdraw,withdraw_error",
];

/// Long Poll settings of a community where everything is on.
pub(super) fn community(api_version: &str) -> Value {
    let mut events = Map::new();
    for line in TYPES {
        let (first, rest) = line.split_once(':').unwrap_or((line, ""));
        let names = rest.split(',').map(|last| (format!("{first}_{last}"), json!(1)));
        events.extend(names);
    }
    json!({ "is_enabled": true, "api_version": api_version, "events": events })
}

/// The answer of a method.
pub(super) fn answer(method: &str, words: &HashMap<String, String>, group_id: i64) -> Result<Value, Refused> {
    let ids = |name: &str, most: usize| -> Result<Vec<i64>, Refused> {
        let list = words.get(name).map(String::as_str).unwrap_or_default();
        let list: Vec<&str> = list.split(',').map(str::trim).filter(|id| !id.is_empty()).collect();
        if list.len() > most {
            return Err((100, format!("{name} has too many values")));
        }
        // What is no number is nobody's id.
        Ok(list.iter().filter_map(|id| id.parse().ok()).collect())
    };
    match method {
        "users.get" => {
            let users: Vec<_> = ids("user_ids", USERS_A_CALL)?.into_iter().filter_map(user).collect();
            if users.is_empty() { Err((113, String::new())) } else { Ok(users.into()) }
        }
        "groups.getById" => {
            let mut all = [ids("group_ids", GROUPS_A_CALL)?, ids("group_id", 1)?].concat();
            if all.is_empty() {
                all.push(group_id);
            }
            let group =
                |id| json!({ "id": id, "name": format!("Сообщество {id}"), "screen_name": format!("club{id}") });
            let groups: Value = all.into_iter().map(group).collect();
            let old = words.get("v").is_some_and(|v| version(v) < GROUPS_IN_AN_OBJECT);
            Ok(if old { groups } else { json!({ "groups": groups, "profiles": [] }) })
        }
        "messages.getConversationsById" => {
            let peers = ids("peer_ids", PEERS_A_CALL)?;
            let items: Vec<_> = peers.into_iter().filter(|peer| !no_admin(*peer)).map(conversation).collect();
            Ok(json!({ "count": items.len(), "items": items }))
        }
        _ => Err((3, String::new())),
    }
}

/// A user whose id ends in 13 is deleted, in 86 banned, in 99 nobody: VK leaves those out.
fn user(id: i64) -> Option<Value> {
    let pick = |list: [&'static str; 8], by: i64| list[usize::try_from(by.rem_euclid(8)).unwrap_or(0)];
    let (first, last) = (pick(FIRST, id), pick(LAST, id / 8));
    match id % 100 {
        _ if !(1..=CHAT_BASE).contains(&id) => None,
        99 => None,
        13 => Some(json!({ "id": id, "first_name": "DELETED", "last_name": "", "deactivated": "deleted" })),
        86 => Some(json!({ "id": id, "first_name": first, "last_name": last, "deactivated": "banned" })),
        _ => Some(json!({ "id": id, "first_name": first, "last_name": last, "domain": format!("id{id}"),
            "can_access_closed": true, "is_closed": false })),
    }
}

/// The community is no admin of chats that end in 7: VK tells nothing of them.
fn no_admin(peer: i64) -> bool {
    peer > CHAT_BASE && (peer - CHAT_BASE) % 10 == 7
}

fn conversation(peer: i64) -> Value {
    let (kind, id) = match peer {
        peer if peer > CHAT_BASE => ("chat", peer - CHAT_BASE),
        peer if peer < 0 => ("group", -peer),
        peer => ("user", peer),
    };
    let mut told = json!({ "peer": { "id": peer, "type": kind, "local_id": id }, "can_write": { "allowed": true } });
    if kind == "chat" {
        // Only chats have settings.
        told["chat_settings"] = json!({ "title": format!("Беседа {id}"), "members_count": 5, "state": "in" });
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(method: &str, words: &[(&str, &str)]) -> Result<Value, i64> {
        let words = words.iter().map(|(name, word)| ((*name).to_owned(), (*word).to_owned())).collect();
        answer(method, &words, 7).map_err(|(code, _)| code)
    }

    #[test]
    fn a_user_may_be_deleted_or_banned_or_not_there() {
        let told = ask("users.get", &[("user_ids", "100,113,186,199,-5,2000000001,durov")]).expect("users");
        let seen = |user: &Value| {
            (user["id"].as_i64(), user["deactivated"].as_str().map(str::to_owned), user.get("domain").is_some())
        };
        let seen: Vec<_> = told.as_array().expect("a list").iter().map(seen).collect();
        let gone = |id, why: &str| (Some(id), Some(why.to_owned()), false);
        assert_eq!(seen, [(Some(100), None, true), gone(113, "deleted"), gone(186, "banned")]);
        assert_eq!(ask("users.get", &[("user_ids", "199,-5")]), Err(113));
        assert_eq!(ask("users.get", &[("user_ids", &"1,".repeat(1001))]), Err(100));
    }

    #[test]
    fn a_chat_where_the_community_is_no_admin_is_left_out() {
        let told = ask("messages.getConversationsById", &[("peer_ids", "2000000017")]);
        assert_eq!(told, Ok(json!({ "count": 0, "items": [] })));
        let told = ask("messages.getConversationsById", &[("peer_ids", "2000000017,2000000002,5")]).expect("items");
        assert_eq!((&told["count"], &told["items"][0]["chat_settings"]["title"]), (&json!(2), &json!("Беседа 2")));
        assert!(told["items"][1].get("chat_settings").is_none());
    }

    #[test]
    fn communities_come_as_a_list_to_old_calls() {
        assert_eq!(ask("groups.getById", &[("v", "5.131")]).expect("groups")[0]["id"], 7);
        assert_eq!(ask("groups.getById", &[("v", "5.199")]).expect("groups")["groups"][0]["id"], 7);
        assert_eq!(ask("groups.nothing", &[]), Err(3));
    }

    #[test]
    fn a_community_can_switch_every_type_on_and_off() {
        let told = community("5.199");
        let events = told["events"].as_object().expect("events");
        for name in ["message_new", "message_reaction_event", "wall_schedule_post_new", "donut_money_withdraw_error"] {
            assert_eq!(events[name], 1, "{name}");
        }
        assert_eq!(events.len(), 58, "{events:?}");
    }
}
