//! A power cut: an image of the store is made in the middle of a commit, where each page that was written since the last
//! sync is old or new at random, the file may be short, and what sled never syncs may be missing. Every image opens with
//! everything that was acknowledged; the commit in the middle happened whole or not at all.
//! A random test prints its seed and takes it back (`POWER_SEED`, `POWER_CUTS`).

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use event_router::clock::Clock;
use event_router::domain::event::Source;
use event_router::outbox::generations::Generations;
use event_router::outbox::kv::{Batch, Disk, Kv, KvError, Pair};
use event_router::outbox::records::Space;
use event_router::outbox::sled_kv::SledKv;
use event_router::outbox::space::Limits;
use event_router::outbox::state::State;
use event_router::outbox::verify::verify;
use event_router::outbox::{Change, Look, Outbox, Place, Settings, Store, frame, keys};
use event_router::sim::kv::MemoryDisk;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::store_rig::{NAMES, NOW, append, contents, event, names, pending, settlement};

const PAGE: usize = 4096;

/// A store on disk whose power is cut, in images, in the middle of commits.
struct Cut {
    kv: SledKv,
    dir: PathBuf,
    images: PathBuf,
    opened: Arc<AtomicU64>,
    inner: Mutex<Inner>,
}

struct Inner {
    /// The log as it was when it was last synced.
    synced: Vec<u8>,
    /// How many commits were durable then.
    commits: u64,
    random: StdRng,
}

impl Cut {
    fn log(&self) -> Vec<u8> {
        fs::read(self.dir.join("db")).expect("read")
    }

    /// What the disk may hold when the power goes now, as an outbox.
    fn image(&self, inner: &mut Inner) -> PathBuf {
        let image = self.images.join("image");
        let _gone = fs::remove_dir_all(&image);
        let path = image.join("generation-000001");
        fs::create_dir_all(&path).expect("made");
        fs::copy(self.images.join("empty/CURRENT"), image.join("CURRENT")).expect("copied");
        let commits = inner.commits.to_be_bytes();
        let note = [commits.as_slice(), &crc32fast::hash(&commits).to_be_bytes()].concat();
        fs::write(image.join("COMMITS"), note).expect("noted");
        let written = self.log();
        let old = &inner.synced;
        let mut log = Vec::with_capacity(written.len());
        // Now and then hardly anything came through, now and then nearly all.
        let share = [0.05, 0.5, 0.95][inner.random.random_range(0..3)];
        for at in (0..written.len()).step_by(PAGE) {
            let new = &written[at..(at + PAGE).min(written.len())];
            if inner.random.random::<f64>() > share {
                let kept = old.get(at..old.len().min(at + new.len())).unwrap_or_default();
                log.extend_from_slice(kept);
                log.extend(std::iter::repeat_n(0, new.len() - kept.len()));
            } else {
                log.extend_from_slice(new);
            }
        }
        if inner.random.random() {
            // What was appended since may not be there at all.
            log.truncate(inner.random.random_range(old.len().min(log.len())..=log.len()));
        }
        fs::write(path.join("db"), log).expect("written");
        for entry in fs::read_dir(&self.dir).expect("read") {
            let entry = entry.expect("an entry");
            let name = entry.file_name().to_string_lossy().into_owned();
            let Ok(bytes) = fs::read(entry.path()) else { continue };
            // Snapshots are never synced: they may be missing or short.
            let kept = match name.as_str() {
                "db" => continue,
                "conf" => bytes.len(),
                _ if inner.random.random_range(0..3) == 0 => continue,
                _ if inner.random.random_range(0..3) == 0 => inner.random.random_range(0..=bytes.len()),
                _ => bytes.len(),
            };
            fs::write(path.join(name), &bytes[..kept]).expect("written");
        }
        image
    }

    fn check(&self, before: &[Pair], after: &[Pair], inner: &mut Inner) {
        let image = self.image(inner);
        let is_whole = |found: Vec<Pair>, how: &str| {
            let whole = found == before || found == after;
            assert!(whole, "{how}, an image holds neither the state before a commit nor the one after");
        };
        let look = Look::open(&image, "test", Duration::ZERO).unwrap_or_else(|error| panic!("a look: {error}"));
        is_whole(look.at(|kv| Ok(contents(kv))).expect("read"), "looked at");
        drop(look);
        let store = Store::open_existing(&image, "test", Duration::from_secs(5));
        let store = store.unwrap_or_else(|error| panic!("an image is opened: {error}"));
        is_whole(contents(store.kv.as_ref()), "opened");
        self.opened.fetch_add(1, Ordering::SeqCst);
    }
}

impl Kv for Cut {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, KvError> {
        self.kv.get(key)
    }

    fn scan(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Pair>, KvError> {
        self.kv.scan(from, to, limit)
    }

    fn last(&self, from: &[u8], to: &[u8]) -> Result<Option<Pair>, KvError> {
        self.kv.last(from, to)
    }

    fn apply(&self, batch: &Batch) -> Result<(), KvError> {
        let mut inner = self.inner.lock().expect("unpoisoned");
        let before = contents(&self.kv);
        self.kv.apply(batch)?;
        let after = contents(&self.kv);
        if inner.random.random_range(0..3) == 0 {
            self.check(&before, &after, &mut inner);
        }
        // sled has written and says that it has flushed; the disk has not.
        self.kv.flush_without_sync()?;
        self.check(&before, &after, &mut inner);
        Ok(())
    }

    fn sync(&self) -> Result<(), KvError> {
        self.kv.sync()?;
        let mut inner = self.inner.lock().expect("unpoisoned");
        inner.synced = self.log();
        inner.commits = frame::load::<Space>(&self.kv, keys::SPACE)?.unwrap_or_default().commits;
        Ok(())
    }

    fn disk(&self) -> Result<Disk, KvError> {
        self.kv.disk()
    }
}

fn start(path: &Path, images: &Path, seed: u64, opened: Arc<AtomicU64>) -> Outbox {
    let dir = path.join("store");
    let kv = SledKv::open(&dir).expect("opened");
    let mut batch = Batch::default();
    State::found(&mut batch);
    kv.commit(&batch).expect("committed");
    let synced = fs::read(dir.join("db")).expect("read");
    drop(Store::open_or_create(&images.join("empty"), "test", Duration::ZERO).expect("made"));
    let inner = Mutex::new(Inner { synced, commits: 0, random: StdRng::seed_from_u64(seed) });
    let kv = Arc::new(Cut { kv, dir, images: images.to_owned(), opened, inner });
    let generations: Box<dyn Generations> = Box::new(MemoryDisk::default());
    let store = Store { kv, generations, lock: None, dir: path.to_owned() };
    let limits = Limits { max_bytes: 8 << 30, min_free_bytes: 0 };
    let settings = Settings { dir: path.to_owned(), retention: Duration::ZERO, limits };
    Outbox::start(store, &settings, &names(), Clock::standing(NOW)).expect("started")
}

#[tokio::test(flavor = "multi_thread")]
async fn every_image_of_a_power_cut_opens_with_everything_acknowledged() {
    let number =
        |name: &str, default: u64| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default);
    let seed = number("POWER_SEED", u64::from(std::process::id()));
    let cuts = number("POWER_CUTS", 150);
    eprintln!("repeat with POWER_SEED={seed} POWER_CUTS={cuts}");
    let mut random = StdRng::seed_from_u64(seed);
    let dir = tempfile::tempdir().expect("a directory");
    let opened = Arc::new(AtomicU64::new(0));
    let outbox = start(dir.path(), &dir.path().join("images"), seed, Arc::clone(&opened));
    let (mut events, mut ts) = (0, 0);
    // Segments are used again once what was in them is delivered: that is where an older sync could be undone.
    while opened.load(Ordering::SeqCst) < cuts {
        ts += 1;
        let mut batch = Vec::new();
        // Now and then a commit is longer than a segment.
        let large = if random.random_range(0..15) == 0 { 1 } else { 40 };
        for _ in 0..random.random_range(1..60u32) {
            events += 1;
            let size = if random.random_range(0..large) == 0 { 40_000 } else { random.random_range(50..3000) };
            let takers = [vec![0], vec![1, 2], vec![0, 1, 2]][random.random_range(0..3)].clone();
            batch.push((event(events, 2_000_000_000 + random.random_range(0..5i64), size), Source::Live, takers));
        }
        outbox.append(append(ts, batch)).await.expect("committed");
        if random.random_range(0..3) == 0 {
            continue;
        }
        for name in NAMES {
            let (id, mut cursor, found) = pending(&outbox, name).await;
            let mut changes = Vec::new();
            for queued in found {
                cursor.settle(queued.seq);
                changes.push(match random.random_range(0..40) {
                    0 => Change::MovedAside { event: queued },
                    _ => Change::Delivered { seq: queued.seq, from: Place::Log, tried: false },
                });
            }
            outbox.settle_durably(settlement(id, &cursor, changes)).await.expect("settled");
        }
    }
    outbox.close().await;
    drop(outbox);
    let kv = SledKv::open(&dir.path().join("store")).expect("opened");
    let told = verify(&kv, &mut |_, _| {}).expect("read");
    assert!(told.sound, "{:?}", told.findings);
    eprintln!(
        "{} images opened, {events} events, {} bytes in the store",
        opened.load(Ordering::SeqCst),
        kv.disk().expect("asked").file
    );
}
