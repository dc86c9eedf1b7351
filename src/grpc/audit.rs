//! `desktopimages.v1.AuditService`.

use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use tonic::{Request, Response, Status};

use super::convert::timestamp;
use super::{Service, request, status};
use crate::contract::desktopimages::v1::{
    AuditEvent, ReadAuditEventsRequest, audit_event, audit_service_server::AuditService,
};
use crate::model;
use crate::model::{AuditKind, AuditStatus, FieldChange, Kind};

#[tonic::async_trait]
impl AuditService for Service {
    type ReadStream = BoxStream<'static, Result<AuditEvent, Status>>;

    async fn read(
        &self,
        request: Request<ReadAuditEventsRequest>,
    ) -> Result<Response<Self::ReadStream>, Status> {
        let (context, request) = request::read(request)?;
        let folder_id = Some(request.folder_id).filter(|id| !id.is_empty());
        let events = self
            .images
            .audit_events(&context, folder_id, request.after_sequence, request.follow)
            .map_err(status::from_error)?;
        let messages = events.map(|event| event.map(message).map_err(status::from_error));
        Ok(Response::new(messages.boxed()))
    }
}

fn message(event: model::AuditEvent) -> AuditEvent {
    AuditEvent {
        sequence: event.sequence,
        time: Some(timestamp(event.time)),
        event_type: event_type(event.kind),
        status: match event.status {
            AuditStatus::Started => audit_event::Status::Started,
            AuditStatus::Done => audit_event::Status::Done,
            AuditStatus::Error => audit_event::Status::Error,
            AuditStatus::Cancelled => audit_event::Status::Cancelled,
        }
        .into(),
        operation_id: event.operation_id,
        subject: event.subject,
        folder_id: event.folder_id,
        image_id: event.image_id,
        request_id: event.request_id,
        peer_address: event.peer,
        error_message: event.message.unwrap_or_default(),
        changes: event.changes.into_iter().map(change).collect(),
    }
}

fn change(change: FieldChange) -> audit_event::Change {
    audit_event::Change {
        field: change.field,
        old_value: change.old,
        new_value: change.new,
    }
}

fn event_type(kind: AuditKind) -> String {
    let kind = match kind {
        AuditKind::Operation(kind) => kind,
        AuditKind::Cancel(_) => return "desktopimages.audit.operation.CancelOperation".to_owned(),
        AuditKind::SetQuota => return "desktopimages.audit.quota.SetQuota".to_owned(),
        AuditKind::Identity(action) => {
            return format!("desktopimages.audit.identity.{}", action.name());
        }
    };
    let event_type = match kind {
        Kind::CopyDesktopImage => "desktopimages.audit.clouddesktop.CopyDesktopImage",
        Kind::UpdateDesktopImage => "desktopimages.audit.clouddesktop.UpdateDesktopImage",
        Kind::DeleteDesktopImage => "desktopimages.audit.clouddesktop.DeleteDesktopImage",
        Kind::CreateComputeImage => "desktopimages.audit.compute.CreateImage",
        Kind::UpdateComputeImage => "desktopimages.audit.compute.UpdateImage",
        Kind::DeleteComputeImage => "desktopimages.audit.compute.DeleteImage",
    };
    event_type.to_owned()
}
