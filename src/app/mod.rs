//! Floor 2, the wiring.

pub mod settings;
pub mod worker;

pub use settings::Settings;
