//! Knows the use cases of compute and desktop images, and the rules they keep. Never mentions
//! HTTP, gRPC or SQL.

#[cfg(feature = "bench-baselines")]
mod baseline;
mod compute_images;
mod contents;
mod desktop_images;
mod errors;
mod import;
mod listing;
mod model;
mod upload;

use std::sync::Arc;

use tokio::sync::Semaphore;

pub use compute_images::NewComputeImageSource;
pub use contents::Download;
pub use errors::{Error, InvalidField, Result};
pub use listing::ListRequest;
pub use model::{
    ComputeImage, ComputeImageStatus, DesktopImage, DesktopImageStatus, HardwareGeneration, Labels,
    Os,
};
pub use upload::{Piece, Upload, UploadError};

use crate::blobs::LocalContents;
use crate::metadata::Store;
use crate::operations::{Engine, Operation};
use crate::sources::ImportFolder;

/// How many uploads run at the same time; more are refused.
const UPLOADS: usize = 64;

/// The images of this server. Cheap to clone.
#[derive(Clone)]
pub struct Images {
    store: Store,
    contents: LocalContents,
    engine: Engine,
    import_folder: Option<Arc<ImportFolder>>,
    uploads: Arc<Semaphore>,
}

impl Images {
    pub fn new(
        store: Store,
        contents: LocalContents,
        engine: Engine,
        import_folder: Option<ImportFolder>,
    ) -> Self {
        Self {
            store,
            contents,
            engine,
            import_folder: import_folder.map(Arc::new),
            uploads: Arc::new(Semaphore::new(UPLOADS)),
        }
    }

    /// The operation with this id.
    pub async fn operation(&self, id: &str) -> Result<Operation> {
        Ok(self.store.operation(id).await?)
    }

    /// Asks an operation to stop, and returns it as it now stands.
    pub async fn cancel_operation(&self, id: &str) -> Result<Operation> {
        let operation = self.store.request_cancel(id).await?;
        if !operation.is_done() {
            self.engine.cancel(id);
        }
        Ok(operation)
    }
}
