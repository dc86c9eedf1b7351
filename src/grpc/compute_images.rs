//! `yandex.cloud.compute.v1.ImageService`.

use tonic::{Request, Response, Status};

use super::convert::list_request;
use super::field_mask::Masked;
use super::{Service, images, operations, request, status};
use crate::contract::rules::violations;
use crate::contract::yandex::cloud::compute::v1::{
    CreateImageRequest, DeleteImageRequest, GetImageLatestByFamilyRequest, GetImageRequest, Image,
    ListImageOperationsRequest, ListImageOperationsResponse, ListImagesRequest, ListImagesResponse,
    UpdateImageRequest, create_image_request::Source, hardware_generation::Features,
    image_service_server::ImageService,
};
use crate::contract::yandex::cloud::operation::Operation;
use crate::images::NewComputeImageSource;
use crate::model;
use crate::model::{ComputeImageChanges, NewComputeImage};

#[tonic::async_trait]
impl ImageService for Service {
    async fn get(&self, request: Request<GetImageRequest>) -> Result<Response<Image>, Status> {
        let (context, request) = request::read(request)?;
        let image = self
            .images
            .compute_image(&context, &request.image_id)
            .await
            .map_err(status::from_error)?;
        Ok(Response::new(images::compute_image(image)))
    }

    async fn get_latest_by_family(
        &self,
        request: Request<GetImageLatestByFamilyRequest>,
    ) -> Result<Response<Image>, Status> {
        let (context, request) = request::read(request)?;
        let image = self
            .images
            .latest_compute_image_of_family(&context, &request.folder_id, &request.family)
            .await
            .map_err(status::from_error)?;
        Ok(Response::new(images::compute_image(image)))
    }

    async fn list(
        &self,
        request: Request<ListImagesRequest>,
    ) -> Result<Response<ListImagesResponse>, Status> {
        let (context, request) = request::read(request)?;
        let (images, next) = self
            .images
            .compute_images(&context, list_request!(request))
            .await
            .map_err(status::from_error)?;
        Ok(Response::new(ListImagesResponse {
            images: images.into_iter().map(images::compute_image).collect(),
            next_page_token: next.unwrap_or_default(),
        }))
    }

    async fn create(
        &self,
        request: Request<CreateImageRequest>,
    ) -> Result<Response<Operation>, Status> {
        let (context, request) = request::change(request, "ImageService/Create")?;
        let (new, source) = new_compute_image(request);
        let source = match source {
            Some(Source::ImageId(id)) => NewComputeImageSource::ComputeImage(id),
            Some(Source::Uri(uri)) => NewComputeImageSource::Uri(uri),
            Some(Source::DiskId(_)) => NewComputeImageSource::Disk,
            Some(Source::SnapshotId(_)) => NewComputeImageSource::Snapshot,
            None => return Err(status::invalid_field("source", "Field is required")),
        };
        operations::reply(self.images.create_compute_image(context, new, source).await)
    }

    async fn update(
        &self,
        request: Request<UpdateImageRequest>,
    ) -> Result<Response<Operation>, Status> {
        let (context, metadata, request) = request::unpack(request)?;
        let context = request::idempotent(context, &metadata, "ImageService/Update", &request);
        let mut violations = violations(&request);
        let updatable = ["name", "description", "min_disk_size", "labels"];
        let masked = Masked::new(request.update_mask, &updatable, &mut violations);
        request::refuse(violations)?;
        let context = context?;
        let changes = ComputeImageChanges {
            name: masked.pick("name", request.name),
            description: masked.pick("description", request.description),
            min_disk_size: masked.pick("min_disk_size", request.min_disk_size),
            labels: masked.pick("labels", request.labels),
        };
        let updated = self
            .images
            .update_compute_image(context, &request.image_id, changes)
            .await;
        operations::reply(updated)
    }

    async fn delete(
        &self,
        request: Request<DeleteImageRequest>,
    ) -> Result<Response<Operation>, Status> {
        let (context, request) = request::change(request, "ImageService/Delete")?;
        operations::reply(
            self.images
                .delete_compute_image(context, &request.image_id)
                .await,
        )
    }

    async fn list_operations(
        &self,
        request: Request<ListImageOperationsRequest>,
    ) -> Result<Response<ListImageOperationsResponse>, Status> {
        let (context, request) = request::read(request)?;
        let (found, next) = self
            .images
            .operations_of_compute_image(
                &context,
                &request.image_id,
                request.page_size,
                &request.page_token,
            )
            .await
            .map_err(status::from_error)?;
        Ok(Response::new(ListImageOperationsResponse {
            operations: found
                .into_iter()
                .map(operations::message)
                .collect::<Result<_, _>>()?,
            next_page_token: next.unwrap_or_default(),
        }))
    }
}

/// The new image that a request describes, and the source of its bytes.
pub(crate) fn new_compute_image(request: CreateImageRequest) -> (NewComputeImage, Option<Source>) {
    let hardware_generation = match request.hardware_generation.and_then(|it| it.features) {
        Some(Features::LegacyFeatures(legacy)) => Some(model::HardwareGeneration::Legacy {
            pci_topology: legacy.pci_topology,
        }),
        Some(Features::Generation2Features(features)) => {
            Some(model::HardwareGeneration::Generation2 {
                secure_boot_template_id: features.secure_boot_template_id,
                vtpm_enabled: features.vtpm_enabled,
            })
        }
        None => None,
    };
    let new = NewComputeImage {
        folder_id: request.folder_id,
        name: request.name,
        description: request.description,
        labels: request.labels,
        family: request.family,
        min_disk_size: request.min_disk_size,
        product_ids: request.product_ids,
        os: request.os.map(|os| model::Os {
            kind: os.r#type,
            nvidia_driver: os.nvidia.map(|nvidia| nvidia.driver),
        }),
        pooled: request.pooled,
        hardware_generation,
    };
    (new, request.source)
}
