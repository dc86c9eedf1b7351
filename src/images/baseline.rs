//! A Copy that stores nothing. Only in builds for benches/operations.

use std::sync::{Arc, LazyLock};

use super::{DesktopImage, DesktopImageStatus};
use crate::metadata::{
    Accept, DESKTOP_IMAGE_PREFIX, IdGenerator, NewDesktopImage, OPERATION_PREFIX, SystemClock,
};
use crate::operations::{Kind, Operation, Outcome, Progress};

/// The operation that a Copy would have ended with.
pub fn made_up(accept: Accept, new: NewDesktopImage) -> Operation {
    static IDS: LazyLock<IdGenerator> =
        LazyLock::new(|| IdGenerator::new(Arc::new(SystemClock), 0));
    let (image_id, operation_id) = (IDS.generate(), IDS.generate());
    let image = DesktopImage {
        id: image_id.text(DESKTOP_IMAGE_PREFIX),
        folder_id: new.folder_id,
        created_at: image_id.created_at(),
        status: DesktopImageStatus::Active,
        name: new.name,
        description: new.description,
        labels: new.labels,
        storage_size: 1 << 30,
        min_disk_size: 1 << 30,
    };
    Operation {
        id: operation_id.text(OPERATION_PREFIX),
        kind: Kind::CopyDesktopImage,
        folder_id: image.folder_id.clone(),
        image_id: image.id.clone(),
        created_at: image.created_at,
        created_by: accept.subject,
        modified_at: image.created_at,
        transfer: None,
        attempt: 0,
        progress: Progress::default(),
        outcome: Some(Outcome::Succeeded(serde_json::to_string(&image).ok())),
    }
}
