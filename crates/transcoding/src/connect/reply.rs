//! gRPC replies as responses of the protocol.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{Extensions, HeaderValue, Response, header};
use http_body::Frame;
use http_body_util::StreamBody;
use prost_reflect::DescriptorPool;
use tonic::{Status, body::Body};

use super::{
    envelopes::{END, envelope},
    error,
    head::Format,
    refusal,
};
use crate::{
    body::ResponseBody,
    codec::Codec,
    frames::{Messages, Read},
    metadata, response,
    rules::Method,
    stream::{ACCEL_BUFFERING, StreamEnd},
};

/// The settings that a reply is written by.
pub(super) struct To {
    pub method: Arc<Method>,
    pub format: Format,
    pub codec: Arc<Codec>,
    pub pool: DescriptorPool,
}

impl To {
    /// The response of one message.
    pub(super) async fn unary(self, reply: Response<Body>) -> Response<ResponseBody> {
        let (head, body) = reply.into_parts();
        let messages = Messages::new(head.status, head.headers, Read::default(), body);
        let response = match messages {
            Ok(messages) => self.one(messages).await,
            Err(status) => Err(status),
        };
        let response = response.unwrap_or_else(|status| error::unary(&status, &self.pool));
        with_extensions(response, head.extensions)
    }

    async fn one(&self, mut messages: Messages) -> Result<Response<ResponseBody>, Status> {
        let message = messages.only(&self.method).await?;
        let payload = self.payload(message)?;
        let (leading, trailing) = messages.into_metadata();
        let mut headers = metadata::under_own_names(&leading);
        metadata::append_prefixed(&mut headers, "trailer-", &trailing);
        let content_type = HeaderValue::from_static(self.format.unary_type());
        headers.insert(header::CONTENT_TYPE, content_type);
        Ok(response::response(headers, payload))
    }

    /// The response of any number of messages. Its head does not wait for the first.
    pub(super) fn stream(self, reply: Response<Body>) -> Response<ResponseBody> {
        let (head, body) = reply.into_parts();
        let messages = match Messages::new(head.status, head.headers, Read::default(), body) {
            Ok(messages) => messages,
            Err(status) => {
                let response = refusal::stream(&status, self.format, &self.pool);
                return with_extensions(response, head.extensions);
            }
        };
        let mut headers = metadata::under_own_names(messages.headers());
        let content_type = HeaderValue::from_static(self.format.stream_type());
        headers.insert(header::CONTENT_TYPE, content_type);
        headers.insert(ACCEL_BUFFERING, HeaderValue::from_static("no"));
        let ended = StreamEnd::default();
        let state = Some((self, messages, ended.clone()));
        let frames = stream::unfold(state, |state| async {
            let (to, mut messages, ended) = state?;
            let next = match messages.next(&to.method).await {
                Ok(Some(message)) => to.payload(message).map(Some),
                Ok(None) => Ok(None),
                Err(status) => Err(status),
            };
            let end = match next {
                Ok(Some(payload)) => {
                    let frame = Frame::data(envelope(0, &payload));
                    return Some((Ok::<_, Status>(frame), Some((to, messages, ended))));
                }
                Ok(None) => Ok(()),
                Err(status) => Err(status),
            };
            ended.set(&end);
            let end = error::end_of_stream(&end, messages.trailers(), &to.pool);
            Some((Ok(Frame::data(envelope(END, end.as_bytes()))), None))
        });
        let body = Body::new(StreamBody::new(frames.fuse()));
        let mut response = response::response(headers, body);
        response.extensions_mut().insert(ended);
        with_extensions(response, head.extensions)
    }

    /// A message as it is sent.
    fn payload(&self, message: Bytes) -> Result<Bytes, Status> {
        match self.format {
            Format::Proto => Ok(message),
            Format::Json => response::json_of(&message, &self.method, None, &self.codec)
                .map_err(|problem| self.method.defect(&problem)),
        }
    }
}

/// The response with what the layers behind put into their reply.
fn with_extensions(
    mut response: Response<ResponseBody>,
    extensions: Extensions,
) -> Response<ResponseBody> {
    let own = std::mem::replace(response.extensions_mut(), extensions);
    response.extensions_mut().extend(own);
    response
}
