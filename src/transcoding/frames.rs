//! The messages of a gRPC reply, one after another, and how the reply ended.

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, StatusCode};
use http_body_util::BodyExt;
use tonic::{Code, Status, body::Body, metadata::MetadataMap};

use super::{rules::Method, values};

/// The length of what stands before a message: a flag for compression and a 32-bit length.
pub const PREFIX: usize = 5;

/// Reads a reply no further than it is asked for, so that a slow client slows the service down.
pub struct Messages {
    method: String,
    headers: HeaderMap,
    body: Body,
    data: BytesMut,
    trailers: HeaderMap,
}

impl Messages {
    /// The reply of a method. A status that came instead of messages is an error at once.
    pub fn new(
        status: StatusCode,
        headers: HeaderMap,
        body: Body,
        method: &Method,
    ) -> Result<Self, Status> {
        end(&headers, &headers).unwrap_or(Ok(()))?;
        if status != StatusCode::OK {
            return Err(status_of_http(status));
        }
        Ok(Self {
            method: method.name.clone(),
            headers,
            body,
            data: BytesMut::new(),
            trailers: HeaderMap::new(),
        })
    }

    /// The next message, encoded; `None` where the reply ended well.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Status> {
        loop {
            if let Some(message) = self.take_message()? {
                return Ok(Some(message));
            }
            let Some(frame) = self.body.frame().await else {
                return self.end().map(|()| None);
            };
            match frame?.into_data() {
                // A frame that arrives in one piece, as a rule, is not copied.
                Ok(part) if self.data.is_empty() => {
                    self.data = BytesMut::from(part);
                }
                Ok(part) => self.data.extend_from_slice(&part),
                Err(frame) => {
                    if let Ok(part) = frame.into_trailers() {
                        self.trailers.extend(part);
                    }
                }
            }
        }
    }

    /// The metadata that came behind the messages, once they are all read.
    pub fn trailers(&self) -> &HeaderMap {
        &self.trailers
    }

    fn take_message(&mut self) -> Result<Option<Bytes>, Status> {
        let Some(prefix) = self.data.first_chunk::<PREFIX>() else {
            return Ok(None);
        };
        let [flag, length @ ..] = *prefix;
        if flag != 0 {
            return Err(self.defect("its reply is compressed, which was not asked for"));
        }
        let length = u32::from_be_bytes(length) as usize;
        if self.data.len() - PREFIX < length {
            return Ok(None);
        }
        self.data.advance(PREFIX);
        Ok(Some(self.data.split_to(length).freeze()))
    }

    fn end(&self) -> Result<(), Status> {
        let end = end(&self.trailers, &self.headers).or_else(|| end(&self.headers, &self.headers));
        end.ok_or_else(|| self.defect("its reply has no status"))??;
        if !self.data.is_empty() {
            return Err(self.defect("its reply ends within a frame"));
        }
        Ok(())
    }

    /// INTERNAL for a reply that no right service gives.
    pub fn defect(&self, problem: &str) -> Status {
        tracing::error!(method = self.method, problem, "a gRPC reply is wrong");
        Status::internal(format!("{}: {problem}", self.method))
    }
}

/// How a reply ended, by its trailers, or by the headers of one without a message. The metadata of a
/// failure is that of the headers and the trailers together.
fn end(trailers: &HeaderMap, headers: &HeaderMap) -> Option<Result<(), Status>> {
    let code = Code::from_bytes(trailers.get("grpc-status")?.as_bytes());
    if code == Code::Ok {
        return Some(Ok(()));
    }
    let message = trailers
        .get("grpc-message")
        .map(|message| percent_encoding::percent_decode(message.as_bytes()).decode_utf8_lossy())
        .unwrap_or_default();
    let details = trailers
        .get("grpc-status-details-bin")
        .and_then(|details| details.to_str().ok())
        .and_then(values::bytes)
        .unwrap_or_default();
    let mut metadata = headers.clone();
    // One that is in both was sent again.
    metadata.extend(trailers.clone());
    Some(Err(Status::with_details_and_metadata(
        code,
        message,
        details.into(),
        MetadataMap::from_headers(metadata),
    )))
}

/// The gRPC code of a reply that some layer gave without one, as the gRPC specification maps them.
fn status_of_http(http: StatusCode) -> Status {
    let code = match http.as_u16() {
        400 => Code::Internal,
        401 => Code::Unauthenticated,
        403 => Code::PermissionDenied,
        404 => Code::Unimplemented,
        429 | 502..=504 => Code::Unavailable,
        _ => Code::Unknown,
    };
    Status::new(code, format!("the call ended with HTTP status {http}"))
}
