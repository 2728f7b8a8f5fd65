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

    /// Waits until something stops the service: `stop`, a failed outbox, a task that ends. Then stops all and waits for
    /// them.
    ///
    /// # Errors
    /// What ended it, if it was not `stop`.
    pub async fn run(mut self, mut failed: watch::Receiver<Option<OutboxError>>) -> Result<(), RunError> {
        let stop = self.stop.clone();
        // What the outbox says first is the cause: the tasks fail because of it.
        let ended = tokio::select! {
            biased;
            () = stop.cancelled() => Ended::Asked,
            failure = failed.wait_for(Option::is_some) => Ended::Outbox(failure.ok().and_then(|failure| failure.clone())),
            Some(task) = self.set.join_next() => Ended::Task(task),
        };
        let result = match ended {
            Ended::Asked => Ok(()),
            Ended::Outbox(Some(failure)) => Err(failure.into()),
            // It says why before it ends, unless it panicked.
            Ended::Outbox(None) => Err(RunError::Ended("outbox writer".to_owned())),
            Ended::Task(task) => self.of(task),
        };
        self.stop.cancel();
        let rest = async {
            let mut results = Vec::new();
            while let Some(task) = self.set.join_next().await {
                results.push(task);
            }
            results
        };
        let Ok(rest) = timeout(STOP_WITHIN, rest).await else {
            tracing::warn!("some tasks did not stop in time and were abandoned; nothing committed is lost");
            return result;
        };
        // The first trouble is the cause; what follows from it is not told again.
        rest.into_iter().map(|task| self.of(task)).fold(result, |first, next| first.and(next))
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

enum Ended {
    Asked,
    Outbox(Option<OutboxError>),
    Task(Result<(String, Result<(), RunError>), JoinError>),
}
