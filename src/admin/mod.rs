//! Floor 2, the operator's door: one HTTP router on the unix socket of the outbox's directory. The commands of the binary
//! come through it while the service runs.
//!
//! Deliberately absent: TCP, and anything that `outbox` does not offer to a stopped service as well, but for the moment's
//! state.

mod api;
mod desk;
mod live;
mod metrics;
mod socket;
mod tail;

pub use api::Door;
pub use socket::{AdminError, SOCKET_NAME, Socket};
pub use tail::{AttemptLine, AttemptOutcome, TailAsked, TailLine};
