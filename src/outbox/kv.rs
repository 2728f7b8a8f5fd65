//! The storage seam: what the outbox asks of a store. Two stores stand behind it, `sled_kv` on disk and `sim::kv` in
//! memory (which can fail and forget); `tests/it/kv_conformance.rs` holds both to these words.
//!
//! Invariants of every store: a batch is atomic; once [`Kv::sync`] answered `Ok`, what was applied survives a power
//! cut; keys come
//! back in byte order. Deliberately absent: iterators (a page at a time keeps memory bounded) and transactions (there
//! is one writer).

use std::collections::HashSet;
use std::io;

use serde::{Deserialize, Serialize};

/// How many bytes of keys and values a store holds, by what they are for. What is small and bounded is not counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Weights<T> {
    /// Chunks of the log.
    pub log: T,
    /// Events of chats that were moved aside.
    pub aside: T,
    /// Dead letters.
    pub dead: T,
    /// Updates in quarantine.
    pub quarantined: T,
}

impl<T> Weights<T> {
    /// The one that a key counts for, by its prefix.
    fn of(&mut self, key: &[u8]) -> Option<&mut T> {
        match key.first()? {
            b'e' => Some(&mut self.log),
            b'p' => Some(&mut self.aside),
            b'x' => Some(&mut self.dead),
            b'q' => Some(&mut self.quarantined),
            _ => None,
        }
    }
}

impl Weights<u64> {
    /// All together.
    #[must_use]
    pub fn sum(&self) -> u64 {
        self.log + self.aside + self.dead + self.quarantined
    }

    /// Adds what a key and its value weigh, if they count.
    pub fn add(&mut self, key: &[u8], bytes: u64) {
        if let Some(weight) = self.of(key) {
            *weight += bytes;
        }
    }

    /// What is there after a change.
    pub fn change(&mut self, by: Weights<i64>) {
        self.log = self.log.saturating_add_signed(by.log);
        self.aside = self.aside.saturating_add_signed(by.aside);
        self.dead = self.dead.saturating_add_signed(by.dead);
        self.quarantined = self.quarantined.saturating_add_signed(by.quarantined);
    }
}

/// A set of changes that happens whole or not at all. Later changes of a key win.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    changes: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    weights: Weights<i64>,
    /// Rows that this batch takes away: whoever reads the store still finds them there.
    gone: HashSet<Vec<u8>>,
}

impl Batch {
    /// Writes a value.
    pub fn put(&mut self, key: Vec<u8>, value: Vec<u8>) {
        self.changes.push((key, Some(value)));
    }

    /// Deletes a key, whether it is there or not.
    pub fn delete(&mut self, key: Vec<u8>) {
        self.changes.push((key, None));
    }

    /// Says that what counts under `key` became `bytes` more (or less).
    pub fn weigh(&mut self, key: &[u8], bytes: i64) {
        if let Some(weight) = self.weights.of(key) {
            *weight += bytes;
        }
    }

    /// Says that the row under `key` is gone with this batch.
    pub fn gone(&mut self, key: &[u8]) {
        self.gone.insert(key.to_vec());
    }

    /// The value of a row, unless this batch has taken it away.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn row(&self, kv: &dyn Kv, key: &[u8]) -> Result<Option<Vec<u8>>, KvError> {
        if self.gone.contains(key) { Ok(None) } else { kv.get(key) }
    }

    /// How much more (or less) there is after this batch.
    #[must_use]
    pub fn weights(&self) -> Weights<i64> {
        self.weights
    }

    /// Whether nothing would change.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// The changes in the order they were asked for; `None` deletes.
    #[must_use]
    pub fn changes(&self) -> &[(Vec<u8>, Option<Vec<u8>>)] {
        &self.changes
    }
}

/// What a store takes of its volume.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Disk {
    /// Bytes that the store's files take.
    pub file: u64,
    /// Bytes that the volume has left for this process.
    pub free: u64,
}

/// A key and its value.
pub type Pair = (Vec<u8>, Vec<u8>);

/// What a store may answer instead of doing what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum KvError {
    /// The operating system refused.
    #[error("the disk refused: {0}")]
    Io(#[from] io::Error),
    /// What was written may not be on the disk, whatever the system's cache says.
    #[error("the disk could not be synced: {0}")]
    Unsynced(io::Error),
    /// The store itself is broken.
    #[error("the store is damaged: {0}")]
    Damaged(String),
}

impl KvError {
    /// Whether the volume had no room.
    #[must_use]
    pub fn is_full(&self) -> bool {
        let full = [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded];
        matches!(self, Self::Io(error) | Self::Unsynced(error) if full.contains(&error.kind()))
    }

    /// Whether what can be read back may not be what is on the disk. Where there was no room nothing was written.
    #[must_use]
    pub fn is_suspect(&self) -> bool {
        match self {
            Self::Io(_) => !self.is_full(),
            Self::Unsynced(_) => true,
            Self::Damaged(_) => false,
        }
    }
}

/// A sorted map from bytes to bytes with atomic, durable batches.
pub trait Kv: Send + Sync + 'static {
    /// The value of a key.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, KvError>;

    /// At most `limit` pairs with `from <= key < to`, in key order.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn scan(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Pair>, KvError>;

    /// The last pair with `from <= key < to`.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn last(&self, from: &[u8], to: &[u8]) -> Result<Option<Pair>, KvError>;

    /// Makes a batch happen, atomically; it survives a power cut only after [`Kv::sync`]. Blocks.
    ///
    /// # Errors
    /// When it could not be written: it may or may not have happened, and the caller must stop writing.
    fn apply(&self, batch: &Batch) -> Result<(), KvError>;

    /// Puts on disk for good whatever was applied. Blocks.
    ///
    /// # Errors
    /// When that is not certain: the caller must stop writing.
    fn sync(&self) -> Result<(), KvError>;

    /// Makes a batch happen, atomically, and on disk for good when this answers `Ok`. Blocks.
    ///
    /// # Errors
    /// When it could not be made durable: it may or may not have happened, and the caller must stop writing.
    fn commit(&self, batch: &Batch) -> Result<(), KvError> {
        self.apply(batch)?;
        self.sync()
    }

    /// What the store takes of its volume.
    ///
    /// # Errors
    /// When it cannot be asked.
    fn disk(&self) -> Result<Disk, KvError>;
}
