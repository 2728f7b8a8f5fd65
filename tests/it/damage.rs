//! Damage: every file of an outbox truncated, zeroed, bit-flipped, removed. The outcome is everything there, or a refusal with
//! instructions, at the latest when the damaged page is read; never a panic, a hang, an empty start, a silent gap. What is refused is salvaged: what comes of that is sound
//! and holds nothing that was not there. A random test prints its seed and takes it back (`DAMAGE_SEED`, `DAMAGE_CASES`).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use event_router::domain::ids::Seq;
use event_router::outbox::keys;
use event_router::outbox::kv::Pair;
use event_router::outbox::salvage::{Salvaged, salvage};
use event_router::outbox::verify::{Verified, verify};
use event_router::outbox::views::{ListState, Selector};
use event_router::outbox::{Look, OutboxError, Store, lookup};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::rig::BINARY;
use crate::store_rig::{NAMES, NOW, contents, contents_of, copy, fill, filled, open};

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).expect("read") {
        let path = entry.expect("an entry").path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

/// Damages one file; says which and how.
fn damage(dir: &Path, random: &mut StdRng) -> String {
    // sled makes a snapshot when it opens a store: where none was ever opened again there is none.
    if random.random_range(0..4) == 0 {
        let snapshots = files(dir).into_iter().filter(|path| path.to_string_lossy().contains("snap."));
        snapshots.for_each(|path| fs::remove_file(path).expect("removed"));
    }
    let all = files(dir);
    // Half of it where the data is.
    let log = all.iter().find(|path| path.ends_with("db")).expect("a log");
    let file = if random.random() { log } else { &all[random.random_range(0..all.len())] };
    let mut bytes = fs::read(file).expect("read");
    let at = random.random_range(0..bytes.len().max(1));
    let how = ["truncated", "zeroed", "flipped", "flipped", "a page zeroed", "a piece zeroed", "removed"]
        [random.random_range(0..7)];
    match how {
        "truncated" => bytes.truncate(at),
        "zeroed" => bytes.fill(0),
        "flipped" => bytes[at] ^= 1 << random.random_range(0..8),
        "a page zeroed" | "a piece zeroed" => {
            let start = at & !4095;
            let length = if how == "a page zeroed" { 4096 } else { random.random_range(4096..400_000) };
            let end = (start + length).min(bytes.len());
            bytes[start..end].fill(0);
        }
        _ => {}
    }
    if how == "removed" {
        fs::remove_file(file).expect("removed")
    } else {
        fs::write(file, bytes).expect("written")
    }
    let name = file.file_name().expect("a name").to_string_lossy();
    format!("{} {how}", name.split('.').next().unwrap_or_default())
}

/// Without what counts the commits themselves.
fn records(pairs: Vec<Pair>) -> Vec<Pair> {
    pairs.into_iter().filter(|(key, _)| key != keys::SPACE).collect()
}

/// What waits, as event ids, for each destination.
fn waiting(store: &Store) -> BTreeMap<&'static str, BTreeSet<String>> {
    let of = |name: &'static str| {
        let selector = Selector {
            destination: Some(name.to_owned()),
            state: Some(ListState::Pending),
            limit: Some(lookup::MAX_LIMIT),
            ..Selector::default()
        };
        let rows = lookup::list(store.kv.as_ref(), &selector).expect("listed");
        (name, rows.into_iter().map(|row| row.event_id).collect())
    };
    NAMES.map(of).into()
}

fn opened(dir: &Path) -> Store {
    Store::open_existing(dir, "test", Duration::from_secs(5)).expect("opened")
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// What a directory holds but for the lock, which says who came last.
fn bytes_of(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let all = files(dir).into_iter().filter(|path| !path.ends_with("lock"));
    all.map(|path| (path.clone(), fs::read(&path).expect("read"))).collect()
}

/// Looks at a damaged outbox, which changes nothing; whether everything was found sound.
fn looked_at(dir: &Path) -> bool {
    let before = bytes_of(dir);
    let look = Look::open_as_it_is(dir, "test", Duration::from_secs(5));
    let sound = look.and_then(|look| look.verify(&mut |_, _| {})).is_ok_and(|told| told.sound);
    assert!(bytes_of(dir) == before, "a look has changed what it looked at");
    sound
}

#[tokio::test(flavor = "multi_thread")]
async fn any_damage_ends_in_everything_there_or_in_a_refusal_and_a_salvage() {
    let seed = number("DAMAGE_SEED", u64::from(std::process::id()));
    let cases = number("DAMAGE_CASES", 20);
    eprintln!("repeat with DAMAGE_SEED={seed} DAMAGE_CASES={cases}");
    let mut random = StdRng::seed_from_u64(seed);
    let dir = tempfile::tempdir().expect("a directory");
    let [closed, killed, other] = ["closed", "killed", "other"].map(|name| dir.path().join(name));
    let outbox = filled(&closed, 160).await;
    copy(&closed, &killed);
    outbox.close().await;
    drop(outbox);
    copy(&killed, &other);
    assert!(records(contents_of(&other)) == records(contents_of(&closed)), "the kill has taken something");
    let whole = records(contents_of(&closed));
    let expected = waiting(&opened(&closed));
    let mut outcomes: BTreeMap<String, u32> = BTreeMap::new();
    let mut saved = (0, 0, 0);
    let mut least: BTreeMap<String, usize> = BTreeMap::new();
    for case in 0..cases {
        let victim = dir.path().join("victim");
        let (base, state) = if random.random() { (&closed, "closed") } else { (&killed, "killed") };
        copy(base, &victim);
        let done = format!("{state}, {}", damage(&victim, &mut random));
        let before = bytes_of(&victim);
        let looked = looked_at(&victim);
        let mut save = || {
            let found = salvaged(&victim, &dir.path().join("saved"), &expected);
            if let Some((events, of)) = found {
                saved = (saved.0 + 1, saved.1 + events, saved.2 + of);
                let share = least.entry(done.clone()).or_insert(100);
                *share = (*share).min(events * 100 / of);
            }
            found
        };
        let outcome = match open(&victim).await {
            Ok(outbox) => {
                outbox.close().await;
                drop(outbox);
                let store = opened(&victim);
                let told = verify(store.kv.as_ref(), &mut |_, _| {}).expect("read");
                if told.sound {
                    let now = records(contents(store.kv.as_ref()));
                    assert!(now == whole, "case {case}, {done}: something is missing in silence");
                    "everything there"
                } else {
                    assert!(!looked, "case {case}, {done}: a look does not find what is wrong");
                    // It lies where an opening does not look. Whoever reads it is told, as here; and the rest is salvaged.
                    drop(store);
                    save().expect("something is left");
                    "found when it is read, salvaged"
                }
            }
            Err(error @ OutboxError::Damaged { .. }) => {
                let words = error.to_string();
                let tells = [victim.display().to_string().as_str(), "outbox verify", "outbox salvage --into"]
                    .iter()
                    .all(|part| words.contains(part));
                assert!(tells, "{words}");
                assert!(!looked, "case {case}, {done}: refused, and a look finds nothing wrong: {words}");
                assert!(bytes_of(&victim) == before, "case {case}, {done}: refused, and changed: {words}");
                if save().is_some() { "refused, salvaged" } else { "refused, nothing left" }
            }
            Err(error) => panic!("case {case}, {done}: {error}"),
        };
        let lost = ["db zeroed", "db removed", "db truncated"].iter().any(|how| done.ends_with(how));
        assert!(lost || outcome != "refused, nothing left", "case {case}: {done}, and nothing can be salvaged");
        *outcomes.entry(format!("{done}: {outcome}")).or_default() += 1;
        fs::remove_dir_all(&victim).expect("removed");
    }
    outcomes.iter().for_each(|(words, count)| eprintln!("{count:5}  {words}"));
    let bound = |words: &str| {
        if words.ends_with("db truncated") {
            0
        } else if words.ends_with("db a piece zeroed") {
            40
        } else {
            95
        }
    };
    let little: Vec<_> = least.iter().filter(|(words, share)| **share < bound(words)).collect();
    assert!(little.is_empty(), "% salvaged: {little:?}");
    least.iter().for_each(|(words, share)| eprintln!("{share:4} % at least of what waited was salvaged: {words}"));
    let (stores, events, of) = saved;
    eprintln!("{cases} cases; {stores} salvaged with {events} of {of} waiting deliveries in them");
}

/// Salvages a damaged outbox; how many of the deliveries that waited are in what came of it, and of how many.
fn salvaged(from: &Path, into: &Path, expected: &BTreeMap<&'static str, BTreeSet<String>>) -> Option<(usize, usize)> {
    let before = files(from);
    let outcome = salvage(from, into, NOW, &mut |_| {});
    assert_eq!(files(from), before, "the old one stays");
    let all: usize = expected.values().map(BTreeSet::len).sum();
    let found = match outcome {
        Ok(told) => {
            let store = opened(into);
            let verified = verify(store.kv.as_ref(), &mut |_, _| {}).expect("read");
            assert!(verified.sound, "{:?} after {told:?}", verified.findings);
            let there = waiting(&store);
            let mut count = 0;
            for (name, ids) in expected {
                let mine = &there[name];
                count += ids.intersection(mine).count();
                // What is not there must be told.
                let silent = ids.len() > ids.intersection(mine).count() && !tells(&told);
                assert!(!silent, "{name} lost {} in silence: {told:?}", ids.len() - mine.len());
            }
            Some((count, all))
        }
        Err(OutboxError::Unreadable { .. }) => {
            assert!(!into.exists(), "nothing is begun where nothing can be read");
            return None;
        }
        Err(error) => panic!("{error}"),
    };
    fs::remove_dir_all(into).expect("removed");
    found
}

fn tells(told: &Salvaged) -> bool {
    told.commits_missing > 0 || !told.missing.is_empty() || told.holes_found > 0
}

fn outbox(dir: &Path, words: &[&str]) -> Output {
    let mut command = Command::new(BINARY);
    command.arg("outbox").args(words).env_clear().env("EVENT_ROUTER__OUTBOX__DIR", dir).current_dir(dir);
    command.output().expect("run")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A page in the middle of the log is lost: the commands say so with 65, and a salvage goes on around the hole.
#[tokio::test(flavor = "multi_thread")]
async fn the_commands_find_a_hole_and_bring_the_rest_over() {
    let dir = tempfile::tempdir().expect("a directory");
    let (sound, broken, saved) = (dir.path().join("sound"), dir.path().join("broken"), dir.path().join("saved"));
    fill(&sound, 160).await;
    let fine = outbox(&sound, &["verify", "--json"]);
    assert_eq!(fine.status.code(), Some(0), "{}", text(&fine.stdout));
    let told: Verified = serde_json::from_slice(&fine.stdout).expect("JSON");
    assert!(told.sound && told.recounted && told.events == 4000, "{told:?}");
    copy(&sound, &broken);
    let log = files(&broken).into_iter().find(|path| path.ends_with("db")).expect("a log");
    // A place inside a chunk of the middle: its text is there as it is.
    let mut bytes = fs::read(&log).expect("read");
    let needle = format!("{:040x}", 2000);
    let hits: Vec<usize> = bytes
        .windows(needle.len())
        .enumerate()
        .filter(|(_, window)| *window == needle.as_bytes())
        .map(|(at, _)| at)
        .collect();
    for at in hits {
        bytes[at] ^= 1;
    }
    fs::write(&log, bytes).expect("written");
    let verified = outbox(&broken, &["verify"]);
    assert_eq!(verified.status.code(), Some(65), "{}", text(&verified.stdout));
    let words = text(&verified.stdout) + &text(&verified.stderr);
    assert!(words.contains("salvage --into"), "{words}");
    let into = saved.display().to_string();
    let output = outbox(&broken, &["salvage", "--into", &into, "--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let told: Salvaged = serde_json::from_slice(&output.stdout).expect("JSON");
    let hole = told.missing.iter().find(|missing| missing.from <= 2000 && 2000 <= missing.to);
    assert!(hole.is_some_and(|hole| hole.to - hole.from < 400), "{:?}", told.missing);
    assert!(told.aside > 0 && told.dead > 0 && told.quarantined == 32, "{told:?}");
    assert_eq!(told.checkpoints, [(77, "260".to_owned())]);
    assert_eq!(outbox(&saved, &["verify"]).status.code(), Some(0));
    // The second time there is something in the way.
    let again = outbox(&broken, &["salvage", "--into", &into]);
    assert!(again.status.code() == Some(1) && text(&again.stderr).contains("not empty"), "{}", text(&again.stderr));
    // Everything that waits and is not in the hole is delivered from the new one: the workers read all of it.
    let outbox = open(&saved).await.expect("opened");
    for name in NAMES {
        let (_, _, events) = crate::store_rig::pending(&outbox, name).await;
        assert!(events.iter().all(|queued| queued.seq > Seq(told.missing[0].from)));
    }
    outbox.close().await;
}

/// Nothing is ever made in the place of an outbox that cannot be read.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_is_gone_is_no_empty_outbox() {
    let dir = tempfile::tempdir().expect("a directory");
    let sound = dir.path().join("sound");
    fill(&sound, 8).await;
    let log = files(&sound).into_iter().find(|path| path.ends_with("db")).expect("a log");
    let length = fs::metadata(&log).expect("there").len();
    fs::write(&log, vec![0; usize::try_from(length).expect("small")]).expect("written");
    let stats = outbox(&sound, &["stats"]);
    assert_eq!(stats.status.code(), Some(65), "{}", text(&stats.stderr));
    let nothing = outbox(&sound, &["salvage", "--into", &dir.path().join("saved").display().to_string()]);
    assert_eq!(nothing.status.code(), Some(65), "{}", text(&nothing.stderr));
}

/// Each of the small records can be lost alone: what comes of a salvage is sound, opens, and has everything that waits.
#[tokio::test(flavor = "multi_thread")]
async fn a_salvage_does_without_any_one_of_the_small_records() {
    let dir = tempfile::tempdir().expect("a directory");
    let sound = dir.path().join("sound");
    fill(&sound, 40).await;
    let expected = waiting(&opened(&sound));
    let lost = [
        keys::HEAD.to_vec(),
        keys::NAMES.to_vec(),
        keys::SPACE.to_vec(),
        keys::RING.to_vec(),
        keys::checkpoint(77),
        keys::destination(0),
        keys::destination(2),
        keys::chunk(Seq(1)),
    ];
    for key in lost {
        let (broken, saved) = (dir.path().join("broken"), dir.path().join("saved"));
        copy(&sound, &broken);
        let mut batch = event_router::outbox::kv::Batch::default();
        batch.delete(key.clone());
        opened(&broken).kv.commit(&batch).expect("committed");
        let name = keys::readable(&key);
        let told = salvage(&broken, &saved, NOW, &mut |_| {}).unwrap_or_else(|error| panic!("{name}: {error}"));
        let store = opened(&saved);
        let verified = verify(store.kv.as_ref(), &mut |_, _| {}).expect("read");
        assert!(verified.sound, "{name}: {:?}", verified.findings);
        let all = |state| {
            let selector = Selector { state, limit: Some(lookup::MAX_LIMIT), ..Selector::default() };
            let rows = lookup::list(store.kv.as_ref(), &selector).expect("listed");
            rows.into_iter().map(|row| row.event_id).collect::<BTreeSet<_>>()
        };
        let there = all(Some(ListState::Pending));
        let missing = expected.values().flatten().filter(|id| !there.contains(*id)).count();
        assert!(missing == 0 || tells(&told), "{name}: {missing} are missing in silence");
        assert!(missing < 40, "{name}: {missing} are missing");
        assert_eq!(told.checkpoints.is_empty(), key.starts_with(b"c/"), "{name}");
        let nameless = told.holes.iter().any(|hole| hole.contains("the name of destination"));
        assert_eq!(nameless, key == keys::NAMES, "{name}: {:?}", told.holes);
        drop(store);
        // And it goes on, with numbers that nothing has.
        let outbox = open(&saved).await.unwrap_or_else(|error| panic!("{name}: {error}"));
        let head = *outbox.watch_head().borrow();
        assert!(head > Seq(1000), "{name}: {head}");
        outbox.close().await;
        for used in [broken, saved] {
            fs::remove_dir_all(used).expect("removed");
        }
    }
}
