//! Who takes an event: each condition of `when` against real updates of every kind, the decision and its explanation
//! against a second, plainer implementation that looks at the event's JSON, and the service with destinations that choose by
//! content. How a configuration is read stands in `config`, what the command prints in `cli`.

use event_router::config::{Source, load};
use event_router::domain::convert::{Facts, Settings, read_answer};
use event_router::domain::ids::{GroupId, Ts};
use event_router::domain::route::{Conditions, Key, Outcome, Pattern, Rule, Table};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use crate::convert::{body, convert, convert_all, settings};
use crate::rig::Rig;

/// A rule as people write it.
fn rule(when: &str) -> Rule {
    let env = [("URL", "http://h/"), ("WHEN", when)];
    let env = env.map(|(key, value)| (format!("EVENT_ROUTER__DESTINATIONS__D__{key}"), value.to_owned())).into();
    let rules = load(&Source { file: None, env }).and_then(|loaded| loaded.rules());
    rules.unwrap_or_else(|refused| panic!("{when}: {refused}")).remove(0).1
}

/// Looks at the facts of an update.
fn with_facts<T>(update: &str, settings: &Settings, look: impl FnOnce(&Facts<'_>) -> T) -> T {
    let group = GroupId::new(218_730_916).expect("an id");
    let update = read_answer(group, &Ts::parse("77").expect("a ts"), &[update]).remove(0);
    look(&update.unwrap_or_else(|bad| panic!("{}", bad.reason)).facts(settings))
}

const MESSAGE: &str = r#"{"type":"message_new","object":{"message":{"from_id":5,"peer_id":2000000002,"text":"Ban him",
    "attachments":[{"type":"photo"},{"type":"Audio_Message"}],"geo":{"type":"point"},"reply_message":{"from_id":9,"text":"+","attachments":[{"type":"doc"}]}}}}"#;
const COMMAND: &str = r#"{"type":"message_new","object":{"message":{"from_id":5,"peer_id":5,"text":"/start"}}}"#;
const TEXT_BUTTON: &str = r#"{"type":"message_new","object":{"message":{"from_id":6,"peer_id":6,"text":"Yes",
    "payload":"{\"command\":\"start\",\"step\":{\"n\":1,\"of\":2}}"}}}"#;
const OLD: &str =
    r#"{"type":"message_new","object":{"user_id":6,"chat_id":3,"body":"old","payload":"{\"command\":\"start\"}"}}"#;
const EDIT: &str = r#"{"type":"message_edit","object":{"from_id":5,"peer_id":2000000002,"text":"","payload":"{\"command\":\"start\"}"}}"#;
const REPLY: &str = r#"{"type":"message_reply","object":{"from_id":-218730916,"peer_id":7,"text":"/no command"}}"#;
const BUTTON: &str = r#"{"type":"message_event","object":{"user_id":5,"peer_id":2000000003,"payload":{"command":"stop","n":1.0,"list":[1]}}}"#;
const BUTTON_TEXT: &str = r#"{"type":"message_event","object":{"user_id":5,"peer_id":6,"payload":"\"start\""}}"#;
const REACTION: &str =
    r#"{"type":"message_reaction_event","object":{"reacted_id":5,"peer_id":2000000002,"reaction_id":3}}"#;
const JOIN: &str = r#"{"type":"group_join","object":{"user_id":5,"text":"Ban","payload":"{\"command\":\"start\"}"}}"#;
const EXPIRED: &str = r#"{"type":"confirmation","group_id":1}"#;

const EVERY: [(&str, &str); 11] = [
    ("message", MESSAGE),
    ("command", COMMAND),
    ("text button", TEXT_BUTTON),
    ("old", OLD),
    ("edit", EDIT),
    ("reply", REPLY),
    ("button", BUTTON),
    ("button text", BUTTON_TEXT),
    ("reaction", REACTION),
    ("join", JOIN),
    ("nobody", EXPIRED),
];

#[test]
fn each_condition_takes_what_it_says_of_every_kind_of_event() {
    let check = |when: &str, expected: &[&str]| {
        let rule = rule(when);
        // What an event carries makes no difference for who takes it.
        for object in [false, true] {
            let taken = EVERY.iter().filter(|(_, update)| with_facts(update, &settings(object), |f| rule.takes(f)));
            assert_eq!(taken.map(|(name, _)| *name).collect::<Vec<_>>(), expected, "{when}");
        }
    };
    check("[{}]", &EVERY.map(|(name, _)| name));
    check("[{ event_type = ['message_new'] }]", &["message", "text button", "old"]);
    check("[{ event_type = ['command_call', 'button_pressed'] }]", &["command", "button", "button text"]);
    check("[{ event_type = ['message_event'] }]", &[]);
    check("[{ chat_id = [2] }]", &["message", "edit", "reaction"]);
    check("[{ chat_id = [3, 4] }]", &["old", "button"]);
    check("[{ peer_id = [5, 7] }]", &["command", "reply"]);
    check("[{ user_id = [6, -218730916] }]", &["text button", "old", "reply"]);
    check("[{ chat = true }]", &["message", "old", "edit", "button", "reaction"]);
    check("[{ chat = false }]", &["command", "text button", "reply", "button text", "join", "nobody"]);
    check("[{ text_prefix = ['Ban', '/'] }]", &["message", "command", "reply"]);
    check("[{ text_prefix = ['ban', 'him', 'an', 'no'] }]", &[]);
    check("[{ text_prefix = ['+'] }]", &[]);
    check("[{ text_regex = 'an|ol' }]", &["message", "old", "reply"]);
    check("[{ text_regex = '^(?i)ban' }]", &["message"]);
    check("[{ text_regex = '^$' }]", &["edit"]);
    check("[{ attachment = ['doc', 'video'] }]", &[]);
    check("[{ attachment = ['video', 'audio_message'] }]", &["message"]);
    check("[{ attachment = ['geo'] }]", &["message"]);
    check("[{ payload = { command = 'start' } }]", &["text button", "old", "edit"]);
    check("[{ payload = { step = { n = 1 } } }]", &["text button"]);
    check("[{ payload = { step = { n = 2 } } }]", &[]);
    check("[{ payload = { n = 1, list = [1] } }]", &["button"]);
    check("[{ not = { chat = true } }]", &["command", "text button", "reply", "button text", "join", "nobody"]);
    check(
        "[{ chat = true, not = { user_id = [5], event_type = ['message_new', 'message_edit'] } }]",
        &["old", "button", "reaction"],
    );
    check("[{ not = { payload = { command = 'start' } }, event_type = ['message_new'] }]", &["message"]);
    check("[{ chat = true, text_prefix = ['Ban'], attachment = ['photo'] }]", &["message"]);
    check("[{ text_prefix = ['/start'] }, { payload = { command = 'stop' } }]", &["command", "button"]);
}

#[test]
fn a_destination_says_by_which_table_it_takes_and_what_failed_in_the_others() {
    let check = |update: &str, table: &str, expected: &str| {
        let rule = rule(&format!("[{{ {table} }}]"));
        let told = match with_facts(update, &settings(false), |facts| rule.explain(facts)).0.remove(0) {
            Outcome::Matches => "matches".to_owned(),
            Outcome::Fails { key, why } => format!("{}: {why}", key.as_str()),
        };
        assert_eq!(told, expected, "{table}");
    };
    check(MESSAGE, "chat = true", "matches");
    check(MESSAGE, "event_type = ['command_call']", "event_type: message_new is not command_call");
    check(MESSAGE, "event_type = ['a', 'b']", "event_type: message_new is none of a, b");
    check(MESSAGE, "chat_id = [3, 4]", "chat_id: 2 is none of 3, 4");
    check(COMMAND, "chat_id = [3]", "chat_id: it is not from a chat");
    check(COMMAND, "peer_id = [3]", "peer_id: 5 is not 3");
    check(JOIN, "peer_id = [3]", "peer_id: it is from no conversation");
    check(JOIN, "user_id = [-1]", "user_id: 5 is not -1");
    check(EXPIRED, "user_id = [-1]", "user_id: VK does not say who did it");
    check(MESSAGE, "chat = false", "chat: it is from chat 2");
    check(JOIN, "chat = true", "chat: it is not from a chat");
    check(MESSAGE, "text_prefix = ['ban']", "text_prefix: \"Ban him\" begins with no \"ban\"");
    check(MESSAGE, "text_prefix = ['a', 'b']", "text_prefix: \"Ban him\" begins with none of \"a\", \"b\"");
    check(REACTION, "text_prefix = ['a']", "text_prefix: it is no message, so it has no text");
    check(EDIT, "text_regex = '.'", "text_regex: nothing in \"\" matches \".\"");
    check(BUTTON, "text_regex = '.'", "text_regex: it is no message, so it has no text");
    check(MESSAGE, "attachment = ['doc']", "attachment: among photo, audio_message, geo is no doc");
    check(MESSAGE, "attachment = ['doc', 'wall']", "attachment: among photo, audio_message, geo is none of doc, wall");
    check(COMMAND, "attachment = ['doc']", "attachment: the message has no attachments");
    check(JOIN, "attachment = ['doc']", "attachment: it is no message, so it has no attachments");
    check(MESSAGE, "payload = { a = 1 }", "payload: it has no payload");
    check(JOIN, "payload = { a = 1 }", "payload: it has no payload");
    let odd = r#"{"type":"message_event","object":{"payload":{"a":1e999}}}"#;
    check(odd, "payload = { a = 1 }", "payload: the payload cannot be read");
    check(BUTTON_TEXT, "payload = { a = 1 }", "payload: the payload is \"start\", no table");
    check(BUTTON, "payload = { command = 'stop', more = 1 }", "payload: the payload has no more");
    check(BUTTON, "payload = { command = 'start' }", "payload: command is \"stop\", not \"start\"");
    check(TEXT_BUTTON, "payload = { step = { n = 3 } }", "payload: step.n is 1, not 3");
    check(TEXT_BUTTON, "payload = { step = { m = 3 } }", "payload: the payload has no step.m");
    check(MESSAGE, "not = { chat = true, user_id = [5] }", "not: all its conditions hold");
    check(MESSAGE, "chat = true, user_id = [6], not = { chat = true }", "user_id: 5 is not 6");

    let several = rule("[{ chat = false }, { chat = true }, { user_id = [5] }]");
    let explained = with_facts(MESSAGE, &settings(false), |facts| several.explain(facts));
    assert_eq!((explained.taken(), explained.by(), explained.0.len()), (true, Some(1), 3));
    let everything = with_facts(MESSAGE, &settings(false), |facts| Rule::default().explain(facts));
    assert_eq!((everything.taken(), everything.by(), everything.0.len()), (true, None, 0));
}

#[test]
fn words_of_an_explanation_stay_short() {
    let long = "ж".repeat(5000);
    let update = json!({ "type": "message_event", "object": { "user_id": 1, "payload": { "a": long } } }).to_string();
    let many = format!("[{{ user_id = [{}] }}]", (10..5000).map(|n| n.to_string()).collect::<Vec<_>>().join(","));
    for when in [many, "[{ payload = { a = 'x' } }]".to_owned(), format!("[{{ event_type = ['{long}'] }}]")] {
        let Outcome::Fails { why, .. } = with_facts(&update, &settings(false), |f| rule(&when).explain(f)).0.remove(0)
        else {
            panic!("taken")
        };
        assert!(why.chars().count() < 300 && why.contains(['…', 'm']), "{why}");
    }
}

/// An update, and what it holds in plain view.
#[derive(Clone, Debug)]
struct Made {
    update: String,
    payload: Option<Value>,
}

fn payloads() -> impl Strategy<Value = Option<Value>> {
    let values = [
        json!({ "a": 1 }),
        json!({ "a": 2, "b": { "c": 1, "d": [1] } }),
        json!({ "b": { "c": 1.0 } }),
        json!({ "b": 1 }),
        json!([{ "a": 1 }]),
        json!("go"),
    ];
    prop::option::of(prop::sample::select(values.to_vec()))
}

fn updates() -> impl Strategy<Value = Made> {
    let kinds =
        ["message_new", "message_edit", "message_reply", "message_event", "message_reaction_event", "group_join"];
    let peers = prop::sample::select(vec![1, 2, 2_000_000_001, 2_000_000_002]);
    let attachments = prop::sample::subsequence(vec!["photo", "doc", "wall"], 0..=2);
    let texts = prop::sample::select(vec!["", "/a", "ab", "b", "a\nb"]);
    let all = (prop::sample::select(kinds.to_vec()), peers, -1i64..3, texts, attachments, payloads(), any::<bool>());
    all.prop_map(|(kind, peer, user, text, attachments, payload, as_text)| {
        let written = payload.as_ref().map(|value| if as_text { json!(value.to_string()) } else { value.clone() });
        let attachments: Vec<Value> = attachments.iter().map(|kind| json!({ "type": kind })).collect();
        let message =
            json!({ "from_id": user, "peer_id": peer, "text": text, "attachments": attachments, "payload": written });
        let object = match kind {
            "message_new" => json!({ "message": message }),
            "message_edit" | "message_reply" => message,
            "message_event" => json!({ "user_id": user, "peer_id": peer, "payload": written }),
            "message_reaction_event" => json!({ "reacted_id": user, "peer_id": peer, "reaction_id": 1 }),
            _ => json!({ "user_id": user, "payload": written, "text": text }),
        };
        let has_payload = kind != "group_join" && kind != "message_reaction_event";
        Made {
            update: json!({ "type": kind, "event_id": "a1", "object": object }).to_string(),
            payload: payload.filter(|_| has_payload),
        }
    })
}

/// A table with many conditions fails early, and says nothing of the later ones.
const RARELY: f64 = 0.12;

fn some_of<T: Clone + std::fmt::Debug + 'static>(all: &[T]) -> impl Strategy<Value = Option<Vec<T>>> + use<T> {
    prop::option::weighted(RARELY, prop::sample::subsequence(all.to_vec(), 1..=all.len().min(3)))
}

fn conditions() -> impl Strategy<Value = Conditions> {
    let names = |all: &[&str]| some_of(&all.iter().map(ToString::to_string).collect::<Vec<_>>());
    let patterns = prop::sample::select(vec!["^a", "b$", "/", "^$"]);
    let all = (
        names(&["message_new", "command_call", "button_pressed", "reaction_changed", "group_join", "message_edit"]),
        some_of(&[1, 2]),
        some_of(&[1, 2, 2_000_000_001]),
        some_of(&[-1, 0, 1, 2]),
        prop::option::weighted(RARELY, any::<bool>()),
        names(&["/", "a", "ab", "!"]),
        prop::option::weighted(RARELY, patterns),
        names(&["photo", "doc", "wall", "geo"]),
        payloads(),
        prop::bool::weighted(2.0 * RARELY),
    );
    all.prop_map(|(types, chats, peers, users, chat, prefixes, pattern, kinds, payload, wanted)| Conditions {
        event_type: types,
        chat_id: chats,
        peer_id: peers,
        user_id: users,
        chat,
        text_prefix: prefixes,
        text_regex: pattern.map(|pattern| Pattern::parse(pattern).expect("a pattern")),
        attachment: kinds,
        payload: payload.filter(|_| wanted).and_then(|value| value.as_object().cloned()),
    })
}

fn rules() -> impl Strategy<Value = Rule> {
    let table = (conditions(), prop::option::of(conditions())).prop_map(|(all, not)| Table { all, not });
    prop::collection::vec(table, 0..4).prop_map(Rule)
}

const IN_ORDER: [Key; 9] = [
    Key::EventType,
    Key::ChatId,
    Key::PeerId,
    Key::UserId,
    Key::Chat,
    Key::TextPrefix,
    Key::TextRegex,
    Key::Attachment,
    Key::Payload,
];

/// Whether one condition holds, told by the event's own JSON.
fn holds(all: &Conditions, key: Key, event: &Value, payload: Option<&Value>) -> bool {
    let is_in = |list: &Option<Vec<i64>>, key: &str| {
        list.clone().is_none_or(|list| list.into_iter().any(|one| event[key] == json!(one)))
    };
    let text = || event["text"].as_str().filter(|_| event.get("object").is_none());
    match key {
        Key::EventType => all.event_type.clone().is_none_or(|list| list.iter().any(|one| event["event_type"] == **one)),
        Key::ChatId => is_in(&all.chat_id, "chat_id"),
        Key::PeerId => is_in(&all.peer_id, "peer_id"),
        Key::UserId => is_in(&all.user_id, "user_id"),
        Key::Chat => all.chat.is_none_or(|chat| chat != event["chat_id"].is_null()),
        Key::TextPrefix => {
            let begins =
                |text: &str| all.text_prefix.iter().flatten().any(|prefix| text.strip_prefix(&**prefix).is_some());
            all.text_prefix.is_none() || text().is_some_and(begins)
        }
        Key::TextRegex => all.text_regex.as_ref().is_none_or(|pattern| {
            text().is_some_and(|text| match pattern.as_str() {
                "^a" => text.starts_with('a'),
                "b$" => text.ends_with('b'),
                "/" => text.contains('/'),
                _ => text.is_empty(),
            })
        }),
        Key::Attachment => {
            let kinds = event["attachments"].as_array().cloned().unwrap_or_default();
            all.attachment.clone().is_none_or(|list| list.iter().any(|one| kinds.contains(&json!(one))))
        }
        Key::Payload => {
            let contains =
                |wanted: &Map<String, Value>| payload.is_some_and(|found| merged(found, wanted) == lined(found));
            all.payload.as_ref().is_none_or(contains)
        }
        Key::Not => panic!("no condition of its own"),
    }
}

/// A payload with what is wanted laid over it: the same as before if it was there already.
fn merged(found: &Value, wanted: &Map<String, Value>) -> Value {
    let Value::Object(found) = found else { return Value::Null };
    let mut all = found.clone();
    for (key, value) in wanted {
        let laid = match (all.get(key), value) {
            (Some(inner), Value::Object(wanted)) => merged(inner, wanted),
            _ => value.clone(),
        };
        all.insert(key.clone(), laid);
    }
    lined(&Value::Object(all))
}

/// Numbers written alike.
fn lined(value: &Value) -> Value {
    match value {
        Value::Number(number) => json!(number.as_f64()),
        Value::Array(list) => list.iter().map(lined).collect(),
        Value::Object(table) => {
            table.iter().map(|(key, value)| (key.clone(), lined(value))).collect::<Map<_, _>>().into()
        }
        other => other.clone(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn decision_and_explanation_say_what_a_plain_look_at_the_event_says(made in updates(), rule in rules()) {
        let event: Value = serde_json::from_str(&body(&convert(&made.update))).expect("JSON");
        let hold = |all: &Conditions, key| holds(all, key, &event, made.payload.as_ref());
        let failed = |all: &Conditions| IN_ORDER.into_iter().find(|key| !hold(all, *key));
        let expected: Vec<Option<Key>> = rule.0.iter().map(|table| {
            let excluded = table.not.as_ref().is_some_and(|not| failed(not).is_none());
            failed(&table.all).or(excluded.then_some(Key::Not))
        }).collect();
        with_facts(&made.update, &settings(false), |facts| {
            let explained = rule.explain(facts);
            prop_assert_eq!(rule.takes(facts), explained.taken());
            prop_assert_eq!(explained.taken(), expected.is_empty() || expected.contains(&None));
            prop_assert_eq!(explained.by(), expected.iter().position(Option::is_none));
            for (outcome, expected) in explained.0.iter().zip(&expected) {
                match outcome {
                    Outcome::Matches => prop_assert_eq!(&None, expected),
                    Outcome::Fails { key, why } => {
                        prop_assert_eq!(&Some(*key), expected);
                        prop_assert!(!why.is_empty());
                    }
                }
            }
            prop_assert_eq!(explained.0.len(), expected.len());
            Ok(())
        })?;
    }
}

#[test]
fn a_payload_beyond_reading_is_none_and_fails_nobody() {
    let taken = |payload: &str| {
        let update = format!(r#"{{"type":"message_new","object":{{"message":{{"from_id":1,"payload":{payload}}}}}}}"#);
        assert_eq!(convert_all(&[&update], false)[0].as_ref().expect("an event").event_type, "message_new");
        with_facts(&update, &settings(false), |facts| rule("[{ payload = { a = 1 } }]").takes(facts))
    };
    assert!(taken(r#""{\"a\":1}""#) && taken(r#"{"a":1}"#) && taken(r#"{"a":1.0,"a\u0000":[]}"#));
    let deep = format!(r#"{{"a":1,"b":{}{}}}"#, "[".repeat(1000), "]".repeat(1000));
    for payload in ["null", "7", "\"{\"", "\"\"", "[]", r#"{"a":1,"b":1e999}"#, deep.as_str()] {
        assert!(!taken(payload), "{payload}");
    }
    assert!(taken(r#""{\"a\":1,\"b\":\"\\ud83d\"}""#), "a lone surrogate is mended");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_service_routes_by_text_payload_and_attachment() {
    let tables = [
        ("moderation", "when = [{ chat = true, text_regex = '(?i)\\bбан\\b', not = { user_id = [1] } }]"),
        ("start", "when = [{ payload = { command = 'start' } }, { text_prefix = ['/start'] }]"),
        ("media", "when = [{ attachment = ['photo', 'video'] }]"),
    ];
    let mut rig = Rig::new(&tables, "").await;
    let service = rig.start().await;
    let chat = 2_000_000_002;
    let message = |rig: &mut Rig, peer: i64, message: Value, to: &[&str]| {
        rig.update("message_new", json!({ "message": message }), &format!("peer {peer}"), to)
    };
    let of = |user: i64, peer: i64, text: &str| json!({ "from_id": user, "peer_id": peer, "text": text });
    message(&mut rig, chat, of(5, chat, "ему БАН!"), &["moderation"]);
    message(&mut rig, chat, of(1, chat, "ему бан"), &[]);
    message(&mut rig, 5, of(5, 5, "мне бан"), &[]);
    message(&mut rig, 5, of(5, 5, "/start now"), &["start"]);
    let mut button = of(5, 5, "Начать");
    button["payload"] = json!("{\"command\":\"start\"}");
    message(&mut rig, 5, button, &["start"]);
    let mut photo = of(5, chat, "бан ему");
    photo["attachments"] = json!([{ "type": "doc" }, { "type": "photo", "photo": {} }]);
    message(&mut rig, chat, photo, &["moderation", "media"]);
    let press =
        json!({ "user_id": 5, "peer_id": chat, "event_id": "ac89a3425ec3", "payload": { "command": "start", "n": 1 } });
    rig.update("message_event", press, &format!("peer {chat}"), &["start"]);
    rig.update("group_join", json!({ "user_id": 5 }), "user 5", &[]);
    let stats = rig.until_settled().await;
    assert_eq!((stats.unrouted, stats.log_next), (3, 6));
    rig.assert_balanced();
    service.stop().await;
}
