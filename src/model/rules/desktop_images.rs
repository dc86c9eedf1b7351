//! Rules of desktop images: what a change makes of one, and when it is refused.

use super::compute_images;
use super::draft::{Applied, Draft, note_labels, note_text};
use super::quotas::{self, Usage};
use crate::model::{
    DESKTOP_IMAGE_PREFIX, DesktopImage, DesktopImageChanges, DesktopImageRow,
    DesktopImageStatus as Status, Effect, FieldChange, Id, Lookup, NameIn, NewDesktopImage,
    Refusal, Resource, WorkingSet,
};

type Result<T> = std::result::Result<T, Refusal>;

/// Copies a READY compute image: the new image refers to the same blob, so that no bytes move.
pub(super) fn insert(
    draft: &mut Draft<'_>,
    new: &NewDesktopImage,
    active: bool,
) -> Result<Applied> {
    let (source, facts) = compute_images::sound(draft.facts, &new.compute_image_id)?;
    let usage = Usage::desktop_images(1, Some(facts.stored_size));
    quotas::reserve(draft, &new.folder_id, usage)?;
    let name = NameIn::new(&new.folder_id, &new.name);
    if draft.facts.desktop_image_named(&name).is_some() {
        return Err(name_taken(&new.folder_id, &new.name));
    }
    let id = draft.fresh.image;
    let row = DesktopImageRow {
        id,
        blob: facts.blob,
        image: DesktopImage {
            id: id.text(DESKTOP_IMAGE_PREFIX),
            folder_id: new.folder_id.clone(),
            created_at: id.created_at(),
            status: if active {
                Status::Active
            } else {
                Status::Creating
            },
            name: new.name.clone(),
            description: new.description.clone(),
            labels: new.labels.clone(),
            storage_size: facts.stored_size,
            min_disk_size: source.image.min_disk_size,
        },
    };
    let applied = applied(&row, active);
    draft.add(Effect::InsertDesktopImage(row));
    Ok(applied)
}

/// Ends the creation of an image.
pub(super) fn activate(draft: &mut Draft<'_>, id: &str) -> Result<Applied> {
    let row = set_status(draft, id, Status::Active)?;
    Ok(applied(&row, true))
}

/// The field changes of an update that is not refused as things stand.
pub(super) fn check_update(
    draft: &Draft<'_>,
    id: &str,
    changes: &DesktopImageChanges,
) -> Result<Applied> {
    let row = updatable(draft.facts, id, changes)?;
    Ok(Applied {
        changes: differences(&row.image, changes),
        ..applied(row, false)
    })
}

/// Changes an ACTIVE image.
pub(super) fn update(
    draft: &mut Draft<'_>,
    id: &str,
    changes: &DesktopImageChanges,
) -> Result<Applied> {
    let mut row = updatable(draft.facts, id, changes)?.clone();
    let differences = differences(&row.image, changes);
    let image = &mut row.image;
    if let Some(name) = changes.name.as_ref().filter(|name| **name != image.name) {
        draft.note_former_name(&image.id, &image.name);
        image.name.clone_from(name);
    }
    if let Some(description) = &changes.description {
        image.description.clone_from(description);
    }
    if let Some(labels) = &changes.labels {
        image.labels.clone_from(labels);
    }
    let applied = Applied {
        changes: differences,
        ..applied(&row, true)
    };
    draft.add(Effect::UpdateDesktopImage(row));
    Ok(applied)
}

/// Removes an ACTIVE image.
pub(super) fn delete_now(draft: &mut Draft<'_>, id: &str) -> Result<Applied> {
    let row = active(draft.facts, id)?.clone();
    Ok(remove(draft, &row))
}

pub(super) fn mark_deleting(draft: &mut Draft<'_>, id: &str) -> Result<Applied> {
    active(draft.facts, id)?;
    let row = set_status(draft, id, Status::Deleting)?;
    Ok(applied(&row, false))
}

pub(super) fn unmark_deleting(draft: &mut Draft<'_>, id: &str) -> Result<()> {
    set_status(draft, id, Status::Active).map(|_| ())
}

/// Removes an image in whatever state it is.
pub(super) fn delete(draft: &mut Draft<'_>, id: &str) -> Result<Applied> {
    let row = find(draft.facts, id)?.clone();
    Ok(remove(draft, &row))
}

/// Removes an image. Its blob is looked at later.
fn remove(draft: &mut Draft<'_>, row: &DesktopImageRow) -> Applied {
    draft.note_former_name(&row.image.id, &row.image.name);
    draft.add(Effect::DeleteDesktopImage(row.id));
    let usage = Usage::desktop_images(1, Some(row.image.storage_size));
    quotas::release(draft, &row.image.folder_id, usage);
    draft.add(Effect::NoteGarbage(row.blob));
    applied(row, false)
}

fn set_status(draft: &mut Draft<'_>, id: &str, status: Status) -> Result<DesktopImageRow> {
    let mut row = find(draft.facts, id)?.clone();
    row.image.status = status;
    draft.add(Effect::UpdateDesktopImage(row.clone()));
    Ok(row)
}

/// An image for which the changes are in order.
fn updatable<'a>(
    facts: &'a WorkingSet,
    id: &str,
    changes: &DesktopImageChanges,
) -> Result<&'a DesktopImageRow> {
    let row = active(facts, id)?;
    if let Some(name) = &changes.name {
        let folder_id = &row.image.folder_id;
        let holder = facts.desktop_image_named(&NameIn::new(folder_id, name));
        if holder.is_some_and(|holder| holder != row.id) {
            return Err(name_taken(folder_id, name));
        }
    }
    Ok(row)
}

fn active<'a>(facts: &'a WorkingSet, id: &str) -> Result<&'a DesktopImageRow> {
    let row = find(facts, id)?;
    match row.image.status {
        Status::Active => Ok(row),
        Status::Creating => Err(Refusal::ImageNotReady { id: id.to_owned() }),
        Status::Deleting => Err(Refusal::ImageBeingDeleted { id: id.to_owned() }),
    }
}

fn find<'a>(facts: &'a WorkingSet, id: &str) -> Result<&'a DesktopImageRow> {
    let found = parse(id).and_then(|id| facts.desktop_image(id));
    found.ok_or_else(|| Refusal::ImageNotFound { id: id.to_owned() })
}

fn parse(id: &str) -> Option<Id> {
    Id::parse(DESKTOP_IMAGE_PREFIX, id)
}

/// The lookup of an image by its id, if it can be one.
pub(super) fn lookup(id: &str) -> Option<Lookup> {
    parse(id).map(Lookup::DesktopImage)
}

/// The lookups of a change of an image, once the image is found.
pub(super) fn rows(found: &WorkingSet, id: &str, name: Option<&String>) -> Vec<Lookup> {
    let Ok(row) = find(found, id) else {
        return Vec::new();
    };
    let folder_id = &row.image.folder_id;
    let mut rows = quotas::lookups(folder_id);
    rows.extend(name.map(|name| Lookup::DesktopImageName(NameIn::new(folder_id, name))));
    rows
}

fn differences(image: &DesktopImage, changes: &DesktopImageChanges) -> Vec<FieldChange> {
    let mut all = Vec::new();
    note_text(&mut all, "name", &image.name, changes.name.as_ref());
    let new = changes.description.as_ref();
    note_text(&mut all, "description", &image.description, new);
    note_labels(&mut all, &image.labels, changes.labels.as_ref());
    all
}

fn applied(row: &DesktopImageRow, leaves_image: bool) -> Applied {
    Applied {
        folder_id: row.image.folder_id.clone(),
        image: row.id,
        resource: leaves_image.then(|| Resource::DesktopImage(row.image.clone())),
        changes: Vec::new(),
    }
}

fn name_taken(folder_id: &str, name: &str) -> Refusal {
    Refusal::NameTaken {
        folder_id: folder_id.to_owned(),
        name: name.to_owned(),
    }
}
