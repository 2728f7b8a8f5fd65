//! Generations: what a process leaves that dies between any two steps of replacing the store, what a failing copy leaves, and
//! the disk that comes back after a backlog. The directory is looked at as the next process would find it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use event_router::clock::Clock;
use event_router::domain::delivery::Death;
use event_router::domain::event::Source;
use event_router::outbox::generations::Generations;
use event_router::outbox::keys;
use event_router::outbox::kv::{Kv, KvError, Pair};
use event_router::outbox::verify::verify;
use event_router::outbox::{Change, Outbox, Place, Store};

use crate::rig::within;
use crate::store_rig::{NOW, append, contents, copy, event, fill, look_on, names, open, pending, settings, settlement};

/// Makes an image of the directory before and after each step.
struct Watched {
    inner: Box<dyn Generations>,
    dir: PathBuf,
    images: PathBuf,
    taken: Arc<AtomicUsize>,
    steps: Arc<Mutex<Vec<String>>>,
}

impl Watched {
    fn image(&self, step: &str) {
        let number = self.taken.fetch_add(1, Ordering::SeqCst);
        copy(&self.dir, &self.images.join(format!("{number}")));
        self.steps.lock().expect("unpoisoned").push(step.to_owned());
    }
}

impl Generations for Watched {
    fn begin(&mut self) -> Result<Arc<dyn Kv>, KvError> {
        self.image("before the new generation");
        let kv = self.inner.begin()?;
        self.image("the new generation is empty");
        Ok(kv)
    }

    fn switch(&mut self) -> Result<bool, KvError> {
        self.image("the new generation is synced");
        let switched = self.inner.switch()?;
        self.image("CURRENT is renamed");
        Ok(switched)
    }

    fn abandon(&mut self) {
        self.inner.abandon();
    }

    fn remove_old(&mut self) -> Result<(), KvError> {
        self.image("before the old one is removed");
        self.inner.remove_old()?;
        self.image("the old one is removed");
        Ok(())
    }

    fn suspect(&mut self) -> Result<(), KvError> {
        self.inner.suspect()
    }

    fn is_suspect(&self) -> bool {
        self.inner.is_suspect()
    }

    fn lay_by(&mut self, free: u64) -> Result<(), KvError> {
        self.inner.lay_by(free)
    }

    fn witness(&mut self, commits: u64) -> Result<(), KvError> {
        self.inner.witness(commits)
    }

    fn witnessed(&self) -> Option<u64> {
        self.inner.witnessed()
    }
}

fn records(kv: &dyn Kv) -> Vec<Pair> {
    contents(kv).into_iter().filter(|(key, _)| key != keys::SPACE).collect()
}

fn generations(dir: &Path) -> Vec<String> {
    let names = fs::read_dir(dir).expect("read").map(|entry| entry.expect("an entry").file_name());
    names.map(|name| name.to_string_lossy().into_owned()).filter(|name| name.starts_with("generation-")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_dies_between_any_two_steps_leaves_an_outbox_with_everything_in_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let (data, images) = (dir.path().join("data"), dir.path().join("images"));
    fill(&data, 40).await;
    let whole = records(Store::open_existing(&data, "test", Duration::from_secs(5)).expect("opened").kv.as_ref());
    // A commit that failed makes the next start copy first: that goes through every step.
    fs::write(data.join("SYNC-FAILED"), b"").expect("written");
    let mut store = Store::open_existing(&data, "test", Duration::from_secs(5)).expect("opened");
    let taken = Arc::new(AtomicUsize::new(0));
    let steps = Arc::new(Mutex::new(Vec::new()));
    let watched = |inner| Watched {
        inner,
        dir: data.clone(),
        images: images.clone(),
        taken: Arc::clone(&taken),
        steps: Arc::clone(&steps),
    };
    store.generations = Box::new(watched(store.generations));
    let outbox = Outbox::start(store, &settings(&data), &names(), Clock::standing(NOW)).expect("started");
    outbox.append(append(5000, Vec::new())).await.expect("committed");
    outbox.close().await;
    drop(outbox);
    let steps = steps.lock().expect("unpoisoned").clone();
    assert_eq!(
        steps,
        [
            "before the new generation",
            "the new generation is empty",
            "the new generation is synced",
            "CURRENT is renamed",
            "before the old one is removed",
            "the old one is removed"
        ]
    );
    for (number, step) in steps.iter().enumerate() {
        let image = images.join(number.to_string());
        let store =
            Store::open_existing(&image, "test", Duration::from_secs(5)).unwrap_or_else(|e| panic!("{step}: {e}"));
        assert_eq!(generations(&image).len(), 1, "{step}: what does not count is removed");
        let told = verify(store.kv.as_ref(), &mut |_, _| {}).expect("read");
        assert!(told.sound, "{step}: {:?}", told.findings);
        let now = records(store.kv.as_ref());
        let settled =
            |pairs: &[Pair]| pairs.iter().filter(|(key, _)| !key.starts_with(b"m/")).cloned().collect::<Vec<_>>();
        assert!(settled(&now) == settled(&whole), "{step}: something is missing");
        assert_eq!(image.join("SYNC-FAILED").exists(), number < 3, "{step}: copied first, unless it was");
    }
    assert_eq!(generations(&data), ["generation-000002"]);
}

/// A million events would take long here (`benches/churn.rs` has them): enough to be worth a copy.
#[tokio::test(flavor = "multi_thread")]
async fn a_drained_backlog_gives_its_disk_back_while_events_come() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut settings = settings(dir.path());
    settings.retention = Duration::ZERO;
    let open = || Outbox::open(settings.clone(), names(), "test", Duration::from_secs(5), Clock::system());
    let outbox = open().await.expect("opened");
    let mut number = 0;
    for ts in 1..=90 {
        let batch = (0..50).map(|_| {
            number += 1;
            (event(number, 5, 16_000), Source::Live, vec![0])
        });
        outbox.append(append(ts, batch.collect())).await.expect("committed");
    }
    let size = || {
        let all = generations(dir.path());
        let files = all.iter().flat_map(|name| fs::read_dir(dir.path().join(name)).expect("read"));
        files.map(|entry| entry.expect("an entry").metadata().map_or(0, |file| file.len())).sum::<u64>()
    };
    let full = size();
    assert!(full > 64 << 20, "{full}");
    let (id, mut cursor, events) = pending(&outbox, "buttons").await;
    for queued in events {
        cursor.settle(queued.seq);
        let change = Change::Delivered { seq: queued.seq, from: Place::Log, tried: false };
        outbox.settle(settlement(id, &cursor, vec![change])).await.expect("settled");
    }
    look_on(&outbox, &["commands", "messages"]).await;
    // Events go on coming while it is copied; those stay.
    let mut ts = 100;
    within("the disk", async {
        while generations(dir.path()) == ["generation-000001"] || generations(dir.path()).len() > 1 {
            ts += 1;
            number += 1;
            outbox.append(append(ts, vec![(event(number, 5, 300), Source::Live, vec![0])])).await.expect("committed");
        }
    })
    .await;
    outbox.close().await;
    drop(outbox);
    let outbox = open().await.expect("opened again");
    let (_, _, events) = pending(&outbox, "buttons").await;
    assert_eq!(events.len() as u64, ts - 100, "every event that came meanwhile is there");
    outbox.close().await;
    drop(outbox);
    let store = Store::open_existing(dir.path(), "test", Duration::from_secs(5)).expect("opened");
    let told = verify(store.kv.as_ref(), &mut |_, _| {}).expect("read");
    assert!(told.sound, "{:?}", told.findings);
    eprintln!("{full} bytes of files, then {}", size());
    assert!(size() < 16 << 20, "{}", size());
}

/// Events of megabytes: no value is large, so sled never puts one where it does not sync.
#[tokio::test(flavor = "multi_thread")]
async fn events_of_eight_megabytes_leave_no_blob() {
    let dir = tempfile::tempdir().expect("a directory");
    let outbox = open(dir.path()).await.expect("opened");
    let events = (1..=3).map(|number| (event(number, 5, 8 << 20), Source::Live, vec![0, 1, 2])).collect();
    outbox.append(append(1, events)).await.expect("committed");
    let (id, mut cursor, found) = pending(&outbox, "buttons").await;
    assert!(found.iter().all(|queued| queued.event.body.len() > 8 << 20));
    let changes = found.into_iter().map(|queued| {
        cursor.settle(queued.seq);
        let (at, death, history) = (NOW, Death::Refused(422), crate::store_rig::history(1));
        match queued.seq.0 {
            1 => Change::Died { event: queued, from: Place::Log, at, death, history },
            2 => Change::MovedAside { event: queued },
            _ => Change::Delivered { seq: queued.seq, from: Place::Log, tried: false },
        }
    });
    let changes = changes.collect();
    outbox.settle_durably(settlement(id, &cursor, changes)).await.expect("settled");
    outbox.close().await;
    drop(outbox);
    let blobs = fs::read_dir(dir.path().join("generation-000001/blobs")).map_or(0, Iterator::count);
    assert_eq!(blobs, 0);
    let store = Store::open_existing(dir.path(), "test", Duration::from_secs(5)).expect("opened");
    let told = verify(store.kv.as_ref(), &mut |_, _| {}).expect("read");
    assert!(told.sound, "{:?}", told.findings);
}
