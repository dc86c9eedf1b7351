//! A gRPC reply as an HTTP response.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use http_body::Frame;
use http_body_util::StreamBody;
use prost_reflect::{DynamicMessage, FieldDescriptor, Value};
use tonic::{Status, body::Body};

use super::{
    accept::{JSON, StreamForm},
    body::ResponseBody,
    codec::Codec,
    frames::Messages,
    metadata,
    rules::{Binding, Method},
};

/// How replies are to be written.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Form {
    /// The only message of the reply.
    Single,
    /// A stream of messages.
    Stream(StreamForm),
}

/// Wishes for the reply in the head of a request.
pub(crate) struct Asked {
    pub method: http::Method,
    /// Whether metadata behind the reply can be sent as trailers.
    pub takes_trailers: bool,
    pub request_id: Option<HeaderValue>,
}

impl Asked {
    /// The client's name for the request, if it is a text.
    pub(crate) fn request_id(&self) -> Option<&str> {
        self.request_id.as_ref()?.to_str().ok()
    }
}

/// The response with the only message of a reply, behind which there is no metadata.
pub(crate) fn single(
    message: &Bytes,
    metadata: HeaderMap,
    binding: &Binding,
    codec: &Codec,
) -> Result<Response<ResponseBody>, Status> {
    let payload = Payload::of(message, binding, codec)?;
    let headers = metadata::of_reply(metadata, Some(payload.content_type));
    Ok(response(headers, payload.bytes))
}

/// The response with the only message of a reply that is read to its end.
pub(crate) fn single_of(
    message: &Bytes,
    reply: Messages,
    binding: &Binding,
    with_trailers: bool,
    codec: &Codec,
) -> Result<Response<ResponseBody>, Status> {
    let (metadata, trailers) = reply.into_metadata();
    let trailers = match with_trailers {
        true => metadata::into_trailers(&trailers),
        false => HeaderMap::new(),
    };
    if trailers.is_empty() {
        return single(message, metadata, binding, codec);
    }
    let payload = Payload::of(message, binding, codec)?;
    let mut headers = metadata::of_reply(metadata, Some(payload.content_type));
    // HTTP/1.1 sends only trailers that are announced.
    let names: Vec<_> = trailers.keys().map(HeaderName::as_str).collect();
    if let Ok(names) = HeaderValue::try_from(names.join(", ")) {
        headers.insert(header::TRAILER, names);
    }
    let frames = [Frame::data(payload.bytes), Frame::trailers(trailers)].map(Ok::<_, Status>);
    let body = Body::new(StreamBody::new(futures_util::stream::iter(frames)));
    Ok(response(headers, body))
}

/// A response that went well.
pub(crate) fn response(
    headers: HeaderMap,
    body: impl Into<ResponseBody>,
) -> Response<ResponseBody> {
    let mut response = Response::new(body.into());
    *response.headers_mut() = headers;
    response
}

/// A message as it is answered.
pub(crate) struct Payload {
    pub content_type: HeaderValue,
    pub bytes: Bytes,
}

impl Payload {
    /// The only message of a reply as it is answered.
    fn of(message: &Bytes, binding: &Binding, codec: &Codec) -> Result<Self, Status> {
        let payload = match binding.gives_raw_body {
            true => Self::raw(message, binding),
            false => json_of(
                message,
                &binding.method,
                binding.reply_field.as_ref(),
                codec,
            )
            .map(|bytes| Self {
                content_type: HeaderValue::from_static(JSON),
                bytes,
            }),
        };
        payload.map_err(|problem| binding.method.defect(&problem))
    }

    /// The bytes of the `google.api.HttpBody` that is answered; the error says what is wrong with
    /// the reply.
    pub(crate) fn raw(message: &Bytes, binding: &Binding) -> Result<Self, String> {
        let message = DynamicMessage::decode(binding.method.output.clone(), message.clone())
            .map_err(|_| "its reply cannot be decoded".to_owned())?;
        let field = binding.reply_field.as_ref();
        let value = field.map(|field| message.get_field(field));
        let body = match &value {
            Some(value) => value.as_message().unwrap_or(&message),
            None => &message,
        };
        let content_type = body.get_field_by_name("content_type");
        let content_type = content_type.as_ref().and_then(|text| text.as_str());
        let data = body.get_field_by_name("data");
        Ok(Self {
            content_type: match content_type.unwrap_or_default() {
                "" => HeaderValue::from_static("application/octet-stream"),
                text => text.parse().map_err(|_| {
                    format!("its reply has the content type {text:?}, which is none")
                })?,
            },
            bytes: match data.as_deref() {
                Some(Value::Bytes(bytes)) => bytes.clone(),
                _ => Bytes::new(),
            },
        })
    }
}

/// The JSON of a reply message, or of the field of it that is answered; the error says what is wrong with
/// the reply.
pub(crate) fn json_of(
    message: &[u8],
    method: &Method,
    field: Option<&FieldDescriptor>,
    codec: &Codec,
) -> Result<Bytes, String> {
    let output = method.output_type;
    // JSON is longer than the wire bytes, by names and quotes.
    let mut text = Vec::with_capacity(256 + message.len() * 2);
    let written = match field {
        None => codec.to_json(output, message, &mut text),
        Some(field) => codec.field_to_json(output, field.number(), message, &mut text),
    };
    match written {
        Ok(()) => Ok(Bytes::from(text)),
        Err(error) if error.is_malformed() => Err(format!("its reply cannot be decoded: {error}")),
        Err(error) => Err(format!("its reply cannot be written as JSON: {error}")),
    }
}

/// The answer to OPTIONS: the methods of the path.
pub(crate) fn options(allow: &str) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::default());
    *response.status_mut() = StatusCode::NO_CONTENT;
    if let Ok(allow) = HeaderValue::from_str(allow) {
        response.headers_mut().insert(header::ALLOW, allow);
    }
    response
}

/// The answer to HEAD: the headers of the reply that GET would have, its length among them.
pub(crate) fn without_body(response: Response<ResponseBody>) -> Response<ResponseBody> {
    let (mut parts, body) = response.into_parts();
    if let Some(length) = http_body::Body::size_hint(&body).exact() {
        parts
            .headers
            .insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    Response::from_parts(parts, ResponseBody::default())
}
