//! Rows of images and blobs: how they are read.

use tokio_postgres::Row;

use super::super::Result;
use super::columns::Columns;
use super::error::numbered;
use crate::model::{
    BlobFacts, BlobRow, BlobState, COMPUTE_IMAGE_PREFIX, ComputeImage, ComputeImageRow,
    ComputeImageStatus, DESKTOP_IMAGE_PREFIX, DesktopImage, DesktopImageRow, DesktopImageStatus,
    Id,
};

/// The columns of [`desktop_image`]. Where the folder is known, it may be a parameter instead of a row.
macro_rules! select_desktop_image {
    () => {
        select_desktop_image!(
            "folder.id",
            " JOIN folders AS folder ON folder.key = image.folder_key"
        )
    };
    ($folder:literal, $join:literal) => {
        concat!(
            "SELECT image.key, image.id_rest, image.blob_key, image.blob_rest, ",
            $folder,
            ", image.status, image.name, image.description, image.labels,
                blob.stored_size, image.min_disk_size
            FROM desktop_images AS image",
            $join,
            " JOIN blobs AS blob
                ON blob.key = image.blob_key AND blob.id_rest = image.blob_rest"
        )
    };
}
pub(super) use select_desktop_image;

/// The columns of [`compute_image`], in the same way.
macro_rules! select_compute_image {
    () => {
        select_compute_image!(
            "folder.id",
            " JOIN folders AS folder ON folder.key = image.folder_key"
        )
    };
    ($folder:literal, $join:literal) => {
        concat!(
            "SELECT image.key, image.id_rest, image.blob_key, image.blob_rest, ",
            $folder,
            ", image.status, image.name, image.description, image.labels,
                image.family, coalesce(blob.size, 0), coalesce(blob.stored_size, 0),
                image.min_disk_size, image.product_ids, image.os, image.pooled,
                image.hardware_generation
            FROM compute_images AS image",
            $join,
            " LEFT JOIN blobs AS blob
                ON blob.key = image.blob_key AND blob.id_rest = image.blob_rest"
        )
    };
}
pub(super) use select_compute_image;

macro_rules! select_blob {
    () => {
        "SELECT blob.key, blob.id_rest, blob.file, blob.damaged, blob.state, blob.operation_key,
            blob.operation_rest, blob.format, blob.size, blob.stored_size, blob.virtual_size,
            blob.sha256
        FROM blobs AS blob"
    };
}
pub(super) use select_blob;

/// States of a blob, by number.
pub(super) const PENDING: i64 = 0;
pub(super) const LIVE: i64 = 1;

pub(super) fn desktop_image(row: &Row) -> Result<DesktopImageRow> {
    let mut columns = Columns::of(row);
    let (id, blob) = (columns.take_id()?, columns.take_id()?);
    let image = DesktopImage {
        id: id.text(DESKTOP_IMAGE_PREFIX),
        created_at: id.created_at(),
        folder_id: columns.take()?,
        status: numbered("status", DesktopImageStatus::from_number, columns.take()?)?,
        name: columns.take()?,
        description: columns.take()?,
        labels: columns.take_json()?,
        storage_size: columns.take()?,
        min_disk_size: columns.take()?,
    };
    Ok(DesktopImageRow { id, blob, image })
}

pub(super) fn compute_image(row: &Row) -> Result<ComputeImageRow> {
    let mut columns = Columns::of(row);
    let (id, blob) = (columns.take_id()?, columns.take_optional_id()?);
    let image = ComputeImage {
        id: id.text(COMPUTE_IMAGE_PREFIX),
        created_at: id.created_at(),
        folder_id: columns.take()?,
        status: numbered("status", ComputeImageStatus::from_number, columns.take()?)?,
        name: columns.take()?,
        description: columns.take()?,
        labels: columns.take_json()?,
        family: columns.take()?,
        size: columns.take()?,
        storage_size: columns.take()?,
        min_disk_size: columns.take()?,
        product_ids: columns.take_json()?,
        os: columns.take_optional_json()?,
        pooled: columns.take()?,
        hardware_generation: columns.take_optional_json()?,
    };
    Ok(ComputeImageRow { id, blob, image })
}

pub(super) fn blob(row: &Row) -> Result<BlobRow> {
    let mut columns = Columns::of(row);
    let (id, file, damaged) = (columns.take_id()?, columns.take()?, columns.take()?);
    let is_live = columns.take::<i64>()? == LIVE;
    let operation = columns.take_optional_id()?;
    let state = if is_live {
        BlobState::Live(facts(&mut columns)?)
    } else {
        let operation = operation.unwrap_or(Id { key: 0, rest: 0 });
        BlobState::Pending { operation }
    };
    Ok(BlobRow {
        id,
        file,
        state,
        damaged,
    })
}

/// The facts of a live blob in the next columns.
pub(super) fn facts(columns: &mut Columns<'_>) -> Result<BlobFacts> {
    Ok(BlobFacts {
        format: columns.take()?,
        size: columns.take()?,
        stored_size: columns.take()?,
        virtual_size: columns.take()?,
        sha256: digest(columns.take()?)?,
    })
}

pub(super) fn digest(bytes: &[u8]) -> Result<[u8; 32]> {
    bytes
        .try_into()
        .map_err(|_| super::error::unreadable("a SHA-256 of another length".to_owned()))
}
