//! Floor 0: what the words mean. Pure: no tokio, no I/O, no clock, no random numbers; time and jitter come in as values.
//!
//! Deliberately absent: anything that reads or writes the outside world, and every trait made for a mock.

pub mod convert;
pub mod delivery;
pub mod event;
pub mod ids;
pub mod lanes;
pub mod retry;
pub mod route;
pub mod time;
