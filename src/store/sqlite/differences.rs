//! The fields that an update sets to another value, as audit events name them.

use super::super::Result;
use super::compute_images;
use crate::model::{
    ComputeImage, ComputeImageChanges, DesktopImage, DesktopImageChanges, FieldChange, Labels,
};

pub(super) fn of_desktop_image(
    image: &DesktopImage,
    changes: &DesktopImageChanges,
) -> Vec<FieldChange> {
    let mut all = Vec::new();
    note_text(&mut all, "name", &image.name, changes.name.as_ref());
    let new = changes.description.as_ref();
    note_text(&mut all, "description", &image.description, new);
    note_labels(&mut all, &image.labels, changes.labels.as_ref());
    all
}

/// Fails where the disk asked for is smaller than the `virtual_size` of the one inside.
pub(super) fn of_compute_image(
    image: &ComputeImage,
    virtual_size: i64,
    changes: &ComputeImageChanges,
) -> Result<Vec<FieldChange>> {
    let mut all = Vec::new();
    note_text(&mut all, "name", &image.name, changes.name.as_ref());
    let new = changes.description.as_ref();
    note_text(&mut all, "description", &image.description, new);
    let size = match changes.min_disk_size {
        Some(size) => Some(compute_images::min_disk_size(size, virtual_size)?),
        None => None,
    };
    let (name, old) = ("min_disk_size", &image.min_disk_size);
    FieldChange::note(&mut all, name, old, size.as_ref(), i64::to_string);
    note_labels(&mut all, &image.labels, changes.labels.as_ref());
    Ok(all)
}

fn note_text(all: &mut Vec<FieldChange>, field: &str, old: &String, new: Option<&String>) {
    FieldChange::note(all, field, old, new, String::clone);
}

fn note_labels(all: &mut Vec<FieldChange>, old: &Labels, new: Option<&Labels>) {
    let text = |labels: &Labels| serde_json::Value::from_iter(labels.clone()).to_string();
    FieldChange::note(all, "labels", old, new, text);
}
