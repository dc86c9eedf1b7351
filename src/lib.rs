//! A self-hosted image service for virtual desktops. `ARCHITECTURE.md` is the map. Only what the program, its tests and
//! its benches need is public.

pub mod app;
mod auth;
mod ballast;
mod blobs;
pub mod cli;
pub mod contract;
mod grpc;
mod images;
mod model;
mod operations;
mod server;
mod sources;
mod store;
pub mod telemetry;
mod tls;

/// The listeners alone, for `benches/rest/in_memory`.
#[doc(hidden)]
pub use server::{Listener, Times, TransferSettings, serve};
