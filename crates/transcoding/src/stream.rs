//! A stream of gRPC messages as one HTTP response.
//!
//! The HTTP status is the answer of the handler: the code of a handler that fails, 200 once it has
//! returned its stream. Headers leave at once then, since the first message may be hours away. A failure
//! after that is the last element: the `google.rpc.Status` in the form that it has in a
//! `google.protobuf.Any`, told from messages by its `@type`. Trailers, where the client takes them, say
//! how the stream ended, too.
//!
//! A quiet stream sends heartbeats, by which proxies and clients tell it from one that is dead: a comment
//! among server-sent events, white space in a JSON array. Lines of JSON have nothing to send.
//!
//! The service is read no faster than the client reads, and dropped with the response.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::{FutureExt, StreamExt, stream};
use http::{HeaderMap, HeaderName, HeaderValue, Response, header};
use http_body::Frame;
use http_body_util::StreamBody;
use prost_reflect::DescriptorPool;
use tonic::{Code, Status, body::Body};

use super::{
    accept::StreamForm,
    body::ResponseBody,
    codec::Codec,
    errors,
    events::Events,
    frames::Messages,
    metadata,
    response::{self, Payload},
    rules::Binding,
    settings::Settings,
};

/// Tells nginx and those who copied its rule to pass each message on as it comes.
pub(crate) const ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// The trailers that are announced: HTTP/1.1 sends no others.
const TRAILERS: &str = "grpc-status, grpc-message";

/// A stream of JSON in one of its forms. Does not wait; a call that has failed already is an error.
pub(crate) fn json(
    mut messages: Messages,
    binding: &Binding,
    form: StreamForm,
    with_trailers: bool,
    codec: &Arc<Codec>,
    pool: &DescriptorPool,
    settings: &Settings,
) -> Result<Response<ResponseBody>, Status> {
    // A service that knows no headers without messages tells of a failure at once in trailers.
    let next = match messages.next(&binding.method).now_or_never() {
        None => Next::Message(None),
        Some(Ok(Some(first))) => Next::Message(Some(first)),
        Some(Ok(None)) => Next::End(Ok(())),
        Some(Err(status)) => return Err(status),
    };
    let content_type = HeaderValue::from_static(form.media_type());
    let headers = metadata::of_reply(messages.headers().clone(), Some(content_type));
    let writer = Writer {
        form,
        messages,
        binding: binding.clone(),
        codec: Arc::clone(codec),
        pool: pool.clone(),
        events: settings.events.clone(),
        heartbeat: settings.heartbeat,
        with_trailers,
        ended: StreamEnd::default(),
        is_first: true,
        next,
    };
    let ended = writer.ended.clone();
    let frames = stream::unfold(writer, |mut writer| async {
        let frame = writer.frame().await?;
        Some((Ok::<_, Status>(frame), writer))
    });
    // What encodes a body asks for more behind its end.
    let frames = frames.fuse();
    let body = Body::new(StreamBody::new(frames));
    let mut response = response::response(headers, body);
    response.extensions_mut().insert(ended);
    let headers = response.headers_mut();
    headers.insert(ACCEL_BUFFERING, HeaderValue::from_static("no"));
    if form == StreamForm::Events {
        headers
            .entry(header::CACHE_CONTROL)
            .or_insert(HeaderValue::from_static("no-cache"));
    }
    if with_trailers {
        headers.insert(header::TRAILER, HeaderValue::from_static(TRAILERS));
    }
    Ok(response)
}

/// A stream of `google.api.HttpBody`, whose bytes are sent one behind another under the content type
/// of the first, which the headers wait for. A failure on the way breaks the connection off.
pub(crate) async fn raw(
    mut messages: Messages,
    binding: &Binding,
) -> Result<Response<ResponseBody>, Status> {
    let Some(first) = messages.next(&binding.method).await? else {
        let (headers, _) = messages.into_metadata();
        let headers = metadata::of_reply(headers, None);
        return Ok(response::response(headers, Body::empty()));
    };
    let first = Payload::raw(&first, binding).map_err(|problem| binding.method.defect(&problem))?;
    let headers = metadata::of_reply(messages.headers().clone(), Some(first.content_type));
    let state = (Some(first.bytes), messages, binding.clone());
    let frames = stream::try_unfold(state, |(first, mut messages, binding)| async {
        let bytes = match first {
            Some(first) => first,
            None => match messages.next(&binding.method).await? {
                None => return Ok(None),
                Some(message) => {
                    Payload::raw(&message, &binding)
                        .map_err(|problem| binding.method.defect(&problem))?
                        .bytes
                }
            },
        };
        Ok::<_, Status>(Some((Frame::data(bytes), (None, messages, binding))))
    });
    let body = Body::new(StreamBody::new(frames));
    Ok(response::response(headers, body))
}

/// In the extensions of a response that is a stream: how it ended, once it has.
#[derive(Debug, Clone, Default)]
pub struct StreamEnd(Arc<OnceLock<(Code, String)>>);

impl StreamEnd {
    pub(crate) fn set(&self, end: &Result<(), Status>) {
        let (code, message) = match end {
            Ok(()) => (Code::Ok, ""),
            Err(status) => (status.code(), status.message()),
        };
        // It ends once.
        let _ = self.0.set((code, message.to_owned()));
    }

    /// The code and the words of the end, if it has come.
    pub fn get(&self) -> Option<&(Code, String)> {
        self.0.get()
    }
}

struct Writer {
    form: StreamForm,
    messages: Messages,
    binding: Binding,
    codec: Arc<Codec>,
    pool: DescriptorPool,
    events: Option<Arc<dyn Events>>,
    heartbeat: Duration,
    with_trailers: bool,
    ended: StreamEnd,
    /// Whether no element was written yet.
    is_first: bool,
    next: Next,
}

/// The next part of a stream.
enum Next {
    /// The message that is there, or the next that comes.
    Message(Option<Bytes>),
    End(Result<(), Status>),
    Trailers(Result<(), Status>),
    Nothing,
}

impl Writer {
    async fn frame(&mut self) -> Option<Frame<Bytes>> {
        loop {
            match std::mem::replace(&mut self.next, Next::Nothing) {
                Next::Message(Some(message)) => return Some(self.message(&message)),
                Next::Message(None) => match self.next_message().await {
                    None => {
                        self.next = Next::Message(None);
                        return self.form.heartbeat().map(Frame::data);
                    }
                    Some(Ok(Some(message))) => return Some(self.message(&message)),
                    Some(Ok(None)) => self.next = Next::End(Ok(())),
                    Some(Err(status)) => self.next = Next::End(Err(status)),
                },
                Next::End(end) => {
                    let text = self.end(end);
                    if !text.is_empty() {
                        return Some(Frame::data(text));
                    }
                }
                Next::Trailers(end) => return Some(Frame::trailers(self.trailers(end))),
                Next::Nothing => return None,
            }
        }
    }

    /// The next message, or nothing where it is time for a heartbeat.
    async fn next_message(&mut self) -> Option<Result<Option<Bytes>, Status>> {
        let next = self.messages.next(&self.binding.method);
        match self.form.heartbeat() {
            None => Some(next.await),
            Some(_) => tokio::time::timeout(self.heartbeat, next).await.ok(),
        }
    }

    fn message(&mut self, message: &Bytes) -> Frame<Bytes> {
        let Binding {
            method,
            reply_field,
            ..
        } = &self.binding;
        match response::json_of(message, method, reply_field.as_ref(), &self.codec) {
            Ok(json) => {
                self.next = Next::Message(None);
                let name = Name::Id(self.id(message));
                Frame::data(self.element(&json, name))
            }
            Err(problem) => {
                let status = self.binding.method.defect(&problem);
                Frame::data(self.end(Err(status)))
            }
        }
    }

    /// The id of the event that a message becomes.
    fn id(&self, message: &[u8]) -> Option<String> {
        let events = self
            .events
            .as_ref()
            .filter(|_| self.form == StreamForm::Events)?;
        let id = events.id(&self.binding.method.name, message)?;
        if id.contains(['\n', '\r', '\0']) {
            self.binding
                .method
                .defect("the id of its event has a line end or NUL");
            return None;
        }
        Some(id)
    }

    fn element(&mut self, json: &[u8], name: Name) -> Bytes {
        let mut text = BytesMut::with_capacity(json.len() + 48);
        match self.form {
            StreamForm::Array => {
                text.put_slice(if self.is_first { b"[" } else { b",\n" });
                text.put_slice(json);
            }
            StreamForm::Lines => {
                text.put_slice(json);
                text.put_u8(b'\n');
            }
            StreamForm::Events => {
                let (field, value) = match &name {
                    Name::Id(id) => ("id", id.as_deref()),
                    Name::Event(event) => ("event", Some(*event)),
                };
                if let Some(value) = value {
                    text.put_slice(field.as_bytes());
                    text.put_slice(b": ");
                    text.put_slice(value.as_bytes());
                    text.put_u8(b'\n');
                }
                text.put_slice(b"data: ");
                text.put_slice(json);
                text.put_slice(b"\n\n");
            }
        }
        self.is_first = false;
        text.freeze()
    }

    /// The part behind the last message. A browser asks for events again when they end, unless
    /// it is told that this was the end.
    fn end(&mut self, end: Result<(), Status>) -> Bytes {
        let mut text = BytesMut::new();
        self.ended.set(&end);
        match &end {
            Err(status) => {
                let json = errors::status_any_json(status, &self.pool);
                text.put(self.element(json.as_bytes(), Name::Event("error")));
            }
            Ok(()) if self.form == StreamForm::Events => {
                text.put(self.element(b"{}", Name::Event("end")));
            }
            Ok(()) if self.is_first && self.form == StreamForm::Array => text.put_u8(b'['),
            Ok(()) => {}
        }
        if self.form == StreamForm::Array {
            text.put_slice(b"]\n");
        }
        if self.with_trailers {
            self.next = Next::Trailers(end);
        }
        text.freeze()
    }

    fn trailers(&self, end: Result<(), Status>) -> HeaderMap {
        let mut trailers = metadata::into_trailers(self.messages.trailers());
        match end {
            Ok(()) => {
                trailers.insert(metadata::STATUS, HeaderValue::from_static("0"));
            }
            Err(status) => {
                trailers.insert(metadata::STATUS, HeaderValue::from(status.code() as i32));
                let mut full = HeaderMap::new();
                // The message as the protocol encodes it.
                if status.add_header(&mut full).is_ok()
                    && let Some(message) = full.remove("grpc-message")
                {
                    trailers.insert("grpc-message", message);
                }
            }
        }
        trailers
    }
}

/// Fields that stand beside the data of an event.
enum Name {
    /// That of a message: its id, if it has one.
    Id(Option<String>),
    /// An event that is no message.
    Event(&'static str),
}
