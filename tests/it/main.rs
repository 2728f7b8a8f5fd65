//! The one integration binary: each module proves one promise, over real HTTP and real processes where they matter.
#![allow(clippy::print_stderr, reason = "a test tells its seed and its figures")]

mod architecture;
mod backfill;
mod cli;
mod config;
mod convert;
mod corpus;
mod crash;
mod damage;
mod delivery_faults;
mod demo;
mod discards;
mod generations;
mod golden;
mod handlers;
mod kv_conformance;
mod limits;
mod month;
mod mutations;
mod outbox_model;
mod pipeline;
mod polling_faults;
mod power_cut;
mod quarantine;
mod replays;
mod requests;
mod rig;
mod route;
mod secrets;
mod shutdown;
mod simulated_vk;
mod space;
mod store_rig;
mod tail;
mod types;
mod workstream;
