//! `POST /compute/v1/images:upload`: a body of any size becomes a compute image.

mod body;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderValue, Request, Response, header};
use http_body::Body as _;
use prost::Message;
use prost_reflect::DynamicMessage;
use tonic::Status;
use tonic::metadata::MetadataMap;

use super::{digest, error};
use crate::contract::rules::{Violation, violations};
use crate::contract::yandex::cloud::compute::v1::CreateImageRequest;
use crate::contract::{self, yandex::cloud::operation::Operation};
use crate::images::{Images, Upload};
use crate::metadata::{Accept, NewComputeImage};
use crate::rpc;
use crate::transcoding::{self, ResponseBody};
use body::Pieces;

pub const PATH: &str = "/compute/v1/images:upload";

pub async fn answer(
    images: &Images,
    request: Request<tonic::body::Body>,
    request_id: &str,
) -> Response<ResponseBody> {
    let (head, body) = request.into_parts();
    let length = body.size_hint().exact();
    let result = match announced(&head) {
        Ok(announced) => {
            let upload = Upload {
                new: announced.new,
                sha256: announced.sha256,
                length,
                body: Pieces::new(body, head.version),
            };
            images
                .upload_compute_image(announced.accept, upload)
                .await
                .map_err(rpc::from_error)
                .and_then(rpc::operation_message)
                .and_then(|operation| reply(&operation))
        }
        Err(refused) => Err(refused),
    };
    result.unwrap_or_else(|failed| error(&failed, request_id))
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
    if encoding.is_some_and(|encoding| !encoding.as_bytes().eq_ignore_ascii_case(b"identity")) {
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

fn reply(operation: &Operation) -> Result<Response<ResponseBody>, Status> {
    let internal = |error: &dyn std::error::Error| Status::internal(error.to_string());
    let mut message = DynamicMessage::new(contract::descriptor::<Operation>());
    message
        .merge(operation.encode_to_vec().as_slice())
        .map_err(|error| internal(&error))?;
    let text = transcoding::to_json(&message).map_err(|error| internal(&error))?;
    let body = Bytes::from(text);
    let mut response = Response::new(ResponseBody::from(body));
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    Ok(response)
}
