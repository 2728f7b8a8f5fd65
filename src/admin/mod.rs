//! Floor 2, the operator's door: one HTTP router on the unix socket of the outbox's directory, through which the commands of
//! the binary come while the service runs, and on TCP, behind a guard.
//!
//! Deliberately absent: anything that `outbox` does not offer to a stopped service as well, but for the moment's state.

mod api;
mod dashboard;
mod desk;
mod history;
mod live;
mod metrics;
mod socket;
mod tail;
mod tcp;

pub use api::Door;
pub use dashboard::Dashboard;
pub use socket::{AdminError, SOCKET_NAME, Socket};
pub use tail::{AttemptLine, AttemptOutcome, TailAsked, TailLine};
pub use tcp::Tcp;
