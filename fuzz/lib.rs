//! The room `transcoding` under the name that it has in the crate, without the rest, which need not
//! be built.

#[path = "../src/transcoding/mod.rs"]
pub mod transcoding;
