//! References for the crate `transcoding`: slow, and plain enough to be trusted. Its tests and fuzz targets demand that
//! its router and its codec do the same.

#![allow(
    clippy::expect_used,
    reason = "a test that fails may panic where it stands"
)]

pub mod codec;
pub mod matcher;
pub mod routers;
