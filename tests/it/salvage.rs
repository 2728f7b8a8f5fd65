//! What a salvage promises: one damaged byte costs what stands there and no more, each loss is kept where it can be looked up,
//! and neither a look nor a salvage that fails leaves a trace. Random damage is `damage`'s.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use event_router::domain::event::Source;
use event_router::outbox::audit::AuditView;
use event_router::outbox::gaps::GapView;
use event_router::outbox::salvage::Salvaged;
use event_router::outbox::views::Row;
use event_router::outbox::{OutboxError, Store};

use crate::rig::BINARY;
use crate::store_rig::{append, copy, event, fill, open};

fn outbox(dir: &Path, words: &[&str]) -> Output {
    command(Command::new(BINARY), dir, words)
}

/// The same where no file may become longer than it is.
fn without_room(dir: &Path, words: &[&str]) -> Output {
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", "trap '' XFSZ; ulimit -f 0; exec \"$0\" \"$@\"", BINARY]);
    command(shell, dir, words)
}

fn command(mut command: Command, dir: &Path, words: &[&str]) -> Output {
    command.arg("outbox").args(words).env_clear().env("EVENT_ROUTER__OUTBOX__DIR", dir).current_dir("/");
    command.output().expect("run")
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn json<T: serde::de::DeserializeOwned>(dir: &Path, words: &[&str]) -> T {
    let output = outbox(dir, words);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// Changes a byte of an event of the middle wherever it stands in the log, which is not where the last commit is; says which.
fn damage(log: &Path) -> u64 {
    const SEGMENT: usize = 2 << 20;
    const DIGITS: usize = 3;
    let mut bytes = fs::read(log).expect("read");
    let zeros = [b'0'; 40 - DIGITS];
    let mut places: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
    for at in 0..bytes.len() - 40 {
        if bytes[at..].starts_with(&zeros) {
            let digits = std::str::from_utf8(&bytes[at + zeros.len()..at + 40]);
            let number = digits.ok().and_then(|digits| u64::from_str_radix(digits, 16).ok());
            places.entry(number.unwrap_or_default()).or_default().push(at);
        }
    }
    let last: BTreeSet<usize> =
        places.range(891..).flat_map(|(_, places)| places.iter().map(|at| at / SEGMENT)).collect();
    let is_apart = |places: &Vec<usize>| places.iter().all(|at| !last.contains(&(at / SEGMENT)));
    let (number, chosen) = places.range(300..700).find(|(_, places)| is_apart(places)).expect("an old one");
    chosen.iter().for_each(|at| bytes[*at] ^= 1);
    fs::write(log, bytes).expect("written");
    *number
}

/// The process was killed and the disk has lost a byte: all the other events come over, and what was lost is a gap for good.
#[tokio::test(flavor = "multi_thread")]
async fn one_damaged_byte_of_a_killed_store_costs_one_event() {
    let dir = tempfile::tempdir().expect("a directory");
    let [live, killed, saved] = ["live", "killed", "saved"].map(|name| dir.path().join(name));
    let running = open(&live).await.expect("opened");
    for answer in 0..90u64 {
        let events = (1..=10).map(|place| (event(answer * 10 + place, 5, 12_000), Source::Live, vec![1])).collect();
        running.append(append(answer + 1, events)).await.expect("committed");
    }
    copy(&live, &killed);
    running.close().await;
    let log = killed.join("generation-000001/db");
    let number = damage(&log);
    let before = fs::read(&log).expect("read");
    // Nothing lets sled at it.
    let opened = Store::open_existing(&killed, "test", Duration::from_secs(5)).map(drop);
    assert!(matches!(opened, Err(OutboxError::Damaged { .. })), "{opened:?}");
    for words in [&["list"][..], &["stats"], &["verify"], &["pause", "commands"]] {
        let output = outbox(&killed, words);
        assert_eq!(output.status.code(), Some(65), "{words:?}: {}", text(&output));
    }
    assert!(fs::read(&log).expect("read") == before, "what was refused has changed");
    let told: Salvaged = json(&killed, &["salvage", "--into", saved.to_str().expect("text"), "--json"]);
    assert!(fs::read(&log).expect("read") == before, "a salvage has changed what it read");
    assert_eq!(
        told.missing.iter().map(|missing| (missing.from, missing.to)).collect::<Vec<_>>(),
        [(number, number)],
        "{told:?}"
    );
    assert_eq!((told.commits_missing, told.checkpoints.as_slice()), (0, &[(77, "90".to_owned())][..]));
    let listed: Vec<Row> = json(&saved, &["list", "--state", "pending", "--limit", "1000", "--json"]);
    let there: BTreeSet<String> = listed.into_iter().map(|row| row.event_id).collect();
    let expected = (1..=900).filter(|other| *other != number).map(|number| format!("{number:040x}")).collect();
    assert_eq!(there, expected);
    let gaps: Vec<GapView> = json(&saved, &["gaps", "--json"]);
    let words = format!("lost to damage of the outbox: events {number}..{number}");
    assert!(gaps.iter().any(|gap| gap.cause.contains(&words)), "{gaps:?}");
    let audit: Vec<AuditView> = json(&saved, &["audit", "--json"]);
    assert!(audit.iter().any(|row| row.what == "salvage, not of everything"), "{audit:?}");
}

/// Where the disk takes nothing more, it can still be looked; what a salvage cannot finish is not left in the way.
#[tokio::test(flavor = "multi_thread")]
async fn a_look_needs_no_room_and_a_salvage_without_it_leaves_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let [full, saved] = ["full", "saved"].map(|name| dir.path().join(name));
    fill(&full, 8).await;
    fs::write(full.join("lock"), "").expect("written");
    for words in [&["list"][..], &["stats"], &["verify"], &["gaps"]] {
        let output = without_room(&full, words);
        assert_eq!(output.status.code(), Some(0), "{words:?}: {}", text(&output));
    }
    let salvage = ["salvage", "--into", saved.to_str().expect("text")];
    let failed = without_room(&full, &salvage);
    assert_eq!(failed.status.code(), Some(1), "{}", text(&failed));
    assert_eq!(fs::read_dir(&saved).expect("there").count(), 0, "{}", text(&failed));
    let again = outbox(&full, &salvage);
    assert_eq!(again.status.code(), Some(0), "{}", text(&again));
    // Nor can it be put into the outbox that it reads.
    for inside in [full.clone(), full.join("saved"), full.join("generation-000001/saved")] {
        let refused = outbox(&full, &["salvage", "--into", inside.to_str().expect("text")]);
        assert!(refused.status.code() == Some(1) && text(&refused).contains("inside"), "{}", text(&refused));
        assert!(inside == full || !inside.exists());
    }
}
