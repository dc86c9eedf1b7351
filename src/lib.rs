//! A self-hosted image service for virtual desktops. `ARCHITECTURE.md` is the map.

pub mod app;
pub mod auth;
mod ballast;
pub mod blobs;
pub mod cli;
pub mod contract;
pub mod grpc;
pub mod images;
pub mod model;
pub mod operations;
pub mod server;
pub mod sources;
// Until the store's rules have moved.
#[allow(clippy::expect_used)]
pub mod store;
pub mod telemetry;
