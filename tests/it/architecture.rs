//! The house stands as `docs/ARCHITECTURE.md` draws it: floors, one file for what is dangerous, every file opened by words.

use std::fs;
use std::path::{Path, PathBuf};

/// What each room of `src/` may use of ours, besides itself.
const MAY_USE: [(&str, &[&str]); 16] = [
    ("domain", &[]),
    ("attempts", &["domain"]),
    ("clock", &["domain"]),
    ("metrics", &["domain"]),
    ("secret", &["domain"]),
    ("status", &["domain"]),
    ("outbox", &["domain", "clock", "metrics", "secret", "status"]),
    ("vk", &["domain", "clock", "secret", "status"]),
    ("delivery", &["domain", "clock", "secret", "status"]),
    ("admin", &["domain", "attempts", "clock", "metrics", "secret", "status", "outbox"]),
    ("config", &["domain", "secret", "outbox", "vk", "delivery", "app"]),
    (
        "app",
        &["domain", "attempts", "clock", "metrics", "secret", "status", "outbox", "vk", "delivery", "admin", "config"],
    ),
    ("sim", &["domain", "outbox"]),
    (
        "cli",
        &[
            "domain", "clock", "metrics", "secret", "status", "outbox", "vk", "delivery", "admin", "config", "app",
            "sim",
        ],
    ),
    ("main", &["cli"]),
    ("lib", &[]),
];

/// Words that only some files may say, and why.
const ONLY_IN: [(&str, &[&str], &str); 10] = [
    ("sled::", &["outbox/sled_kv.rs"], "the store is confined to one file"),
    ("::backoff::ExponentialBackoff", &["delivery/backoff.rs"], "the crate is confined to one file"),
    ("ring::hmac", &["delivery/signature.rs"], "one file signs"),
    ("spawn_blocking", &["outbox/handle.rs", "outbox/reads.rs"], "the disk is touched off the runtime in one room"),
    ("tokio::spawn", &["app/supervise.rs", "sim/vk_server.rs"], "one file starts tasks; the simulators start theirs"),
    (
        "thread::",
        &["outbox/writer.rs", "outbox/lock.rs", "outbox/sled_kv.rs", "outbox/handle.rs", "outbox/mod.rs"],
        "one thread of our own, and the wait for a lock",
    ),
    ("SystemTime::now", &["clock.rs"], "one clock"),
    ("unbounded_channel", &[], "every queue has a limit"),
    (
        ".expose()",
        &[
            "admin/tcp.rs",
            "secret.rs",
            "vk/client.rs",
            "delivery/sender.rs",
            "app/log.rs",
            "config/check.rs",
            "vk/wire.rs",
        ],
        "secrets are shown where they are sent",
    ),
    ("vk::wire", &["vk/mod.rs", "app/ingest.rs", "cli/check.rs"], "simulators do not share the parser"),
];

struct SourceFile {
    path: String,
    text: String,
}

impl SourceFile {
    /// The part that is built into the program.
    fn code(&self) -> &str {
        self.text.split("#[cfg(test)]").next().unwrap_or_default()
    }

    fn room(&self) -> &str {
        self.path.split('/').next().unwrap_or_default().trim_end_matches(".rs")
    }
}

fn sources() -> Vec<SourceFile> {
    fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).expect("read") {
            let path = entry.expect("an entry").path();
            if path.is_dir() { walk(&path, found) } else { found.push(path) }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut paths = Vec::new();
    walk(&root, &mut paths);
    let path = |path: &Path| path.strip_prefix(&root).expect("inside").display().to_string();
    paths
        .iter()
        .filter(|p| p.extension().is_some_and(|e| e == "rs"))
        .map(|p| SourceFile { path: path(p), text: fs::read_to_string(p).expect("read") })
        .collect()
}

/// The rooms that a line of code names with `crate::`, braces included.
fn rooms_named(code: &str) -> Vec<String> {
    let mut named = Vec::new();
    for rest in code.split("crate::").skip(1) {
        let list = match rest.strip_prefix('{') {
            Some(rest) => rest.split('}').next().unwrap_or_default().split(',').map(str::trim).collect(),
            None => vec![rest],
        };
        let word = |item: &str| item.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
        named.extend(list.into_iter().map(word).filter(|word| word.starts_with(char::is_lowercase)));
    }
    named
}

#[test]
fn no_room_uses_what_lies_above_or_beside_it() {
    for file in sources() {
        let room = file.room();
        let (_, allowed) = MAY_USE
            .iter()
            .find(|(name, _)| *name == room)
            .unwrap_or_else(|| panic!("a room without a floor: {}", file.path));
        let code: String = file
            .code()
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"))
            .map(|line| line.to_owned() + "\n")
            .collect();
        for named in rooms_named(&code) {
            assert!(named == room || allowed.contains(&named.as_str()), "{} uses {named}", file.path);
            let sim_below = room == "sim" && named == "outbox";
            assert!(
                !sim_below || !code.contains("crate::outbox::") || code.contains("crate::outbox::kv"),
                "{} uses more of the outbox than its seam",
                file.path
            );
            let sim_above = room == "cli" && named == "sim";
            assert!(
                !sim_above || matches!(file.path.as_str(), "cli/demo.rs" | "cli/simulate.rs"),
                "{} uses the simulators",
                file.path
            );
        }
    }
}

#[test]
fn what_is_dangerous_stands_in_one_place() {
    for file in sources() {
        let code: String = file.code().lines().filter(|line| !line.trim_start().starts_with("//")).collect();
        for (word, places, why) in ONLY_IN {
            let named = match word {
                "thread::" => code.contains("std::thread") && !code.contains("panicking"),
                _ => code.contains(word),
            };
            assert!(!named || places.contains(&file.path.as_str()), "{} says {word}: {why}", file.path);
        }
        if file.room() == "domain" {
            for word in ["tokio", "std::fs", "std::net", "Instant::now", "rand::", "async "] {
                assert!(!code.contains(word), "{} says {word}: the domain is pure", file.path);
            }
        }
    }
}

#[test]
fn every_file_opens_with_words_and_can_be_read_at_a_sitting() {
    for file in sources() {
        assert!(file.text.starts_with("//!"), "{} does not say what it is for", file.path);
        let lines = file.code().lines().count();
        assert!(lines <= 420, "{} has {lines} lines", file.path);
    }
}

#[test]
fn no_test_sleeps() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it");
    for entry in fs::read_dir(dir).expect("read") {
        let path = entry.expect("an entry").path();
        let text = fs::read_to_string(&path).expect("read");
        let calls = text.matches(concat!("sleep", "(")).count();
        assert_eq!(calls, 0, "{} sleeps instead of waiting for a fact", path.display());
    }
}
