//! What an operator changes, as changes in a batch. Part of the writer's state. Deliberately absent: who may (the socket's
//! mode), what is asked before (`cli`), replays (`replay`).

use std::collections::BTreeMap;
use std::time::Duration;

use super::keys::DestinationId;
use super::kv::{Batch, Kv, KvError};
use super::open::Store;
use super::records::PauseRecord;
use super::requests::Operation;
use super::state::State;

/// Does what an operator asks for in an outbox that no service runs; answers how many rows, or destinations, it changed.
///
/// # Errors
/// When the store cannot be read or written.
pub fn operate(store: &mut Store, operation: Operation) -> Result<u64, KvError> {
    let mut state = State::load(store.kv.as_ref(), Duration::ZERO)?;
    let mut batch = Batch::default();
    let count = state.operate(store.kv.as_ref(), &mut batch, operation)?;
    store.commit(&mut state, batch)?;
    Ok(count)
}

impl State {
    /// Does it; answers how many rows, or destinations, it changed.
    ///
    /// # Errors
    /// When a row cannot be read.
    pub fn operate(&mut self, kv: &dyn Kv, batch: &mut Batch, operation: Operation) -> Result<u64, KvError> {
        match operation {
            Operation::Pause(id, pause) => Ok(self.set_pause(id, Some(pause))),
            Operation::Resume(id) => Ok(self.set_pause(id, None)),
            Operation::DiscardQuarantined(numbers) => self.discard_quarantined(kv, batch, &numbers),
        }
    }

    fn set_pause(&mut self, id: DestinationId, pause: Option<PauseRecord>) -> u64 {
        let Some(record) = self.destinations.get_mut(&id).filter(|record| record.pause != pause) else { return 0 };
        record.pause = pause;
        self.dirty.destinations.insert(id);
        1
    }

    /// Every pause, whether it lasts or is over.
    pub(super) fn pauses(&self) -> BTreeMap<DestinationId, PauseRecord> {
        self.destinations.iter().filter_map(|(id, record)| Some((*id, record.pause.clone()?))).collect()
    }
}
