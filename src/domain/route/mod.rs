//! Which destinations take an event: a destination takes it when any table of its `when` matches; a table matches when all
//! its conditions hold; without `when` it takes every event. Pure: what is looked at are the facts of the typed update
//! ([`Facts`](super::convert::Facts)), never the body, which nobody parses again.
//!
//! - `rule`: what can be asked for, and the decision.
//! - `pattern`: regular expressions that cannot hold anybody up.
//! - `payload`: whether a payload contains what is wanted of it.
//! - `explain`: the same decision in words.
//!
//! Deliberately absent: what happens with an event then; reading rules from a configuration (`config`).

mod explain;
mod pattern;
mod payload;
mod rule;

pub use explain::{Explanation, Outcome};
pub use pattern::{BadPattern, Pattern};
pub use rule::{Conditions, Key, Rule, Table};
