//! Every type that VK has, from its update to the whole event, and the page for authors of handlers, which says where
//! `user_id` and `peer_id` come from. Deliberately absent: what else can be wrong with an update (`convert`, `mutations`).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::convert::{body, convert, corpus, fixtures};

/// Every type that VK's schema, its settings and the clients that live with it know.
const TYPES: [&str; 60] = [
    "message_new",
    "message_reply",
    "message_edit",
    "message_allow",
    "message_deny",
    "message_read",
    "message_typing_state",
    "message_event",
    "message_reaction_event",
    "messages_edit",
    "photo_new",
    "photo_comment_new",
    "photo_comment_edit",
    "photo_comment_restore",
    "photo_comment_delete",
    "audio_new",
    "video_new",
    "video_comment_new",
    "video_comment_edit",
    "video_comment_restore",
    "video_comment_delete",
    "wall_post_new",
    "wall_repost",
    "wall_schedule_post_new",
    "wall_schedule_post_delete",
    "wall_reply_new",
    "wall_reply_edit",
    "wall_reply_restore",
    "wall_reply_delete",
    "like_add",
    "like_remove",
    "board_post_new",
    "board_post_edit",
    "board_post_restore",
    "board_post_delete",
    "market_comment_new",
    "market_comment_edit",
    "market_comment_restore",
    "market_comment_delete",
    "market_order_new",
    "market_order_edit",
    "group_join",
    "group_leave",
    "user_block",
    "user_unblock",
    "group_officers_edit",
    "group_change_settings",
    "group_change_photo",
    "poll_vote_new",
    "lead_forms_new",
    "app_payload",
    "vkpay_transaction",
    "donut_subscription_create",
    "donut_subscription_prolonged",
    "donut_subscription_cancelled",
    "donut_subscription_expired",
    "donut_subscription_price_changed",
    "donut_money_withdraw",
    "donut_money_withdraw_error",
    "confirmation",
];

/// An update, and the event that it must become; but for `object`, where that is VK's own.
#[derive(Deserialize)]
struct Fixture {
    update: Box<RawValue>,
    event: Box<RawValue>,
}

/// What the tests here look at in an update.
#[derive(Deserialize)]
struct Seen {
    #[serde(rename = "type")]
    kind: String,
    object: Option<Box<RawValue>>,
}

fn types() -> Vec<(Fixture, Seen)> {
    let text = fs::read_to_string(fixtures().join("types.json")).expect("read");
    let all: Vec<Fixture> = serde_json::from_str(&text).expect("JSON");
    let seen = |fixture: &Fixture| serde_json::from_str(fixture.update.get()).expect("an update");
    all.into_iter().map(|fixture| (seen(&fixture), fixture)).map(|(seen, fixture)| (fixture, seen)).collect()
}

#[test]
fn there_is_a_fixture_for_every_type_and_for_no_other() {
    let types = types();
    let found: BTreeSet<&str> = types.iter().map(|(_, seen)| seen.kind.as_str()).collect();
    assert_eq!(found, BTreeSet::from(TYPES));
    assert_eq!(found.len(), TYPES.len());
}

#[test]
fn every_type_becomes_its_whole_event_with_its_object_untouched() {
    for (Fixture { update, event: expected }, seen) in types() {
        let expected = match expected.get().contains(r#""cmid":"#) {
            true => expected.get().to_owned(),
            false => {
                let head = expected.get().strip_suffix('}').expect("an object");
                format!("{head},\"object\":{}}}", seen.object.as_deref().map_or("null", RawValue::get))
            }
        };
        assert_eq!(body(&convert(update.get())), expected, "{}", update.get());
    }
}

/// The fields that a cell of the page names, in order.
type Fields = Vec<String>;

/// The page's table: for each type, the fields that `user_id` and `peer_id` come from.
fn page() -> BTreeMap<String, (Fields, Fields)> {
    let path: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/EVENTS.md");
    let text = fs::read_to_string(path).expect("read");
    let (_, table) = text.split_once("| VK's type |").expect("the table");
    let named = |cell: &str| -> Fields { cell.split('`').skip(1).step_by(2).map(str::to_owned).collect() };
    let mut page = BTreeMap::new();
    for row in table.lines().skip(2).take_while(|line| line.starts_with('|')) {
        let cells: Vec<&str> = row.trim_matches('|').split('|').collect();
        let [kinds, _, user, peer] = cells[..] else { panic!("four cells: {row}") };
        for kind in named(kinds) {
            assert!(page.insert(kind, (named(user), named(peer))).is_none(), "twice: {row}");
        }
    }
    page
}

/// What the page says that an update's `user_id` and `peer_id` are: the page's words are all that this shares with the code.
fn by_the_page(page: &BTreeMap<String, (Fields, Fields)>, update: &Value) -> (Value, Value) {
    let kind = update["type"].as_str().expect("a type");
    let (user, peer) = &page[kind];
    let object = match &update["object"]["message"] {
        message if message.is_object() => message,
        _ => &update["object"],
    };
    let first = |fields: &Fields, fits: &dyn Fn(i64) -> bool| {
        let mut values = fields.iter().map(|field| &object[field.as_str()]);
        values.find(|value| value.as_i64().is_some_and(fits)).cloned().unwrap_or_default()
    };
    // What the notes below the table say: user 100 is a community, and a community has no dialog with itself.
    let user = first(user, &|id| kind != "photo_new" || id != 100);
    let peer = first(peer, &|id| kind != "message_typing_state" || id > 0);
    (user, peer)
}

fn check(page: &BTreeMap<String, (Fields, Fields)>, update: &str) {
    let found: Value = serde_json::from_slice(&convert(update).body).expect("JSON");
    let expected = by_the_page(page, &serde_json::from_str(update).expect("JSON"));
    assert_eq!((&found["user_id"], &found["peer_id"]), (&expected.0, &expected.1), "{update}");
}

#[test]
fn the_page_for_handlers_tells_of_every_type_where_its_who_and_its_conversation_come_from() {
    let page = page();
    let told: BTreeSet<&str> = page.keys().map(String::as_str).collect();
    assert_eq!(told, BTreeSet::from(TYPES));
    for (fixture, _) in types() {
        check(&page, fixture.update.get());
    }
}

#[test]
fn every_real_update_is_by_whom_and_where_the_page_says() {
    let (page, updates) = (page(), corpus());
    for update in &updates {
        check(&page, update);
    }
    eprintln!("who and where of {} real updates", updates.len());
}

#[test]
fn an_owner_did_nothing_that_another_may_have_done() {
    let who = |kind: &str, object: &str| {
        let event = convert(&format!(r#"{{"type":"{kind}","object":{object}}}"#));
        (event.user_id, event.peer_id)
    };
    for kind in TYPES.iter().filter(|kind| !kind.starts_with("message_") && !kind.ends_with("o_new")) {
        assert_eq!(who(kind, r#"{"owner_id":-5,"object_owner_id":-5}"#), (None, None), "{kind}");
    }
    assert_eq!(who("invented_tomorrow", r#"{"owner_id":-5}"#), (None, None));
    assert_eq!(who("invented_delete", r#"{"owner_id":-5,"deleter_id":7,"user_id":8,"peer_id":9}"#), (Some(7), Some(9)));
    assert_eq!(who("invented_new", r#"{"deleter_id":7,"user_id":"8"}"#), (Some(8), None));
    assert_eq!(who("photo_new", r#"{"owner_id":-5,"user_id":100}"#), (Some(-5), None));
    assert_eq!(who("photo_new", r#"{"user_id":100}"#), (None, None));
    assert_eq!(who("group_join", r#"{"user_id":100}"#), (Some(100), None), "user 100 exists");
}
