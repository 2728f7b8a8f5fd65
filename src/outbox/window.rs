//! The latest chunks in memory, so that workers that keep up never read the store. Bounded by bytes. Deliberately absent:
//! any promise that something is here; who does not find it reads the log.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use super::log::{Chunk, Logged};
use crate::domain::ids::Seq;

/// How many bytes of bodies are kept.
const WINDOW_BYTES: usize = 4 << 20;

/// The window: consecutive chunks, the last of which ends at the head.
#[derive(Debug, Default)]
pub(super) struct Window(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    chunks: VecDeque<Arc<Chunk>>,
    bytes: usize,
}

impl Window {
    /// Takes in what was committed; the oldest goes when there is too much.
    pub(super) fn push(&self, events: Vec<Logged>) {
        let Some(first) = events.first().map(|logged| logged.queued.seq) else { return };
        let chunk = Chunk { first, events };
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inner.bytes += size(&chunk);
        inner.chunks.push_back(Arc::new(chunk));
        while inner.bytes > WINDOW_BYTES
            && let Some(oldest) = inner.chunks.pop_front()
        {
            inner.bytes -= size(&oldest);
        }
    }

    /// Chunks from the one that holds `from` on, up to about `max_bytes`; nothing when the window begins later.
    #[must_use]
    pub(super) fn read(&self, from: Seq, max_bytes: usize) -> Option<Vec<Arc<Chunk>>> {
        let inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if inner.chunks.front().is_none_or(|chunk| chunk.first > from) {
            return None;
        }
        let start = inner.chunks.partition_point(|chunk| chunk.end() <= from);
        let mut bytes = 0;
        let mut found = Vec::new();
        for chunk in inner.chunks.range(start..) {
            found.push(Arc::clone(chunk));
            bytes += size(chunk);
            if bytes >= max_bytes {
                break;
            }
        }
        (!found.is_empty()).then_some(found)
    }
}

fn size(chunk: &Chunk) -> usize {
    chunk.events.iter().map(|logged| logged.queued.event.body.len() + 256).sum()
}
