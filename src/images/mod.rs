//! Use cases of compute and desktop images. Knows the order in which a use case reads, asks the store, and moves
//! bytes. Never mentions HTTP, gRPC or SQL.

mod audit;
mod compute_images;
mod desktop_images;
mod download;
mod errors;
mod failures;
mod faults;
mod follow;
mod garbage;
mod import;
mod listing;
mod lost;
mod permissions;
mod quotas;
mod stated;
#[cfg(test)]
mod tests;
mod upload;
mod upload_slots;
pub(crate) mod verify;
mod watch;
mod worker;

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::{Notify, Semaphore};

pub(crate) use compute_images::NewComputeImageSource;
pub(crate) use errors::{Error, InvalidField, Result};
pub(crate) use listing::ListRequest;
pub(crate) use stated::StatedSha256;
pub(crate) use upload::{Piece, Upload, UploadError};
pub use upload_slots::UploadSettings;

use faults::Faults;
use upload_slots::UploadSlots;

use crate::blobs::{self, BlobStore};
use crate::model::rules::Accept;
use crate::model::{Change, Operation, RequestContext};
use crate::operations::Engine;
use crate::sources::ImportFolder;
use crate::store::Store;

/// The images of this server. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Images {
    store: Arc<dyn Store>,
    blobs: Arc<dyn BlobStore>,
    engine: Engine,
    import_folder: Option<Arc<ImportFolder>>,
    accepted: disk_image::Options,
    upload_slots: UploadSlots,
    garbage_noted: Arc<Notify>,
    removed: garbage::Removed,
    blob_retention: Duration,
    download_blocks: Arc<Semaphore>,
    faults: Faults,
}

impl Images {
    pub(crate) fn new(
        store: Arc<dyn Store>,
        blobs: Arc<dyn BlobStore>,
        engine: Engine,
        import_folder: Option<ImportFolder>,
    ) -> Self {
        Self {
            store,
            blobs,
            engine,
            import_folder: import_folder.map(Arc::new),
            accepted: disk_image::Options::default(),
            upload_slots: UploadSlots::new(UploadSettings::default()),
            garbage_noted: Arc::default(),
            removed: garbage::Removed::default(),
            blob_retention: Duration::ZERO,
            download_blocks: Arc::new(Semaphore::new(download::BLOCKS_IN_MEMORY)),
            faults: Faults::none(),
        }
    }

    /// Decides whether images that are made to be burnt on a disc are imported too.
    pub(crate) fn allow_installer_images(mut self, allowed: bool) -> Self {
        self.accepted.allow_installer_images = allowed;
        self
    }

    /// The same with other limits of uploads.
    pub(crate) fn with_upload_settings(self, settings: UploadSettings) -> Self {
        Self {
            upload_slots: UploadSlots::new(settings),
            ..self
        }
    }

    /// The same, keeping bytes for so long after they got their tombstone, and for as long as downloads read them.
    pub(crate) fn with_blob_retention(self, blob_retention: Duration) -> Self {
        Self {
            blob_retention,
            ..self
        }
    }

    /// Accepts a change. What was accepted is done also when the caller is gone.
    fn accept(
        &self,
        request: RequestContext,
        change: Change,
    ) -> impl Future<Output = Result<Operation>> + Send {
        let start = self.engine.start();
        let accepted = self.store.execute(Accept {
            request,
            change,
            start,
        });
        accepted.map(|accepted| {
            let operation = accepted?.operation;
            if !operation.is_done() {
                tracing::info!(
                    operation_id = operation.id,
                    image_id = operation.image_id,
                    folder_id = operation.folder_id,
                    "the operation is accepted"
                );
                self.engine.wake();
            }
            Ok(operation)
        })
    }

    /// The operation with this id.
    ///
    /// # Errors
    /// [`Error::Store`] with `Refusal::OperationNotFound`.
    pub(crate) async fn operation(&self, request: &RequestContext, id: &str) -> Result<Operation> {
        let operation = self.store.operation(id).await?;
        permissions::of_operation(request, &operation)?;
        Ok(operation)
    }

    /// Asks an operation to stop, and returns it as it now stands. One that is done stays as it is.
    ///
    /// # Errors
    /// [`Error::Store`] with `Refusal::OperationNotFound` or `FolderDenied`.
    pub(crate) async fn cancel_operation(
        &self,
        request: RequestContext,
        id: &str,
    ) -> Result<Operation> {
        // A caller that hangs up must not take along what was begun.
        let (images, id) = (self.clone(), id.to_owned());
        let worker = Arc::new(self.clone());
        self.engine
            .spawn(async move { images.engine.cancel(request, &id, worker).await })
            .await
            .map_err(|stopped| blobs::Error::Io(stopped.into()))?
            .map_err(Error::from)
    }
}
