//! Floor 1, the side that faces handlers: one attempt at one delivery, and how long to wait before the next.

pub mod backoff;
pub mod request;
pub mod sender;
pub mod settings;
pub mod signature;

pub use request::Attempt;
pub use sender::{Sender, SenderError};
pub use settings::{BackoffSettings, Settings};
pub use signature::SigningKey;
