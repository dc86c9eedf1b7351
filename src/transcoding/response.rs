//! A gRPC reply as an HTTP response.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, header};
use http_body::Frame;
use http_body_util::{Full, StreamBody};
use prost_reflect::{DynamicMessage, Value};
use tonic::{Status, body::Body};

use super::{
    accept::{JSON, StreamForm},
    codec::Codec,
    frames::Messages,
    metadata,
    rules::{Binding, Method},
};

/// How replies are to be written.
#[derive(Debug, Clone, Copy)]
pub enum Form {
    /// The only message of the reply.
    Single,
    /// A stream of messages.
    Stream(StreamForm),
}

/// What the head of a request says of its reply.
pub struct Asked {
    pub method: http::Method,
    /// Whether metadata behind the reply can be sent as trailers.
    pub takes_trailers: bool,
    pub request_id: Option<HeaderValue>,
}

impl Asked {
    /// The client's name for the request, if it is a text.
    pub fn request_id(&self) -> Option<&str> {
        self.request_id.as_ref()?.to_str().ok()
    }
}

/// A reply that is to be one message.
pub struct Only {
    messages: Messages,
    message: Option<Bytes>,
}

impl Only {
    pub fn new(messages: Messages) -> Self {
        Self {
            messages,
            message: None,
        }
    }

    /// Reads the reply to its end. Where that is broken off, it can be gone on with.
    pub async fn read(&mut self, method: &Method) -> Result<(), Status> {
        while let Some(message) = self.messages.next(method).await? {
            if self.message.replace(message).is_some() {
                return Err(method.defect("its reply has more than one message"));
            }
        }
        Ok(())
    }

    /// The response, once the reply is read.
    pub fn respond(
        self,
        binding: &Binding,
        with_trailers: bool,
        codec: &Codec,
    ) -> Result<Response<Body>, Status> {
        let method = &binding.method;
        let message = self.message;
        let message = message.ok_or_else(|| method.defect("its reply has no message"))?;
        let payload = match binding.gives_raw_body {
            true => Payload::raw(&message, binding),
            false => Payload::json(&message, binding, codec),
        };
        let payload = payload.map_err(|problem| method.defect(&problem))?;
        let (headers, trailers) = self.messages.into_metadata();
        let headers = metadata::of_reply(headers, Some(payload.content_type));
        let trailers = match with_trailers {
            true => metadata::into_trailers(&trailers),
            false => HeaderMap::new(),
        };
        if trailers.is_empty() {
            let body = Body::new(Full::new(payload.bytes));
            return Ok(response(headers, body));
        }
        // HTTP/1.1 sends only trailers that are announced.
        let names: Vec<_> = trailers.keys().map(HeaderName::as_str).collect();
        let names = HeaderValue::try_from(names.join(", "));
        let frames = [Frame::data(payload.bytes), Frame::trailers(trailers)].map(Ok::<_, Status>);
        let body = Body::new(StreamBody::new(futures_util::stream::iter(frames)));
        let mut response = response(headers, body);
        if let Ok(names) = names {
            response.headers_mut().insert(header::TRAILER, names);
        }
        Ok(response)
    }
}

/// A response that went well.
pub fn response(headers: HeaderMap, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.headers_mut() = headers;
    response
}

/// What a message is answered as.
pub struct Payload {
    pub content_type: HeaderValue,
    pub bytes: Bytes,
}

impl Payload {
    fn json(message: &[u8], binding: &Binding, codec: &Codec) -> Result<Self, String> {
        Ok(Self {
            content_type: HeaderValue::from_static(JSON),
            bytes: json_of(message, binding, codec)?,
        })
    }

    /// The bytes of the `google.api.HttpBody` that is answered; the error says what is wrong with
    /// the reply.
    pub fn raw(message: &Bytes, binding: &Binding) -> Result<Self, String> {
        let message = DynamicMessage::decode(binding.method.output.clone(), message.clone())
            .map_err(|error| format!("its reply cannot be decoded: {error}"))?;
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

/// The JSON of a message, or of the field of it that is answered; the error says what is wrong with
/// the reply.
pub fn json_of(message: &[u8], binding: &Binding, codec: &Codec) -> Result<Bytes, String> {
    let output = binding.method.output_type;
    // JSON is longer than the wire bytes, by names and quotes.
    let mut text = Vec::with_capacity(256 + message.len() * 2);
    let written = match &binding.reply_field {
        None => codec.to_json(output, message, &mut text),
        Some(field) => codec.field_to_json(output, field.number(), message, &mut text),
    };
    match written {
        Ok(()) => Ok(Bytes::from(text)),
        Err(error) if error.is_malformed() => Err(format!("its reply cannot be decoded: {error}")),
        Err(error) => Err(format!("its reply cannot be written as JSON: {error}")),
    }
}
