//! Floor 2, the wiring: components made of settings, loops made of components, and the one way they end.
//!
//! Deliberately absent: deciding anything about events; every decision is made below, in `domain`, `vk::session` and
//! `outbox`.

mod answer;
mod asking;
mod backfill;
mod batch;
mod community;
pub mod converter;
pub mod explain;
pub mod ingest;
mod line;
pub mod log;
mod reading;
mod reconvert;
mod replaying;
pub mod settings;
pub mod supervise;
mod told;
pub mod worker;

mod service;

pub use service::{RunError, run};
pub use settings::Settings;
