//! Update masks: which fields a request changes.

use prost_types::FieldMask;
use tonic::Status;

use super::status;

/// The fields that an update changes: those of the mask, or all that can be where there is none.
pub struct Masked(Option<Vec<String>>);

impl Masked {
    /// Refuses a mask that names anything but the updatable fields.
    pub fn new(mask: Option<FieldMask>, updatable: &[&str]) -> Result<Self, Status> {
        let paths = mask
            .map(|mask| mask.paths)
            .filter(|paths| !paths.is_empty());
        if let Some(unknown) = paths
            .iter()
            .flatten()
            .find(|path| !updatable.contains(&path.as_str()))
        {
            return Err(status::invalid_field(
                "update_mask",
                format!(
                    "unknown path {unknown:?}: expected some of {}",
                    updatable.join(", ")
                ),
            ));
        }
        Ok(Self(paths))
    }

    /// The value, if the mask has the field.
    pub fn pick<T>(&self, field: &str, value: T) -> Option<T> {
        match &self.0 {
            Some(paths) if !paths.iter().any(|path| path == field) => None,
            _ => Some(value),
        }
    }
}
