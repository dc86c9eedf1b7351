//! `POST /compute/v1/images:upload`: a body of any size becomes a compute image.

use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use http::request::Parts;
use http::{HeaderValue, Request, Response, header};
use http_body::Body as _;
use http_body_util::BodyExt;
use prost::Message;
use prost_reflect::DynamicMessage;
use tonic::Status;
use tonic::body::Body;
use tonic::metadata::MetadataMap;

use super::{digest, error};
use crate::contract::rules::{Violation, violations};
use crate::contract::yandex::cloud::compute::v1::CreateImageRequest;
use crate::contract::{self, yandex::cloud::operation::Operation};
use crate::images::{Images, Upload};
use crate::metadata::{Accept, NewComputeImage};
use crate::{rpc, transcoding};

pub const PATH: &str = "/compute/v1/images:upload";

/// A refused body is taken up to this size and for this long, so that a client that writes
/// before it reads learns why.
const DISCARD_SIZE: usize = 8 << 20;
const DISCARD_TIME: Duration = Duration::from_secs(2);

pub async fn answer(images: &Images, request: Request<Body>, request_id: &str) -> Response<Body> {
    let (head, mut body) = request.into_parts();
    let announced = match announced(&head) {
        Ok(announced) => announced,
        Err(refused) => {
            discard(&mut body).await;
            return error(&refused, request_id);
        }
    };
    let length = body.size_hint().exact();
    let upload = Upload {
        new: announced.new,
        sha256: announced.sha256,
        length,
        body: body
            .into_data_stream()
            .map(|chunk| chunk.map_err(Into::into)),
    };
    match reply(images, announced.accept, upload).await {
        Ok(response) => response,
        Err(failed) => error(&failed, request_id),
    }
}

/// What the request says before its body.
struct Announced {
    accept: Accept,
    new: NewComputeImage,
    sha256: Option<[u8; 32]>,
}

fn announced(head: &Parts) -> Result<Announced, Status> {
    let descriptor = contract::descriptor::<CreateImageRequest>();
    let query = head.uri.query().unwrap_or_default();
    let request: CreateImageRequest = transcoding::message_from_query(&descriptor, query)?
        .transcode_to()
        .map_err(|error| Status::internal(error.to_string()))?;
    let mut violations = violations(&request);
    // The body is the source.
    violations.retain(|violation| violation.field != "source");
    let mut refuse = |field: &str, description: &str| {
        violations.push(Violation {
            field: field.to_owned(),
            description: description.to_owned(),
        });
    };
    if request.source.is_some() {
        refuse(
            "source",
            "The body is the source of an upload; leave out all others",
        );
    }
    let encoding = head.headers.get(header::CONTENT_ENCODING);
    if encoding.is_some_and(|encoding| encoding != "identity") {
        refuse("Content-Encoding", "Send the image as it is");
    }
    let sha256 = digest::content_sha256(&head.headers).unwrap_or_else(|wrong| {
        refuse("Content-Digest", wrong);
        None
    });
    if !violations.is_empty() {
        return Err(rpc::invalid(violations));
    }
    let metadata = MetadataMap::from_headers(head.headers.clone());
    let method = format!("ImageService/Upload {sha256:?}");
    let accept = rpc::accept(&metadata, &method, &request)?;
    let (new, _) = rpc::new_compute_image(request);
    Ok(Announced {
        accept,
        new,
        sha256,
    })
}

async fn reply<S>(
    images: &Images,
    accept: Accept,
    upload: Upload<S>,
) -> Result<Response<Body>, Status>
where
    S: futures_util::Stream<Item = Result<Bytes, crate::images::UploadError>> + Send + 'static,
{
    let operation = images
        .upload_compute_image(accept, upload)
        .await
        .map_err(rpc::from_error)?;
    let message: Operation = rpc::operation_message(operation)?;
    let internal = |error: &dyn std::error::Error| Status::internal(error.to_string());
    let mut dynamic = DynamicMessage::new(contract::descriptor::<Operation>());
    dynamic
        .merge(message.encode_to_vec().as_slice())
        .map_err(|error| internal(&error))?;
    let text = transcoding::to_json(&dynamic).map_err(|error| internal(&error))?;
    let mut response = Response::new(Body::new(http_body_util::Full::new(Bytes::from(text))));
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    Ok(response)
}

async fn discard(body: &mut Body) {
    let mut taken = 0;
    let reading = async {
        while let Some(Ok(frame)) = body.frame().await {
            taken += frame.data_ref().map_or(0, Bytes::len);
            if taken > DISCARD_SIZE {
                break;
            }
        }
    };
    // Whether it ended or timed out, the answer is the same.
    let _ = tokio::time::timeout(DISCARD_TIME, reading).await;
}
