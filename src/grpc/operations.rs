//! `yandex.cloud.operation.OperationService`, and operations as messages for the other services.

use prost::{Message, Name};
use prost_types::Any;
use tonic::metadata::MetadataValue;
use tonic::{Code, Request, Response, Status};

use super::convert::timestamp;
use super::{Service, images, progress, request, status};
use crate::contract::google::rpc;
use crate::contract::yandex::cloud::clouddesktop::v1::api::{
    CopyDesktopImageMetadata, DeleteDesktopImageMetadata, UpdateDesktopImageMetadata,
};
use crate::contract::yandex::cloud::compute::v1::{
    CreateImageMetadata, DeleteImageMetadata, UpdateImageMetadata,
};
use crate::contract::yandex::cloud::operation::{
    CancelOperationRequest, GetOperationRequest, Operation, operation,
    operation_service_server::OperationService,
};
use crate::model;
use crate::model::{Failure, Kind, Outcome, Reason, Resource};

/// Whole seconds after which to look at a running operation again.
const POLL_INTERVAL: &str = "x-operation-poll-interval";

#[tonic::async_trait]
impl OperationService for Service {
    async fn get(
        &self,
        request: Request<GetOperationRequest>,
    ) -> Result<Response<Operation>, Status> {
        let (context, request) = request::read(request)?;
        reply(self.images.operation(&context, &request.operation_id).await)
    }

    async fn cancel(
        &self,
        request: Request<CancelOperationRequest>,
    ) -> Result<Response<Operation>, Status> {
        let (context, request) = request::read(request)?;
        reply(
            self.images
                .cancel_operation(context, &request.operation_id)
                .await,
        )
    }
}

/// The answer of a method that returns an operation.
pub(crate) fn reply(
    result: crate::images::Result<model::Operation>,
) -> Result<Response<Operation>, Status> {
    let operation = result.map_err(status::from_error)?;
    let running = !operation.is_done();
    let mut response = Response::new(of_request(operation)?);
    if running {
        response
            .metadata_mut()
            .insert(POLL_INTERVAL, MetadataValue::from_static("1"));
    }
    Ok(response)
}

/// The operation that answers a request, as the contract's message. What is logged of the request says from
/// then on which it is.
pub(crate) fn of_request(operation: model::Operation) -> Result<Operation, Status> {
    let span = tracing::Span::current();
    if !span.is_disabled() {
        tracing::record_all!(
            span,
            operation_id = operation.id,
            image_id = operation.image_id,
            folder_id = operation.folder_id
        );
    }
    message(operation)
}

/// An operation as the contract's message.
pub(crate) fn message(operation: model::Operation) -> Result<Operation, Status> {
    let progress = progress::words(&operation);
    let image_id = operation.image_id;
    let (description, metadata) = match operation.kind {
        Kind::CopyDesktopImage => (
            "Copy desktop image",
            any(&CopyDesktopImageMetadata { image_id }),
        ),
        Kind::UpdateDesktopImage => (
            "Update desktop image",
            any(&UpdateDesktopImageMetadata { image_id }),
        ),
        Kind::DeleteDesktopImage => (
            "Delete desktop image",
            any(&DeleteDesktopImageMetadata { image_id }),
        ),
        Kind::CreateComputeImage => ("Create image", any(&CreateImageMetadata { image_id })),
        Kind::UpdateComputeImage => ("Update image", any(&UpdateImageMetadata { image_id })),
        Kind::DeleteComputeImage => ("Delete image", any(&DeleteImageMetadata { image_id })),
    };
    let done = operation.outcome.is_some();
    let result = match operation.outcome {
        None => None,
        Some(Outcome::Succeeded(resource)) => Some(operation::Result::Response(response(resource))),
        Some(Outcome::Failed(failure)) => Some(operation::Result::Error(error(failure))),
    };
    Ok(Operation {
        id: operation.id,
        description: progress.unwrap_or_else(|| description.to_owned()),
        created_at: Some(timestamp(operation.created_at)),
        created_by: operation.created_by,
        modified_at: Some(timestamp(operation.modified_at)),
        done,
        metadata: Some(metadata),
        result,
    })
}

fn response(resource: Option<Resource>) -> Any {
    match resource {
        Some(Resource::DesktopImage(image)) => any(&images::desktop_image(image)),
        Some(Resource::ComputeImage(image)) => any(&images::compute_image(image)),
        None => Any {
            type_url: "type.googleapis.com/google.protobuf.Empty".to_owned(),
            value: Vec::new(),
        },
    }
}

fn error(failure: Failure) -> rpc::Status {
    let code = match failure.reason {
        Reason::Invalid | Reason::OtherDigest => Code::InvalidArgument,
        Reason::NotFound => Code::NotFound,
        Reason::AlreadyExists => Code::AlreadyExists,
        Reason::FailedPrecondition => Code::FailedPrecondition,
        Reason::Cancelled => Code::Cancelled,
        Reason::Aborted | Reason::Superseded => Code::Aborted,
        Reason::Unauthenticated => Code::Unauthenticated,
        Reason::PermissionDenied => Code::PermissionDenied,
        Reason::Exhausted | Reason::QuotaExceeded => Code::ResourceExhausted,
        Reason::Unavailable => Code::Unavailable,
        Reason::Internal => Code::Internal,
    };
    rpc::Status {
        code: code.into(),
        details: details(&failure),
        message: failure.message,
    }
}

/// The status that tells a caller of a failed operation, which its details name. None of one that has not
/// failed.
pub(crate) fn failure(operation: &model::Operation) -> Option<Status> {
    let Some(Outcome::Failed(failure)) = &operation.outcome else {
        return None;
    };
    let mut status = error(failure.clone());
    let name = any(&rpc::ErrorInfo::default()).type_url;
    status.details.retain(|detail| detail.type_url != name);
    status.details.push(any(&rpc::ErrorInfo {
        metadata: [("operationId".to_owned(), operation.id.clone())].into(),
        ..error_info(failure.reason)
    }));
    Some(Status::with_details(
        status.code.into(),
        status.message.clone(),
        status.encode_to_vec().into(),
    ))
}

fn error_info(reason: Reason) -> rpc::ErrorInfo {
    rpc::ErrorInfo {
        reason: reason.as_str().to_ascii_uppercase(),
        domain: status::DOMAIN.to_owned(),
        ..Default::default()
    }
}

/// The details of a failed operation, which tell a caller what to do.
fn details(failure: &Failure) -> Vec<Any> {
    let mut details = Vec::new();
    if let Some(subject) = &failure.subject {
        let reached = failure.quota.as_ref();
        let words = reached.map(|reached| status::quota_words(&failure.message, reached));
        details.push(any(&rpc::QuotaFailure {
            violations: vec![rpc::quota_failure::Violation {
                subject: subject.clone(),
                description: words.unwrap_or_else(|| failure.message.clone()),
                ..Default::default()
            }],
        }));
    }
    if let Some(reached) = &failure.quota {
        details.push(any(&rpc::ErrorInfo {
            reason: status::QUOTA_REASON.to_owned(),
            domain: status::DOMAIN.to_owned(),
            metadata: status::quota_numbers(reached).into_iter().collect(),
        }));
    }
    // Who tries again by itself must know that another has.
    if failure.reason == Reason::Superseded {
        details.push(any(&error_info(failure.reason)));
    }
    let pause = match failure.reason {
        Reason::Exhausted => Some(status::DISK_FULL_PAUSE),
        Reason::Unavailable => Some(status::SHORT_PAUSE),
        _ => None,
    };
    details.extend(pause.map(|pause| {
        any(&rpc::RetryInfo {
            retry_delay: Some(prost_types::Duration {
                seconds: i64::try_from(pause.as_secs()).unwrap_or(i64::MAX),
                nanos: 0,
            }),
        })
    }));
    details
}

fn any<M: Message + Name>(message: &M) -> Any {
    Any {
        type_url: M::type_url(),
        value: message.encode_to_vec(),
    }
}
