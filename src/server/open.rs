//! The paths that are open to unknown callers: a list that may only shrink, each with its reason. The test
//! `tests/server/authentication.rs` asks for everything else without credentials.

use http::{Method, Request};

/// An open path; one that ends with a slash opens all below it.
#[derive(Debug, Clone, Copy)]
pub struct Open {
    pub path: &'static str,
    pub reason: &'static str,
}

/// All that is open.
pub const OPEN: [Open; 14] = [
    Open {
        path: "/yandex.cloud.iam.v1.IamTokenService/",
        reason: "exchanges the credential in the request for a token",
    },
    Open {
        path: "/iam/v1/tokens",
        reason: "the same over REST",
    },
    Open {
        path: "/iam/v1/tokens:revoke",
        reason: "ends the token in the request",
    },
    Open {
        path: "/grpc.health.v1.Health/",
        reason: "load balancers and orchestrators ask it, and have no credentials",
    },
    Open {
        path: "/livez",
        reason: "orchestrators ask whether the process lives, and have no credentials",
    },
    Open {
        path: "/readyz",
        reason: "load balancers ask whether to send requests; it names checks, and no paths or addresses",
    },
    Open {
        path: "/grpc.reflection.v1.ServerReflection/",
        reason: "the services are public; grpcurl asks before it knows how to authenticate",
    },
    Open {
        path: "/grpc.reflection.v1alpha.ServerReflection/",
        reason: "the same, for older clients",
    },
    Open {
        path: "/yandex.cloud.endpoint.ApiEndpointService/",
        reason: "public SDKs ask where the services are before they have a token",
    },
    Open {
        path: "/endpoints",
        reason: "the same over REST",
    },
    Open {
        path: "/endpoints/",
        reason: "the same for one service",
    },
    Open {
        path: "/openapi.json",
        reason: "generators of clients read it; it is the same for every server of a version",
    },
    Open {
        path: "/docs",
        reason: "leads to /docs/",
    },
    Open {
        path: "/docs/",
        reason: "a browser opens the page before it has credentials",
    },
];

/// Whether a request is answered without asking for its caller. So is every OPTIONS: browsers send it without
/// credentials, and it tells nothing but methods.
pub(super) fn concerns<B>(request: &Request<B>) -> bool {
    let path = request.uri().path();
    *request.method() == Method::OPTIONS
        || OPEN.iter().any(|open| {
            path == open.path || open.path.ends_with('/') && path.starts_with(open.path)
        })
}
