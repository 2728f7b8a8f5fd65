//! What the VK side must know to work. Defaults live in `config` alone.

use std::time::Duration;

use rustls::pki_types::CertificateDer;

use crate::domain::ids::GroupId;
use crate::secret::Secret;

/// How to reach VK, as whom, for which community.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Access token of the community.
    pub token: Secret,
    /// The community.
    pub group_id: GroupId,
    /// Base of the API, without a slash at the end; `/method/<name>` is appended.
    pub api_url: String,
    /// `v` of every call.
    pub api_version: String,
    /// A session older than this is renewed, its ts kept: some silently stop bringing events.
    pub session_max_age: Duration,
    /// Whether messages that gaps swallow are fetched back.
    pub backfill: bool,
    /// How long VK holds a poll open when there is nothing to say (whole seconds, at most 90).
    pub wait: Duration,
    /// CAs that VK's certificate may come from besides those of the system: of a proxy that ends TLS, of a simulator.
    pub ca: Vec<CertificateDer<'static>>,
}

/// How names are looked up.
#[derive(Clone, Debug, PartialEq)]
pub struct NamesSettings {
    /// Whether names are looked up at all.
    pub enabled: bool,
    /// The longest that the events of one answer wait for names.
    pub timeout: Duration,
    /// How long a name that was found is believed.
    pub cache_ttl: Duration,
    /// How many names are kept.
    pub cache_entries: u64,
}
