//! A store in memory behind the outbox's storage seam. It can fail on command, with or without the batch having happened,
//! as a disk can. Deliberately absent: any disk.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::outbox::kv::{Batch, Kv, KvError, Pair};

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
}

/// The store; clones share it, so that it can be reopened after its user is gone.
#[derive(Clone, Debug, Default)]
pub struct MemoryKv(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    map: BTreeMap<Vec<u8>, Vec<u8>>,
    fault: CommitFault,
    commits: u64,
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

    /// How many commits have happened.
    #[must_use]
    pub fn commits(&self) -> u64 {
        self.lock().commits
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
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

    fn commit(&self, batch: &Batch) -> Result<(), KvError> {
        let mut inner = self.lock();
        let fault = inner.fault;
        let failure = || KvError::Io(io::Error::other("a failure on command"));
        if fault == CommitFault::FailsBefore {
            return Err(failure());
        }
        for (key, value) in batch.changes() {
            match value {
                Some(value) => drop(inner.map.insert(key.clone(), value.clone())),
                None => drop(inner.map.remove(key)),
            }
        }
        inner.commits += 1;
        if fault == CommitFault::FailsAfter { Err(failure()) } else { Ok(()) }
    }

    fn disk_bytes(&self) -> Result<u64, KvError> {
        let inner = self.lock();
        Ok(inner.map.iter().map(|(key, value)| (key.len() + value.len()) as u64).sum())
    }
}
