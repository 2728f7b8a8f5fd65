//! A store in memory behind the outbox's storage seam, and a disk that such stores lie on. It can fail on command, with or
//! without the batch having happened, and forget what was not synced, as a disk can. Deliberately absent: any disk.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::outbox::generations::Generations;
use crate::outbox::kv::{Batch, Disk, Kv, KvError, Pair};

/// What the next commit does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CommitFault {
    /// It happens.
    #[default]
    None,
    /// It answers an error and has not happened.
    FailsBefore,
    /// It answers an error although it has happened.
    FailsAfter,
    /// It answers an error, can be read, and is lost with the power.
    SyncFails,
}

/// The store; clones share it, so that it can be reopened after its user is gone.
#[derive(Clone, Debug, Default)]
pub struct MemoryKv(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    /// What is read.
    map: BTreeMap<Vec<u8>, Vec<u8>>,
    /// What survives a power cut.
    durable: BTreeMap<Vec<u8>, Vec<u8>>,
    unsynced: Vec<Batch>,
    fault: CommitFault,
    commits: u64,
    disk: Option<Disk>,
}

impl Inner {
    fn change(map: &mut BTreeMap<Vec<u8>, Vec<u8>>, batch: &Batch) {
        for (key, value) in batch.changes() {
            match value {
                Some(value) => drop(map.insert(key.clone(), value.clone())),
                None => drop(map.remove(key)),
            }
        }
    }
}

impl MemoryKv {
    /// Sets what every commit does from now on.
    pub fn set_fault(&self, fault: CommitFault) {
        self.lock().fault = fault;
    }

    /// What commits do now.
    #[must_use]
    pub fn fault(&self) -> CommitFault {
        self.lock().fault
    }

    /// Says what the store claims to take of its volume, instead of the truth.
    pub fn set_disk(&self, disk: Option<Disk>) {
        self.lock().disk = disk;
    }

    /// How many commits have happened.
    #[must_use]
    pub fn commits(&self) -> u64 {
        self.lock().commits
    }

    /// How many batches a power cut could take.
    #[must_use]
    pub fn unsynced(&self) -> usize {
        self.lock().unsynced.len()
    }

    /// The power goes and comes back: of what was not synced, the first `kept` batches are there.
    pub fn power_cut(&self, kept: usize) {
        let mut inner = self.lock();
        let unsynced = std::mem::take(&mut inner.unsynced);
        let Inner { map, durable, .. } = &mut *inner;
        unsynced.iter().take(kept).for_each(|batch| Inner::change(durable, batch));
        map.clone_from(durable);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn failure() -> KvError {
    KvError::Io(io::Error::other("a failure on command"))
}

impl Kv for MemoryKv {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, KvError> {
        Ok(self.lock().map.get(key).cloned())
    }

    fn scan(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Pair>, KvError> {
        if from >= to {
            return Ok(Vec::new());
        }
        let inner = self.lock();
        let range = inner.map.range(from.to_vec()..to.to_vec());
        Ok(range.take(limit).map(|(key, value)| (key.clone(), value.clone())).collect())
    }

    fn last(&self, from: &[u8], to: &[u8]) -> Result<Option<Pair>, KvError> {
        if from >= to {
            return Ok(None);
        }
        let inner = self.lock();
        let last = inner.map.range(from.to_vec()..to.to_vec()).next_back();
        Ok(last.map(|(key, value)| (key.clone(), value.clone())))
    }

    fn apply(&self, batch: &Batch) -> Result<(), KvError> {
        let mut inner = self.lock();
        if inner.fault == CommitFault::FailsBefore {
            return Err(failure());
        }
        Inner::change(&mut inner.map, batch);
        inner.unsynced.push(batch.clone());
        Ok(())
    }

    fn sync(&self) -> Result<(), KvError> {
        let mut inner = self.lock();
        if inner.fault == CommitFault::SyncFails {
            return Err(KvError::Unsynced(io::Error::other("a failure on command")));
        }
        let unsynced = std::mem::take(&mut inner.unsynced);
        unsynced.iter().for_each(|batch| Inner::change(&mut inner.durable, batch));
        inner.commits += 1;
        if inner.fault == CommitFault::FailsAfter { Err(failure()) } else { Ok(()) }
    }

    fn disk(&self) -> Result<Disk, KvError> {
        let inner = self.lock();
        let bytes = inner.map.iter().map(|(key, value)| (key.len() + value.len()) as u64).sum();
        Ok(inner.disk.unwrap_or(Disk { file: bytes, free: u64::MAX / 4 }))
    }
}

/// A disk that stores lie on: which one is opened next, and whether a commit failed. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct MemoryDisk(Arc<Mutex<Layout>>);

#[derive(Debug, Default)]
struct Layout {
    current: MemoryKv,
    next: Option<MemoryKv>,
    suspect: bool,
    witnessed: Option<u64>,
    switches: u64,
    /// What the next generation's commits do.
    next_fault: CommitFault,
}

impl MemoryDisk {
    /// The store that is opened next.
    #[must_use]
    pub fn current(&self) -> MemoryKv {
        self.lock().current.clone()
    }

    /// How many times a copy has replaced the store.
    #[must_use]
    pub fn switches(&self) -> u64 {
        self.lock().switches
    }

    /// Sets what commits to copies do that are begun from now on.
    pub fn set_next_fault(&self, fault: CommitFault) {
        self.lock().next_fault = fault;
    }

    fn lock(&self) -> MutexGuard<'_, Layout> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Generations for MemoryDisk {
    fn begin(&mut self) -> Result<Arc<dyn Kv>, KvError> {
        let mut layout = self.lock();
        let next = MemoryKv::default();
        next.set_fault(layout.next_fault);
        layout.next = Some(next.clone());
        Ok(Arc::new(next))
    }

    fn switch(&mut self) -> Result<bool, KvError> {
        let mut layout = self.lock();
        let Some(next) = layout.next.take() else { return Ok(false) };
        // The new one is as the old one was, in what it does and claims besides.
        next.set_fault(layout.current.fault());
        layout.current = next;
        layout.suspect = false;
        layout.switches += 1;
        Ok(true)
    }

    fn abandon(&mut self) {
        self.lock().next = None;
    }

    fn remove_old(&mut self) -> Result<(), KvError> {
        Ok(())
    }

    fn suspect(&mut self) -> Result<(), KvError> {
        self.lock().suspect = true;
        Ok(())
    }

    fn is_suspect(&self) -> bool {
        self.lock().suspect
    }

    fn lay_by(&mut self, _free: u64) -> Result<(), KvError> {
        Ok(())
    }

    fn witness(&mut self, commits: u64) -> Result<(), KvError> {
        self.lock().witnessed = Some(commits);
        Ok(())
    }

    fn witnessed(&self) -> Option<u64> {
        self.lock().witnessed
    }
}
