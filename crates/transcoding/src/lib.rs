#![doc = include_str!("../README.md")]
//!
//! # A call without a server
//!
//! A [`Transcoder`] is a service like any other, and can be asked without a connection.
//!
//! ```
//! use http::Request;
//! use http_body_util::{BodyExt, Full};
//! use prost_reflect::DescriptorPool;
//! use tonic::service::Routes;
//! use tower::ServiceExt;
//! use transcoding::{Settings, Transcoder};
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // No rules here: each method is served as POST under its own name.
//! let pool = DescriptorPool::decode(tonic_health::pb::FILE_DESCRIPTOR_SET)?;
//! let (_reporter, health) = tonic_health::server::health_reporter();
//! let services = ["grpc.health.v1.Health"];
//! let rest = Transcoder::new(&pool, services, Routes::new(health), Settings::default())?;
//!
//! let request = Request::post("/grpc.health.v1.Health/Check")
//!     .body(Full::new(bytes::Bytes::from_static(br#"{"service": ""}"#)))?;
//! let response = rest.oneshot(request).await?;
//! assert_eq!(response.status(), 200);
//! let body = response.into_body().collect().await?.to_bytes();
//! assert_eq!(body, br#"{"status":"SERVING"}"#[..]);
//! # Ok(())
//! # }
//! ```
//!
//! # The way of a request
//!
//! `shared` looks the raw path up in a [`router`] built from the `google.api.http` rules that `rules`
//! reads; `request` makes the frame of the request message from body ([`codec`]), path and query
//! (`bindings`, `params`, `values`); the inner service answers; `response` and `stream` turn the
//! messages in its `frames` into JSON; a `rejection` is a request that does not get that far, and
//! [`errors`] makes a `google.rpc.Status` in JSON of all that went wrong. Calls of the Connect protocol
//! take the way of `connect` instead.

#![warn(missing_docs)]

pub mod codec;
pub mod errors;
pub mod router;
pub mod template;

mod accept;
mod answer;
mod bindings;
mod body;
mod connect;
mod deadline;
mod events;
mod exact;
mod frames;
mod json;
mod metadata;
mod openapi;
mod params;
mod percent;
mod rejection;
mod request;
mod response;
mod rules;
mod service;
mod settings;
mod shared;
mod shortened;
mod stream;
mod values;

#[cfg(test)]
mod tests;

pub use answer::ResponseFuture;
pub use body::ResponseBody;
pub use connect::{connect_error, is_connect};
pub use deadline::{Deadline, Deadlines, timeout_of};
pub use errors::Failed;
pub use events::Events;
pub use json::write as to_json;
pub use openapi::{Bounds, Info, Limits, openapi, openapi_query};
pub use params::message_from_query;
pub use rules::BuildError;
pub use service::{Transcoder, is_grpc};
pub use settings::Settings;
pub use stream::StreamEnd;
