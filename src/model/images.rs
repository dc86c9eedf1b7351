//! Images as this server knows them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::model::Timestamp;

pub(crate) type Labels = BTreeMap<String, String>;

/// An image in a folder, from which desktops start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DesktopImage {
    pub id: String,
    pub folder_id: String,
    pub created_at: Timestamp,
    pub status: DesktopImageStatus,
    pub name: String,
    pub description: String,
    pub labels: Labels,
    /// Bytes stored, all-zero blocks not counted.
    pub storage_size: i64,
    /// Bytes of the disk inside.
    pub min_disk_size: i64,
}

/// The states of a desktop image, with the numbers of the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum DesktopImageStatus {
    Creating = 1,
    Active = 2,
    Deleting = 3,
}

/// A disk image in the catalogue, from which desktop images are copied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ComputeImage {
    pub id: String,
    pub folder_id: String,
    pub created_at: Timestamp,
    pub status: ComputeImageStatus,
    /// Empty for an image without a name.
    pub name: String,
    pub description: String,
    pub labels: Labels,
    pub family: String,
    /// Bytes of the content.
    pub size: i64,
    /// Bytes stored, all-zero blocks not counted.
    pub storage_size: i64,
    /// The smallest disk, in bytes, that takes this image: at least the disk inside.
    pub min_disk_size: i64,
    pub product_ids: Vec<String>,
    pub os: Option<Os>,
    pub pooled: bool,
    pub hardware_generation: Option<HardwareGeneration>,
}

/// The states of a compute image, with the numbers of the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ComputeImageStatus {
    Creating = 1,
    Ready = 2,
    Error = 3,
    Deleting = 4,
}

/// The operating system inside an image, as its owner states it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Os {
    /// The number of the contract's enum, kept as sent.
    pub kind: i32,
    pub nvidia_driver: Option<String>,
}

/// The hardware that an image wants, as its owner states it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum HardwareGeneration {
    /// The number of the contract's `PCITopology`, kept as sent.
    Legacy { pci_topology: i32 },
    Generation2 {
        secure_boot_template_id: String,
        vtpm_enabled: bool,
    },
}

macro_rules! status_numbers {
    ($status:ident: $($variant:ident),+) => {
        impl $status {
            /// The status with this number, if there is one.
            pub(crate) fn from_number(number: i64) -> Option<Self> {
                $(if number == Self::$variant as i64 {
                    return Some(Self::$variant);
                })+
                None
            }
        }
    };
}
status_numbers!(DesktopImageStatus: Creating, Active, Deleting);
status_numbers!(ComputeImageStatus: Creating, Ready, Error, Deleting);
