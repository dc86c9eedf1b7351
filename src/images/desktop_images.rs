//! Use cases of desktop images.

use super::listing::{self, ListRequest};
use super::{Images, Result, permissions};
use crate::model::{
    Change, DesktopImage, DesktopImageChanges, NewDesktopImage, Operation, RequestContext, Role,
};

impl Images {
    /// Makes a desktop image of a READY compute image. No bytes move.
    ///
    /// # Errors
    /// `Error::Store` with `Refusal::ImageNotFound`, `ImageNotReady`, `ImageBeingDeleted` or `BlobDamaged` for the
    /// compute image, and with `NameTaken`, `QuotaExceeded` or `IdempotencyKeyReused`.
    pub(crate) fn copy_desktop_image(
        &self,
        request: RequestContext,
        new: NewDesktopImage,
    ) -> impl Future<Output = Result<Operation>> + Send {
        self.accept(request, Change::CopyDesktopImage(new))
    }

    /// The desktop image with this id.
    ///
    /// # Errors
    /// `Error::Store` with `Refusal::ImageNotFound`.
    pub(crate) async fn desktop_image(
        &self,
        request: &RequestContext,
        id: &str,
    ) -> Result<DesktopImage> {
        let image = self.store.desktop_image(id).await?;
        permissions::of_image(request, id, &image.folder_id)?;
        Ok(image)
    }

    /// A page of the desktop images of a folder, and the token of the next page, if one follows.
    ///
    /// # Errors
    /// `Error::Invalid` for a filter, an order or a page token that cannot be read, and `Error::Store` with
    /// `PageTokenExpired`.
    pub(crate) async fn desktop_images(
        &self,
        context: &RequestContext,
        request: ListRequest,
    ) -> Result<(Vec<DesktopImage>, Option<String>)> {
        context.rights.demand(Role::Viewer, &request.folder_id)?;
        let (query, token) = listing::prepare("desktop_images", request)?;
        Ok(token.finish(self.store.desktop_images(query).await?))
    }

    /// Changes the given fields. A given name is not empty.
    ///
    /// # Errors
    /// `Error::Store` with `Refusal::ImageNotFound`, `ImageNotReady`, `ImageBeingDeleted`, `NameTaken` or
    /// `IdempotencyKeyReused`.
    pub(crate) async fn update_desktop_image(
        &self,
        request: RequestContext,
        id: &str,
        changes: DesktopImageChanges,
    ) -> Result<Operation> {
        let id = id.to_owned();
        self.accept(request, Change::UpdateDesktopImage { id, changes })
            .await
    }

    /// Removes a desktop image.
    ///
    /// # Errors
    /// `Error::Store` with `Refusal::ImageNotFound`, `ImageNotReady`, `ImageBeingDeleted` or `IdempotencyKeyReused`.
    pub(crate) async fn delete_desktop_image(
        &self,
        request: RequestContext,
        id: &str,
    ) -> Result<Operation> {
        let id = id.to_owned();
        let operation = self
            .accept(request, Change::DeleteDesktopImage { id })
            .await?;
        self.collect_garbage_soon();
        Ok(operation)
    }
}
