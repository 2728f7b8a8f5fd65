//! event-router takes the events of a VK community from Bots Long Poll, converts them to convenient JSON and forwards
//! them to handler services, so durably that nobody who runs it wonders whether an event was lost.
//!
//! ```text
//! floor 3   main.rs -> cli                     words in, words out, exit codes        sim (side house: cli/demo, cli/simulate,
//! floor 2   app   config   admin               wiring, the loops, the operator's door       tests and benches only)
//! floor 1   outbox   vk   delivery             one folder per outside world; siblings never meet
//! basement  attempts   clock   metrics   secret   status
//! floor 0   domain                             pure: no tokio, no I/O, no clock, no random numbers
//! ```
//!
//! Reading order: [`domain`] (what an event is, who takes it, what an answer means), the prose at the top of [`outbox`]
//! (what is on disk), then the two loops in [`app`]: `ingest` and `worker`. `docs/ARCHITECTURE.md` tells the same with
//! the four journeys; `tests/it/architecture.rs` holds the floors.

pub mod admin;
pub mod app;
pub mod attempts;
pub mod cli;
pub mod clock;
pub mod config;
pub mod delivery;
pub mod domain;
pub mod metrics;
pub mod outbox;
pub mod secret;
pub mod sim;
pub mod status;
pub mod vk;
