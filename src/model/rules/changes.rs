//! The three parts of a change: what shows that it is on its way and reserves its name and quota, what completes it, and
//! what rolls it back. A change of rows alone does the first two at once.

use super::draft::{Applied, Draft};
use super::quotas;
use super::{compute_images, desktop_images};
use crate::model::{Change, Id, Kind, Lookup, NameIn, OperationRow, Refusal, WorkingSet};

type Result<T> = std::result::Result<T, Refusal>;

/// The lookups of the rows that a change names.
pub(super) fn lookups(change: &Change) -> Vec<Lookup> {
    match change {
        Change::CopyDesktopImage(new) => {
            let mut lookups = quotas::lookups(&new.folder_id);
            lookups.extend(compute_images::source_lookup(&new.compute_image_id));
            lookups.push(Lookup::DesktopImageName(NameIn::new(
                &new.folder_id,
                &new.name,
            )));
            lookups
        }
        Change::CreateComputeImage { new, origin } => {
            let mut lookups = quotas::lookups(&new.folder_id);
            let source = compute_images::source(origin);
            lookups.extend(source.and_then(compute_images::source_lookup));
            lookups.extend(compute_images::name_lookup(&new.folder_id, &new.name));
            lookups
        }
        Change::UpdateDesktopImage { id, .. } | Change::DeleteDesktopImage { id } => {
            desktop_images::lookup(id).into_iter().collect()
        }
        Change::UpdateComputeImage { id, .. } | Change::DeleteComputeImage { id } => {
            compute_images::lookup(id).into_iter().collect()
        }
    }
}

/// The lookups that depend on the image that a change names.
pub(super) fn rows(change: &Change, found: &WorkingSet) -> Vec<Lookup> {
    match change {
        // All is named.
        Change::CopyDesktopImage(_) | Change::CreateComputeImage { .. } => Vec::new(),
        Change::UpdateDesktopImage { id, changes } => {
            desktop_images::rows(found, id, changes.name.as_ref())
        }
        Change::DeleteDesktopImage { id } => desktop_images::rows(found, id, None),
        Change::UpdateComputeImage { id, changes } => {
            compute_images::rows(found, id, changes.name.as_ref())
        }
        Change::DeleteComputeImage { id } => compute_images::rows(found, id, None),
    }
}

/// The lookup of the image that an operation is about.
pub(super) fn image_lookup(kind: Kind, image: Id) -> Lookup {
    match kind {
        Kind::CopyDesktopImage | Kind::UpdateDesktopImage | Kind::DeleteDesktopImage => {
            Lookup::DesktopImage(image)
        }
        Kind::CreateComputeImage | Kind::UpdateComputeImage | Kind::DeleteComputeImage => {
            Lookup::ComputeImage(image)
        }
    }
}

/// Does a change of rows, all at once.
pub(super) fn apply(draft: &mut Draft<'_>, change: &Change) -> Result<Applied> {
    match change {
        Change::CopyDesktopImage(new) => desktop_images::insert(draft, new, true),
        Change::UpdateDesktopImage { id, changes } => desktop_images::update(draft, id, changes),
        Change::DeleteDesktopImage { id } => desktop_images::delete_now(draft, id),
        Change::CreateComputeImage { new, origin } => {
            compute_images::insert(draft, new, origin, true)
        }
        Change::UpdateComputeImage { id, changes } => compute_images::update(draft, id, changes),
        Change::DeleteComputeImage { id } => compute_images::delete_now(draft, id),
    }
}

/// Does what shows that a change is on its way, and reserves its name and quota. Refuses what `complete`
/// would refuse, as things stand.
pub(super) fn prepare(draft: &mut Draft<'_>, change: &Change) -> Result<Applied> {
    match change {
        Change::CopyDesktopImage(new) => desktop_images::insert(draft, new, false),
        Change::UpdateDesktopImage { id, changes } => {
            desktop_images::check_update(draft, id, changes)
        }
        Change::DeleteDesktopImage { id } => desktop_images::mark_deleting(draft, id),
        Change::CreateComputeImage { new, origin } => {
            compute_images::insert(draft, new, origin, false)
        }
        Change::UpdateComputeImage { id, changes } => {
            compute_images::check_update(draft, id, changes)
        }
        Change::DeleteComputeImage { id } => compute_images::mark_deleting(draft, id),
    }
}

/// Does the rest of a prepared change of rows.
pub(super) fn complete(draft: &mut Draft<'_>, change: &Change, image_id: &str) -> Result<Applied> {
    match change {
        Change::CopyDesktopImage(_) => desktop_images::activate(draft, image_id),
        Change::UpdateDesktopImage { id, changes } => desktop_images::update(draft, id, changes),
        Change::DeleteDesktopImage { id } => desktop_images::delete(draft, id),
        Change::CreateComputeImage { .. } => compute_images::activate(draft, image_id),
        Change::UpdateComputeImage { id, changes } => compute_images::update(draft, id, changes),
        Change::DeleteComputeImage { id } => compute_images::delete(draft, id),
    }
}

/// Rolls back what an operation prepared, as far as it is still there.
pub(super) fn roll_back(draft: &mut Draft<'_>, operation: &OperationRow) -> Result<()> {
    let image_id = operation.image_id();
    let rolled_back = match operation.kind {
        Kind::CopyDesktopImage => desktop_images::delete(draft, &image_id).map(|_| ()),
        Kind::CreateComputeImage => compute_images::delete(draft, &image_id).map(|_| ()),
        Kind::DeleteDesktopImage => desktop_images::unmark_deleting(draft, &image_id),
        Kind::DeleteComputeImage => compute_images::unmark_deleting(draft, &image_id),
        Kind::UpdateDesktopImage | Kind::UpdateComputeImage => Ok(()),
    };
    match rolled_back {
        Err(Refusal::ImageNotFound { .. }) => Ok(()),
        rolled_back => rolled_back,
    }
}
