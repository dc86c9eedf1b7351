//! Health over HTTP: whether the process lives (`/livez`), and whether it should be sent requests (`/readyz`).
//!
//! Both are answered before the host, the caller and the limits of a request are looked at. An orchestrator asks by an
//! address, without credentials, and also while strangers take all that is left for them.

use std::sync::{Arc, PoisonError, RwLock};

use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use serde_json::{Value, json};
use transcoding::ResponseBody;

pub(super) const LIVE: &str = "/livez";
pub(super) const READY: &str = "/readyz";

/// The path of gRPC health, which is answered as long as there are connections.
const GRPC_HEALTH: &str = "/grpc.health.v1.Health/";
/// The check that fails once the server has been ordered to stop.
const DRAINING: &str = "draining";

/// A check of something without which the server should be sent no requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Check {
    pub name: &'static str,
    /// Words for whoever asks: no paths, no addresses.
    pub fault: Option<String>,
}

/// The results of all checks. Cheap to clone; all clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Readiness {
    state: Arc<RwLock<State>>,
}

#[derive(Debug, Default)]
struct State {
    checks: Vec<Check>,
    drain: Drain,
}

/// Stages of the end of a server.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Drain {
    #[default]
    No,
    /// Requests are still answered, but readiness tells those who send them to stop.
    Announced,
    /// New requests are refused.
    Begun,
}

impl Readiness {
    /// Replaces the results of the checks.
    pub(crate) fn set(&self, checks: Vec<Check>) {
        self.change(|state| state.checks = checks);
    }

    /// Fails the readiness of a server that goes on answering.
    pub(crate) fn announce_drain(&self) {
        self.change(|state| state.drain = Drain::Announced);
    }

    /// Has new requests refused.
    pub(crate) fn begin_drain(&self) {
        self.change(|state| state.drain = Drain::Begun);
    }

    /// Whether the server should be sent requests.
    pub(crate) fn is_ready(&self) -> bool {
        self.read(State::is_ready)
    }

    /// Whether a request comes too late.
    pub(super) fn refuses<B>(&self, request: &Request<B>) -> bool {
        self.read(|state| state.drain == Drain::Begun)
            && !request.uri().path().starts_with(GRPC_HEALTH)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        // Nothing panics while it holds this lock, and all would still be whole.
        change(&mut self.state.write().unwrap_or_else(PoisonError::into_inner));
    }

    fn read<T>(&self, read: impl FnOnce(&State) -> T) -> T {
        read(&self.state.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl State {
    fn is_ready(&self) -> bool {
        self.drain == Drain::No && self.checks.iter().all(|check| check.fault.is_none())
    }

    fn to_json(&self) -> Value {
        let draining = Check {
            name: DRAINING,
            fault: (self.drain != Drain::No).then(|| "the server is stopping".to_owned()),
        };
        let checks = self.checks.iter().chain([&draining]);
        let checks = checks.map(|check| match &check.fault {
            None => (check.name.to_owned(), json!({"ok": true})),
            Some(fault) => (check.name.to_owned(), json!({"ok": false, "reason": fault})),
        });
        json!({
            "ready": self.is_ready(),
            "checks": checks.collect::<serde_json::Map<_, _>>(),
        })
    }
}

/// The answer to a request for health.
pub(super) fn answer<B>(
    request: &Request<B>,
    readiness: &Readiness,
) -> Option<Response<ResponseBody>> {
    let path = request.uri().path();
    if path != LIVE && path != READY {
        return None;
    }
    let mut response = Response::new(ResponseBody::default());
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        headers.insert(
            header::ALLOW,
            HeaderValue::from_static("GET, HEAD, OPTIONS"),
        );
        *response.status_mut() = match *request.method() {
            Method::OPTIONS => StatusCode::NO_CONTENT,
            _ => StatusCode::METHOD_NOT_ALLOWED,
        };
        return Some(response);
    }
    let told = match path {
        LIVE => json!({"live": true}),
        _ => readiness.read(State::to_json),
    };
    if told.get("ready") == Some(&Value::Bool(false)) {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    *response.body_mut() = ResponseBody::from(bytes::Bytes::from(format!("{told}\n")));
    Some(response)
}
