//! Images as the contract's messages, for the services and for the results of operations.

use super::convert::timestamp;
use crate::contract::yandex::cloud::clouddesktop::v1::api::{DesktopImage, desktop_image};
use crate::contract::yandex::cloud::compute::v1::{
    Generation2HardwareFeatures, HardwareGeneration, Image, LegacyHardwareFeatures, Nvidia, Os,
    hardware_generation::Features, image,
};
use crate::model::{self, ComputeImage, ComputeImageStatus, DesktopImageStatus};

/// A desktop image as the contract's message.
pub(super) fn desktop_image(image: model::DesktopImage) -> DesktopImage {
    DesktopImage {
        id: image.id,
        folder_id: image.folder_id,
        created_at: Some(timestamp(image.created_at)),
        status: match image.status {
            DesktopImageStatus::Creating => desktop_image::Status::Creating,
            DesktopImageStatus::Active => desktop_image::Status::Active,
            DesktopImageStatus::Deleting => desktop_image::Status::Deleting,
        }
        .into(),
        name: image.name,
        labels: image.labels,
        storage_size: image.storage_size,
        min_disk_size: image.min_disk_size,
        description: image.description,
    }
}

/// A compute image as the contract's message.
pub(super) fn compute_image(image: ComputeImage) -> Image {
    Image {
        id: image.id,
        folder_id: image.folder_id,
        created_at: Some(timestamp(image.created_at)),
        name: image.name,
        description: image.description,
        labels: image.labels,
        family: image.family,
        storage_size: image.storage_size,
        min_disk_size: image.min_disk_size,
        product_ids: image.product_ids,
        status: match image.status {
            ComputeImageStatus::Creating => image::Status::Creating,
            ComputeImageStatus::Ready => image::Status::Ready,
            ComputeImageStatus::Error => image::Status::Error,
            ComputeImageStatus::Deleting => image::Status::Deleting,
        }
        .into(),
        os: image.os.map(|os| Os {
            r#type: os.kind,
            nvidia: os.nvidia_driver.map(|driver| Nvidia { driver }),
        }),
        pooled: image.pooled,
        hardware_generation: image
            .hardware_generation
            .map(|hardware| HardwareGeneration {
                features: Some(match hardware {
                    model::HardwareGeneration::Legacy { pci_topology } => {
                        Features::LegacyFeatures(LegacyHardwareFeatures { pci_topology })
                    }
                    model::HardwareGeneration::Generation2 {
                        secure_boot_template_id,
                        vtpm_enabled,
                    } => Features::Generation2Features(Generation2HardwareFeatures {
                        secure_boot_template_id,
                        vtpm_enabled,
                    }),
                }),
            }),
        size: image.size,
        ..Image::default()
    }
}
