//! `yandex.cloud.clouddesktop.v1.api.DesktopImageService`.

use tonic::{Request, Response, Status};

use super::convert::list_request;
use super::field_mask::Masked;
use super::{Service, images, operations, request, status};
use crate::contract::rules::{Violation, violations};
use crate::contract::yandex::cloud::clouddesktop::v1::api::{
    CopyDesktopImageRequest, CopyFromDesktopRequest, DeleteDesktopImageRequest, DesktopImage,
    GetDesktopImageRequest, ListDesktopImagesRequest, ListDesktopImagesResponse,
    UpdateDesktopImageRequest, desktop_image_service_server::DesktopImageService,
};
use crate::contract::yandex::cloud::operation::Operation;
use crate::model;
use crate::model::{DesktopImageChanges, NewDesktopImage};

#[tonic::async_trait]
impl DesktopImageService for Service {
    async fn list(
        &self,
        request: Request<ListDesktopImagesRequest>,
    ) -> Result<Response<ListDesktopImagesResponse>, Status> {
        let (context, request) = request::read(request)?;
        let (images, next) = self
            .images
            .desktop_images(&context, list_request!(request))
            .await
            .map_err(status::from_error)?;
        Ok(Response::new(ListDesktopImagesResponse {
            desktop_images: images.into_iter().map(images::desktop_image).collect(),
            next_page_token: next.unwrap_or_default(),
        }))
    }

    async fn get(
        &self,
        request: Request<GetDesktopImageRequest>,
    ) -> Result<Response<DesktopImage>, Status> {
        let (context, request) = request::read(request)?;
        let image = self
            .images
            .desktop_image(&context, &request.image_id)
            .await
            .map_err(status::from_error)?;
        Ok(Response::new(images::desktop_image(image)))
    }

    async fn copy(
        &self,
        request: Request<CopyDesktopImageRequest>,
    ) -> Result<Response<Operation>, Status> {
        let accepted = self.accept_copy(request)?;
        operations::reply(accepted.await)
    }

    async fn copy_from_desktop(
        &self,
        request: Request<CopyFromDesktopRequest>,
    ) -> Result<Response<Operation>, Status> {
        request::check(request.get_ref())?;
        Err(Status::unimplemented(
            "CopyFromDesktop is not supported by this server: it has no desktops",
        ))
    }

    async fn update(
        &self,
        request: Request<UpdateDesktopImageRequest>,
    ) -> Result<Response<Operation>, Status> {
        let (context, metadata, request) = request::unpack(request)?;
        let context =
            request::idempotent(context, &metadata, "DesktopImageService/Update", &request);
        let mut violations = violations(&request);
        let updatable = ["name", "labels", "description"];
        let masked = Masked::new(request.update_mask, &updatable, &mut violations);
        let changes = DesktopImageChanges {
            name: masked.pick("name", request.name),
            description: masked.pick("description", request.description),
            labels: masked.pick("labels", request.labels),
        };
        // A name can be left as it is, but not be reset.
        if changes.name.as_deref() == Some("") {
            violations.push(Violation {
                field: "name".to_owned(),
                description: "Field is required".to_owned(),
            });
        }
        request::refuse(violations)?;
        let context = context?;
        let updated = self
            .images
            .update_desktop_image(context, &request.image_id, changes)
            .await;
        operations::reply(updated)
    }

    async fn delete(
        &self,
        request: Request<DeleteDesktopImageRequest>,
    ) -> Result<Response<Operation>, Status> {
        let (context, request) = request::change(request, "DesktopImageService/Delete")?;
        operations::reply(
            self.images
                .delete_desktop_image(context, &request.image_id)
                .await,
        )
    }
}

impl Service {
    /// Accepts a Copy. The future waits for its commit, and keeps nothing of the request meanwhile.
    fn accept_copy(
        &self,
        request: Request<CopyDesktopImageRequest>,
    ) -> Result<impl Future<Output = crate::images::Result<model::Operation>> + Send, Status> {
        let (context, request) = request::change(request, "DesktopImageService/Copy")?;
        let new = NewDesktopImage {
            folder_id: request.folder_id,
            name: request.name,
            description: request.description,
            labels: request.labels,
            compute_image_id: request.image_id,
        };
        Ok(self.images.copy_desktop_image(context, new))
    }
}
