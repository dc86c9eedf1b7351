//! Reading images, one or a page of them.

use rusqlite::{OptionalExtension, params};

use super::super::{Error, Result};
use super::image_rows::{
    LIVE, SELECT_COMPUTE_IMAGE, SELECT_DESKTOP_IMAGE, SELECT_DESKTOP_IMAGE_ROW, compute_image,
    desktop_image, desktop_image_row,
};
use super::{Transaction, listing};
use crate::model::{
    BlobFacts, COMPUTE_IMAGE_PREFIX, ComputeImage, ComputeImageStatus, DESKTOP_IMAGE_PREFIX,
    DesktopImage, DesktopImageStatus, Id, LiveBlob, Position, Refusal, name_hash,
};

pub(super) const DESKTOP_IMAGES: listing::Table<DesktopImage> = listing::Table {
    name: "desktop_images",
    prefix: DESKTOP_IMAGE_PREFIX,
    statuses: &[
        DesktopImageStatus::Creating as i64,
        DesktopImageStatus::Active as i64,
        DesktopImageStatus::Deleting as i64,
    ],
    common_status: DesktopImageStatus::Active as i64,
    select: SELECT_DESKTOP_IMAGE,
    from_row: desktop_image,
    position: |image| Position {
        id: image.id.clone(),
        created_at: image.created_at,
        status: image.status as u8,
        name_hash: name_hash(&image.name),
    },
};

pub(super) const COMPUTE_IMAGES: listing::Table<ComputeImage> = listing::Table {
    name: "compute_images",
    prefix: COMPUTE_IMAGE_PREFIX,
    statuses: &[
        ComputeImageStatus::Creating as i64,
        ComputeImageStatus::Ready as i64,
        ComputeImageStatus::Error as i64,
        ComputeImageStatus::Deleting as i64,
    ],
    common_status: ComputeImageStatus::Ready as i64,
    select: SELECT_COMPUTE_IMAGE,
    from_row: compute_image,
    position: |image| Position {
        id: image.id.clone(),
        created_at: image.created_at,
        status: image.status as u8,
        name_hash: name_hash(&image.name),
    },
};

fn not_found(id: &str) -> Error {
    Refusal::ImageNotFound { id: id.to_owned() }.into()
}

/// The desktop image with this id.
pub(super) fn find_desktop_image(transaction: &Transaction<'_>, id: &str) -> Result<DesktopImage> {
    let parsed = Id::parse(DESKTOP_IMAGE_PREFIX, id).ok_or_else(|| not_found(id))?;
    transaction
        .prepare_cached(&format!(
            "{SELECT_DESKTOP_IMAGE} WHERE image.key = ?1 AND image.id_rest = ?2"
        ))?
        .query_row([parsed.key, parsed.rest], desktop_image)
        .optional()?
        .ok_or_else(|| not_found(id))
}

/// The compute image with this id.
pub(super) fn find_compute_image(transaction: &Transaction<'_>, id: &str) -> Result<ComputeImage> {
    let parsed = Id::parse(COMPUTE_IMAGE_PREFIX, id).ok_or_else(|| not_found(id))?;
    transaction
        .prepare_cached(&format!(
            "{SELECT_COMPUTE_IMAGE} WHERE image.key = ?1 AND image.id_rest = ?2"
        ))?
        .query_row([parsed.key, parsed.rest], compute_image)
        .optional()?
        .ok_or_else(|| not_found(id))
}

/// The newest READY image of a family in a folder.
pub(super) fn latest_of_family(
    transaction: &Transaction<'_>,
    folder_id: &str,
    family: &str,
) -> Result<Option<ComputeImage>> {
    Ok(transaction
        .prepare_cached(&format!(
            "{SELECT_COMPUTE_IMAGE} WHERE folder_key = (SELECT key FROM folders WHERE id = ?1)
             AND family = ?2 AND family <> '' AND status = ?3
             ORDER BY image.key DESC LIMIT 1"
        ))?
        .query_row(
            params![folder_id, family, ComputeImageStatus::Ready as i64],
            compute_image,
        )
        .optional()?)
}

/// A desktop image that can be read, and its blob.
pub(super) fn find_blob(
    transaction: &Transaction<'_>,
    id: &str,
) -> Result<(DesktopImage, LiveBlob)> {
    let parsed = Id::parse(DESKTOP_IMAGE_PREFIX, id).ok_or_else(|| not_found(id))?;
    let (row, _) = transaction
        .prepare_cached(&format!(
            "{SELECT_DESKTOP_IMAGE_ROW} WHERE image.key = ?1 AND image.id_rest = ?2"
        ))?
        .query_row([parsed.key, parsed.rest], desktop_image_row)
        .optional()?
        .ok_or_else(|| not_found(id))?;
    if row.image.status == DesktopImageStatus::Creating {
        return Err(Refusal::ImageNotReady { id: id.to_owned() }.into());
    }
    let blob = transaction
        .prepare_cached(&format!(
            "SELECT id, format, size, stored_size, virtual_size, sha256, damaged, checksums
             FROM contents LEFT JOIN content_checksums ON content_key = key
             WHERE key = ?1 AND state = {LIVE}"
        ))?
        .query_row([row.blob.key], |row| {
            Ok(LiveBlob {
                id: row.get(0)?,
                facts: BlobFacts {
                    format: row.get(1)?,
                    size: row.get(2)?,
                    stored_size: row.get(3)?,
                    virtual_size: row.get(4)?,
                    sha256: row.get(5)?,
                },
                damaged: row.get(6)?,
                checksums: row.get(7)?,
            })
        })?;
    Ok((row.image, blob))
}
