//! A store as sled's log has it, read without sled and without writing: what sled would open, or, for a salvage, everything
//! that can be read at all. A change that cannot be read takes nothing else with it.
//!
//! Deliberately absent: writing, and what a kept record means. What cannot be read is told by [`Pages::findings`].

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::page::{Data, Link, Node, root};
use super::recovery::recover;
use super::snapshot::Snapshot;
use super::told::key_told;
use super::{Log, SEGMENT, message};
use crate::outbox::keys;
use crate::outbox::kv::{Batch, Disk, Kv, KvError, Pair};
use crate::outbox::sled_kv::disk_of;

/// How many findings are kept; more are only counted.
const FINDINGS: usize = 100;
/// How many pages are kept as they were read: a record and its parts may lie in two.
const KEPT_PAGES: usize = 4;
/// The page of a leaf that is lost.
pub(super) const NOWHERE: u64 = u64::MAX;

/// How much is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::outbox) enum View {
    /// What sled would open: nothing behind a tear, no batch that is not whole.
    AsOpened,
    /// Whatever can be read: rather again than never.
    Everything,
}

/// The page that names the trees.
const NAMES_PAGE: u64 = 0;
/// The page that counts sled's ids. Without it sled opens nothing.
const COUNTER_PAGE: u64 = 1;

/// Where a message is: its position in the log, its place in the file, the length of all of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) position: u64,
    pub(super) offset: u64,
    pub(super) length: usize,
}

/// A page: what it was when it was last written whole, and what changed since.
#[derive(Debug, Default)]
pub(super) struct Page {
    pub(super) base: Option<Place>,
    pub(super) links: Vec<Place>,
}

impl Page {
    /// The position of the latest change.
    pub(super) fn newest(&self) -> u64 {
        self.links.last().or(self.base.as_ref()).map_or(0, |place| place.position)
    }
}

/// A leaf of the tree, as far as it is not another's: keys from `low` on, below `high` unless that is empty.
#[derive(Clone, Debug)]
pub(super) struct Leaf {
    pub(super) low: Vec<u8>,
    pub(super) high: Vec<u8>,
    pub(super) page: u64,
}

impl Leaf {
    /// Whether a key lies behind this leaf.
    fn lies_behind(&self, key: &[u8]) -> bool {
        !self.high.is_empty() && key >= self.high.as_slice()
    }
}

pub(super) type Entries = BTreeMap<Vec<u8>, Vec<u8>>;

/// A store that is read from its log.
pub(in crate::outbox) struct Pages {
    pub(super) log: Log,
    dir: PathBuf,
    pub(super) view: View,
    pub(super) pages: HashMap<u64, Page>,
    pub(super) root: Option<u64>,
    pub(super) leaves: Vec<Leaf>,
    /// For a salvage, records from where the log itself cannot be read.
    pub(super) torn: BTreeMap<Vec<u8>, Place>,
    doubts: Vec<String>,
    findings: Vec<String>,
    found: u64,
    kept: Mutex<Vec<(usize, Arc<Entries>)>>,
}

impl Pages {
    /// Reads the log in a store's directory.
    ///
    /// # Errors
    /// [`KvError::Io`] when it cannot be read. Damage is a finding.
    pub(in crate::outbox) fn open(dir: &Path, view: View) -> Result<Self, KvError> {
        let mut store = match view {
            View::AsOpened => Self::recovered(dir)?,
            View::Everything => {
                let mut store = Self::empty(dir, view)?;
                store.replay()?;
                store
            }
        };
        store.find_leaves()?;
        Ok(store)
    }

    /// The same as sled would open it, ready for single keys: that takes no longer for a store that holds much.
    ///
    /// # Errors
    /// As [`Pages::open`].
    pub(in crate::outbox) fn recovered(dir: &Path) -> Result<Self, KvError> {
        let mut store = Self::empty(dir, View::AsOpened)?;
        let found = recover(&store.log, Snapshot::newest(dir)?)?;
        (store.pages, store.doubts) = (found.pages, found.doubts);
        found.damage.into_iter().for_each(|words| store.finding(words));
        store.root = store.base(NAMES_PAGE)?.and_then(|bytes| root(&bytes));
        if store.base(COUNTER_PAGE)?.is_none() {
            store.finding("the page of sled's counter cannot be read".to_owned());
        }
        Ok(store)
    }

    fn empty(dir: &Path, view: View) -> Result<Self, KvError> {
        Ok(Self {
            log: Log::open(dir)?,
            dir: dir.to_owned(),
            view,
            pages: HashMap::new(),
            root: None,
            leaves: Vec::new(),
            torn: BTreeMap::new(),
            doubts: Vec::new(),
            findings: Vec::new(),
            found: 0,
            kept: Mutex::default(),
        })
    }

    /// What sled would pass over, in words. It may be remains that are nobody's.
    #[must_use]
    pub(in crate::outbox) fn doubts(&self) -> &[String] {
        &self.doubts
    }

    /// What could not be read, in words; the first hundred, and how many there are.
    #[must_use]
    pub(in crate::outbox) fn findings(&self) -> (&[String], u64) {
        (&self.findings, self.found)
    }

    pub(super) fn finding(&mut self, words: String) {
        self.found += 1;
        if self.findings.len() < FINDINGS {
            self.findings.push(words);
        }
    }

    /// The body of a message, if it can be read.
    ///
    /// # Errors
    /// When the disk refuses.
    pub(super) fn body(&self, place: Place) -> Result<Option<Vec<u8>>, KvError> {
        let bytes = match self.log.bytes(place.offset, place.length) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            bytes => bytes?,
        };
        let found = message(&bytes, 0).filter(|found| found.number == place.position / SEGMENT);
        Ok(found.and_then(|found| bytes.get(found.body).map(<[u8]>::to_vec)))
    }

    /// A page as it was when it was last written whole, if that can be read.
    ///
    /// # Errors
    /// When the disk refuses.
    pub(super) fn base(&self, page: u64) -> Result<Option<Vec<u8>>, KvError> {
        let base = self.pages.get(&page).and_then(|page| page.base);
        Ok(base.map(|place| self.body(place)).transpose()?.flatten())
    }

    /// What a leaf holds: what its page says, and where that says nothing, what stands where the log is torn.
    fn entries(&self, leaf: &Leaf) -> Result<Entries, KvError> {
        let mut entries = if leaf.page == NOWHERE { Entries::new() } else { self.page_entries(leaf)? };
        // A page that was written whole later knows better.
        let since = self.pages.get(&leaf.page).and_then(|page| page.base).map(|base| base.position);
        for (key, place) in self.torn.range(leaf.low.clone()..) {
            if leaf.lies_behind(key) {
                break;
            }
            if since < Some(place.position) && !entries.contains_key(key) {
                entries.insert(key.clone(), self.log.bytes(place.offset, place.length)?);
            }
        }
        Ok(entries)
    }

    /// What the page of a leaf says.
    pub(super) fn page_entries(&self, leaf: &Leaf) -> Result<Entries, KvError> {
        let unreadable = || KvError::Damaged(format!("page {} of the store cannot be read", leaf.page));
        let body = |place: Place| self.body(place)?.ok_or_else(unreadable);
        let mut entries = Entries::new();
        let page = self.pages.get(&leaf.page).ok_or_else(unreadable)?;
        let bytes = page.base.map(body).transpose()?;
        let node = match &bytes {
            Some(bytes) => Some(Node::read(bytes).ok_or_else(unreadable)?),
            None => None,
        };
        let changes: Vec<_> = page.links.iter().map(|place| body(*place)).collect::<Result<_, _>>()?;
        let mut prefix = match &node {
            Some(node) => node.prefix.to_vec(),
            None => prefix_of(&changes, leaf),
        };
        if let Some(Data::Leaf(pairs)) = node.map(|node| node.data) {
            entries.extend(pairs.into_iter().map(|(key, value)| ([&prefix, key].concat(), value.to_vec())));
        }
        for change in &changes {
            match Link::read(change) {
                Some(Link::Set(key, value)) => {
                    let mut whole = [&prefix, key].concat();
                    // Where a whole page between could not be read, its keys may begin otherwise.
                    if self.view == View::Everything && !keys::is_ours(&whole) {
                        let Some(told) = key_told(key, value) else { continue };
                        prefix.clone_from(&told[..told.len() - key.len()].to_vec());
                        whole = told;
                    }
                    entries.insert(whole, value.to_vec());
                }
                Some(Link::Del(key)) => drop(entries.remove(&[&prefix, key].concat())),
                _ => {}
            }
        }
        entries.retain(|key, _| *key >= leaf.low && !leaf.lies_behind(key));
        Ok(entries)
    }

    fn leaf(&self, number: usize) -> Result<Arc<Entries>, KvError> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, entries)) = kept.iter().find(|(other, _)| *other == number) {
            return Ok(entries.clone());
        }
        let entries = Arc::new(self.leaves.get(number).map_or_else(|| Ok(Entries::new()), |leaf| self.entries(leaf))?);
        if kept.len() == KEPT_PAGES {
            kept.remove(0);
        }
        kept.push((number, entries.clone()));
        Ok(entries)
    }

    /// The last leaf that begins at or before a key.
    fn leaf_of(&self, key: &[u8]) -> usize {
        self.leaves.partition_point(|leaf| leaf.low.as_slice() <= key).saturating_sub(1)
    }
}

impl Kv for Pages {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, KvError> {
        if self.leaves.is_empty() {
            let leaf = self.leaf_down_to(key)?;
            return Ok(leaf.map(|leaf| self.entries(&leaf)).transpose()?.and_then(|mut entries| entries.remove(key)));
        }
        Ok(self.leaf(self.leaf_of(key))?.get(key).cloned())
    }

    fn scan(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Pair>, KvError> {
        let mut pairs = Vec::new();
        if from >= to {
            return Ok(pairs);
        }
        for number in self.leaf_of(from)..self.leaves.len() {
            if pairs.len() >= limit || self.leaves.get(number).is_some_and(|leaf| leaf.low.as_slice() >= to) {
                break;
            }
            let entries = self.leaf(number)?;
            let some = entries.range(from.to_vec()..to.to_vec()).take(limit - pairs.len());
            pairs.extend(some.map(|(key, value)| (key.clone(), value.clone())));
        }
        Ok(pairs)
    }

    fn last(&self, from: &[u8], to: &[u8]) -> Result<Option<Pair>, KvError> {
        if from >= to {
            return Ok(None);
        }
        for number in (self.leaf_of(from)..=self.leaf_of(to)).rev() {
            let entries = self.leaf(number)?;
            if let Some((key, value)) = entries.range(from.to_vec()..to.to_vec()).next_back() {
                return Ok(Some((key.clone(), value.clone())));
            }
        }
        Ok(None)
    }

    fn apply(&self, _: &Batch) -> Result<(), KvError> {
        Err(KvError::Io(io::ErrorKind::ReadOnlyFilesystem.into()))
    }

    fn sync(&self) -> Result<(), KvError> {
        Ok(())
    }

    fn disk(&self) -> Result<Disk, KvError> {
        disk_of(&self.dir)
    }
}

/// What the keys of a page begin with whose whole form is lost.
fn prefix_of(changes: &[Vec<u8>], leaf: &Leaf) -> Vec<u8> {
    let told = changes.iter().find_map(|change| match Link::read(change)? {
        Link::Set(key, value) => key_told(key, value).map(|told| told[..told.len() - key.len()].to_vec()),
        _ => None,
    });
    told.unwrap_or_else(|| {
        let same = leaf.low.iter().zip(&leaf.high).take_while(|(one, other)| one == other).count();
        leaf.low[..same].to_vec()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbox::sled_kv::SledKv;
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    fn all(kv: &dyn Kv) -> Vec<Pair> {
        kv.scan(&[], &[u8::MAX], usize::MAX).expect("scanned")
    }

    fn copy(from: &Path, to: &Path) {
        let _old = std::fs::remove_dir_all(to);
        std::fs::create_dir_all(to).expect("made");
        for entry in std::fs::read_dir(from).expect("read") {
            let entry = entry.expect("an entry");
            if entry.file_type().expect("a type").is_file() {
                std::fs::copy(entry.path(), to.join(entry.file_name())).expect("copied");
            }
        }
    }

    fn same(found: &[Pair], expected: &[Pair], round: &str) {
        let one = found.iter().find(|pair| !expected.contains(pair));
        let other = expected.iter().find(|pair| !found.contains(pair));
        let words = |pair: Option<&Pair>| pair.map(|(key, value)| (keys::readable(key), value.len()));
        assert!(found == expected, "{round}: only without sled {:?}, only with sled {:?}", words(one), words(other));
    }

    /// Pages split and merge, segments are used again, the store is opened anew: read without sled it is the same, as it is
    /// on the disk of a process that was killed.
    #[test]
    fn a_store_reads_the_same_without_sled() {
        let of = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
        let seed = of("SLED_LOG_SEED").unwrap_or_else(|| u64::from(std::process::id()));
        let rounds = of("SLED_LOG_ROUNDS").unwrap_or(25);
        let mut random = StdRng::seed_from_u64(seed);
        let dir = tempfile::tempdir().expect("a directory");
        let (live, killed) = (dir.path().join("live"), dir.path().join("killed"));
        let mut kv = SledKv::open(&live).expect("opened");
        let (mut tail, mut next) = (0u64, 0u64);
        for round in 0..rounds {
            for _ in 0..random.random_range(1..12) {
                let mut batch = Batch::default();
                for _ in 0..random.random_range(0..20) {
                    let size = if random.random_range(0..5) == 0 { 16_000 } else { random.random_range(0..600) };
                    batch.put(keys::chunk(crate::domain::ids::Seq(next)), vec![7; size]);
                    next += 1;
                    let row = random.random_range(0..500u64).to_be_bytes();
                    let row = [b"k/".as_slice(), &row, &row].concat();
                    if random.random() { batch.put(row, vec![1; 200]) } else { batch.delete(row) }
                }
                // Now and then the log is shortened to almost nothing: pages merge.
                let to = if random.random_range(0..6) == 0 { next.saturating_sub(5) } else { tail + 4 };
                (tail..to.min(next)).for_each(|seq| batch.delete(keys::chunk(crate::domain::ids::Seq(seq))));
                tail = tail.max(to.min(next));
                batch.put(keys::HEAD.to_vec(), next.to_be_bytes().to_vec());
                kv.commit(&batch).expect("committed");
            }
            copy(&live, &killed);
            let pages = Pages::open(&killed, View::AsOpened).expect("opened");
            assert_eq!(pages.findings(), (&[][..], 0), "round {round} of SLED_LOG_SEED={seed}");
            assert!(pages.doubts().is_empty(), "round {round} of SLED_LOG_SEED={seed}: {:?}", pages.doubts());
            let direct = Pages::recovered(&killed).expect("opened");
            assert_eq!(direct.get(keys::HEAD).expect("read"), kv.get(keys::HEAD).expect("read"));
            let expected = all(&kv);
            same(&all(&pages), &expected, &format!("round {round} of SLED_LOG_SEED={seed}"));
            let (from, to) =
                (keys::chunk(crate::domain::ids::Seq(tail + 1)), keys::chunk(crate::domain::ids::Seq(next)));
            assert_eq!(pages.last(&from, &to).expect("read"), kv.last(&from, &to).expect("read"));
            same(
                &all(&Pages::open(&killed, View::Everything).expect("opened")),
                &expected,
                &format!("round {round} of SLED_LOG_SEED={seed}"),
            );
            if random.random_range(0..8) == 0 {
                drop(kv);
                if random.random() {
                    copy(&killed, &live);
                }
                kv = SledKv::open(&live).expect("opened");
            }
        }
    }
}
