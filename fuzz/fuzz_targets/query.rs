//! Any request line with a body calls the method and sends the message that a slow reader of requests
//! says, or is refused as it says; and where only the query is wrong, the refusal names a parameter.
#![no_main]

mod requests;
mod rules;
mod seeds;
mod texts;
mod things;

use std::{
    convert::Infallible,
    sync::{LazyLock, Mutex},
};

use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body_util::{BodyExt, Full};
use libfuzzer_sys::fuzz_target;
use requests::{Expected, Refusal};
use things::THINGS;
use tokio::runtime::Runtime;
use tonic::body::Body;
use tower::{ServiceExt, util::BoxCloneSyncService};
use transcoding::{ResponseBody, Settings, Transcoder};
use transcoding_reference::codec as reference;

type Server = BoxCloneSyncService<Request<Full<Bytes>>, Response<ResponseBody>, Infallible>;

/// The path of the gRPC method called last, and the frame sent to it.
static CALL: Mutex<Option<(String, Bytes)>> = Mutex::new(None);

static SERVER: LazyLock<Server> = LazyLock::new(|| {
    let service = tower::service_fn(|request: Request<Body>| async {
        let (parts, body) = request.into_parts();
        let frame = body.collect().await.expect("it is whole").to_bytes();
        *CALL.lock().expect("no panic") = Some((parts.uri.path().to_owned(), frame));
        Ok(tonic::Status::not_found("").into_http())
    });
    let transcoder = Transcoder::new(&THINGS.pool, rules::SERVICES, service, Settings::default());
    BoxCloneSyncService::new(transcoder.expect("the rules are right"))
});

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_time().build().expect("a runtime")
});

fn plant() {
    let cases = seeds::cases().into_iter();
    seeds::plant(
        "query",
        cases.map(|case| format!("{}\n{}", case.request, case.body)),
    );
}

fuzz_target!(init: plant(), |text: &str| {
    let (line, body) = text.split_once('\n').unwrap_or((text, ""));
    let Some((method, uri)) = line.split_once(' ') else {
        return;
    };
    let (Ok(method), Ok(uri)) = (method.parse::<http::Method>(), uri.parse::<Uri>()) else {
        return;
    };
    let expected = requests::expected(&method, &uri, body);
    *CALL.lock().expect("no panic") = None;
    let request = Request::builder().method(&method).uri(&uri);
    let request = request.body(Full::new(Bytes::copy_from_slice(body.as_bytes())));
    let request = request.expect("it has its parts");
    let (status, reply) = RUNTIME.block_on(async {
        let Ok(response) = SERVER.clone().oneshot(request).await;
        let (parts, body) = response.into_parts();
        let body = body.collect().await.expect("it is whole").to_bytes();
        (parts.status.as_u16(), body)
    });
    let call = CALL.lock().expect("no panic").take();
    match (expected, call) {
        (Expected::Call(method, message), Some((path, frame))) => {
            assert_eq!(path, format!("/{}/{}", method.parent_service().full_name(), method.name()));
            let Some(message) = message else {
                return;
            };
            let sent = reference::decode(&frame[5..], &method.input()).expect("it decodes");
            assert!(reference::same(&sent, &message), "{sent} is not {message}");
        }
        (Expected::Refused(Refusal::Query(parameters)), None) => {
            assert_eq!(status, 400);
            if method == http::Method::HEAD {
                return;
            }
            let reply: serde_json::Value = serde_json::from_slice(&reply).expect("it is JSON");
            let field = reply["details"][0]["fieldViolations"][0]["field"].as_str();
            let names = |field: &str| {
                let field = field.strip_suffix('…').unwrap_or(field);
                parameters.iter().any(|name| name.starts_with(field))
            };
            assert!(
                field.is_some_and(names)
                    || reply["message"].as_str().unwrap_or_default().starts_with("the query "),
                "names no parameter: {reply}"
            );
        }
        (Expected::Refused(Refusal::Status(expected)), None) => assert_eq!(status, expected),
        (Expected::Call(method, message), None) => panic!(
            "{}, {message:?}: refused: {}",
            method.full_name(),
            String::from_utf8_lossy(&reply)
        ),
        (Expected::Refused(_), Some((path, frame))) => panic!("{path} is called: {frame:?}"),
    }
});
