//! Floor 1, the side that faces VK: bytes to replies (`wire`), replies to steps (`session`), HTTP (`client`), names (`names`,
//! and in `breaker` when to leave them alone), how often a session is asked for (`budget`), what a community's settings mean (`community`).

mod breaker;
pub mod budget;
pub mod client;
pub mod community;
pub mod names;
pub mod session;
pub mod settings;
pub mod wire;

pub use budget::SessionBudget;
pub use client::{CallError, Client, ClientError};
pub use names::{Found, Names, NamesStats, Person};
pub use session::{Commit, Session, Step};
pub use settings::{NamesSettings, Settings};
pub use wire::ErrorClass;
