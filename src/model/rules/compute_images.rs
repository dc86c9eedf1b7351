//! Rules of compute images: what a change makes of one, and when it is refused.

use super::draft::{Applied, Draft, note_labels, note_text};
use super::quotas::{self, Usage};
use crate::model::{
    BlobFacts, BlobRow, BlobState, COMPUTE_IMAGE_PREFIX, ComputeImage, ComputeImageChanges,
    ComputeImageRow, ComputeImageStatus as Status, Effect, FieldChange, Id, Lease, Lookup, NameIn,
    NewComputeImage, Origin, Refusal, Resource, Tombstone, WorkingSet,
};

type Result<T> = std::result::Result<T, Refusal>;

/// The part of a source's blob that a copy takes over.
#[derive(Debug, Clone, Copy)]
pub(super) struct SourceFacts {
    pub(super) blob: Id,
    pub(super) size: i64,
    pub(super) stored_size: i64,
    pub(super) virtual_size: i64,
}

/// A READY image that can be copied, and the facts of its blob.
pub(super) fn sound<'a>(
    facts: &'a WorkingSet,
    id: &str,
) -> Result<(&'a ComputeImageRow, SourceFacts)> {
    let (row, blob, known) = ready(facts, id)?;
    if blob.damaged {
        return Err(Refusal::BlobDamaged { id: id.to_owned() });
    }
    let source = SourceFacts {
        blob: blob.id,
        size: known.size,
        stored_size: known.stored_size,
        virtual_size: known.virtual_size,
    };
    Ok((row, source))
}

/// Adds an image: with the blob of another one, or with none yet.
pub(super) fn insert(
    draft: &mut Draft<'_>,
    new: &NewComputeImage,
    origin: &Origin,
    is_ready: bool,
) -> Result<Applied> {
    let source = source(origin)
        .map(|id| sound(draft.facts, id))
        .transpose()?;
    let min_disk_size = match (&source, new.min_disk_size) {
        (None, size) => size,
        (Some((source, _)), 0) => source.image.min_disk_size,
        (Some((_, facts)), size) => min_disk_size(size, facts.virtual_size)?,
    };
    check_name_is_free(draft.facts, &new.folder_id, &new.name, None)?;
    let source_facts = source.map(|(_, facts)| facts);
    let usage = Usage::compute_images(1, source_facts.map(|facts| facts.stored_size));
    quotas::reserve(draft, &new.folder_id, usage)?;
    let inherited = source.map(|(source, _)| &source.image);
    let id = draft.fresh.image;
    let row = ComputeImageRow {
        id,
        blob: source_facts.map(|facts| facts.blob),
        image: ComputeImage {
            id: id.text(COMPUTE_IMAGE_PREFIX),
            folder_id: new.folder_id.clone(),
            created_at: id.created_at(),
            status: if is_ready {
                Status::Ready
            } else {
                Status::Creating
            },
            name: new.name.clone(),
            description: new.description.clone(),
            labels: new.labels.clone(),
            family: new.family.clone(),
            size: source_facts.map_or(0, |facts| facts.size),
            storage_size: source_facts.map_or(0, |facts| facts.stored_size),
            min_disk_size,
            product_ids: new.product_ids.clone(),
            os: new
                .os
                .clone()
                .or_else(|| inherited.and_then(|it| it.os.clone())),
            pooled: new.pooled,
            hardware_generation: new
                .hardware_generation
                .clone()
                .or_else(|| inherited.and_then(|it| it.hardware_generation.clone())),
        },
    };
    let applied = applied(&row, is_ready);
    draft.add(Effect::InsertComputeImage(row));
    Ok(applied)
}

/// Ends the creation of an image that has its blob.
pub(super) fn activate(draft: &mut Draft<'_>, id: &str) -> Result<Applied> {
    let row = set_status(draft, id, Status::Ready)?;
    Ok(applied(&row, true))
}

/// Ends the creation of an image whose blob has been written. Where an equal blob is live already, that keeps
/// its id, to which images refer, and takes over the new bytes: whatever has become of the old ones, the new
/// ones were just written and their digest was taken.
pub(super) fn publish(
    draft: &mut Draft<'_>,
    lease: &Lease,
    facts: &BlobFacts,
    checksums: &[u8],
) -> Result<Applied> {
    let mut row = find(draft.facts, &lease.image_id)?.clone();
    row.image.min_disk_size = min_disk_size(row.image.min_disk_size, facts.virtual_size)?;
    // The image itself is counted since it was accepted.
    let usage = Usage::compute_images(0, Some(facts.stored_size));
    quotas::reserve(draft, &row.image.folder_id, usage)?;
    let mut pending = draft.facts.pending_blobs(lease.id);
    let pending = pending.find(|blob| blob.file == lease.blob_id);
    let pending = pending.ok_or_else(|| Refusal::LeaseLost {
        id: lease.operation_id.clone(),
    })?;
    let (blob, facts) = match draft.facts.blob_of_digest(&facts.sha256) {
        Some(equal) => {
            draft.add(Effect::DeleteBlob(pending.id));
            draft.add(Effect::UpdateBlob(BlobRow {
                file: pending.file.clone(),
                damaged: false,
                ..equal.clone()
            }));
            draft.add(Effect::InsertTombstone(Tombstone {
                file: equal.file.clone(),
                forget_after: draft.now,
            }));
            (equal.id, equal.facts().unwrap_or(facts))
        }
        None => {
            draft.add(Effect::UpdateBlob(BlobRow {
                state: BlobState::Live(facts.clone()),
                ..pending.clone()
            }));
            (pending.id, facts)
        }
    };
    draft.add(Effect::PutChecksums {
        blob,
        checksums: checksums.to_vec(),
    });
    row.blob = Some(blob);
    row.image.status = Status::Ready;
    row.image.size = facts.size;
    row.image.storage_size = facts.stored_size;
    let applied = applied(&row, true);
    draft.add(Effect::UpdateComputeImage(row));
    Ok(applied)
}

/// The field changes of an update that is not refused as things stand.
pub(super) fn check_update(
    draft: &Draft<'_>,
    id: &str,
    changes: &ComputeImageChanges,
) -> Result<Applied> {
    let (row, virtual_size) = updatable(draft.facts, id, changes)?;
    Ok(Applied {
        changes: differences(&row.image, virtual_size, changes)?,
        ..applied(row, false)
    })
}

/// Changes a READY image.
pub(super) fn update(
    draft: &mut Draft<'_>,
    id: &str,
    changes: &ComputeImageChanges,
) -> Result<Applied> {
    let (row, virtual_size) = updatable(draft.facts, id, changes)?;
    let differences = differences(&row.image, virtual_size, changes)?;
    let mut row = row.clone();
    let image = &mut row.image;
    if let Some(name) = changes.name.as_ref().filter(|name| **name != image.name) {
        draft.note_former_name(&image.id, &image.name);
        image.name.clone_from(name);
    }
    if let Some(description) = &changes.description {
        image.description.clone_from(description);
    }
    if let Some(size) = changes.min_disk_size {
        image.min_disk_size = min_disk_size(size, virtual_size)?;
    }
    if let Some(labels) = &changes.labels {
        image.labels.clone_from(labels);
    }
    let applied = Applied {
        changes: differences,
        ..applied(&row, true)
    };
    draft.add(Effect::UpdateComputeImage(row));
    Ok(applied)
}

/// Removes an image at once, unless it is being created or deleted.
pub(super) fn delete_now(draft: &mut Draft<'_>, id: &str) -> Result<Applied> {
    let row = ready(draft.facts, id)?.0.clone();
    Ok(remove(draft, &row))
}

pub(super) fn mark_deleting(draft: &mut Draft<'_>, id: &str) -> Result<Applied> {
    ready(draft.facts, id)?;
    let row = set_status(draft, id, Status::Deleting)?;
    Ok(applied(&row, false))
}

pub(super) fn unmark_deleting(draft: &mut Draft<'_>, id: &str) -> Result<()> {
    set_status(draft, id, Status::Ready).map(|_| ())
}

/// Removes an image in whatever state it is.
pub(super) fn delete(draft: &mut Draft<'_>, id: &str) -> Result<Applied> {
    let row = find(draft.facts, id)?.clone();
    Ok(remove(draft, &row))
}

/// Removes an image; desktop images copied from it keep the blob.
fn remove(draft: &mut Draft<'_>, row: &ComputeImageRow) -> Applied {
    draft.note_former_name(&row.image.id, &row.image.name);
    draft.add(Effect::DeleteComputeImage(row.id));
    let usage = Usage::compute_images(1, Some(row.image.storage_size));
    quotas::release(draft, &row.image.folder_id, usage);
    if let Some(blob) = row.blob {
        draft.add(Effect::NoteGarbage(blob));
    }
    applied(row, false)
}

fn set_status(draft: &mut Draft<'_>, id: &str, status: Status) -> Result<ComputeImageRow> {
    let mut row = find(draft.facts, id)?.clone();
    row.image.status = status;
    draft.add(Effect::UpdateComputeImage(row.clone()));
    Ok(row)
}

/// An image for which the changes are in order, and the size of the disk inside.
fn updatable<'a>(
    facts: &'a WorkingSet,
    id: &str,
    changes: &ComputeImageChanges,
) -> Result<(&'a ComputeImageRow, i64)> {
    let (row, _, known) = ready(facts, id)?;
    if let Some(name) = &changes.name {
        check_name_is_free(facts, &row.image.folder_id, name, Some(row.id))?;
    }
    if let Some(size) = changes.min_disk_size {
        min_disk_size(size, known.virtual_size)?;
    }
    Ok((row, known.virtual_size))
}

/// Names are unique in a folder; any number of images have none.
fn check_name_is_free(
    facts: &WorkingSet,
    folder_id: &str,
    name: &str,
    except: Option<Id>,
) -> Result<()> {
    if name.is_empty() {
        return Ok(());
    }
    match facts.compute_image_named(&NameIn::new(folder_id, name)) {
        Some(holder) if Some(holder) != except => Err(Refusal::NameTaken {
            folder_id: folder_id.to_owned(),
            name: name.to_owned(),
        }),
        _ => Ok(()),
    }
}

/// A READY image, its blob, and the facts of that.
fn ready<'a>(
    facts: &'a WorkingSet,
    id: &str,
) -> Result<(&'a ComputeImageRow, &'a BlobRow, &'a BlobFacts)> {
    let row = find(facts, id)?;
    let blob = row.blob.and_then(|blob| facts.blob(blob));
    let known = blob.and_then(|blob| Some((blob, blob.facts()?)));
    match (row.image.status, known) {
        (Status::Ready, Some((blob, known))) => Ok((row, blob, known)),
        (Status::Deleting, _) => Err(Refusal::ImageBeingDeleted { id: id.to_owned() }),
        _ => Err(Refusal::ImageNotReady { id: id.to_owned() }),
    }
}

fn find<'a>(facts: &'a WorkingSet, id: &str) -> Result<&'a ComputeImageRow> {
    let found = parse(id).and_then(|id| facts.compute_image(id));
    found.ok_or_else(|| Refusal::ImageNotFound { id: id.to_owned() })
}

fn parse(id: &str) -> Option<Id> {
    Id::parse(COMPUTE_IMAGE_PREFIX, id)
}

/// The lookup of an image by its id, if it can be one.
pub(super) fn lookup(id: &str) -> Option<Lookup> {
    parse(id).map(Lookup::ComputeImage)
}

/// The lookup of an image that another is made of, if it can be one.
pub(super) fn source_lookup(id: &str) -> Option<Lookup> {
    parse(id).map(Lookup::SourceImage)
}

/// The lookup of a name, where it must be free.
pub(super) fn name_lookup(folder_id: &str, name: &str) -> Option<Lookup> {
    (!name.is_empty()).then(|| Lookup::ComputeImageName(NameIn::new(folder_id, name)))
}

/// The lookups of a change of an image, once the image is found.
pub(super) fn rows(found: &WorkingSet, id: &str, name: Option<&String>) -> Vec<Lookup> {
    let Ok(row) = find(found, id) else {
        return Vec::new();
    };
    let folder_id = &row.image.folder_id;
    let mut rows = quotas::lookups(folder_id);
    rows.extend(name.and_then(|name| name_lookup(folder_id, name)));
    rows
}

/// The image that a new one takes its blob from.
pub(super) fn source(origin: &Origin) -> Option<&str> {
    match origin {
        Origin::ComputeImage(id) => Some(id),
        Origin::Uri(_) | Origin::Upload => None,
    }
}

/// The size asked for, or the size of the disk inside where none was.
fn min_disk_size(requested: i64, virtual_size: i64) -> Result<i64> {
    match requested {
        0 => Ok(virtual_size),
        size if size < virtual_size => Err(Refusal::MinDiskSizeTooSmall {
            requested,
            virtual_size,
        }),
        size => Ok(size),
    }
}

fn differences(
    image: &ComputeImage,
    virtual_size: i64,
    changes: &ComputeImageChanges,
) -> Result<Vec<FieldChange>> {
    let mut all = Vec::new();
    note_text(&mut all, "name", &image.name, changes.name.as_ref());
    let new = changes.description.as_ref();
    note_text(&mut all, "description", &image.description, new);
    let size = changes.min_disk_size;
    let size = size
        .map(|size| min_disk_size(size, virtual_size))
        .transpose()?;
    let (name, old) = ("min_disk_size", &image.min_disk_size);
    FieldChange::note(&mut all, name, old, size.as_ref(), i64::to_string);
    note_labels(&mut all, &image.labels, changes.labels.as_ref());
    Ok(all)
}

fn applied(row: &ComputeImageRow, leaves_image: bool) -> Applied {
    Applied {
        folder_id: row.image.folder_id.clone(),
        image: row.id,
        resource: leaves_image.then(|| Resource::ComputeImage(row.image.clone())),
        changes: Vec::new(),
    }
}
