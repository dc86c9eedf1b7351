//! Operations as this server knows them.

use crate::metadata::Timestamp;

/// A mutation that was accepted: what it is, how far it is, and how it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    pub id: String,
    pub kind: Kind,
    pub folder_id: String,
    pub image_id: String,
    pub created_at: Timestamp,
    pub created_by: String,
    pub modified_at: Timestamp,
    pub outcome: Option<Outcome>,
}

impl Operation {
    pub fn is_done(&self) -> bool {
        self.outcome.is_some()
    }
}

/// How an operation ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The resource as it was at that moment, in JSON of the domain; none where it was deleted.
    Succeeded(Option<String>),
    Failed(Failure),
}

/// Why an operation failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    pub reason: Reason,
    pub message: String,
}

impl Failure {
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
        }
    }
}

macro_rules! named {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name { $($(#[$doc])* $variant),+ }

        impl $name {
            /// The name under which it is stored.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }

            /// The one stored under this name, if there is one.
            pub fn from_name(name: &str) -> Option<Self> {
                match name { $($text => Some(Self::$variant),)+ _ => None }
            }
        }
    };
}

named! {
    /// What an operation does.
    Kind {
        CopyDesktopImage = "copy_desktop_image",
        UpdateDesktopImage = "update_desktop_image",
        DeleteDesktopImage = "delete_desktop_image",
        CreateComputeImage = "create_compute_image",
        UpdateComputeImage = "update_compute_image",
        DeleteComputeImage = "delete_compute_image",
    }
}

named! {
    /// The kinds of failure that callers tell apart.
    Reason {
        /// What was asked for cannot be: the image or a parameter is at fault.
        Invalid = "invalid",
        /// The caller cancelled it.
        Cancelled = "cancelled",
        /// It was cut short, and may be tried again as a new request.
        Aborted = "aborted",
        /// Room has run out.
        Exhausted = "exhausted",
        /// The server is at fault.
        Internal = "internal",
    }
}
