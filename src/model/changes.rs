//! The changes of images that can be asked for.

use serde::{Deserialize, Serialize};

use super::{HardwareGeneration, Kind, Labels, Os, Transfer};

/// A change of images. What has been accepted and not ended keeps it in its row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(
    clippy::enum_variant_names,
    reason = "the contract's words; there are changes of other things"
)]
pub(crate) enum Change {
    CopyDesktopImage(NewDesktopImage),
    UpdateDesktopImage {
        id: String,
        changes: DesktopImageChanges,
    },
    DeleteDesktopImage {
        id: String,
    },
    CreateComputeImage {
        new: NewComputeImage,
        origin: Origin,
    },
    UpdateComputeImage {
        id: String,
        changes: ComputeImageChanges,
    },
    DeleteComputeImage {
        id: String,
    },
}

impl Change {
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::CopyDesktopImage(_) => Kind::CopyDesktopImage,
            Self::UpdateDesktopImage { .. } => Kind::UpdateDesktopImage,
            Self::DeleteDesktopImage { .. } => Kind::DeleteDesktopImage,
            Self::CreateComputeImage { .. } => Kind::CreateComputeImage,
            Self::UpdateComputeImage { .. } => Kind::UpdateComputeImage,
            Self::DeleteComputeImage { .. } => Kind::DeleteComputeImage,
        }
    }

    /// Whether it makes room on the disk, sooner or later.
    pub(crate) fn makes_room(&self) -> bool {
        matches!(
            self,
            Self::DeleteDesktopImage { .. } | Self::DeleteComputeImage { .. }
        )
    }

    /// Whether bytes have to be brought in before the rows can change.
    pub(crate) fn brings_content(&self) -> bool {
        self.transfer().is_some()
    }

    /// How those bytes come in.
    pub(crate) fn transfer(&self) -> Option<Transfer> {
        match self {
            Self::CreateComputeImage { origin, .. } => match origin {
                Origin::Uri(_) => Some(Transfer::Import),
                Origin::Upload => Some(Transfer::Upload),
                Origin::ComputeImage(_) => None,
            },
            _ => None,
        }
    }
}

/// A desktop image to be copied from a compute image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NewDesktopImage {
    pub folder_id: String,
    /// Unique in the folder.
    pub name: String,
    pub description: String,
    pub labels: Labels,
    pub compute_image_id: String,
}

/// The fields of a desktop image to be changed; none stay as they are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DesktopImageChanges {
    pub name: Option<String>,
    pub description: Option<String>,
    pub labels: Option<Labels>,
}

/// A compute image to be made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NewComputeImage {
    pub folder_id: String,
    /// Empty, or unique in the folder.
    pub name: String,
    pub description: String,
    pub labels: Labels,
    pub family: String,
    /// Bytes; zero takes the size of the disk inside.
    pub min_disk_size: i64,
    pub product_ids: Vec<String>,
    pub os: Option<Os>,
    pub pooled: bool,
    pub hardware_generation: Option<HardwareGeneration>,
}

/// Where the content of a new compute image comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Origin {
    /// Another compute image.
    ComputeImage(String),
    /// What a worker finds there.
    Uri(String),
    /// The body of the request that asked for it.
    Upload,
}

/// The fields of a compute image to be changed; none stay as they are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ComputeImageChanges {
    pub name: Option<String>,
    pub description: Option<String>,
    /// Bytes; zero takes the size of the disk inside.
    pub min_disk_size: Option<i64>,
    pub labels: Option<Labels>,
}
