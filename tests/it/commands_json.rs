//! `docs/JSON.md` and what the verbs of `outbox` really print with `--json`: every key of one is in the other, with its type, and
//! null only where that is said.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use event_router::admin::{AttemptLine, AttemptOutcome, TailLine};
use event_router::domain::time::Moment;
use event_router::outbox::salvage::{Missing, Salvaged};
use event_router::outbox::views::At;
use serde::Serialize;
use serde_json::Value;

use crate::commands::{CHANGES, LOOKS, every_state};
use crate::rig::Rig;

/// Sections of the document: the type of each key.
type Document = BTreeMap<String, BTreeMap<String, String>>;

fn document() -> Document {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/JSON.md");
    let (mut document, mut section) = (Document::new(), String::new());
    for line in fs::read_to_string(path).expect("read").lines() {
        if let Some(name) = line.strip_prefix("## ") {
            name.clone_into(&mut section);
        }
        if let Some((key, rest)) = line.strip_prefix("| `").and_then(|row| row.split_once("` | ")) {
            let kind = rest.split_once(" | ").expect("a type and words").0;
            let before = document.entry(section.clone()).or_default().insert(key.to_owned(), kind.to_owned());
            assert_eq!(before, None, "{section}: {key} stands there twice");
        }
    }
    document
}

/// Compares values with the document and notes which keys were there.
struct Reader {
    document: Document,
    seen: BTreeSet<(String, String)>,
}

impl Reader {
    fn read(&mut self, section: &str, value: &impl Serialize) {
        let value = serde_json::to_value(value).expect("JSON");
        self.walk(section, "", &value);
    }

    fn walk(&mut self, section: &str, path: &str, value: &Value) {
        match value {
            Value::Array(values) => values.iter().for_each(|value| self.walk(section, &format!("{path}[]"), value)),
            Value::Object(object) => {
                for (name, value) in object {
                    let key = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                    let kind = self.document[section].get(&key);
                    let kind = kind.unwrap_or_else(|| panic!("{section}: {key} is not documented"));
                    assert!(fits(kind, value), "{section}: {key} is {value}, documented as {kind}");
                    self.seen.insert((section.to_owned(), key.clone()));
                    // What is in a body is told elsewhere.
                    if key != "body" {
                        self.walk(section, &key, value);
                    }
                }
            }
            _ => {}
        }
    }

    async fn ask(&mut self, rig: &Rig, words: &[&str]) {
        let section = match words {
            ["resume", ..] => "pause",
            ["list", ..] if words.contains(&"--group") => "list --group",
            [verb, ..] => verb,
            [] => unreachable!("a verb"),
        };
        let output = rig.run(&[&["outbox"], words, &["--json"]].concat()).await;
        // What was refused is told on stderr.
        if output.status.success() {
            self.read(section, &serde_json::from_slice::<Value>(&output.stdout).expect("one value"));
        } else {
            assert!(output.stdout.is_empty(), "{words:?}: {output:?}");
        }
    }
}

fn fits(kind: &str, value: &Value) -> bool {
    let (kind, null) = kind.strip_suffix(" or null").map_or((kind, false), |kind| (kind, true));
    match (kind, value) {
        (_, Value::Null) => null,
        ("whole number", value) => value.is_u64() || value.is_i64(),
        ("text", value) => value.is_string(),
        ("moment", Value::String(text)) => {
            text.len() == 24 && text.ends_with('Z') && Moment::parse_rfc3339(text).is_ok()
        }
        ("true or false", value) => value.is_boolean(),
        ("list", value) => value.is_array(),
        ("object", value) => value.is_object(),
        _ => false,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_document_of_the_json_and_the_json_name_the_same_keys() {
    let dir = tempfile::tempdir().expect("a directory");
    let rig = every_state(dir.path()).await;
    let mut reader = Reader { document: document(), seen: BTreeSet::new() };
    for words in LOOKS {
        reader.ask(&rig, words).await;
    }
    let into = dir.path().join("salvaged");
    reader.ask(&rig, &["salvage", "--into", into.to_str().expect("text")]).await;
    let config = fs::read_to_string(rig.config()).expect("read");
    let full = config.replace("retention = ", "min_free_bytes = \"900TiB\"\nretention = ");
    fs::write(rig.config(), full).expect("written");
    let service = rig.start_unseen();
    rig.until("it is full", |stats| stats.full.is_some()).await;
    reader.ask(&rig, &["stats"]).await;
    for words in CHANGES {
        reader.ask(&rig, words).await;
    }
    service.stop().await;
    reader.read("salvage", &holes());
    reader.read("tail", &TailLine::Attempt(Box::new(attempt())));
    reader.read("tail", &TailLine::Missed { missed: 3 });
    for (section, keys) in &reader.document {
        for key in keys.keys() {
            assert!(reader.seen.contains(&(section.clone(), key.clone())), "{section}: {key} was never printed");
        }
    }
}

/// What a damaged outbox brings.
fn holes() -> Salvaged {
    let missing = Missing { from: 3, to: 5, after: None, before: None };
    Salvaged { missing: vec![missing], ..serde_json::from_str(SALVAGED).expect("whole") }
}

const SALVAGED: &str = r#"{"into":"x","events":1,"aside":0,"dead":0,"quarantined":0,"gaps":0,"checkpoints":[[1,"2"]],
    "commits_missing":0,"missing":[],"holes":["x"],"holes_found":1}"#;

fn attempt() -> AttemptLine {
    AttemptLine {
        at: At(Moment(1_709_107_923_456)),
        destination: "messages".to_owned(),
        seq: 42,
        event_id: "a1".to_owned(),
        event_type: "message_new".to_owned(),
        peer_id: Some(2_000_000_002),
        user_id: Some(100),
        replay: None,
        attempt: Some(1),
        batch: Some(1),
        latency_ms: Some(12),
        outcome: AttemptOutcome::Delivered,
        status: Some(200),
        error: None,
        excerpt: String::new(),
        next_try: None,
    }
}
