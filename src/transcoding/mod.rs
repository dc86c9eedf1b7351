//! Knows how HTTP with JSON becomes a gRPC call and back, from the descriptors of any service alone.
//! Never mentions what a service is about: no resource, no store, no rule of the product.
//!
//! The way of a request: `service` looks the raw path up in a [`router`] built from the
//! `google.api.http` rules that `rules` reads; `request` makes the frame of the request message
//! from body ([`codec`]), path and query (`bindings`, `params`, `values`); the inner service answers;
//! `response` turns frame and trailers into JSON, [`errors`] everything that went wrong into a
//! `google.rpc.Status` in JSON.

pub mod codec;
pub mod errors;
pub mod router;
pub mod template;

mod bindings;
mod json;
mod params;
mod percent;
mod request;
mod response;
mod rules;
mod service;
mod values;

#[cfg(test)]
mod tests;

pub use json::write as to_json;
pub use params::message_from_query;
pub use rules::BuildError;
pub use service::{Settings, Transcoder, is_grpc};
