//! Cases as data: `tests/data/cases/*.yaml`. Each is a request, what of it must reach the
//! service, what the service answers, and what the client must see. A case that names no call must
//! not reach the service.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    path::Path,
    sync::{Arc, Mutex},
    task::{Context, Poll},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use http_body_util::{BodyExt, Full};
use prost::Message;
use prost_reflect::{DynamicMessage, MessageDescriptor, MethodDescriptor};
use serde::Deserialize;
use serde_json::Value as Json;
use tonic::{Code, Status, body::Body};
use tonic_types::pb;
use tower::{Service, ServiceExt};

use super::{
    super::{ResponseBody, Settings, Transcoder, codec},
    data, pool, with_trailers,
};

const SERVICES: [&str; 3] = [
    "transcoding.test.Things",
    "transcoding.test.Corners",
    "transcoding.test.Unruled",
];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    /// Method and URI.
    request: String,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default)]
    body: String,
    /// Instead of `body` where it is no text.
    body_base64: Option<String>,
    /// Whether the setting to pass over unknown parameters is on.
    #[serde(default)]
    ignore_unknown_parameters: bool,
    /// The settings of JSON that are not the default.
    #[serde(default)]
    json: JsonSettings,
    /// The gRPC method called, as `Service/Method`.
    call: Option<String>,
    /// The request message in JSON.
    message: Option<Json>,
    /// Some of the metadata of the call; `null` is one that must not be there.
    #[serde(default)]
    metadata: BTreeMap<String, Option<String>>,
    #[serde(default)]
    answer: Answer,
    #[serde(default)]
    reply: Reply,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct JsonSettings {
    skip_defaults: bool,
    proto_names: bool,
    enum_numbers: bool,
    ignore_unknown: bool,
    any_as_base64: bool,
}

/// The answer of the service: by default one empty message and OK.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Answer {
    messages: Option<Vec<Json>>,
    #[serde(default)]
    code: i32,
    #[serde(default)]
    message: String,
    /// Details of the status, each an Any in JSON.
    #[serde(default)]
    details: Vec<Json>,
    #[serde(default)]
    metadata: BTreeMap<String, String>,
    #[serde(default)]
    trailers: BTreeMap<String, String>,
}

/// The response that the client sees.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Reply {
    status: Option<u16>,
    /// Some of the headers; `null` is one that must not be there.
    #[serde(default)]
    headers: BTreeMap<String, Option<String>>,
    /// The trailers, all of them.
    trailers: Option<BTreeMap<String, String>>,
    /// The whole body.
    text: Option<String>,
    /// The body as JSON: members that are named must be equal, others may be there too.
    json: Option<Json>,
    /// The gRPC code in the body.
    code: Option<i32>,
    /// A part of the message in the body.
    error: Option<String>,
    /// The field that a BadRequest in the body names.
    field: Option<String>,
}

/// A service that notes what reaches it and answers as the case says.
#[derive(Clone)]
struct Scripted {
    case: Arc<Case>,
    seen: Arc<Mutex<Option<Seen>>>,
}

struct Seen {
    method: MethodDescriptor,
    metadata: HeaderMap,
    message: DynamicMessage,
}

impl Service<Request<Body>> for Scripted {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = std::pin::Pin<
        Box<dyn std::future::Future<Output = Result<Response<Body>, Infallible>> + Send>,
    >;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let this = self.clone();
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let frame = body.collect().await.expect("a whole frame").to_bytes();
            let method = method(parts.uri.path().trim_start_matches('/'));
            let message = DynamicMessage::decode(method.input(), frame.slice(5..));
            *this.seen.lock().expect("no panic") = Some(Seen {
                metadata: parts.headers,
                message: message.expect("the message decodes"),
                method: method.clone(),
            });
            Ok(answer(&this.case.answer, &method.output()))
        })
    }
}

fn method(path: &str) -> MethodDescriptor {
    let (service, method) = path.split_once('/').expect("a service and a method");
    let service = pool()
        .get_service_by_name(service)
        .expect("a known service");
    let mut methods = service.methods();
    methods.find(|own| own.name() == method).expect("a method")
}

fn message_of(json: &Json, descriptor: &MessageDescriptor) -> DynamicMessage {
    let message = DynamicMessage::deserialize(descriptor.clone(), json)
        .unwrap_or_else(|error| panic!("{error}: {json}"));
    // A default value written out equals one left out.
    DynamicMessage::decode(descriptor.clone(), message.encode_to_vec().as_slice())
        .expect("it decodes")
}

fn header_map(headers: &BTreeMap<String, String>) -> HeaderMap {
    headers
        .iter()
        .map(|(name, value)| {
            let name = name.parse::<HeaderName>().expect("a name");
            (name, HeaderValue::try_from(value).expect("a value"))
        })
        .collect()
}

fn answer(answer: &Answer, output: &MessageDescriptor) -> Response<Body> {
    let empty = [Json::Object(serde_json::Map::new())];
    let messages = match &answer.messages {
        Some(messages) => messages.as_slice(),
        None if answer.code == 0 => &empty,
        None => &[],
    };
    let any = pool()
        .get_message_by_name("google.protobuf.Any")
        .expect("it is imported");
    let details = answer.details.iter();
    let full = pb::Status {
        code: answer.code,
        message: answer.message.clone(),
        details: details
            .map(|detail| message_of(detail, &any).transcode_to().expect("an Any"))
            .collect(),
    };
    let status = Status::with_details(
        Code::from_i32(answer.code),
        &answer.message,
        full.encode_to_vec().into(),
    );
    let mut trailers = header_map(&answer.trailers);
    if answer.code == 0 {
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
    } else {
        status.add_header(&mut trailers).expect("a status");
    }
    let frames = messages.iter();
    let frames = frames.map(|message| data(&message_of(message, output).encode_to_vec()));
    let mut response = with_trailers(frames.collect(), trailers);
    response.headers_mut().remove("x-reply");
    response.headers_mut().extend(header_map(&answer.metadata));
    response
}

/// Checks a case; the error says which part of it does not hold.
async fn check(case: Case) -> Result<(), String> {
    let case = Arc::new(case);
    let service = Scripted {
        case: Arc::clone(&case),
        seen: Arc::default(),
    };
    let seen = Arc::clone(&service.seen);
    let settings = Settings {
        ignore_unknown_parameters: case.ignore_unknown_parameters,
        json: codec::Settings {
            print_defaults: !case.json.skip_defaults,
            proto_names: case.json.proto_names,
            enum_numbers: case.json.enum_numbers,
            ignore_unknown: case.json.ignore_unknown,
            undecodable_any: match case.json.any_as_base64 {
                true => codec::UndecodableAny::Base64,
                false => codec::UndecodableAny::Refuse,
            },
        },
        ..Settings::default()
    };
    let transcoder =
        Transcoder::new(pool(), SERVICES, service, settings).expect("the rules are right");
    let body = match &case.body_base64 {
        Some(base64) => BASE64_STANDARD.decode(base64).expect("base64"),
        None => case.body.clone().into_bytes(),
    };
    let (method, uri) = case.request.split_once(' ').expect("a method and a URI");
    let mut request = Request::builder()
        .method(method)
        .uri(uri)
        .body(Full::new(Bytes::from(body)))
        .map_err(|error| error.to_string())?;
    *request.headers_mut() = header_map(&case.headers);
    let Ok(response) = transcoder.oneshot(request).await;
    let (parts, body) = response.into_parts();
    let (body, cut_off) = read(body).await;
    let text = String::from_utf8_lossy(&body.bytes);
    let shown = || format!("\n  reply: {} {text}", parts.status);

    match (&case.call, &*seen.lock().expect("no panic")) {
        (None, None) => {}
        (None, Some(seen)) => return Err(format!("{} was called", seen.method.full_name())),
        (Some(_), None) => return Err(format!("nothing was called{}", shown())),
        (Some(call), Some(seen)) => {
            let called = seen.method.full_name();
            if *called != format!("transcoding.test.{}", call.replace('/', ".")) {
                return Err(format!("{called} was called"));
            }
            if let Some(message) = &case.message
                && seen.message != message_of(message, &seen.method.input())
            {
                let json = serde_json::to_string(&seen.message).unwrap_or_default();
                return Err(format!("the message is {json}"));
            }
            differences(&case.metadata, &seen.metadata)?;
        }
    }
    let reply = &case.reply;
    let status = reply.status.unwrap_or(200);
    if parts.status != status {
        return Err(format!("not {status}{}", shown()));
    }
    differences(&reply.headers, &parts.headers).map_err(|error| error + &shown())?;
    if let Some(trailers) = &reply.trailers
        && body.trailers != header_map(trailers)
    {
        return Err(format!("trailers {:?}", body.trailers));
    }
    if let Some(expected) = &reply.text {
        let right = match expected.strip_suffix("<cut off>") {
            Some(expected) => cut_off && text == expected,
            None => !cut_off && text == *expected,
        };
        if !right {
            return Err(format!("not {expected:?}{}", shown()));
        }
    }
    let json =
        || serde_json::from_str::<Json>(&text).map_err(|error| format!("{error}{}", shown()));
    if let Some(expected) = &reply.json
        && !includes(&json()?, expected)
    {
        return Err(format!("not {expected}{}", shown()));
    }
    if let Some(code) = reply.code
        && json()?["code"] != code
    {
        return Err(format!("not code {code}{}", shown()));
    }
    if let Some(error) = &reply.error
        && !json()?["message"]
            .as_str()
            .unwrap_or_default()
            .contains(error)
    {
        return Err(format!("not {error:?}{}", shown()));
    }
    if let Some(field) = &reply.field
        && json()?["details"][0]["fieldViolations"][0]["field"] != *field
    {
        return Err(format!("not of the field {field}{}", shown()));
    }
    Ok(())
}

#[derive(Default)]
struct Read {
    bytes: Vec<u8>,
    trailers: HeaderMap,
}

/// A body as far as it goes, and whether it was cut off.
async fn read(mut body: ResponseBody) -> (Read, bool) {
    let mut read = Read::default();
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else {
            return (read, true);
        };
        match frame.into_data() {
            Ok(bytes) => read.bytes.extend_from_slice(&bytes),
            Err(frame) => read.trailers = frame.into_trailers().unwrap_or_default(),
        }
    }
    // Who asks once more, as what encodes a body does, is told the same.
    assert!(body.frame().await.is_none());
    (read, false)
}

fn differences(
    expected: &BTreeMap<String, Option<String>>,
    headers: &HeaderMap,
) -> Result<(), String> {
    for (name, value) in expected {
        let all = headers.get_all(name).iter();
        let all: Vec<_> = all
            .map(|value| String::from_utf8_lossy(value.as_bytes()))
            .collect();
        let found = (!all.is_empty()).then(|| all.join(", "));
        if found != *value {
            return Err(format!("{name} is {found:?}"));
        }
    }
    Ok(())
}

/// Whether all members of `part` are in `whole`; lists are compared as a whole.
fn includes(whole: &Json, part: &Json) -> bool {
    match (whole, part) {
        (Json::Object(whole), Json::Object(part)) => part.iter().all(|(name, value)| {
            let member = whole.get(name);
            member.is_some_and(|member| includes(member, value))
        }),
        (Json::Array(whole), Json::Array(part)) => {
            whole.len() == part.len()
                && whole
                    .iter()
                    .zip(part)
                    .all(|(whole, part)| includes(whole, part))
        }
        _ => whole == part,
    }
}

#[tokio::test]
async fn every_case_of_the_tables_holds() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/cases");
    let (mut count, mut wrong) = (0, Vec::new());
    for entry in std::fs::read_dir(folder).expect("the folder of the tables") {
        let path = entry.expect("a table").path();
        let text = std::fs::read_to_string(&path).expect("a table");
        let cases: Vec<Case> = serde_norway::from_str(&text)
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let table = path.file_stem().unwrap_or_default().to_string_lossy();
        for (index, case) in cases.into_iter().enumerate() {
            count += 1;
            let title = format!("{table} {}: {} {:.100}", index + 1, case.request, case.body);
            if let Err(problem) = check(case).await {
                wrong.push(format!("{title}: {problem}"));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {count}:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    assert!(count > 100, "the tables are there: {count}");
}
