//! Knows how HTTP with JSON becomes a gRPC call and back, from the descriptors of any service alone.
//! Never mentions what a service is about: no resource, no store, no rule of the product.
//!
//! The way of a request: `service` looks the raw path up in a [`router`] built from the
//! `google.api.http` rules that `rules` reads; `request` makes the frame of the request message
//! from body ([`codec`]), path and query (`bindings`, `params`, `values`); the inner service
//! answers; `response` and `stream` turn the messages in its `frames` into JSON; a `rejection` is a
//! request that does not get that far, and [`errors`] makes a `google.rpc.Status` in JSON of all
//! that went wrong.

#![warn(missing_docs, unreachable_pub)]

pub mod codec;
pub mod errors;
pub mod router;
pub mod template;

mod accept;
mod bindings;
mod body;
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
mod shortened;
mod stream;
mod values;

#[cfg(test)]
mod tests;

pub use body::ResponseBody;
pub use deadline::{Deadline, Deadlines};
pub use errors::Failed;
pub use events::Events;
pub use json::write as to_json;
pub use openapi::{Bounds, Info, Limits, openapi, openapi_query};
pub use params::message_from_query;
pub use rules::BuildError;
pub use service::{ResponseFuture, Transcoder, is_grpc};
pub use settings::Settings;
pub use stream::StreamEnd;
