//! Requests: their context, the rules on their fields, and their idempotency keys.

use http::Extensions;
use prost::Message;
use sha2::{Digest, Sha256};
use tonic::Status;
use tonic::metadata::{MetadataMap, MetadataValue};

use super::{idempotency_key, status};
use crate::contract::rules::{Check, Violation, violations};
use crate::model::{Idempotency, RequestContext};

/// Refuses a request that violates the contract, naming all fields that do.
pub(super) fn check(request: &impl Check) -> Result<(), Status> {
    refuse(violations(request))
}

/// Refuses a request with violations.
pub(super) fn refuse(violations: Vec<Violation>) -> Result<(), Status> {
    if violations.is_empty() {
        Ok(())
    } else {
        Err(status::invalid(violations))
    }
}

/// The context that was made where the request arrived.
///
/// # Errors
/// INTERNAL where there is none: a way to the services that leaves out the caller is a fault of this program.
pub(crate) fn context(extensions: &mut Extensions) -> Result<RequestContext, Status> {
    extensions
        .remove()
        .ok_or_else(|| status::internal(&NoContext))
}

#[derive(Debug, thiserror::Error)]
#[error("a request has come without a context")]
struct NoContext;

/// The reply that holds a secret, which no cache may keep (RFC 6749, section 5.1).
pub(super) fn secret<T>(message: T) -> tonic::Response<T> {
    let mut response = tonic::Response::new(message);
    let no_store = MetadataValue::from_static("no-store");
    response.metadata_mut().insert("cache-control", no_store);
    response
}

/// A request taken apart: its context, its metadata, its message.
pub(super) fn unpack<T>(
    request: tonic::Request<T>,
) -> Result<(RequestContext, MetadataMap, T), Status> {
    let (metadata, mut extensions, message) = request.into_parts();
    Ok((context(&mut extensions)?, metadata, message))
}

/// A request that reads, if it keeps the contract.
pub(super) fn read<T: Check>(request: tonic::Request<T>) -> Result<(RequestContext, T), Status> {
    let (context, _, message) = unpack(request)?;
    check(&message)?;
    Ok((context, message))
}

/// A request that changes something, if it keeps the contract, with its idempotency key.
pub(super) fn change<T: Check + Message>(
    request: tonic::Request<T>,
    method: &str,
) -> Result<(RequestContext, T), Status> {
    let (context, metadata, message) = unpack(request)?;
    check(&message)?;
    let context = idempotent(context, &metadata, method, &message)?;
    Ok((context, message))
}

/// The context with the idempotency key of a request. Equal requests to one method are known
/// by their encoding, in which maps are sorted.
pub(crate) fn idempotent(
    context: RequestContext,
    metadata: &MetadataMap,
    method: &str,
    request: &impl Message,
) -> Result<RequestContext, Status> {
    let idempotency = idempotency_key::of(metadata)?.map(|key| {
        let mut hash = Sha256::new();
        hash.update(method);
        hash.update([0]);
        hash.update(request.encode_to_vec());
        Idempotency {
            key: key.into_bytes(),
            request_hash: hash.finalize().into(),
        }
    });
    Ok(RequestContext {
        idempotency,
        ..context
    })
}
