//! The running service as an operator's desk: what changes goes to the outbox's writer, or to the worker that keeps the
//! cursor. Deliberately absent: what a change is (`outbox::operator`).

use tokio::sync::oneshot;

use super::api::Door;
use crate::domain::ids::Seq;
use crate::domain::time::Moment;
use crate::outbox::operator::{Desk, Look};
use crate::outbox::{Discard, Operation, OutboxError};

impl Desk for Door {
    const OFFLINE: bool = false;

    async fn look<T: Send + 'static>(&mut self, look: Look<T>) -> Result<T, OutboxError> {
        self.outbox.read_store(look).await
    }

    async fn operate(&mut self, operations: Vec<Operation>) -> Result<Vec<u64>, OutboxError> {
        self.outbox.operate(operations).await
    }

    async fn withdraw(&mut self, destination: &str, seq: Seq) -> Result<Option<Result<(), String>>, OutboxError> {
        let Some((_, worker)) = self.workers.iter().find(|(name, _)| name.as_str() == destination) else {
            return Ok(None);
        };
        let (reply, answer) = oneshot::channel();
        worker.send(Discard { seq, reply }).await.map_err(|_| OutboxError::Closed)?;
        answer.await.map(Some).map_err(|_| OutboxError::Closed)
    }

    fn configured(&self) -> Vec<String> {
        self.configured.iter().map(ToString::to_string).collect()
    }

    fn now(&self) -> Moment {
        self.clock.now()
    }
}
