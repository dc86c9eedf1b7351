//! Reading images, one or a page of them.

use super::super::{Error, Result};
use super::columns::Columns;
use super::connection::Connection;
use super::image_rows::{
    compute_image, desktop_image, facts, select_compute_image, select_desktop_image,
};
use super::listing;
use crate::model::{
    COMPUTE_IMAGE_PREFIX, ComputeImage, ComputeImageStatus, DESKTOP_IMAGE_PREFIX, DesktopImage,
    DesktopImageRow, DesktopImageStatus, Id, LiveBlob, Position, Refusal, name_hash,
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
    select: select_desktop_image!("$1::text", ""),
    from_row: |row| Ok(desktop_image(row)?.image),
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
    select: select_compute_image!("$1::text", ""),
    from_row: |row| Ok(compute_image(row)?.image),
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
pub(super) async fn find_desktop_image(
    connection: &Connection,
    id: &str,
) -> Result<DesktopImageRow> {
    let parsed = Id::parse(DESKTOP_IMAGE_PREFIX, id).ok_or_else(|| not_found(id))?;
    let found = connection
        .query_opt(
            concat!(
                select_desktop_image!(),
                " WHERE image.key = $1 AND image.id_rest = $2"
            ),
            &[&parsed.key, &parsed.rest],
        )
        .await?;
    desktop_image(&found.ok_or_else(|| not_found(id))?)
}

/// The compute image with this id.
pub(super) async fn find_compute_image(connection: &Connection, id: &str) -> Result<ComputeImage> {
    let parsed = Id::parse(COMPUTE_IMAGE_PREFIX, id).ok_or_else(|| not_found(id))?;
    let found = connection
        .query_opt(
            concat!(
                select_compute_image!(),
                " WHERE image.key = $1 AND image.id_rest = $2"
            ),
            &[&parsed.key, &parsed.rest],
        )
        .await?;
    Ok(compute_image(&found.ok_or_else(|| not_found(id))?)?.image)
}

/// The newest READY image of a family in a folder.
pub(super) async fn latest_of_family(
    connection: &Connection,
    folder_id: &str,
    family: &str,
) -> Result<Option<ComputeImage>> {
    let found = connection
        .query_opt(
            concat!(
                select_compute_image!(),
                " WHERE image.folder_key = (SELECT key FROM folders WHERE id = $1)
                    AND family = $2 AND family <> '' AND status = $3
                  ORDER BY image.key DESC, image.id_rest DESC LIMIT 1"
            ),
            &[&folder_id, &family, &(ComputeImageStatus::Ready as i64)],
        )
        .await?;
    found.map(|row| Ok(compute_image(&row)?.image)).transpose()
}

/// A desktop image that can be read, and its blob.
pub(super) async fn find_blob(
    connection: &Connection,
    id: &str,
) -> Result<(DesktopImage, LiveBlob)> {
    let row = find_desktop_image(connection, id).await?;
    if row.image.status == DesktopImageStatus::Creating {
        return Err(Refusal::ImageNotReady { id: id.to_owned() }.into());
    }
    let blob = connection
        .query_opt(
            "SELECT file, damaged, checksums, format, size, stored_size, virtual_size, sha256
             FROM blobs LEFT JOIN blob_checksums USING (key, id_rest)
             WHERE key = $1 AND id_rest = $2 AND state = 1",
            &[&row.blob.key, &row.blob.rest],
        )
        .await?;
    // The image is removed before its blob.
    let blob = blob.ok_or_else(|| not_found(id))?;
    let mut columns = Columns::of(&blob);
    let blob = LiveBlob {
        id: columns.take()?,
        damaged: columns.take()?,
        checksums: columns.take()?,
        facts: facts(&mut columns)?,
    };
    Ok((row.image, blob))
}
