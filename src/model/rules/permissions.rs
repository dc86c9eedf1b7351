//! Permissions of changes: which roles a change takes, by the rows that it finds.

use crate::model::{
    COMPUTE_IMAGE_PREFIX, Change, DESKTOP_IMAGE_PREFIX, Id, OperationRow, Origin, Refusal, Rights,
    Role, WorkingSet,
};

/// Demands what a change takes. Of a change that is repeated, whose image may be gone since, `first`, the operation of
/// the same request, tells the folder. An image that is missing is refused as one that is hidden, before anything else of
/// the request can tell them apart.
///
/// # Errors
/// [`Refusal::FolderDenied`] and [`Refusal::UriDenied`] where a role is missing; [`Refusal::ImageNotFound`] for an
/// image of which the caller may not know.
pub(super) fn demand(
    rights: &Rights,
    change: &Change,
    first: Option<&OperationRow>,
    facts: &WorkingSet,
) -> Result<(), Refusal> {
    match change {
        Change::CopyDesktopImage(new) => {
            rights.demand(Role::Editor, &new.folder_id)?;
            demand_source(rights, &new.compute_image_id, first, facts)
        }
        Change::CreateComputeImage { new, origin } => {
            rights.demand(Role::Editor, &new.folder_id)?;
            match origin {
                Origin::ComputeImage(id) => demand_source(rights, id, first, facts),
                Origin::Uri(uri) => rights.demand_import(&new.folder_id, uri),
                Origin::Upload => Ok(()),
            }
        }
        Change::UpdateDesktopImage { id, .. } | Change::DeleteDesktopImage { id } => {
            let row = Id::parse(DESKTOP_IMAGE_PREFIX, id).and_then(|id| facts.desktop_image(id));
            demand_editor(rights, id, row.map(|row| &*row.image.folder_id), first)
        }
        Change::UpdateComputeImage { id, .. } | Change::DeleteComputeImage { id } => {
            let row = Id::parse(COMPUTE_IMAGE_PREFIX, id).and_then(|id| facts.compute_image(id));
            demand_editor(rights, id, row.map(|row| &*row.image.folder_id), first)
        }
    }
}

/// Demands that the image to be copied may be known.
fn demand_source(
    rights: &Rights,
    id: &str,
    first: Option<&OperationRow>,
    facts: &WorkingSet,
) -> Result<(), Refusal> {
    let row = Id::parse(COMPUTE_IMAGE_PREFIX, id).and_then(|id| facts.compute_image(id));
    match row {
        // The source of a repeated copy may be gone.
        None if first.is_some() => Ok(()),
        None => Err(Refusal::ImageNotFound { id: id.to_owned() }),
        Some(row) if !rights.see(&row.image.folder_id) => {
            Err(Refusal::ImageNotFound { id: id.to_owned() })
        }
        _ => Ok(()),
    }
}

fn demand_editor(
    rights: &Rights,
    id: &str,
    folder_id: Option<&str>,
    first: Option<&OperationRow>,
) -> Result<(), Refusal> {
    let missing = || Refusal::ImageNotFound { id: id.to_owned() };
    match folder_id.or(first.map(|first| &*first.folder_id)) {
        Some(folder_id) => rights.demand_of(Role::Editor, folder_id, missing),
        None => Err(missing()),
    }
}
