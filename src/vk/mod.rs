//! Floor 1, the side that faces VK: bytes to replies (`wire`), replies to steps (`session`), HTTP (`client`), names.

pub mod settings;

pub use settings::{NamesSettings, Settings};
