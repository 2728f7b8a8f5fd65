//! Golden stores: outboxes as this version and every earlier one left them, opened by the present one with everything in them.
//! `GOLDEN_MAKE=1` makes one of the present version under `tests/fixtures/golden/`, with what its maker says is in it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use event_router::outbox::verify::verify;
use event_router::outbox::views::{ListState, Selector};
use event_router::outbox::{Store, audit, gaps, inspect, lookup, replay};
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use serde_json::{Value, json};

use crate::store_rig::{NOW, fill, open, pending};

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/golden")
}

/// Everything that people can see of an outbox, without where it lies and how large its files are.
fn seen(dir: &Path) -> Value {
    let store = Store::open_existing(dir, "test", Duration::from_secs(5)).expect("it opens");
    let kv = store.kv.as_ref();
    let told = verify(kv, &mut |_, _| {}).expect("read");
    assert!(told.sound && told.recounted, "{:?}", told.findings);
    let mut stats = serde_json::to_value(inspect::stats(kv, "", &[], NOW).expect("stats")).expect("JSON");
    for name in ["disk_bytes", "live_bytes", "used_bytes", "room_bytes", "kept_bytes"] {
        stats.as_object_mut().expect("an object").remove(name);
    }
    let rows = |state| {
        let selector = Selector { state, limit: Some(lookup::MAX_LIMIT), ..Selector::default() };
        let rows = lookup::list(kv, &selector).expect("listed");
        rows.into_iter().map(|row| (row.event_id, row.deliveries)).collect::<Vec<_>>()
    };
    let shown = |id: &str| lookup::show(kv, id).expect("read").expect("there");
    json!({
        "stats": stats,
        "all": rows(None),
        "dead": rows(Some(ListState::Dead)),
        "quarantined": rows(Some(ListState::Quarantined)),
        "an event": shown("3"),
        "a large one": shown("176"),
        "one in quarantine": shown("q1"),
        "gaps": gaps::all(kv).expect("gaps"),
        "replays": replay::all(kv, &[], NOW).expect("replays"),
        "audit": audit::all(kv).expect("audit"),
    })
}

/// Whether everything that its maker saw is there; later versions may tell more.
fn holds(seen: &Value, expected: &Value) -> bool {
    match (seen, expected) {
        (Value::Object(seen), Value::Object(expected)) => {
            expected.iter().all(|(key, expected)| seen.get(key).is_some_and(|seen| holds(seen, expected)))
        }
        (Value::Array(seen), Value::Array(expected)) => {
            seen.len() == expected.len() && seen.iter().zip(expected).all(|(seen, expected)| holds(seen, expected))
        }
        (seen, expected) => seen == expected,
    }
}

fn pack(dir: &Path, into: &Path) {
    // Megabytes that mean nothing: every start makes them anew.
    fs::remove_file(dir.join("RESERVE")).expect("removed");
    let mut archive = tar::Builder::new(GzEncoder::new(File::create(into).expect("made"), Compression::best()));
    archive.append_dir_all("outbox", dir).expect("packed");
    archive.into_inner().and_then(GzEncoder::finish).expect("packed");
}

fn unpack(archive: &Path, into: &Path) {
    tar::Archive::new(GzDecoder::new(File::open(archive).expect("opened"))).unpack(into).expect("unpacked");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_golden_store_opens_with_everything_in_it() {
    if std::env::var_os("GOLDEN_MAKE").is_some() {
        let dir = tempfile::tempdir().expect("a directory");
        let (data, name) = (dir.path().join("outbox"), env!("CARGO_PKG_VERSION"));
        fill(&data, 16).await;
        fs::write(golden().join(format!("{name}.json")), format!("{:#}\n", seen(&data))).expect("written");
        pack(&data, &golden().join(format!("{name}.tar.gz")));
    }
    let mut count = 0;
    for entry in fs::read_dir(golden()).expect("read") {
        let path = entry.expect("an entry").path();
        if path.extension().is_none_or(|end| end != "gz") {
            continue;
        }
        count += 1;
        let dir = tempfile::tempdir().expect("a directory");
        unpack(&path, dir.path());
        let expected = fs::read_to_string(path.with_extension("").with_extension("json")).expect("what its maker saw");
        let expected: Value = serde_json::from_str(&expected).expect("JSON");
        let data = dir.path().join("outbox");
        let seen = seen(&data);
        assert!(holds(&seen, &expected), "{}: {seen:#}", path.display());
        // And it goes on: what waits can be read by a worker.
        let outbox = open(&data).await.expect("opened to go on");
        let (_, _, events) = pending(&outbox, "buttons").await;
        assert!(events.is_empty(), "its cursor has looked at everything");
        outbox.close().await;
    }
    assert!(count > 0, "there is at least one");
}
