//! Converting.

use std::borrow::Cow;

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

/// Placeholder.
#[must_use]
pub fn mend(bytes: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}
