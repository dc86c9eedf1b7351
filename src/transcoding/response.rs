//! A gRPC reply as an HTTP response.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, header};
use http_body::Frame;
use http_body_util::{Full, StreamBody};
use prost_reflect::{DescriptorPool, DynamicMessage, Value};
use tonic::{Status, body::Body};

use super::{
    accept::{JSON, StreamForm},
    codec::Codec,
    errors,
    frames::Messages,
    metadata,
    rules::Binding,
    stream,
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
    pub method: Method,
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

/// The response to a call, once its first message or its status is there.
pub async fn into_http(
    reply: Response<Body>,
    binding: &Binding,
    form: Form,
    asked: &Asked,
    codec: &Arc<Codec>,
    pool: &DescriptorPool,
) -> Response<Body> {
    let (parts, body) = reply.into_parts();
    let mut passed_on = HeaderMap::new();
    metadata::into_headers(&parts.headers, &mut passed_on);
    let answer = match Messages::new(parts.status, parts.headers, body) {
        Ok(mut messages) => match form {
            Form::Single => single(&mut messages, binding, asked.takes_trailers, codec).await,
            // Boxed, lest every call is as large as these.
            Form::Stream(_) if binding.gives_raw_body => {
                Box::pin(stream::raw(messages, binding)).await
            }
            Form::Stream(form) => {
                let trailers = asked.takes_trailers;
                Box::pin(stream::json(messages, binding, form, trailers, codec, pool)).await
            }
        },
        Err(status) => Err(status),
    };
    let mut response = match answer {
        Ok(mut response) => {
            if !passed_on.is_empty() {
                response.headers_mut().extend(passed_on);
            }
            response
        }
        Err(status) => errors::error_response(&status, asked.request_id(), pool),
    };
    *response.extensions_mut() = parts.extensions;
    response
}

async fn single(
    messages: &mut Messages,
    binding: &Binding,
    with_trailers: bool,
    codec: &Codec,
) -> Result<Response<Body>, Status> {
    let method = &binding.method;
    let message = messages.next(method).await?;
    if message.is_some() && messages.next(method).await?.is_some() {
        return Err(method.defect("its reply has more than one message"));
    }
    let message = message.ok_or_else(|| method.defect("its reply has no message"))?;
    let payload = match binding.gives_raw_body {
        true => Payload::raw(&message, binding),
        false => Payload::json(&message, binding, codec),
    };
    let payload = payload.map_err(|problem| method.defect(&problem))?;
    let trailers = metadata::into_trailers(messages.trailers());
    if !with_trailers || trailers.is_empty() {
        return Ok(response(
            payload.content_type,
            Body::new(Full::new(payload.bytes)),
        ));
    }
    // HTTP/1.1 sends only trailers that are announced.
    let names: Vec<_> = trailers.keys().map(HeaderName::as_str).collect();
    let names = HeaderValue::try_from(names.join(", "));
    let frames = [Frame::data(payload.bytes), Frame::trailers(trailers)].map(Ok::<_, Status>);
    let body = Body::new(StreamBody::new(futures_util::stream::iter(frames)));
    let mut response = response(payload.content_type, body);
    if let Ok(names) = names {
        response.headers_mut().insert(header::TRAILER, names);
    }
    Ok(response)
}

/// A response with a body of this type.
pub fn response(content_type: HeaderValue, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, content_type);
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
    let output = codec
        .find(&binding.method.output)
        .ok_or("the type of its reply is not known")?;
    // JSON is a good deal longer than the wire bytes, by names and quotes.
    let mut text = Vec::with_capacity(256 + message.len() * 3);
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
