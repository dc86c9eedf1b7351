//! Access of web pages of other origins to this server (CORS, in the Fetch standard).

use std::str::FromStr;
use std::time::Duration;

use http::{HeaderValue, Method, Request, Uri, header};
use tower_http::cors::{AllowHeaders, AllowMethods, AllowOrigin, CorsLayer, ExposeHeaders};

/// The time for which a browser may remember that it was let in.
const MAX_AGE: Duration = Duration::from_secs(60 * 60);

/// The origin of a web page: scheme, host and, where it is not the scheme's own, port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllowedOrigin(HeaderValue);

impl AllowedOrigin {
    /// Whether this is what an `Origin` header says.
    pub fn is(&self, origin: &str) -> bool {
        self.0 == origin
    }
}

/// Why a text is no origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be an origin such as https://app.example or http://localhost:3000, without a path")]
pub struct NoOrigin;

impl FromStr for AllowedOrigin {
    type Err = NoOrigin;

    /// An origin as browsers write it, in lower case.
    fn from_str(text: &str) -> Result<Self, NoOrigin> {
        let text = text.to_ascii_lowercase();
        let uri: Uri = text.parse().map_err(|_| NoOrigin)?;
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err(NoOrigin);
        };
        let is_whole = format!("{scheme}://{authority}") == text;
        if !is_whole || !matches!(scheme, "http" | "https") || authority.as_str().contains('@') {
            return Err(NoOrigin);
        }
        HeaderValue::try_from(text).map(Self).map_err(|_| NoOrigin)
    }
}

/// The layer that tells browsers that pages of these origins may call every method with every header and see
/// every header of the reply. Credentials of the browser, which mean nothing here, stay away.
pub(crate) fn layer(origins: &[AllowedOrigin]) -> Option<CorsLayer> {
    if origins.is_empty() {
        return None;
    }
    let origins = origins.iter().map(|origin| origin.0.clone());
    Some(
        CorsLayer::new()
            .allow_origin(AllowOrigin::list(origins))
            .allow_methods(AllowMethods::mirror_request())
            .allow_headers(AllowHeaders::mirror_request())
            .expose_headers(ExposeHeaders::any())
            .max_age(MAX_AGE),
    )
}

/// All requests but an OPTIONS that only asks for `Allow`.
pub(crate) fn concerns<B>(request: &Request<B>) -> bool {
    *request.method() != Method::OPTIONS
        || request
            .headers()
            .contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_read_as_browsers_write_them() {
        for (text, origin) in [
            ("https://app.example", Some("https://app.example")),
            ("HTTP://LocalHost:3000", Some("http://localhost:3000")),
            ("http://[::1]:3000", Some("http://[::1]:3000")),
            ("https://app.example/", None),
            ("https://app.example/path", None),
            ("https://user@app.example", None),
            ("ftp://app.example", None),
            ("app.example", None),
            ("null", None),
            ("*", None),
            ("", None),
        ] {
            let parsed = text.parse::<AllowedOrigin>().ok();
            let expected = origin.map(|origin| AllowedOrigin(HeaderValue::from_static(origin)));
            assert_eq!(parsed, expected, "{text}");
        }
    }
}
