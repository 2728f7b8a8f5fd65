//! The one integration binary: each module proves one promise, over real HTTP and real processes where they matter.

mod kv_conformance;
mod outbox_model;
