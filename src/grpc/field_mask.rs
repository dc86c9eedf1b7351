//! Update masks: which fields a request changes.

use prost_types::FieldMask;

use crate::contract::rules::Violation;
use crate::contract::texts;

/// The fields that an update changes: those of the mask, or all that can be where there is none.
pub(crate) struct Masked(Option<Vec<String>>);

impl Masked {
    /// Adds to `violations` the paths that name anything but the updatable fields.
    pub(crate) fn new(
        mask: Option<FieldMask>,
        updatable: &[&str],
        violations: &mut Vec<Violation>,
    ) -> Self {
        let paths = mask
            .map(|mask| mask.paths)
            .filter(|paths| !paths.is_empty());
        for unknown in paths.iter().flatten() {
            if !updatable.contains(&unknown.as_str()) {
                let shown = texts::shown(unknown);
                violations.push(Violation {
                    field: "update_mask".to_owned(),
                    description: format!(
                        "unknown path {shown:?}: expected some of {}",
                        updatable.join(", ")
                    ),
                });
            }
        }
        Self(paths)
    }

    /// The value, if the mask has the field.
    pub(crate) fn pick<T>(&self, field: &str, value: T) -> Option<T> {
        match &self.0 {
            Some(paths) if !paths.iter().any(|path| path == field) => None,
            _ => Some(value),
        }
    }
}
