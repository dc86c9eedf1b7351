//! Use cases of compute images.

use super::listing::{self, ListRequest};
use super::{Error, Images, Result, permissions};
use crate::blobs;
use crate::model::{
    Change, ComputeImage, ComputeImageChanges, NewComputeImage, Operation, Origin, RequestContext,
    Role,
};
use crate::sources::{FileUri, SourceError};

/// The largest disk that an image may hold, in bytes (contract: `min_disk_size`).
pub(super) const LARGEST_DISK: u64 = 4 << 40;
/// The most bytes that a disk image is taken to have: the largest disk, and what describes it.
pub(super) const LARGEST_BLOB: u64 = LARGEST_DISK + LARGEST_DISK / 8;

/// Sources of the bytes of a new compute image.
#[derive(Debug, Clone)]
pub(crate) enum NewComputeImageSource {
    ComputeImage(String),
    Uri(String),
    Disk,
    Snapshot,
}

impl Images {
    /// Makes a compute image: from another one, or from a file.
    ///
    /// # Errors
    /// - [`Error::Unsupported`] for a disk or a snapshot as the source;
    /// - [`Error::Invalid`] for a uri that names no file which may be imported;
    /// - [`Error::Blobs`] where the file cannot be looked at;
    /// - [`Error::Store`] with `Refusal::ImageNotFound`, `ImageNotReady`, `ImageBeingDeleted` or `BlobDamaged` for the
    ///   source image, and with `NameTaken`, `QuotaExceeded`, `MinDiskSizeTooSmall` or `IdempotencyKeyReused`.
    pub(crate) async fn create_compute_image(
        &self,
        request: RequestContext,
        new: NewComputeImage,
        source: NewComputeImageSource,
    ) -> Result<Operation> {
        let origin = match source {
            NewComputeImageSource::ComputeImage(id) => Origin::ComputeImage(id),
            NewComputeImageSource::Uri(uri) => {
                request.rights.demand_import(&new.folder_id, &uri)?;
                // The file may be gone since the first of equal requests.
                if let Some(first) = self.store.repeated_operation(&request).await? {
                    return Ok(first);
                }
                self.check_uri(&uri).await?;
                Origin::Uri(uri)
            }
            NewComputeImageSource::Disk => return Err(Error::Unsupported("disk_id")),
            NewComputeImageSource::Snapshot => return Err(Error::Unsupported("snapshot_id")),
        };
        self.accept(request, Change::CreateComputeImage { new, origin })
            .await
    }

    /// Refuses early a uri with which the import would fail.
    async fn check_uri(&self, uri: &str) -> Result<()> {
        let parsed = FileUri::parse(uri);
        let folder = self.import_folder.clone();
        let checked = tokio::task::spawn_blocking(move || {
            folder.ok_or(SourceError::NoFolder)?.file(&parsed?)
        })
        .await;
        match checked {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(Error::invalid("uri", error.to_string())),
            Err(stopped) => Err(blobs::Error::Io(stopped.into()).into()),
        }
    }

    /// The compute image with this id.
    ///
    /// # Errors
    /// [`Error::Store`] with `Refusal::ImageNotFound`.
    pub(crate) async fn compute_image(
        &self,
        request: &RequestContext,
        id: &str,
    ) -> Result<ComputeImage> {
        let image = self.store.compute_image(id).await?;
        permissions::of_image(request, id, &image.folder_id)?;
        Ok(image)
    }

    /// The newest READY image of a family in a folder.
    ///
    /// # Errors
    /// [`Error::FamilyNotFound`] where there is none.
    pub(crate) async fn latest_compute_image_of_family(
        &self,
        request: &RequestContext,
        folder_id: &str,
        family: &str,
    ) -> Result<ComputeImage> {
        request.rights.demand(Role::Viewer, folder_id)?;
        self.store
            .latest_compute_image_of_family(folder_id, family)
            .await?
            .ok_or_else(|| Error::FamilyNotFound {
                folder_id: folder_id.to_owned(),
                family: family.to_owned(),
            })
    }

    /// A page of the compute images of a folder, and the token of the next page, if one follows.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a filter, an order or a page token that cannot be read, and [`Error::Store`] with
    /// `PageTokenExpired`.
    pub(crate) async fn compute_images(
        &self,
        context: &RequestContext,
        request: ListRequest,
    ) -> Result<(Vec<ComputeImage>, Option<String>)> {
        context.rights.demand(Role::Viewer, &request.folder_id)?;
        let (query, token) = listing::prepare("compute_images", request)?;
        Ok(token.finish(self.store.compute_images(query).await?))
    }

    /// Changes the given fields.
    ///
    /// # Errors
    /// [`Error::Store`] with `Refusal::ImageNotFound`, `ImageNotReady`, `ImageBeingDeleted`, `NameTaken`,
    /// `MinDiskSizeTooSmall` or `IdempotencyKeyReused`.
    pub(crate) async fn update_compute_image(
        &self,
        request: RequestContext,
        id: &str,
        changes: ComputeImageChanges,
    ) -> Result<Operation> {
        let id = id.to_owned();
        self.accept(request, Change::UpdateComputeImage { id, changes })
            .await
    }

    /// Removes a compute image; desktop images copied from it stay.
    ///
    /// # Errors
    /// [`Error::Store`] with `Refusal::ImageNotFound`, `ImageNotReady`, `ImageBeingDeleted` or `IdempotencyKeyReused`.
    pub(crate) async fn delete_compute_image(
        &self,
        request: RequestContext,
        id: &str,
    ) -> Result<Operation> {
        let id = id.to_owned();
        let operation = self
            .accept(request, Change::DeleteComputeImage { id })
            .await?;
        self.collect_garbage_soon();
        Ok(operation)
    }

    /// A page of the operations of a compute image, the newest first.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a page token that cannot be read.
    pub(crate) async fn operations_of_compute_image(
        &self,
        request: &RequestContext,
        image_id: &str,
        page_size: i64,
        page_token: &str,
    ) -> Result<(Vec<Operation>, Option<String>)> {
        let image = self.store.compute_image(image_id).await?;
        permissions::of_image(request, image_id, &image.folder_id)?;
        let (after, token) = listing::prepare_operations(image_id, page_token)?;
        let page_size = listing::page_size(page_size);
        let mut operations = self
            .store
            .operations_of_compute_image(image_id, after, page_size + 1)
            .await?;
        let mut next = None;
        if operations.len() > page_size {
            operations.truncate(page_size);
            next = operations.last().map(|last| token.after(&last.id));
        }
        Ok((operations, next))
    }
}
