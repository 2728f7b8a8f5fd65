//! What chance makes of updates, of answers and of bytes: each update of an answer becomes one event or one entry of
//! quarantine, no neighbour notices, and no answer makes the session ask with a ts that VK did not write. Sound updates are
//! spoiled at random places, and arbitrary JSON stands in their stead. proptest prints the seed of a failure and takes it
//! back. Deliberately absent: what a sound update becomes (`convert`, `types`).

use std::collections::BTreeMap;
use std::fs;
use std::sync::OnceLock;

use event_router::domain::convert::{Quarantined, mend};
use event_router::domain::event::{Event, chat_of};
use event_router::domain::ids::Ts;
use event_router::secret::Secret;
use event_router::vk::wire::{PollReply, SessionReply, poll_reply};
use event_router::vk::{Commit, Session, Step};
use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::convert::{convert_all, fixtures, keys};

/// How many cases are tried: `MUTATION_CASES` for a long run.
fn cases() -> u32 {
    std::env::var("MUTATION_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(1000)
}

/// Keys that mean something to someone.
const KEYS: [&str; 34] = [
    "type",
    "group_id",
    "event_id",
    "object",
    "v",
    "message",
    "from_id",
    "peer_id",
    "text",
    "fwd_messages",
    "reply_message",
    "attachments",
    "payload",
    "user_id",
    "geo",
    "body",
    "cmid",
    "conversation_message_id",
    "chat_id",
    "out",
    "date",
    "reacted_id",
    "liker_id",
    "reaction_id",
    "deleter_id",
    "admin_id",
    "owner_id",
    "to_id",
    "ts",
    "updates",
    "failed",
    "",
    "\\u0074ype",
    "\u{0}",
];

/// Values that someone may stumble over.
const LEAVES: [&str; 22] = [
    "null",
    "true",
    "false",
    "0",
    "-1",
    "1",
    "2",
    "3",
    "100",
    "2000000002",
    "9223372036854775807",
    "-9223372036854775808",
    "18446744073709551615",
    "123456789012345678901234567890",
    "1.5",
    "1e400",
    "-0",
    r#""""#,
    r#""1""#,
    r#""message_new""#,
    r#""\ud83d""#,
    r#""{\"a\":[1]}""#,
];

/// JSON that may say a key twice, and in any order. Texts of leaves and keys stand as they are written.
#[derive(Clone, Debug)]
enum Json {
    Leaf(String),
    List(Vec<Json>),
    Object(Vec<(String, Json)>),
}

impl Json {
    fn of(value: &Value) -> Self {
        match value {
            Value::Array(items) => Self::List(items.iter().map(Self::of).collect()),
            Value::Object(map) => Self::Object(map.iter().map(|(key, value)| (quoted(key), Self::of(value))).collect()),
            leaf => Self::Leaf(leaf.to_string()),
        }
    }

    fn text(&self) -> String {
        self.spaced("")
    }

    /// As text, with this white space behind each comma and colon.
    fn spaced(&self, space: &str) -> String {
        let joined = |parts: Vec<String>| parts.join(&format!(",{space}"));
        match self {
            Self::Leaf(text) => text.clone(),
            Self::List(items) => format!("[{}]", joined(items.iter().map(|item| item.spaced(space)).collect())),
            Self::Object(fields) => {
                let field = |(key, value): &(String, Self)| format!("{key}:{space}{}", value.spaced(space));
                format!("{{{}}}", joined(fields.iter().map(field).collect()))
            }
        }
    }

    fn children(&self) -> Vec<&Self> {
        match self {
            Self::Leaf(_) => Vec::new(),
            Self::List(items) => items.iter().collect(),
            Self::Object(fields) => fields.iter().map(|(_, value)| value).collect(),
        }
    }

    fn size(&self) -> usize {
        1 + self.children().into_iter().map(Self::size).sum::<usize>()
    }

    /// The n-th node, counted from above.
    fn node(&mut self, n: usize) -> &mut Self {
        if n == 0 {
            return self;
        }
        let children = match self {
            Self::Leaf(_) => unreachable!("a leaf has one node"),
            Self::List(items) => items.iter_mut().collect::<Vec<_>>(),
            Self::Object(fields) => fields.iter_mut().map(|(_, value)| value).collect(),
        };
        let mut left = n - 1;
        for child in children {
            let size = child.size();
            if left < size {
                return child.node(left);
            }
            left -= size;
        }
        unreachable!("there are that many nodes")
    }

    fn set(&mut self, key: &str, value: &str) {
        let Self::Object(fields) = self else { panic!("an object") };
        fields.retain(|(name, _)| *name != quoted(key));
        fields.push((quoted(key), Self::Leaf(quoted(value))));
    }
}

fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

/// One way to spoil a node.
#[derive(Clone, Debug)]
enum Spoil {
    /// A child goes.
    Delete(Index),
    /// Something else stands there.
    Replace(Json),
    /// A child is there twice; its twin may be something else.
    Double(Index, Option<Json>),
    /// What is no text becomes one, and the other way round; lists become objects.
    Retype,
    /// It is wrapped.
    Nest { list: bool, levels: u16 },
    /// Only the beginning stays.
    Cut(Index),
    /// A child has another name.
    Rename(Index, String),
    /// The children stand in another order.
    Turn(Index),
}

fn spoil() -> impl Strategy<Value = Spoil> {
    prop_oneof![
        4 => any::<Index>().prop_map(Spoil::Delete),
        4 => any_json().prop_map(Spoil::Replace),
        2 => (any::<Index>(), prop::option::of(any_json())).prop_map(|(at, twin)| Spoil::Double(at, twin)),
        3 => Just(Spoil::Retype),
        1 => (any::<bool>(), prop_oneof![4 => 1u16..4, 1 => 100u16..300]).prop_map(|(list, levels)| Spoil::Nest { list, levels }),
        2 => any::<Index>().prop_map(Spoil::Cut),
        3 => (any::<Index>(), key()).prop_map(|(at, key)| Spoil::Rename(at, key)),
        1 => any::<Index>().prop_map(Spoil::Turn),
    ]
}

fn key() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => select(KEYS.as_slice()).prop_map(|key| if key.starts_with('\\') { format!("\"{key}\"") } else { quoted(key) }),
        1 => "[a-z_]{1,8}".prop_map(|key| quoted(&key)),
    ]
}

fn any_json() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        3 => select(LEAVES.as_slice()).prop_map(str::to_owned),
        1 => any::<i64>().prop_map(|number| number.to_string()),
        1 => any::<f64>().prop_map(|number| Value::from(number).to_string()),
        1 => "\\PC{0,12}".prop_map(|text| quoted(&text)),
    ];
    leaf.prop_map(Json::Leaf).prop_recursive(4, 40, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Json::List),
            prop::collection::vec((key(), inner), 0..6).prop_map(Json::Object),
        ]
    })
}

/// Where, and what.
fn spoils() -> impl Strategy<Value = Vec<(Index, Spoil)>> {
    prop::collection::vec((any::<Index>(), spoil()), 1..6)
}

fn spoiled(mut json: Json, spoils: Vec<(Index, Spoil)>) -> Json {
    for (at, spoil) in spoils {
        let at = at.index(json.size());
        apply(json.node(at), spoil);
    }
    json
}

fn apply(node: &mut Json, spoil: Spoil) {
    match (spoil, node) {
        (Spoil::Delete(at), Json::List(items)) if !items.is_empty() => drop(items.remove(at.index(items.len()))),
        (Spoil::Delete(at), Json::Object(fields)) if !fields.is_empty() => drop(fields.remove(at.index(fields.len()))),
        (Spoil::Double(at, twin), Json::List(items)) if !items.is_empty() => {
            items.push(twin.unwrap_or_else(|| items[at.index(items.len())].clone()));
        }
        (Spoil::Double(at, twin), Json::Object(fields)) if !fields.is_empty() => {
            let (key, value) = fields[at.index(fields.len())].clone();
            fields.push((key, twin.unwrap_or(value)));
        }
        (Spoil::Rename(at, key), Json::Object(fields)) if !fields.is_empty() => {
            let at = at.index(fields.len());
            fields[at].0 = key;
        }
        (Spoil::Turn(by), Json::List(items)) if !items.is_empty() => {
            let by = by.index(items.len());
            items.rotate_left(by);
        }
        (Spoil::Turn(by), Json::Object(fields)) if !fields.is_empty() => {
            let by = by.index(fields.len());
            fields.rotate_left(by);
        }
        (Spoil::Cut(at), Json::List(items)) if !items.is_empty() => items.truncate(at.index(items.len())),
        (Spoil::Cut(at), Json::Object(fields)) if !fields.is_empty() => fields.truncate(at.index(fields.len())),
        (Spoil::Cut(at), Json::Leaf(text)) => {
            let whole = serde_json::from_str::<String>(text).unwrap_or_default();
            let cut = whole.chars().take(at.index(whole.chars().count().max(1))).collect::<String>();
            *text = quoted(&cut);
        }
        (Spoil::Retype, node) => {
            *node = match node {
                Json::Leaf(text) => Json::Leaf(match serde_json::from_str::<String>(text) {
                    Ok(inner) => inner.parse().unwrap_or(inner.len() as i64).to_string(),
                    Err(_) => quoted(text),
                }),
                Json::List(items) => {
                    Json::Object(items.iter().enumerate().map(|(n, item)| (format!("\"{n}\""), item.clone())).collect())
                }
                Json::Object(fields) => Json::List(fields.iter().map(|(_, value)| value.clone()).collect()),
            };
        }
        (Spoil::Nest { list, levels }, node) => {
            for _ in 0..levels {
                let inner = std::mem::replace(node, Json::List(Vec::new()));
                *node = if list { Json::List(vec![inner]) } else { Json::Object(vec![(quoted("message"), inner)]) };
            }
        }
        (Spoil::Replace(other), node) => *node = other,
        // What there is no child for.
        (_, node) => *node = Json::Leaf("null".to_owned()),
    }
}

/// Every sound update of the project's own fixtures.
fn sound() -> &'static [Json] {
    static ALL: OnceLock<Vec<Json>> = OnceLock::new();
    ALL.get_or_init(|| {
        let read = |name: &str| -> Value {
            serde_json::from_str(&fs::read_to_string(fixtures().join(name)).expect("read")).expect("JSON")
        };
        let mut all: Vec<Json> =
            read("types.json").as_array().expect("a list").iter().map(|one| Json::of(&one["update"])).collect();
        let mut names: Vec<String> = fs::read_dir(fixtures())
            .expect("read")
            .map(|entry| entry.expect("an entry").file_name().into_string().expect("text"))
            .filter(|name| name != "types.json" && !name.ends_with(".event.json"))
            .collect();
        names.sort();
        all.extend(names.iter().map(|name| Json::of(&read(name))));
        assert!(all.len() > 80, "{}", all.len());
        all
    })
}

fn any_sound() -> impl Strategy<Value = Json> {
    any::<Index>().prop_map(|at| at.get(sound()).clone())
}

/// A sound update that is like no other; with an id of VK, or without one.
fn neighbour(mark: &'static str) -> impl Strategy<Value = String> {
    (any_sound(), any::<bool>()).prop_map(move |(mut update, has_id)| {
        update.set("mark", mark);
        update.set("event_id", if has_id { mark } else { "" });
        update.text()
    })
}

/// An update that may be anything.
fn any_update() -> impl Strategy<Value = String> {
    let typed = (
        select(vec!["message_new", "message_edit", "message_event", "message_reaction_event", "x_delete"]),
        any_json(),
    )
        .prop_map(|(kind, object)| {
            Json::Object(vec![(quoted("type"), Json::Leaf(quoted(kind))), (quoted("object"), object)])
        });
    let any = prop_oneof![
        6 => (any_sound(), spoils()).prop_map(|(update, spoils)| spoiled(update, spoils)),
        2 => typed,
        1 => any_json(),
    ];
    (any, select(vec!["", " ", "\n", "\r\n\t"])).prop_map(|(json, space)| json.spaced(space))
}

/// The first keys of every event, read strictly.
#[derive(Deserialize)]
struct Head {
    ts: i64,
    datetime: String,
    event_type: String,
    event_id: String,
    user_id: Option<i64>,
    user_name: Option<String>,
    peer_id: Option<i64>,
    chat_id: Option<i64>,
}

const HEAD: [&str; 10] = [
    "ts",
    "datetime",
    "event_type",
    "event_id",
    "user_id",
    "user_name",
    "user_nick",
    "peer_id",
    "peer_name",
    "chat_id",
];

/// Holds an event against the contract.
fn check_event(event: &Event, update: &str, with_object: bool) {
    let text = std::str::from_utf8(&event.body).expect("UTF-8");
    assert!(!text.contains(['\n', '\r']), "{text}");
    let strict = serde_json::from_str::<Value>(text).map_or_else(|error| error.to_string(), |_| String::new());
    assert!(!strict.contains("escape"), "{strict}: {text}");
    let keys = keys(text);
    assert_eq!(keys[..10], HEAD, "{text}");
    let own: &[&str] = match event.event_type.as_ref() {
        "message_new" | "command_call" | "message_edit" | "message_reply" => {
            &["cmid", "text", "reply", "forward", "attachments"]
        }
        "button_pressed" => &["cmid", "button_event_id", "payload"],
        "reaction_changed" => &["cmid", "reaction_id"],
        _ => &[],
    };
    let has_object = own.is_empty() || with_object;
    let last: &[&str] = if has_object { &["object"] } else { &[] };
    assert_eq!(keys[10..], [own, last].concat(), "{text}");

    let head: Head = serde_json::from_str(text).expect("the first keys are of their kinds");
    assert_eq!((head.ts, head.datetime.as_str()), (1_709_107_923, "2024-02-28 11:12:03"));
    assert_eq!((head.event_type, head.event_id), (event.event_type.clone().into_owned(), event.event_id.to_string()));
    assert_eq!((head.user_id, head.peer_id, head.chat_id), (event.user_id, event.peer_id, chat_of(event.peer_id)));
    assert!(head.user_name.is_none() || event.user_id.is_some(), "{text}");

    let fields: BTreeMap<String, Box<RawValue>> = serde_json::from_str(text).expect("an object");
    if has_object {
        let of_vk: BTreeMap<String, Box<RawValue>> = serde_json::from_str(update).expect("an object");
        let object = of_vk.get("object").map_or("null", |object| object.get());
        assert_eq!(fields["object"].get(), object.replace(['\n', '\r'], ""), "untouched, but on one line");
    }
    if own.contains(&"forward") {
        check_message(&fields);
    }
}

/// Holds the keys that messages share, nested ones too, against the contract.
fn check_message(fields: &BTreeMap<String, Box<RawValue>>) {
    let kinds: Vec<String> = serde_json::from_str(fields["attachments"].get()).expect("names of kinds");
    assert!(kinds.iter().all(|kind| *kind == kind.to_lowercase()), "{kinds:?}");
    serde_json::from_str::<String>(fields["text"].get()).expect("a text");
    let reply: Option<Box<RawValue>> = serde_json::from_str(fields["reply"].get()).expect("null or a message");
    let forward: Vec<Box<RawValue>> = serde_json::from_str(fields["forward"].get()).expect("a list");
    for nested in reply.into_iter().chain(forward) {
        assert_eq!(keys(nested.get()), ["user_id", "cmid", "text", "date", "attachments", "reply", "forward"]);
        check_message(&serde_json::from_str(nested.get()).expect("an object"));
    }
}

/// The updates of an answer, as the loop towards VK reads them.
fn read_back(answer: &str, read: impl FnOnce(&str, Vec<&str>)) {
    let text = mend(answer.as_bytes());
    let Ok(PollReply::Updates { ts, updates }) = poll_reply(&text) else { panic!("an answer: {answer}") };
    read(ts.as_str(), updates.iter().map(|update| update.get()).collect());
}

fn id(outcome: &Result<Event, Quarantined>) -> String {
    outcome.as_ref().map_or_else(|bad| bad.event_id.to_string(), |event| event.event_id.to_string())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), ..ProptestConfig::default() })]

    #[test]
    fn whatever_stands_in_an_answer_is_one_event_or_one_entry_of_quarantine_and_no_neighbour_notices(
        before in neighbour("before"),
        update in any_update(),
        after in neighbour("after"),
        with_object in any::<bool>(),
    ) {
        let alone = convert_all(&[&before, &after], with_object);
        let answer = format!("{{\"ts\":\"78\",\"updates\":[{before}, {update},{update}\r\n,{after}]}}\r\n");
        read_back(&answer, |ts, updates| {
            assert_eq!((ts, updates.len()), ("78", 4));
            let converted = convert_all(&updates, with_object);
            assert_eq!(converted.len(), 4);
            assert_eq!(converted, convert_all(&updates, with_object), "read again, it is the same");
            assert!(alone[0].is_ok() && alone[1].is_ok());
            assert_eq!((&converted[0], &converted[3]), (&alone[0], &alone[1]), "the neighbours");
            for (one, raw) in converted.iter().zip(&updates) {
                match one {
                    Ok(event) => check_event(event, raw, with_object),
                    Err(bad) => {
                        assert_eq!(&bad.raw, raw);
                        assert!(!bad.reason.is_empty() && bad.event_id.as_str().len() == 40, "{bad:?}");
                        assert!(!bad.reason.contains("escape"), "they are mended: {bad:?}");
                    }
                }
            }
            // Two that are identical are two, but where VK says itself that they are one.
            let ids = (id(&converted[1]), id(&converted[2]));
            assert!(ids.0 != ids.1 || (converted[1].is_ok() && update.contains(&quoted(&ids.0))), "{ids:?}");
            assert_eq!(converted[1].is_ok(), converted[2].is_ok());
        });
    }

    #[test]
    fn bytes_that_broke_on_the_way_are_read_or_refused_and_never_a_panic(
        update in any_sound(),
        breaks in prop::collection::vec(broken(), 1..5),
        with_object in any::<bool>(),
    ) {
        let bytes = break_up(update.text().into_bytes(), &breaks);
        let text = mend(&bytes);
        let converted = convert_all(&[&text], with_object);
        assert_eq!(converted, convert_all(&[&text], with_object), "read again, it is the same");
        match &converted[..] {
            [Ok(event)] => check_event(event, &text, with_object),
            [Err(bad)] => assert_eq!(bad.raw, text),
            _ => panic!("one outcome"),
        }
    }

    #[test]
    fn no_answer_makes_the_session_ask_with_a_ts_that_vk_did_not_write_or_forget_the_one_it_has(
        start in prop::option::of(1u32..50),
        answers in prop::collection::vec((any_answer(), any::<bool>()), 1..12),
    ) {
        let mut watched = Watched::new(start.map(|ts| ts.to_string()));
        for (number, (answer, commits)) in answers.iter().enumerate() {
            watched.open(&format!("newest-{number}"));
            watched.hear(answer, *commits);
        }
        watched.open("newest");
    }
}

/// One break in a row of bytes.
#[derive(Clone, Debug)]
enum Break {
    Set(u8),
    Insert(u8),
    Delete,
    Cut,
    /// A piece of so many bytes is there twice.
    Repeat(u8),
}

fn broken() -> impl Strategy<Value = (Index, Break)> {
    let byte = || prop_oneof![any::<u8>(), select(br#"{}[]",:\ud8-e0"#.to_vec())];
    let how = prop_oneof![
        4 => byte().prop_map(Break::Set),
        3 => byte().prop_map(Break::Insert),
        2 => Just(Break::Delete),
        1 => Just(Break::Cut),
        1 => any::<u8>().prop_map(Break::Repeat),
    ];
    (any::<Index>(), how)
}

fn break_up(mut bytes: Vec<u8>, breaks: &[(Index, Break)]) -> Vec<u8> {
    for (at, how) in breaks {
        if bytes.is_empty() {
            break;
        }
        let at = at.index(bytes.len());
        match how {
            Break::Set(byte) => bytes[at] = *byte,
            Break::Insert(byte) => bytes.insert(at, *byte),
            Break::Delete => drop(bytes.remove(at)),
            Break::Cut => bytes.truncate(at),
            Break::Repeat(length) => {
                let piece = bytes[at..bytes.len().min(at + usize::from(*length))].to_vec();
                bytes.splice(at..at, piece);
            }
        }
    }
    bytes
}

/// What VK may answer a poll with, and what may become of it on the way.
fn any_answer() -> impl Strategy<Value = Vec<u8>> {
    let ts = prop_oneof![
        (0u64..100_000).prop_map(|ts| ts.to_string()),
        (0u64..100_000).prop_map(|ts| quoted(&ts.to_string())),
        "[!-~]{1,66}".prop_map(|ts| quoted(&ts)),
        select(LEAVES.as_slice()).prop_map(str::to_owned),
    ];
    let leaf = |text: String| Json::Leaf(text);
    let updates = (ts.clone(), prop::collection::vec(any_sound(), 0..3)).prop_map(move |(ts, updates)| {
        Json::Object(vec![(quoted("ts"), leaf(ts)), (quoted("updates"), Json::List(updates))])
    });
    let failed =
        (select(vec!["1", "2", "3", "4", "\"1\"", "\"3\"", "null", "0", "1.0"]), ts).prop_map(move |(failed, ts)| {
            Json::Object(vec![(quoted("failed"), leaf(failed.to_owned())), (quoted("ts"), leaf(ts))])
        });
    let whole = prop_oneof![4 => updates, 3 => failed, 1 => any_json()];
    let spoils = prop_oneof![2 => Just(Vec::new()), 3 => spoils()];
    let breaks = prop_oneof![3 => Just(Vec::new()), 1 => prop::collection::vec(broken(), 1..4)];
    let answer = (whole, spoils, breaks)
        .prop_map(|(json, spoils, breaks)| break_up(spoiled(json, spoils).text().into_bytes(), &breaks));
    prop_oneof![
        8 => answer,
        1 => prop::collection::vec(any::<u8>(), 0..80),
        1 => "\\PC{0,80}".prop_map(String::into_bytes),
    ]
}

/// What VK wrote, by the JSON of it alone: nothing of ours reads it but the parser.
struct Written {
    ts: Option<String>,
    failed: Option<String>,
    updates: Vec<String>,
}

impl Written {
    fn of(text: &str) -> Self {
        let text = text.trim_start_matches('\u{feff}').trim();
        let fields: BTreeMap<String, Box<RawValue>> = serde_json::from_str(text).expect("an object");
        let plain = |key: &str| {
            let raw = fields.get(key).map(|raw| raw.get()).filter(|raw| *raw != "null")?;
            Some(serde_json::from_str::<String>(raw).unwrap_or_else(|_| raw.to_owned()))
        };
        let updates: Vec<Box<RawValue>> =
            fields.get("updates").and_then(|raw| serde_json::from_str(raw.get()).ok()).unwrap_or_default();
        let updates = updates.iter().map(|update| update.get().to_owned()).collect();
        Self { ts: plain("ts"), failed: plain("failed"), updates }
    }
}

/// The session, and what it must ask with.
struct Watched {
    session: Session,
    ts: Option<String>,
    lost: bool,
}

impl Watched {
    fn new(ts: Option<String>) -> Self {
        let checkpoint = ts.as_deref().map(|ts| Ts::parse(ts).expect("a ts"));
        Self { session: Session::new(checkpoint), ts, lost: false }
    }

    /// Opens a session where one is wanted; then it polls with the ts that is on disk.
    fn open(&mut self, newest: &str) {
        if matches!(self.session.step(), Step::Open) {
            let ts = Ts::parse(newest).expect("a ts");
            let reply = SessionReply { server: "https://lp".into(), key: Secret::new("k"), ts };
            let commit = self.session.opened(reply);
            assert_eq!(commit.is_some(), self.ts.is_none() || self.lost, "a new ts is taken only where there is none");
            if let Some(commit) = commit {
                let from = commit.gap().map(|(from, _)| from.as_str());
                assert_eq!((commit.ts().as_str(), from), (newest, self.ts.as_deref()));
                self.commit(commit);
            }
        }
        let Step::Poll { ts, .. } = self.session.step() else { panic!("it polls") };
        assert_eq!(Some(ts.as_str()), self.ts.as_deref());
    }

    fn commit(&mut self, commit: Commit) {
        self.ts = Some(commit.ts().as_str().to_owned());
        self.lost = false;
        self.session.committed(commit);
    }

    /// An answer comes, and what it asks for is committed, or that fails.
    fn hear(&mut self, answer: &[u8], commits: bool) {
        let text = mend(answer);
        let reply = poll_reply(&text);
        let written = reply.as_ref().ok().map(|_| Written::of(&text));
        let written = written.as_ref();
        let failed = written.and_then(|written| written.failed.as_deref()?.parse::<i64>().ok());
        let commit = match reply {
            Ok(PollReply::Updates { ts, updates }) => {
                assert_eq!(written.map(|written| written.failed.as_deref()), Some(None), "{text}");
                let raw: Vec<&str> = updates.iter().map(|update| update.get()).collect();
                assert_eq!(
                    written.map(|written| written.updates.iter().map(String::as_str).collect()),
                    Some(raw.clone())
                );
                assert_eq!(convert_all(&raw, false).len(), raw.len());
                Some(self.session.updates(ts))
            }
            Ok(PollReply::Outdated { ts: Some(ts) }) => {
                assert_eq!(failed, Some(1), "{text}");
                Some(self.session.outdated(ts))
            }
            Ok(PollReply::Outdated { ts: None }) => {
                assert_eq!(failed, Some(1), "{text}");
                self.lost |= self.session.outdated_nowhere();
                None
            }
            Ok(PollReply::KeyExpired) => {
                assert_eq!(failed, Some(2), "{text}");
                self.session.key_expired();
                None
            }
            Ok(PollReply::Lost) => {
                assert_eq!(failed, Some(3), "{text}");
                self.session.lost();
                self.lost = true;
                None
            }
            Ok(PollReply::Unknown { code }) => {
                assert_eq!(failed, Some(code), "{text}");
                let _wished = self.session.unreadable();
                None
            }
            Err(error) => {
                assert!(!error.what.is_empty());
                let _wished = self.session.unreadable();
                None
            }
        };
        if let Some(commit) = commit {
            assert_eq!(Some(commit.ts().as_str()), written.and_then(|written| written.ts.as_deref()), "{text}");
            let from = commit.gap().map(|(from, _)| from.as_str());
            assert!(from.is_none() || from == self.ts.as_deref());
            if commits {
                self.commit(commit);
            }
        }
        if let Step::Poll { ts, .. } = self.session.step() {
            assert_eq!(Some(ts.as_str()), self.ts.as_deref(), "{text}");
        }
    }
}
