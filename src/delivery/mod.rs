//! Floor 1, the side that faces handlers: one attempt at one delivery, and how long to wait before the next.

pub mod settings;

pub use settings::{BackoffSettings, Settings};
