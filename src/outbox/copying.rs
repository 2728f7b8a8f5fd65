//! Copying what is live into a new store, slice by slice between commits, in key order. What is written meanwhile below the
//! position goes to both. Deliberately absent: when (`upkeep`), where (`generations`).

use std::sync::Arc;
use std::time::Instant;

use super::kv::{Batch, Kv, KvError};

/// How many keys one slice has at most: a slice is the longest that a commit waits for the copy.
const SLICE_KEYS: usize = 32;
/// After how many bytes the copy is synced, so that the sync at its end is short.
const SYNC_BYTES: usize = 4 << 20;
/// Behind every key.
const END: [u8; 1] = [u8::MAX];

/// A copy that is being made.
pub(super) struct Copying {
    pub(super) to: Arc<dyn Kv>,
    pub(super) began: Instant,
    pub(super) bytes: u64,
    /// Everything below is copied.
    position: Vec<u8>,
    unsynced: usize,
}

impl Copying {
    pub(super) fn new(to: Arc<dyn Kv>) -> Self {
        Self { to, began: Instant::now(), bytes: 0, position: Vec::new(), unsynced: 0 }
    }

    /// Copies the next keys; answers whether that was all of them.
    pub(super) fn slice(&mut self, from: &dyn Kv) -> Result<bool, KvError> {
        let page = from.scan(&self.position, &END, SLICE_KEYS)?;
        let all = page.len() < SLICE_KEYS;
        let mut batch = Batch::default();
        for (key, value) in page {
            self.unsynced += key.len() + value.len();
            self.bytes += (key.len() + value.len()) as u64;
            self.position = [key.as_slice(), &[0]].concat();
            batch.put(key, value);
        }
        if !batch.is_empty() {
            self.to.apply(&batch)?;
        }
        if self.unsynced >= SYNC_BYTES {
            self.unsynced = 0;
            self.to.sync()?;
        }
        if all {
            self.position = END.to_vec();
        }
        Ok(all)
    }

    /// Does to the copy what was done to the original.
    pub(super) fn mirror(&mut self, batch: &Batch) -> Result<(), KvError> {
        let mut below = Batch::default();
        for (key, value) in batch.changes().iter().filter(|(key, _)| *key < self.position) {
            self.unsynced += key.len() + value.as_ref().map_or(0, Vec::len);
            match value {
                Some(value) => below.put(key.clone(), value.clone()),
                None => below.delete(key.clone()),
            }
        }
        if below.is_empty() { Ok(()) } else { self.to.apply(&below) }
    }
}
