//! sim

pub mod kv;
