//! The changes of images that can be asked for.

use serde::{Deserialize, Serialize};

use super::{COMPUTE_IMAGE_PREFIX, DESKTOP_IMAGE_PREFIX, HardwareGeneration, Labels, Os, Transfer};

/// Defines the changes and, by the same list, their kinds, with the numbers that they are stored under.
macro_rules! changes {
    ($($name:ident $holds:tt = $number:literal,)+) => {
        /// A change of images. An accepted change that has not ended is kept in the row of its operation.
        #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        #[expect(clippy::enum_variant_names, reason = "the contract's words")]
        pub(crate) enum Change {
            $($name $holds,)+
        }

        /// The kind of a change, and of the operation that carries it out.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[expect(clippy::enum_variant_names, reason = "the contract's words")]
        pub(crate) enum Kind {
            $($name = $number,)+
        }

        impl Change {
            pub(crate) fn kind(&self) -> Kind {
                match self {
                    $(Self::$name { .. } => Kind::$name,)+
                }
            }
        }

        impl Kind {
            pub(crate) const ALL: &[Self] = &[$(Self::$name),+];
        }
    };
}

changes! {
    CopyDesktopImage(NewDesktopImage) = 1,
    UpdateDesktopImage { id: String, changes: DesktopImageChanges } = 2,
    DeleteDesktopImage { id: String } = 3,
    CreateComputeImage { new: NewComputeImage, origin: Origin } = 4,
    UpdateComputeImage { id: String, changes: ComputeImageChanges } = 5,
    DeleteComputeImage { id: String } = 6,
}

impl Kind {
    /// The prefix of the ids of the images that operations of this kind are about.
    pub(crate) fn image_prefix(self) -> &'static str {
        match self {
            Self::CopyDesktopImage | Self::UpdateDesktopImage | Self::DeleteDesktopImage => {
                DESKTOP_IMAGE_PREFIX
            }
            Self::CreateComputeImage | Self::UpdateComputeImage | Self::DeleteComputeImage => {
                COMPUTE_IMAGE_PREFIX
            }
        }
    }

    /// The kind stored under this number.
    pub(crate) fn from_number(number: i64) -> Option<Self> {
        let mut all = Self::ALL.iter().copied();
        all.find(|kind| *kind as i64 == number)
    }
}

impl Change {
    /// Whether the change makes room on the disk, sooner or later.
    pub(crate) fn makes_room(&self) -> bool {
        matches!(
            self,
            Self::DeleteDesktopImage { .. } | Self::DeleteComputeImage { .. }
        )
    }

    /// Whether bytes have to be brought in before the rows can change.
    pub(crate) fn brings_bytes(&self) -> bool {
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
    /// The file or object that a worker reads.
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
