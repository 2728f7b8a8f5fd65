//! Floor 1, the disk.

pub mod settings;

pub use settings::Settings;
