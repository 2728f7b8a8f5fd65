//! Floor 2, the configuration: a file and the environment to the settings of the components, or to every problem at once.
//! The only place where defaults live. `docs/CONFIG.md` lists every key; a test holds it against the code.
//!
//! Way of a value: `source` (file and environment, merged) → `reader` and `secrets` (typed, or a problem with its path) →
//! `check`, `destinations` and `when` (the components' settings). Deliberately absent: using any of it. A broken
//! configuration touches nothing.

mod certificates;
mod check;
mod destinations;
mod problem;
mod reader;
mod secrets;
mod source;
mod values;
mod when;

pub use check::{Format, Loaded, LogSettings, load};
pub use problem::{Problem, Problems};
pub use source::{DEFAULT_FILE, Source};
