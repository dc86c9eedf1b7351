//! The messages of a gRPC reply, one after another, and how the reply ended.

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, StatusCode};
use http_body_util::BodyExt;
use tonic::{Code, Status, body::Body, metadata::MetadataMap};

use super::{metadata, rules::Method, values};

/// The length of what stands before a message: a flag for compression and a 32-bit length.
pub const PREFIX: usize = 5;

/// Reads a reply no further than it is asked for, so that a slow client slows the service down.
pub struct Messages {
    headers: HeaderMap,
    body: Body,
    /// What has arrived and is not taken yet.
    data: Bytes,
    /// What has arrived of a message that comes in several parts; then `data` is empty.
    part: BytesMut,
    trailers: HeaderMap,
}

impl Messages {
    /// The reply to a call. A status that came instead of messages is an error at once.
    pub fn new(status: StatusCode, headers: HeaderMap, body: Body) -> Result<Self, Status> {
        end(&headers, &headers).unwrap_or(Ok(()))?;
        if status != StatusCode::OK {
            return Err(status_of_http(status));
        }
        Ok(Self {
            headers,
            body,
            data: Bytes::new(),
            part: BytesMut::new(),
            trailers: HeaderMap::new(),
        })
    }

    /// The next message, encoded; `None` where the reply ended well.
    pub async fn next(&mut self, method: &Method) -> Result<Option<Bytes>, Status> {
        loop {
            if let Some(message) = self.take_message(method)? {
                return Ok(Some(message));
            }
            let Some(frame) = self.body.frame().await else {
                return self.end(method).map(|()| None);
            };
            match frame?.into_data() {
                // A message that arrives in one piece, as they do as a rule, is not copied.
                Ok(part) if self.data.is_empty() && self.part.is_empty() => self.data = part,
                Ok(part) => {
                    self.part.extend_from_slice(&std::mem::take(&mut self.data));
                    self.part.extend_from_slice(&part);
                    if is_message(&self.part) {
                        self.data = std::mem::take(&mut self.part).freeze();
                    }
                }
                Err(frame) => {
                    if let Ok(part) = frame.into_trailers() {
                        match self.trailers.is_empty() {
                            true => self.trailers = part,
                            false => self.trailers.extend(part),
                        }
                    }
                }
            }
        }
    }

    /// The metadata that came behind the messages, once they are all read.
    pub fn trailers(&self) -> &HeaderMap {
        &self.trailers
    }

    /// The metadata before and behind the messages, once they are all read.
    pub fn into_metadata(self) -> (HeaderMap, HeaderMap) {
        (self.headers, self.trailers)
    }

    /// The metadata before the messages.
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    fn take_message(&mut self, method: &Method) -> Result<Option<Bytes>, Status> {
        let Some(prefix) = self.data.first_chunk::<PREFIX>() else {
            return Ok(None);
        };
        let [flag, length @ ..] = *prefix;
        if flag != 0 {
            return Err(method.defect("its reply is compressed, which was not asked for"));
        }
        let length = u32::from_be_bytes(length) as usize;
        if self.data.len() - PREFIX < length {
            return Ok(None);
        }
        self.data.advance(PREFIX);
        Ok(Some(self.data.split_to(length)))
    }

    fn end(&self, method: &Method) -> Result<(), Status> {
        let end = end(&self.trailers, &self.headers).or_else(|| end(&self.headers, &self.headers));
        end.ok_or_else(|| method.defect("its reply has no status"))??;
        if !self.data.is_empty() || !self.part.is_empty() {
            return Err(method.defect("its reply ends within a frame"));
        }
        Ok(())
    }
}

/// Whether data begins with a whole message, or with what will be none.
fn is_message(data: &[u8]) -> bool {
    let Some((&[flag, length @ ..], message)) = data.split_first_chunk::<PREFIX>() else {
        return false;
    };
    flag != 0 || u32::from_be_bytes(length) as usize <= message.len()
}

/// How a reply ended, by its trailers, or by the headers of one without a message. The metadata of a
/// failure is that of the headers and the trailers together.
fn end(trailers: &HeaderMap, headers: &HeaderMap) -> Option<Result<(), Status>> {
    // There are few, and to look at them is quicker than to hash the name.
    let (_, code) = trailers
        .iter()
        .find(|(name, _)| **name == metadata::STATUS)?;
    let code = Code::from_bytes(code.as_bytes());
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

impl Method {
    /// INTERNAL for a reply that no right service gives.
    pub fn defect(&self, problem: &str) -> Status {
        let method = &*self.name;
        tracing::error!(method, problem, "a gRPC reply is wrong");
        Status::internal(format!("{method}: {problem}"))
    }
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
