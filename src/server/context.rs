//! The context of a request: made once, for whatever serves the request.

use std::time::Instant;

use http::Request;
use tonic::Status;

use crate::auth::Authenticator;
use crate::model::RequestContext;

/// Gives a request its context, in its extensions, unless the authenticator does not know its sender.
///
/// # Errors
/// UNAUTHENTICATED in the words of the authenticator.
pub(super) fn make<B>(
    authenticator: &dyn Authenticator,
    request: &mut Request<B>,
    request_id: &str,
) -> Result<(), Status> {
    let headers = request.headers();
    let subject = authenticator.authenticate(headers);
    let timeout = transcoding::timeout_of(headers);
    let context = RequestContext {
        subject: subject.map_err(|refused| Status::unauthenticated(refused.0))?,
        request_id: request_id.to_owned(),
        deadline: timeout.and_then(|timeout| Instant::now().checked_add(timeout)),
        idempotency: None,
    };
    request.extensions_mut().insert(context);
    Ok(())
}
