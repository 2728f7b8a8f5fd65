//! Raw updates to events: the project's own fixtures, what is wrong with an update and what is not, and, where `VK_CORPUS`
//! names a folder of real updates, all of them. Elsewhere: every type (`types`), what chance brings (`mutations`).

use std::fs;
use std::path::{Path, PathBuf};

use chrono::FixedOffset;
use event_router::domain::convert::{Name, NameBook, Quarantined, Settings, Writing, mend, read_answer};
use event_router::domain::event::Event;
use event_router::domain::ids::{GroupId, Ts};
use event_router::domain::time::Moment;
use event_router::sim::script::Script;
use serde_json::{Value, json};

pub(crate) fn settings(object: bool) -> Settings {
    let utc_offset = FixedOffset::east_opt(3 * 3600).expect("an offset");
    Settings { command_prefixes: vec!["/".into(), "!".into()], utc_offset, object }
}

fn names() -> NameBook {
    let mut book = NameBook::default();
    let name = |name: &str, nick: &str| Name { name: Some(name.into()), nick: Some(nick.into()) };
    book.insert_person(206_295_116, name("Руслан Башинский", "oidaho"));
    book.insert_person(-218_730_916, name("Тестовое сообщество", "test"));
    book.insert_chat(2_000_000_002, Some("FUNCKA | DEV | CHAT".into()));
    book
}

pub(crate) fn convert_all(updates: &[&str], object: bool) -> Vec<Result<Event, Quarantined>> {
    convert_asked("77", updates, object)
}

/// The updates of an answer to a poll with the ts `asked`.
pub(crate) fn convert_asked(asked: &str, updates: &[&str], object: bool) -> Vec<Result<Event, Quarantined>> {
    let group = GroupId::new(218_730_916).expect("an id");
    let settings = settings(object);
    let mut writing = Writing::new(Moment(1_709_107_923_000), &settings, updates.len());
    let read = read_answer(group, &Ts::parse(asked).expect("a ts"), updates);
    read.into_iter().map(|update| update.map(|update| update.into_event(&names(), &mut writing))).collect()
}

pub(crate) fn convert(update: &str) -> Event {
    convert_all(&[update], false).remove(0).unwrap_or_else(|bad| panic!("{}: {update}", bad.reason))
}

pub(crate) fn body(event: &Event) -> String {
    String::from_utf8(event.body.to_vec()).expect("text")
}

pub(crate) fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/vk")
}

#[test]
fn every_fixture_becomes_the_event_beside_it_byte_for_byte() {
    let mut count = 0;
    for entry in fs::read_dir(fixtures()).expect("read") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().and_then(|name| name.to_str()).expect("a name");
        let Some(stem) = name.strip_suffix(".event.json") else { continue };
        let update = fs::read_to_string(fixtures().join(format!("{stem}.json"))).expect("read");
        let expected = fs::read_to_string(&path).expect("read");
        let event = convert(&update);
        // The event is compact; what passes through untouched keeps VK's spaces.
        let found: Value = serde_json::from_str(&body(&event)).expect("JSON");
        assert_eq!(found, serde_json::from_str::<Value>(&expected).expect("JSON"), "{stem}");
        assert_eq!(keys(&body(&event)), keys(&expected), "{stem}");
        if !expected.contains("\"object\"") && !expected.contains("\"payload\"") {
            assert_eq!(body(&event), expected.trim_end(), "{stem}");
        }
        count += 1;
    }
    assert!(count >= 17, "{count}");
}

/// The keys of the outermost object, in order.
pub(crate) fn keys(text: &str) -> Vec<String> {
    struct Keys(Vec<String>);
    impl<'de> serde::Deserialize<'de> for Keys {
        fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            struct Visit;
            impl<'de> serde::de::Visitor<'de> for Visit {
                type Value = Keys;
                fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                    f.write_str("an object")
                }
                fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Keys, A::Error> {
                    let mut keys = Vec::new();
                    while let Some((key, _)) = map.next_entry::<String, serde::de::IgnoredAny>()? {
                        keys.push(key);
                    }
                    Ok(Keys(keys))
                }
            }
            deserializer.deserialize_map(Visit)
        }
    }
    serde_json::from_str::<Keys>(text).expect("an object").0
}

#[test]
fn forty_five_levels_and_five_hundred_messages_convert_and_deeper_ones_are_quarantined_not_fatal() {
    let nest = |depth: usize, key: &str| {
        let mut message = json!({ "from_id": 1, "text": "bottom" });
        for _ in 0..depth {
            message = match key {
                "fwd_messages" => {
                    json!({ "from_id": 1, "text": "x", "fwd_messages": [message], "attachments": [{ "type": "photo", "photo": {} }] })
                }
                _ => json!({ "from_id": 1, "text": "x", "reply_message": message }),
            };
        }
        json!({ "type": "message_new", "event_id": "aa", "object": { "message": message } }).to_string()
    };
    for key in ["fwd_messages", "reply_message"] {
        let event = convert(&nest(45, key));
        assert_eq!(body(&event).matches("bottom").count(), 1, "{key}");
    }
    for depth in [100, 1000, 100_000] {
        let deep = format!(
            "{{\"type\":\"message_new\",\"object\":{{\"message\":{}{}{}}}}}",
            "{\"fwd_messages\":[".repeat(depth),
            "{}",
            "]}".repeat(depth)
        );
        let converted = convert_all(&[&deep, r#"{"type":"group_join","object":{"user_id":1}}"#], false);
        assert!(converted[0].as_ref().expect_err("quarantined").reason.contains("recursion limit"), "{depth}");
        assert!(converted[1].is_ok());
    }
    let many: Vec<Value> = (0..500).map(|n| json!({ "from_id": n, "text": "x" })).collect();
    let update =
        json!({ "type": "message_new", "object": { "message": { "from_id": 1, "fwd_messages": many } } }).to_string();
    let found: Value = serde_json::from_slice(&convert(&update).body).expect("JSON");
    assert_eq!(found["forward"].as_array().map(Vec::len), Some(500));
}

#[test]
fn an_id_is_made_where_vk_sent_none_the_same_for_the_same_and_two_for_two() {
    let update = r#"{"type":"group_join","object":{"user_id":1}}"#;
    let ids = |updates: &[&str]| {
        convert_all(updates, false)
            .into_iter()
            .map(|event| event.expect("read").event_id.to_string())
            .collect::<Vec<_>>()
    };
    let twice = ids(&[update, update]);
    assert_eq!(twice, ids(&[update, update]));
    assert!(twice[0] != twice[1] && twice.iter().all(|id| id.len() == 40));
    let other = ids(&[r#"{"type":"group_join","event_id":"no good id!","object":{"user_id":1}}"#]);
    assert_eq!(other[0].len(), 40);
}

#[test]
fn what_cannot_be_read_is_quarantined_with_its_reason() {
    for (update, reason) in [
        ("7", "the update is no JSON object"),
        ("{}", "the update has no type"),
        (r#"{"type":5}"#, "the type of the update is no text"),
        (r#"{"type":""}"#, "the type of the update has 0 bytes"),
        (r#"{"type":"message_new"}"#, "message_new without an object"),
        (r#"{"type":"message_new","object":[]}"#, "the object of message_new is no JSON object"),
        (
            r#"{"type":"message_new","object":{"message":{"from_id":[1]}}}"#,
            "the object of message_new: invalid type: sequence, expected an integer of 64 bits",
        ),
        (
            r#"{"type":"message_event","object":{"user_id":1.5}}"#,
            "the object of message_event: a number that is no integer",
        ),
        (
            r#"{"type":"message_new","object":{"message":{"fwd_messages":[{"text":{}}]}}}"#,
            "the object of message_new: invalid type: map, expected a string at line 1 column 36",
        ),
        (r#"{"type":"message_event","object":[1,2,3,4,"x",null]}"#, "the object of message_event is no JSON object"),
        (r#"{"type":"message_new","object":{"message":"text"}}"#, "the object of message_new: invalid type"),
        (r#"{"object":7,"type":"message_edit"}"#, "the object of message_edit is no JSON object"),
    ] {
        let bad = convert_all(&[update], false).remove(0).expect_err(update);
        assert!(bad.reason.starts_with(reason), "{update}: {}", bad.reason);
        assert_eq!(bad.raw, update);
    }
}

#[test]
fn a_reason_quotes_nobodys_words() {
    let update = r#"{"type":"message_new","object":{"message":{"from_id":"my private, expected words"}}}"#;
    let bad = convert_all(&[update], false).remove(0).expect_err("quarantined");
    assert!(!bad.reason.contains("private") && bad.reason.contains("integer"), "{}", bad.reason);
    let update = r#"{"type":"message_new","object":{"message":{"from_id":1,"fwd_messages":"my private words"}}}"#;
    let bad = convert_all(&[update], false).remove(0).expect_err("quarantined");
    assert!(
        bad.reason.starts_with("the object of message_new: invalid type: a text, expected a sequence"),
        "{}",
        bad.reason
    );
}

#[test]
fn what_vk_adds_or_doubles_fails_no_event() {
    let found = |update: &str| -> Value { serde_json::from_slice(&convert(update).body).expect("JSON") };
    let both = r#"{"type":"message_new","object":{"message":{"from_id":1,"conversation_message_id":5,"cmid":5}}}"#;
    assert_eq!(found(both)["cmid"], 5);
    let reaction =
        r#"{"type":"message_reaction_event","object":{"reacted_id":1,"cmid":6,"conversation_message_id":6}}"#;
    assert_eq!(found(reaction)["cmid"], 6);
    let nested = r#"{"type":"message_new","object":{"message":{"from_id":1,"fwd_messages":[{"from_id":2,"text":"x","message":"new at VK"}]}}}"#;
    assert_eq!(found(nested)["forward"][0]["text"], "x");
    let wrapped = r#"{"type":"message_edit","object":{"message":{"from_id":7,"text":"y"}}}"#;
    assert_eq!((&found(wrapped)["user_id"], &found(wrapped)["text"]), (&json!(7), &json!("y")));
    let far = r#"{"type":"message_new","object":{"user_id":1,"chat_id":9223372036854775807,"body":"z"}}"#;
    assert_eq!(found(far)["peer_id"], i64::MAX);
    let nobodys = r#"{"type":"group_join","group_id":0,"object":{"user_id":1}}"#;
    assert_eq!(convert(nobodys).group.get(), 218_730_916);
}

#[test]
fn an_event_is_one_line_however_vk_wrote_its_object() {
    let event = convert("{\"type\":\"x\",\"object\":{\r\n \"a\": [\n1]\n}}");
    assert!(body(&event).ends_with(r#","object":{ "a": [1]}}"#), "{}", body(&event));
}

#[test]
fn what_only_describes_fails_nothing_whatever_its_kind() {
    let check = |object: Value, key: &str, expected: Value| {
        let update = json!({ "type": "message_new", "event_id": "aa", "object": object }).to_string();
        let found: Value = serde_json::from_slice(&convert(&update).body).expect("JSON");
        assert_eq!(found[key], expected, "{update}");
    };
    let kinds = json!([{ "type": "Photo" }, { "type": 5 }, {}, null, 7, "doc", ["x"], true, 1.5, { "type": "новое" }]);
    check(json!({ "attachments": kinds, "geo": {} }), "attachments", json!(["photo", "новое", "geo"]));
    check(json!({ "attachments": null, "geo": [] }), "attachments", json!([]));
    check(json!({ "geo": false, "out": {} }), "attachments", json!([]));
    check(json!({ "chat_id": 2, "user_id": 1 }), "peer_id", json!(2_000_000_002_i64));
    check(json!({ "user_id": 5, "out": 1 }), "user_id", json!(-218_730_916));
    check(json!({ "user_id": 5, "out": true }), "user_id", json!(-218_730_916));
    check(json!({ "user_id": 5, "out": 0 }), "user_id", json!(5));
    check(json!({ "message": null, "text": "bare" }), "text", json!("bare"));
}

#[test]
fn an_envelope_reads_alike_in_any_order_and_whatever_surrounds_it() {
    let message = r#""object":{"message":{"from_id":1,"text":"x","peer_id":2}}"#;
    let straight = convert(&format!(r#"{{"type":"message_new","event_id":"aa","group_id":7,{message}}}"#));
    for update in [
        format!(r#"{{{message},"group_id":7,"event_id":"aa","type":"message_new"}}"#),
        format!(r#"{{"type":"x",{message},"type":"message_new","group_id":"7","event_id":"aa"}}"#),
        format!(r#"{{"type":"message_event",{message},"group_id":7,"event_id":"aa","type":"message_new","v":[[]]}}"#),
    ] {
        assert_eq!(convert(&update), straight, "{update}");
    }
    assert_eq!(straight.group, GroupId::new(7).expect("an id"));
    for group_id in ["-4", "0", "[]", "null", "\"x\"", "1.5"] {
        let event = convert(&format!(r#"{{"type":"group_join","group_id":{group_id},"object":{{}}}}"#));
        assert_eq!(event.group, GroupId::new(218_730_916).expect("an id"), "{group_id}");
    }
}

#[test]
fn a_bare_message_may_have_a_key_named_message_one_day() {
    for kind in ["message_edit", "message_reply"] {
        for inner in [r#""new at VK""#, r#"{"from_id":[]}"#, r#"{"text":"inner"}"#, "null"] {
            let fields = [format!(r#""message":{inner}"#), r#""from_id":5,"text":"x""#.to_owned()];
            for object in [fields.join(","), fields.iter().rev().cloned().collect::<Vec<_>>().join(",")] {
                let event = convert(&format!(r#"{{"type":"{kind}","object":{{{object}}}}}"#));
                let found: Value = serde_json::from_slice(&event.body).expect("JSON");
                assert_eq!((&found["user_id"], &found["text"]), (&json!(5), &json!("x")), "{object}");
            }
        }
    }
}

#[test]
fn an_event_is_one_line_although_vk_breaks_lines() {
    let object = "{\r\n \"user_id\": 1,\n \"text\": \"a\\nb\"\n}";
    let payload = r#"{"user_id":1,"payload":"{\n \"a\":\n \"b\\nc\"}"}"#;
    for (kind, object, key, expected) in [
        ("group_join", object, "object", json!({ "user_id": 1, "text": "a\nb" })),
        ("message_new", object, "object", json!({ "user_id": 1, "text": "a\nb" })),
        ("message_event", payload, "payload", json!({ "a": "b\nc" })),
    ] {
        let update = format!("{{\"type\":\"{kind}\",\n\"object\":\n{object}\n}}");
        let text = body(&convert_all(&[&update], true).remove(0).expect("read"));
        assert!(!text.contains(['\n', '\r']), "{text}");
        assert_eq!(serde_json::from_str::<Value>(&text).expect("JSON")[key], expected, "{text}");
    }
}

#[test]
fn a_payload_is_the_value_that_its_text_holds_and_else_what_it_is() {
    let check = |payload: &str, expected: &str| {
        let event = convert(&format!(r#"{{"type":"message_event","object":{{"user_id":1,"payload":{payload}}}}}"#));
        assert!(body(&event).ends_with(&format!(r#","payload":{expected}}}"#)), "{payload}: {}", body(&event));
    };
    check(r#""{\"a\":1}""#, r#"{"a":1}"#);
    check(r#""[1, 2]""#, "[1, 2]");
    check(r#""5""#, "5");
    check(r#""null""#, "null");
    check(r#""\"text\"""#, r#""text""#);
    check(r#""""#, r#""""#);
    check(r#"" ""#, r#"" ""#);
    check(r#""{\"a\":""#, r#""{\"a\":""#);
    check(r#""\u00a05""#, r#""\u00a05""#);
    check("{ }", "{ }");
    check("12345678901234567890123", "12345678901234567890123");
    check("null", "null");
}

#[test]
fn names_are_wanted_only_of_those_who_can_have_one() {
    let check = |user: i64, peer: i64, people: &[i64], chat: Option<i64>| {
        let update =
            json!({ "type": "message_new", "object": { "from_id": user, "peer_id": peer, "text": "x" } }).to_string();
        let group = GroupId::new(1).expect("an id");
        let wanted = read_answer(group, &Ts::parse("1").expect("a ts"), &[&update]).remove(0).expect("read").wanted();
        assert_eq!((wanted.people().collect::<Vec<_>>(), wanted.chat), (people.to_vec(), chat), "{update}");
    };
    check(5, 5, &[5, 5], None);
    check(-7, 5, &[-7, 5], None);
    check(5, 2_000_000_002, &[5], Some(2_000_000_002));
    check(0, 0, &[], None);
    check(-2_000_000_123, -2_000_000_123, &[], None);
}

#[test]
fn the_object_comes_along_untouched_where_it_is_asked_for() {
    let update =
        r#"{"type":"message_new","object":{"message":{"from_id":1, "text":"x", "action":{"type":"chat_create"}}}}"#;
    let event = convert_all(&[update], true).remove(0).expect("read");
    assert!(body(&event).ends_with(
        r#","attachments":[],"object":{"message":{"from_id":1, "text":"x", "action":{"type":"chat_create"}}}}"#
    ));
}

#[test]
fn surrogates_that_are_lone_become_a_replacement_in_payloads_too() {
    let update = br#"{"type":"message_event","object":{"user_id":1,"payload":"{\"a\":\"\\ud83d\"}"}}"#;
    let found: Value = serde_json::from_slice(&convert(&mend(update)).body).expect("JSON");
    assert_eq!(found["payload"], json!({ "a": "\u{fffd}" }));
    let update =
        [br#"{"type":"message_new","object":{"message":{"text":"\ud83d "#.as_slice(), &[0xff], br#""}}}"#].concat();
    let found: Value = serde_json::from_slice(&convert(&mend(&update)).body).expect("JSON");
    assert_eq!(found["text"], "\u{fffd} \u{fffd}");
}

/// Bodies of one answer stand behind one another: none of them takes from its neighbours, however long one becomes.
#[test]
fn a_body_is_the_same_alone_and_among_others() {
    let mut script = Script::new(7, 218_730_916, 20);
    let mut updates: Vec<String> = (0..400).map(|_| script.invent().update).collect();
    for length in [0, 400, 16 << 10, 100 << 10] {
        let attachments = vec![json!({ "type": "photo" }); length / 8];
        let message = json!({ "from_id": 1, "peer_id": 2, "text": "\u{1}".repeat(length), "attachments": attachments });
        updates.insert(
            length % 397,
            json!({ "type": "message_new", "event_id": "x", "object": { "message": message } }).to_string(),
        );
    }
    let texts: Vec<&str> = updates.iter().map(String::as_str).collect();
    for object in [false, true] {
        let together = convert_all(&texts, object);
        assert!(together.iter().filter(|event| event.is_ok()).count() > 300);
        for (event, text) in together.iter().zip(&texts) {
            let alone = convert_all(&[text], object).remove(0);
            // Which answer an id was made in makes no difference here: each update stands in it once.
            assert_eq!(event, &alone);
        }
    }
}

/// The real updates of the folder that `VK_CORPUS` names, in the order of their names; none where it is not set.
pub(crate) fn corpus() -> Vec<String> {
    let Some(folder) = std::env::var_os("VK_CORPUS") else {
        eprintln!("VK_CORPUS is not set: the project's own fixtures serve");
        return Vec::new();
    };
    let entries = fs::read_dir(folder).expect("VK_CORPUS names a folder");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
    paths.sort();
    assert!(paths.len() >= 144, "{}", paths.len());
    paths.iter().map(|path| mend(&fs::read(path).expect("read")).trim().to_owned()).collect()
}

#[test]
fn every_real_update_converts() {
    let updates = corpus();
    for update in &updates {
        let found: Value = serde_json::from_slice(&convert(update).body).expect("JSON");
        let raw: Value = serde_json::from_str(update).expect("JSON");
        let names = [&raw["type"], &json!("command_call"), &json!("button_pressed"), &json!("reaction_changed")];
        assert!(names.contains(&&found["event_type"]), "{update}");
    }
    eprintln!("{} real updates converted", updates.len());
}
