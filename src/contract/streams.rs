//! Answers calls that reply with a stream. Those of all services that are generated here pass it, as unary
//! ones pass [`super::unary`].

use prost::{Message, Name};
use tonic::body::Body;
use tonic::codegen::Body as HttpBody;
use tonic::server::{Grpc, ServerStreamingService};
use tower::BoxError;

use bytes::{Buf, Bytes};
use http_body_util::BodyExt;

use super::codec::MessageCodec;
use super::compression::Coding;
use super::framing::{Takes, compressed, plain};

/// Answers one call by `tonic`, with plain frames. The limit is in bytes of a message.
pub async fn answer<M, T, U, B>(
    mut tonic: Grpc<MessageCodec<T, U>>,
    method: M,
    request: http::Request<B>,
    max_request: Option<usize>,
) -> http::Response<Body>
where
    M: ServerStreamingService<U, Response = T>,
    M::ResponseStream: Send + 'static,
    T: Message + Send + 'static,
    U: Message + Name + Default + Send + 'static,
    B: HttpBody + Send + 'static,
    B::Error: Into<BoxError> + Send,
{
    let coding = Coding::of_reply(request.headers());
    let bytes = |mut data: B::Data| -> Bytes { data.copy_to_bytes(data.remaining()) };
    let request = request.map(|body| body.map_frame(move |frame| frame.map_data(bytes)));
    match plain(request, Takes::one(max_request)) {
        Ok(request) => compressed(tonic.server_streaming(method, request).await, coding),
        Err(refused) => refused.into_http(),
    }
}
