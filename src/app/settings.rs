//! Everything a running service must know: the sum of what its components must know.

use std::net::SocketAddr;

use crate::domain::convert;
use crate::domain::route::Rule;
use crate::secret::Secret;
use crate::{delivery, outbox, vk};

/// The whole service.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// What the service calls itself.
    pub service_name: String,
    /// How to reach VK.
    pub vk: vk::Settings,
    /// How names are looked up.
    pub names: vk::NamesSettings,
    /// How events are written.
    pub events: convert::Settings,
    /// Where the outbox is.
    pub outbox: outbox::Settings,
    /// Every destination and what it takes, in the order of their names.
    pub destinations: Vec<(delivery::Settings, Rule)>,
    /// Where log records go besides stderr.
    pub workstream_log: Option<WorkstreamSettings>,
    /// The operator's door besides the socket.
    pub admin: AdminSettings,
}

/// The `[admin]` of the contract.
#[derive(Clone, Debug, PartialEq)]
pub struct AdminSettings {
    /// Where TCP is listened at, if anywhere.
    pub listen: Option<SocketAddr>,
    /// What whoever comes by TCP must show.
    pub token: Option<Secret>,
}

/// The `[workstream_log]` of the contract.
#[derive(Clone, Debug, PartialEq)]
pub struct WorkstreamSettings {
    /// Where records are posted; may carry a secret.
    pub url: Secret,
    /// Least important level that is sent.
    pub level: tracing::Level,
}
