//! What can be asked of the store: the changes, who asks, and when they are to be done.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::model::{Failure, HardwareGeneration, Kind, Labels, Operation, Os, Phase, Transfer};

/// A change of images. What has been accepted and not ended keeps it in its row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
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
    pub fn kind(&self) -> Kind {
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
    pub fn makes_room(&self) -> bool {
        matches!(
            self,
            Self::DeleteDesktopImage { .. } | Self::DeleteComputeImage { .. }
        )
    }

    /// Whether bytes have to be brought in before the rows can change.
    pub fn brings_content(&self) -> bool {
        self.transfer().is_some()
    }

    /// How those bytes come in.
    pub fn transfer(&self) -> Option<Transfer> {
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
pub struct NewDesktopImage {
    pub folder_id: String,
    /// Unique in the folder.
    pub name: String,
    pub description: String,
    pub labels: Labels,
    pub compute_image_id: String,
}

/// The fields of a desktop image to be changed; none stay as they are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DesktopImageChanges {
    pub name: Option<String>,
    pub description: Option<String>,
    pub labels: Option<Labels>,
}

/// A compute image to be made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewComputeImage {
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
pub enum Origin {
    /// Another compute image.
    ComputeImage(String),
    /// What a worker finds there.
    Uri(String),
    /// The body of the request that asked for it.
    Upload,
}

/// The fields of a compute image to be changed; none stay as they are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ComputeImageChanges {
    pub name: Option<String>,
    pub description: Option<String>,
    /// Bytes; zero takes the size of the disk inside.
    pub min_disk_size: Option<i64>,
    pub labels: Option<Labels>,
}

/// Who asks for a change, and how a repeat of the request is known.
#[derive(Debug, Clone)]
pub struct Accept {
    pub subject: String,
    pub request_id: String,
    pub idempotency: Option<Idempotency>,
}

/// The key that a client sends with each try of one request, and what the request was.
#[derive(Debug, Clone)]
pub struct Idempotency {
    /// A UUID.
    pub key: [u8; 16],
    /// SHA-256 of the method and the canonical request.
    pub request_hash: [u8; 32],
}

/// When an accepted change is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// In the accepting transaction where only rows change, else when a worker's turn comes.
    Now,
    /// When a worker's turn comes, and not before this has passed.
    After(Duration),
    /// By the caller, which gets a lease of this length.
    Here(Duration),
}

/// An accepted change: a new operation, or the first one under the same idempotency key.
#[derive(Debug)]
pub struct Accepted {
    pub operation: Operation,
    pub repeated: bool,
    /// Of a new operation that was to start here.
    pub lease: Option<Lease>,
}

/// The right to go on with an operation, as long as no other worker has claimed it since.
#[derive(Debug, Clone)]
pub struct Lease {
    pub operation_id: String,
    pub image_id: String,
    pub folder_id: String,
    /// Of the request that asked for the operation.
    pub request_id: String,
    /// Running or undoing.
    pub phase: Phase,
    pub change: Change,
    /// The content that this attempt writes to; empty where it writes none.
    pub content_id: String,
    /// Ids of contents that earlier attempts wrote to; they have tombstones since the claim.
    pub discarded: Vec<String>,
    /// Whether it is an upload whose idempotency key is not tied to it yet.
    pub key_is_free: bool,
    /// Counts the claims of the operation, from 1.
    pub attempt: i64,
    /// Whether it was to be cancelled when it was claimed.
    pub cancel_requested: bool,
    /// What the attempt before failed of, or what is being undone.
    pub failure: Option<Failure>,
    pub key: i64,
    pub folder_key: i64,
    pub token: i64,
}
