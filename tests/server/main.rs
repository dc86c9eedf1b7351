//! What users may rely on, asked of whole servers from outside: over gRPC, over REST, and in the
//! data folder afterwards.

mod support;

mod compute_images;
mod desktop_images;
mod idempotency;
mod lists;
mod operations;
mod validation;
