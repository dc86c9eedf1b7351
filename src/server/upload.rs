//! `POST /compute/v1/images:upload`: a body of any size becomes a compute image.

mod body;
mod head;

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, header};
use http_body::Body as _;
use prost::Message;
use prost_reflect::DynamicMessage;
use tonic::Status;
use transcoding::ResponseBody;

use super::limits::SubjectShare;
use super::{Peer, error, prefer};
use crate::contract::{self, yandex::cloud::operation::Operation};
use crate::grpc;
use crate::images::{Images, Upload};
use body::Pieces;

pub(crate) const PATH: &str = "/compute/v1/images:upload";

pub(crate) async fn answer(
    images: &Images,
    request: Request<tonic::body::Body>,
    request_id: &str,
) -> Response<ResponseBody> {
    let (mut head, body) = request.into_parts();
    // Uploads that wait would keep the window of the connection from those that run.
    let share = head.extensions.get::<Peer>().map(|peer| &peer.share);
    let permit = share.map(|share| Arc::clone(&share.uploads).try_acquire_owned());
    let length = body.size_hint().exact();
    if matches!(permit, Some(Err(_))) {
        let busy =
            "This connection has as many uploads under way as one may have; use another or wait";
        return error(&grpc::busy(busy), request_id);
    }
    let share = head.extensions.get::<SubjectShare>();
    let subject_permit = share.map(|share| Arc::clone(&share.0.uploads).try_acquire_owned());
    if matches!(subject_permit, Some(Err(_))) {
        let busy = "You have as many uploads under way as one subject may have; wait for them";
        return error(&grpc::busy(busy), request_id);
    }
    let strict = prefer::is_strict(&head.headers);
    let announced = match head::announced(&mut head) {
        Ok(announced) => announced,
        Err(refused) => {
            let mut response = error(&refused.status, request_id);
            if let Some(http_status) = refused.http_status {
                *response.status_mut() = http_status;
                let right = HeaderValue::from_static("application/octet-stream");
                response.headers_mut().insert(header::ACCEPT, right);
            }
            return response;
        }
    };
    let upload = Upload {
        new: announced.new,
        sha256: announced.sha256,
        length,
        body: Pieces::new(body, head.version, announced.check),
    };
    let ended = images.upload_compute_image(announced.context, upload).await;
    let mut response = match ended.map_err(grpc::from_error) {
        Ok(operation) => match grpc::operation_failure(&operation).filter(|_| strict) {
            Some(failed) => {
                let mut response = error(&failed, request_id);
                if let Ok(location) = HeaderValue::try_from(format!("/operations/{}", operation.id))
                {
                    response.headers_mut().insert(header::LOCATION, location);
                }
                response
            }
            None => grpc::operation_of_request(operation)
                .and_then(|operation| reply(&operation))
                .unwrap_or_else(|failed| error(&failed, request_id)),
        },
        Err(refused) => error(&refused, request_id),
    };
    if strict {
        let headers = response.headers_mut();
        headers.insert(prefer::PREFERENCE_APPLIED, prefer::STRICT);
    }
    response
}

fn reply(operation: &Operation) -> Result<Response<ResponseBody>, Status> {
    let mut message = DynamicMessage::new(contract::descriptor::<Operation>());
    message
        .merge(operation.encode_to_vec().as_slice())
        .map_err(|error| grpc::internal(&error))?;
    let text = transcoding::to_json(&message).map_err(|error| grpc::internal(&error))?;
    let body = Bytes::from(text);
    let mut response = Response::new(ResponseBody::from(body));
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    Ok(response)
}
