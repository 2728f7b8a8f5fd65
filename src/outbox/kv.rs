//! The storage seam: what the outbox asks of a store. Two stores stand behind it, `sled_kv` on disk and `sim::kv` in
//! memory (which can fail and forget); `tests/it/kv_conformance.rs` holds both to these words.
//!
//! Invariants of every store: a batch is atomic; once [`Kv::commit`] answered `Ok` it survives a power cut; keys come
//! back in byte order. Deliberately absent: iterators (a page at a time keeps memory bounded) and transactions (there
//! is one writer).

use std::io;

/// A set of changes that happens whole or not at all. Later changes of a key win.
#[derive(Clone, Debug, Default)]
pub struct Batch(Vec<(Vec<u8>, Option<Vec<u8>>)>);

impl Batch {
    /// Writes a value.
    pub fn put(&mut self, key: Vec<u8>, value: Vec<u8>) {
        self.0.push((key, Some(value)));
    }

    /// Deletes a key, whether it is there or not.
    pub fn delete(&mut self, key: Vec<u8>) {
        self.0.push((key, None));
    }

    /// Whether nothing would change.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The changes in the order they were asked for; `None` deletes.
    #[must_use]
    pub fn changes(&self) -> &[(Vec<u8>, Option<Vec<u8>>)] {
        &self.0
    }
}

/// A key and its value.
pub type Pair = (Vec<u8>, Vec<u8>);

/// What a store may answer instead of doing what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum KvError {
    /// The operating system refused.
    #[error("the disk refused: {0}")]
    Io(#[from] io::Error),
    /// The store itself is broken.
    #[error("the store is damaged: {0}")]
    Damaged(String),
}

impl KvError {
    /// Whether the volume had no room.
    #[must_use]
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Io(error) if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded))
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

    /// Makes a batch happen, atomically; on disk for good when this answers `Ok`. Blocks.
    ///
    /// # Errors
    /// When it could not be made durable: it may or may not have happened, and the caller must stop writing.
    fn commit(&self, batch: &Batch) -> Result<(), KvError>;

    /// How many bytes of disk the store uses.
    ///
    /// # Errors
    /// When it cannot be asked.
    fn disk_bytes(&self) -> Result<u64, KvError>;
}
