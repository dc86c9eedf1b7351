//! The context of a request: made once, for whatever serves the request.

use std::sync::Arc;
use std::time::Instant;

use http::{HeaderMap, Request};
use tonic::Status;

use crate::auth::Authenticator;
use crate::model::RequestContext;

/// Gives a request its context, in its extensions, unless it comes from nobody that is known.
///
/// # Errors
/// UNAUTHENTICATED in the words of the authenticator.
pub(super) fn make<B>(
    authenticator: &Arc<dyn Authenticator>,
    request: &mut Request<B>,
    request_id: &str,
) -> Result<(), Status> {
    let context = of_headers(authenticator, request.headers(), request_id)?;
    request.extensions_mut().insert(context);
    Ok(())
}

fn of_headers(
    authenticator: &Arc<dyn Authenticator>,
    headers: &HeaderMap,
    request_id: &str,
) -> Result<RequestContext, Status> {
    let subject = authenticator.authenticate(headers);
    let timeout = transcoding::timeout_of(headers);
    Ok(RequestContext {
        subject: subject.map_err(|refused| Status::unauthenticated(refused.0))?,
        request_id: request_id.to_owned(),
        deadline: timeout.and_then(|timeout| Instant::now().checked_add(timeout)),
        idempotency: None,
    })
}
