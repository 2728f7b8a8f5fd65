//! The side house: a simulated VK, simulated handlers, a store in memory, and the books that must balance. For the demo, for
//! `simulate`, for tests and benches. It knows nothing of `vk::wire`: a fake that shares the parser hides the parser's bugs.
//!
//! Deliberately absent: anything that the service itself needs.

pub mod books;
pub mod handler;
pub mod kv;
pub mod onlooker;
pub mod road;
pub mod script;
mod tls;
mod vk_api;
mod vk_errors;
pub mod vk_faults;
mod vk_history;
mod vk_http;
mod vk_limits;
mod vk_messages;
pub mod vk_plan;
pub mod vk_server;
pub mod vk_shape;
