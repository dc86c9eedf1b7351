//! A Copy that stores nothing. Only in builds for benches/operations.

use std::sync::{Arc, LazyLock};

use super::{DesktopImage, DesktopImageStatus};
use crate::metadata::{Accept, Clock, IdGenerator, NewDesktopImage, SystemClock};
use crate::operations::{Kind, Operation, Outcome};

/// The operation that a Copy would have ended with.
pub fn made_up(accept: Accept, new: NewDesktopImage) -> Operation {
    static IDS: LazyLock<IdGenerator> = LazyLock::new(|| IdGenerator::new(Arc::new(SystemClock)));
    let now = SystemClock.now();
    let image = DesktopImage {
        id: IDS.generate("e3v"),
        folder_id: new.folder_id,
        created_at: now,
        status: DesktopImageStatus::Active,
        name: new.name,
        description: new.description,
        labels: new.labels,
        storage_size: 1 << 30,
        min_disk_size: 1 << 30,
    };
    Operation {
        id: IDS.generate("e3v"),
        kind: Kind::CopyDesktopImage,
        folder_id: image.folder_id.clone(),
        image_id: image.id.clone(),
        created_at: now,
        created_by: accept.subject,
        modified_at: now,
        outcome: Some(Outcome::Succeeded(serde_json::to_string(&image).ok())),
    }
}
