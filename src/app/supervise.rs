//! The tasks of a running service: the only file that spawns. Whatever ends first by itself ends all; whatever stops the
//! service stops all of them, and is waited for, but not forever. Deliberately absent: what the tasks do.

use std::future::Future;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{JoinError, JoinHandle, JoinSet};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::RunError;
use crate::outbox::OutboxError;

/// How long all tasks together may take to stop. Contract §7 allows 8 s in all.
const STOP_WITHIN: Duration = Duration::from_secs(7);

/// Starts a task beside the service: the listener for signals, the sender of the workstream log.
pub fn beside<T: Send + 'static>(task: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
    tokio::spawn(task)
}

/// Tasks that live and end together.
pub struct Tasks {
    set: JoinSet<(String, Result<(), RunError>)>,
    stop: CancellationToken,
}

impl Tasks {
    /// No tasks yet; `stop` stops them all.
    #[must_use]
    pub fn new(stop: CancellationToken) -> Self {
        Self { set: JoinSet::new(), stop }
    }

    /// Starts a task.
    pub fn spawn<E: Into<RunError>>(&mut self, name: &str, task: impl Future<Output = Result<(), E>> + Send + 'static) {
        let name = name.to_owned();
        self.set.spawn(async move { (name, task.await.map_err(Into::into)) });
    }

    /// Waits until something stops the service: `stop`, a failed outbox, a task that ends. Then stops all, waits for them, and
    /// closes the outbox, whose last commit may still fail.
    ///
    /// # Errors
    /// What ended it, if it was not `stop`. What the outbox says is the cause: the tasks fail because of it.
    pub async fn run(
        mut self,
        mut failed: watch::Receiver<Option<OutboxError>>,
        close: impl Future<Output = ()>,
    ) -> Result<(), RunError> {
        let stop = self.stop.clone();
        let ended = tokio::select! {
            biased;
            () = stop.cancelled() => Ok(()),
            // It says why before it ends, unless it panicked.
            _ = failed.wait_for(Option::is_some) => Err(RunError::Ended("outbox writer".to_owned())),
            Some(task) = self.set.join_next() => self.of(task),
        };
        self.stop.cancel();
        let ended = ended.and(self.rest().await);
        close.await;
        let failure = failed.borrow().clone();
        failure.map_or(ended, |failure| Err(failure.into()))
    }

    /// Waits for the tasks, but not forever. The first trouble is the cause; what follows from it is not told again.
    async fn rest(&mut self) -> Result<(), RunError> {
        let all = async {
            let mut results = Vec::new();
            while let Some(task) = self.set.join_next().await {
                results.push(task);
            }
            results
        };
        let Ok(all) = timeout(STOP_WITHIN, all).await else {
            tracing::warn!("some tasks did not stop in time and were abandoned; nothing committed is lost");
            return Ok(());
        };
        all.into_iter().map(|task| self.of(task)).fold(Ok(()), Result::and)
    }

    fn of(&self, task: Result<(String, Result<(), RunError>), JoinError>) -> Result<(), RunError> {
        match task {
            Ok((_, Ok(()))) if self.stop.is_cancelled() => Ok(()),
            Ok((name, Ok(()))) => Err(RunError::Ended(name)),
            Ok((_, Err(error))) => Err(error),
            Err(error) => Err(RunError::Panicked(error.to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbox::kv::KvError;

    /// Every task has ended well, and the last commit fails: that is no good end.
    #[tokio::test]
    async fn what_fails_while_the_outbox_is_closed_is_told() {
        let stop = CancellationToken::new();
        let (tell, failed) = watch::channel(None);
        let mut tasks = Tasks::new(stop.clone());
        let stopped = stop.clone();
        tasks.spawn("one", async move {
            stopped.cancelled().await;
            Ok::<(), RunError>(())
        });
        stop.cancel();
        let close = async {
            let error = KvError::Io(std::io::ErrorKind::StorageFull.into());
            tell.send_replace(Some(OutboxError::of_store(std::path::Path::new("outbox"), &error)));
        };
        let ended = tasks.run(failed, close).await;
        assert!(matches!(ended, Err(RunError::Outbox(_))), "{ended:?}");
    }
}
