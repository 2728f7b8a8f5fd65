//! Converting.

use chrono::FixedOffset;

/// How events are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// A message whose text starts with one of these is a `command_call`.
    pub command_prefixes: Vec<String>,
    /// Offset of `datetime`.
    pub utc_offset: FixedOffset,
    /// Whether every event carries VK's object as its last key.
    pub object: bool,
}
