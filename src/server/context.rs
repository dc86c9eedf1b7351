//! The context of a request: made once, for whatever serves the request.

use std::time::Instant;

use http::uri::PathAndQuery;
use http::{Request, Uri, header};

use super::Peer;
use crate::auth::{Authentication, Authenticator, Caller, Credentials, Identity, SignedPath};

/// Looks at the credentials of a request.
pub(super) fn authenticate<B>(
    authenticator: &dyn Authenticator,
    request: &Request<B>,
) -> Authentication {
    authenticator.authenticate(&Credentials {
        method: request.method(),
        uri: request.uri(),
        headers: request.headers(),
        certificate: request
            .extensions()
            .get::<Peer>()
            .and_then(|peer| peer.certificate.as_ref()),
    })
}

/// Gives a request the context of its caller, or of nobody, in its extensions. Takes the fields of a signature from
/// its query, which no method knows; whether there were any.
pub(super) fn give<B>(
    identity: &Identity,
    caller: Option<&Caller>,
    request: &mut Request<B>,
    request_id: &str,
) -> bool {
    let mut context = match caller {
        Some(caller) => identity.context(caller),
        None => identity.open_context(),
    };
    request_id.clone_into(&mut context.request_id);
    let timeout = transcoding::timeout_of(request.headers());
    context.deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    let peer = request.extensions().get::<Peer>();
    context.peer = peer.and_then(|peer| peer.address.ip());
    request.extensions_mut().insert(context);
    // A token is judged before a signature, which then says nothing.
    if caller.is_none() || request.headers().contains_key(header::AUTHORIZATION) {
        return false;
    }
    let unsigned = SignedPath::of(request.method(), request.uri())
        .map(|signed| without_query(request.uri(), &signed.unsigned_query()));
    let Some(unsigned) = unsigned else {
        return false;
    };
    *request.uri_mut() = unsigned;
    true
}

/// The same URI with another query.
fn without_query(uri: &Uri, query: &str) -> Uri {
    let path = uri.path();
    let text = match query {
        "" => path.to_owned(),
        query => format!("{path}?{query}"),
    };
    let mut parts = uri.clone().into_parts();
    // The rest of a URI is one.
    parts.path_and_query = PathAndQuery::try_from(text).ok().or(parts.path_and_query);
    Uri::from_parts(parts).unwrap_or_else(|_| uri.clone())
}
