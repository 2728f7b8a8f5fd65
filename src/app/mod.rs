//! Floor 2, the wiring.

pub mod settings;

pub use settings::Settings;
