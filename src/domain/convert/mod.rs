//! Raw updates to events (contract §2). Pure: names and the moment come in. Each update of an answer is read alone, in one
//! typed, borrowed pass, and written in one; a neighbour that cannot be read harms nobody.
//!
//! - `mend`: bytes to text that a JSON parser takes.
//! - `envelope`: what an update says of itself, its object typed on the way.
//! - `read`: text to a typed update, or to what goes into quarantine.
//! - `fetched`: a message that was fetched back, as the update that would have brought it.
//! - `message`: what an event says of a message, whichever version of VK's API wrote it.
//! - `shapes`: what the other objects look like, and how kind we are to their values.
//! - `write`: a typed update to the event and its body.
//! - `facts`: what routing looks at of a typed update.
//!
//! Deliberately absent: a closed list of types, attachments or fields; VK invents new ones, and they pass.

mod envelope;
mod facts;
mod fetched;
mod mend;
mod message;
mod read;
mod shapes;
mod write;

use chrono::FixedOffset;

pub use facts::{Facts, Payload};
pub use fetched::{Item, Nameless, item};
pub use mend::mend;
pub use read::{Quarantined, Update, Wanted, read_again, read_answer};
pub use write::{Name, NameBook, Writing};

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
