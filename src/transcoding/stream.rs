//! A stream of gRPC messages as one HTTP response.
//!
//! Nothing is answered before the first message or the status is there, so that a call which fails at
//! once has an HTTP status of its own. A failure after that is the last element: the
//! `google.rpc.Status` in the form that it has in a `google.protobuf.Any`, told from messages by its
//! `@type`. Trailers, where the client takes them, say how the stream ended, too.
//!
//! The service is read no faster than the client reads, and dropped with the response.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::{StreamExt, stream};
use http::{HeaderMap, HeaderValue, Response, header};
use http_body::Frame;
use http_body_util::StreamBody;
use prost_reflect::DescriptorPool;
use tonic::{Status, body::Body};

use super::{
    accept::StreamForm,
    body::ResponseBody,
    codec::Codec,
    errors,
    frames::Messages,
    metadata,
    response::{self, Payload},
    rules::Binding,
};

/// The trailers that are announced: HTTP/1.1 sends no others.
const TRAILERS: &str = "grpc-status, grpc-message";

/// A stream of JSON in one of its forms.
pub async fn json(
    mut messages: Messages,
    binding: &Binding,
    form: StreamForm,
    with_trailers: bool,
    codec: &Arc<Codec>,
    pool: &DescriptorPool,
) -> Result<Response<ResponseBody>, Status> {
    let first = messages.next(&binding.method).await?;
    let content_type = HeaderValue::from_static(form.media_type());
    let headers = metadata::of_reply(messages.headers().clone(), Some(content_type));
    let writer = Writer {
        form,
        messages,
        binding: binding.clone(),
        codec: Arc::clone(codec),
        pool: pool.clone(),
        with_trailers,
        next: match first {
            Some(first) => Next::First(first),
            None => Next::End(Ok(()), true),
        },
    };
    let frames = stream::unfold(writer, |mut writer| async {
        let frame = writer.frame().await?;
        Some((Ok::<_, Status>(frame), writer))
    });
    // What encodes a body asks for more behind its end.
    let frames = frames.fuse();
    let body = Body::new(StreamBody::new(frames));
    let mut response = response::response(headers, body);
    let headers = response.headers_mut();
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
/// of the first. A failure on the way breaks the connection off.
pub async fn raw(
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

struct Writer {
    form: StreamForm,
    messages: Messages,
    binding: Binding,
    codec: Arc<Codec>,
    pool: DescriptorPool,
    with_trailers: bool,
    next: Next,
}

/// What a stream goes on with.
enum Next {
    First(Bytes),
    Message,
    /// How the call ended, and whether nothing has been written before.
    End(Result<(), Status>, bool),
    Trailers(Result<(), Status>),
    Nothing,
}

impl Writer {
    async fn frame(&mut self) -> Option<Frame<Bytes>> {
        loop {
            match std::mem::replace(&mut self.next, Next::Nothing) {
                Next::First(message) => return Some(self.message(&message, true)),
                Next::Message => match self.messages.next(&self.binding.method).await {
                    Ok(Some(message)) => return Some(self.message(&message, false)),
                    Ok(None) => self.next = Next::End(Ok(()), false),
                    Err(status) => self.next = Next::End(Err(status), false),
                },
                Next::End(end, is_first) => {
                    let text = self.end(&end, is_first);
                    if self.with_trailers {
                        self.next = Next::Trailers(end);
                    }
                    if !text.is_empty() {
                        return Some(Frame::data(text));
                    }
                }
                Next::Trailers(end) => return Some(Frame::trailers(self.trailers(end))),
                Next::Nothing => return None,
            }
        }
    }

    fn message(&mut self, message: &Bytes, is_first: bool) -> Frame<Bytes> {
        match response::json_of(message, &self.binding, &self.codec) {
            Ok(json) => {
                self.next = Next::Message;
                Frame::data(self.element(&json, is_first, None))
            }
            Err(problem) => {
                let status = self.binding.method.defect(&problem);
                let end = Err(status);
                let text = self.end(&end, is_first);
                if self.with_trailers {
                    self.next = Next::Trailers(end);
                }
                Frame::data(text)
            }
        }
    }

    /// One element; `event` is its name where it is no message.
    fn element(&self, json: &[u8], is_first: bool, event: Option<&str>) -> Bytes {
        let mut text = BytesMut::with_capacity(json.len() + 24);
        match self.form {
            StreamForm::Array => {
                text.put_slice(if is_first { b"[" } else { b",\n" });
                text.put_slice(json);
            }
            StreamForm::Lines => {
                text.put_slice(json);
                text.put_u8(b'\n');
            }
            StreamForm::Events => {
                if let Some(event) = event {
                    text.put_slice(b"event: ");
                    text.put_slice(event.as_bytes());
                    text.put_u8(b'\n');
                }
                text.put_slice(b"data: ");
                text.put_slice(json);
                text.put_slice(b"\n\n");
            }
        }
        text.freeze()
    }

    /// What stands behind the last message. A browser asks for events again when they end, unless
    /// it is told that this was the end.
    fn end(&self, end: &Result<(), Status>, is_first: bool) -> Bytes {
        let mut text = BytesMut::new();
        match end {
            Err(status) => {
                let json = errors::status_any_json(status, &self.pool);
                text.put(self.element(json.as_bytes(), is_first, Some("error")));
            }
            Ok(()) if self.form == StreamForm::Events => {
                text.put(self.element(b"{}", is_first, Some("end")));
            }
            Ok(()) if is_first && self.form == StreamForm::Array => text.put_u8(b'['),
            Ok(()) => {}
        }
        if self.form == StreamForm::Array {
            text.put_slice(b"]\n");
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
