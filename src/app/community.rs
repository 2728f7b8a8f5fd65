//! Looks once at the community's Long Poll settings and says what will never come because it is off. Delivery and polling do
//! not wait for it. Deliberately absent: changing the settings.

use std::time::Duration;

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::explain::explain;
use crate::domain::ids::DestinationName;
use crate::domain::route::Rule;
use crate::outbox::OutboxError;
use crate::vk::community::advice;
use crate::vk::{CallError, Client, ErrorClass};

/// Between two tries, as long as VK cannot be reached.
const PAUSE: Duration = Duration::from_secs(60);

/// What the task is made of.
pub(super) struct Community {
    /// Calls VK.
    pub(super) client: Client,
    /// Who takes what.
    pub(super) destinations: Vec<(DestinationName, Rule)>,
}

impl Community {
    /// Says what is to be said, then waits for `stop`.
    pub(super) async fn run(self, stop: CancellationToken) -> Result<(), OutboxError> {
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.look() => stop.cancelled().await,
        }
        Ok(())
    }

    async fn look(&self) {
        loop {
            match self.client.long_poll_settings().await {
                Ok(told) => {
                    let rules: Vec<_> = self.destinations.iter().map(|(name, rule)| (name.as_str(), rule)).collect();
                    for words in advice(&told, &rules) {
                        tracing::warn!(words, "the community's settings");
                    }
                    return;
                }
                // Polling has the same trouble, and says so.
                Err(CallError::Api(api)) if api.class() != ErrorClass::Transient => {
                    let error = explain(&CallError::Api(api));
                    tracing::info!(error, "the community's Long Poll settings cannot be read");
                    return;
                }
                Err(_) => sleep(PAUSE).await,
            }
        }
    }
}
