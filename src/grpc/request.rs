//! What every request has: rules on its fields, a caller, maybe an idempotency key.

use prost::Message;
use sha2::{Digest, Sha256};
use tonic::Status;
use tonic::metadata::MetadataMap;

use super::{idempotency_key, status};
use crate::auth;
use crate::contract::rules::{Check, Violation, violations};
use crate::model::{Idempotency, RequestContext};

/// Every request has one by the time it comes here.
const REQUEST_ID: &str = "x-request-id";

/// Refuses a request that violates the contract, naming all fields that do.
pub fn check(request: &impl Check) -> Result<(), Status> {
    refuse(violations(request))
}

/// Refuses a request with violations.
pub fn refuse(violations: Vec<Violation>) -> Result<(), Status> {
    if violations.is_empty() {
        Ok(())
    } else {
        Err(status::invalid(violations))
    }
}

/// Who asks for a change and under which idempotency key. Equal requests to one method are known
/// by their encoding, in which maps are sorted.
pub fn accept(
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
    let request_id = metadata.get(REQUEST_ID).and_then(|id| id.to_str().ok());
    Ok(RequestContext {
        subject: auth::ANONYMOUS.to_owned(),
        request_id: request_id.unwrap_or_default().to_owned(),
        idempotency,
    })
}
