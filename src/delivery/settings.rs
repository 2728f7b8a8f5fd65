//! What a destination's worker must know to deliver. Defaults live in `config` alone.

use std::time::Duration;

use rustls::pki_types::CertificateDer;

use super::signature::SigningKey;
use crate::domain::ids::DestinationName;
use crate::secret::Secret;

/// One destination: where it is, how patient we are.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Its name, the key of everything kept about it.
    pub name: DestinationName,
    /// Where events are posted; checked to be an http or https URL.
    pub url: String,
    /// Static headers, names in lower case; values may be secrets.
    pub headers: Vec<(String, Secret)>,
    /// Keys that sign each request, one signature a key; without any, requests are not signed.
    pub keys: Vec<SigningKey>,
    /// CAs that the handler's certificate may come from besides those of the system.
    pub ca: Vec<CertificateDer<'static>>,
    /// Longest time one attempt may take, answer included.
    pub timeout: Duration,
    /// Requests in flight at once, one per chat.
    pub concurrency: usize,
    /// How many events go into one request at most; with more than one the body is a list.
    pub batch_max: usize,
    /// How many failures of an event count (contract §3) before it is given up.
    pub max_attempts: u32,
    /// How old an event may be when it is sent; nothing is any age.
    pub max_age: Option<Duration>,
    /// Statuses by which the handler refuses an event for good.
    pub reject_on: Vec<u16>,
    /// How retries are spaced.
    pub backoff: BackoffSettings,
}

/// Exponential backoff: interval n is `initial * multiplier^n`, at most `max_interval`, spread by the jitter.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BackoffSettings {
    /// The first interval.
    pub initial_interval: Duration,
    /// Factor between intervals, at least 1.
    pub multiplier: f64,
    /// The longest interval before jitter.
    pub max_interval: Duration,
    /// Spread, 0 to 1: an interval `i` becomes something in `[i * (1 - r), i * (1 + r)]`.
    pub randomization_factor: f64,
}
