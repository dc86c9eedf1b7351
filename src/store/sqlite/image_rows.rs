//! Rows of images and blobs: how they are read.

use rusqlite::Row;
use rusqlite::types::ValueRef;
use serde::de::DeserializeOwned;

use super::columns::Columns;
use super::error::{from_json, numbered};
use crate::model::{
    BlobFacts, BlobRow, BlobState, COMPUTE_IMAGE_PREFIX, ComputeImage, ComputeImageRow,
    ComputeImageStatus, DESKTOP_IMAGE_PREFIX, DesktopImage, DesktopImageRow, DesktopImageStatus,
    Id,
};

macro_rules! desktop_image_columns {
    () => {
        "image.key, image.id_rest, folder.id, status, name, description, labels,
         content.stored_size, min_disk_size"
    };
}

macro_rules! compute_image_columns {
    () => {
        "image.key, image.id_rest, folder.id, status, name, description, labels, family,
         coalesce(content.size, 0), coalesce(content.stored_size, 0), min_disk_size, product_ids, os,
         pooled, hardware_generation"
    };
}

macro_rules! blob_columns {
    () => {
        "content.key, content.id_rest, content.id, damaged, state, operation_key, format,
         content.size, content.stored_size, virtual_size, sha256"
    };
}

macro_rules! from_desktop_images {
    () => {
        " FROM desktop_images AS image JOIN contents AS content ON content.key = image.content_key
         JOIN folders AS folder ON folder.key = folder_key"
    };
}

macro_rules! from_compute_images {
    () => {
        " FROM compute_images AS image LEFT JOIN contents AS content ON content.key = image.content_key
         JOIN folders AS folder ON folder.key = folder_key"
    };
}

/// The columns of [`desktop_image`].
pub(super) const SELECT_DESKTOP_IMAGE: &str =
    concat!("SELECT ", desktop_image_columns!(), from_desktop_images!());

/// The columns of [`desktop_image_row`].
pub(super) const SELECT_DESKTOP_IMAGE_ROW: &str = concat!(
    "SELECT ",
    desktop_image_columns!(),
    ", ",
    blob_columns!(),
    from_desktop_images!()
);

/// The columns of [`compute_image`].
pub(super) const SELECT_COMPUTE_IMAGE: &str =
    concat!("SELECT ", compute_image_columns!(), from_compute_images!());

/// The columns of [`compute_image_row`]; those of the blob are null where there is none.
pub(super) const SELECT_COMPUTE_IMAGE_ROW: &str = concat!(
    "SELECT ",
    compute_image_columns!(),
    ", ",
    blob_columns!(),
    from_compute_images!()
);

/// The columns of [`blob`].
pub(super) const SELECT_BLOB: &str =
    concat!("SELECT ", blob_columns!(), " FROM contents AS content");

/// States of a blob, by number.
pub(super) const PENDING: i64 = 0;
pub(super) const LIVE: i64 = 1;

pub(super) fn desktop_image(row: &Row<'_>) -> rusqlite::Result<DesktopImage> {
    take_desktop_image(&mut Columns::of(row)).map(|(_, image)| image)
}

pub(super) fn compute_image(row: &Row<'_>) -> rusqlite::Result<ComputeImage> {
    take_compute_image(&mut Columns::of(row)).map(|(_, image)| image)
}

/// A desktop image as the rules know it, and its blob.
pub(super) fn desktop_image_row(row: &Row<'_>) -> rusqlite::Result<(DesktopImageRow, BlobRow)> {
    let mut columns = Columns::of(row);
    let (id, image) = take_desktop_image(&mut columns)?;
    let blob_id = columns.take_id()?;
    let blob = take_blob(&mut columns, blob_id, None)?;
    let row = DesktopImageRow {
        id,
        blob: blob.id,
        image,
    };
    Ok((row, blob))
}

/// A compute image as the rules know it, and its blob.
pub(super) fn compute_image_row(
    row: &Row<'_>,
) -> rusqlite::Result<(ComputeImageRow, Option<BlobRow>)> {
    let mut columns = Columns::of(row);
    let (id, image) = take_compute_image(&mut columns)?;
    let blob_id = match (columns.take()?, columns.take()?) {
        (Some(key), Some(rest)) => Some(Id { key, rest }),
        _ => None,
    };
    let blob = blob_id
        .map(|blob_id| take_blob(&mut columns, blob_id, None))
        .transpose()?;
    let row = ComputeImageRow {
        id,
        blob: blob_id,
        image,
    };
    Ok((row, blob))
}

/// A blob, which an operation writes if it is pending.
pub(super) fn blob(row: &Row<'_>, writer: Option<Id>) -> rusqlite::Result<BlobRow> {
    let mut columns = Columns::of(row);
    let id = columns.take_id()?;
    take_blob(&mut columns, id, writer)
}

fn take_blob(
    columns: &mut Columns<'_, '_>,
    id: Id,
    writer: Option<Id>,
) -> rusqlite::Result<BlobRow> {
    let file = columns.take()?;
    let damaged = columns.take()?;
    let state: i64 = columns.take()?;
    let operation_key: Option<i64> = columns.take()?;
    let state = if state == LIVE {
        BlobState::Live(BlobFacts {
            format: columns.take()?,
            size: columns.take()?,
            stored_size: columns.take()?,
            virtual_size: columns.take()?,
            sha256: columns.take()?,
        })
    } else {
        let operation = writer.unwrap_or(Id {
            key: operation_key.unwrap_or_default(),
            rest: 0,
        });
        BlobState::Pending { operation }
    };
    Ok(BlobRow {
        id,
        file,
        state,
        damaged,
    })
}

fn take_desktop_image(columns: &mut Columns<'_, '_>) -> rusqlite::Result<(Id, DesktopImage)> {
    let id = columns.take_id()?;
    let image = DesktopImage {
        id: id.text(DESKTOP_IMAGE_PREFIX),
        created_at: id.created_at(),
        folder_id: columns.take()?,
        status: numbered("status", DesktopImageStatus::from_number, columns.take()?)?,
        name: columns.take()?,
        description: columns.take()?,
        labels: from_json(columns.take_ref()?.as_str()?)?,
        storage_size: columns.take()?,
        min_disk_size: columns.take()?,
    };
    Ok((id, image))
}

fn take_compute_image(columns: &mut Columns<'_, '_>) -> rusqlite::Result<(Id, ComputeImage)> {
    let id = columns.take_id()?;
    let image = ComputeImage {
        id: id.text(COMPUTE_IMAGE_PREFIX),
        created_at: id.created_at(),
        folder_id: columns.take()?,
        status: numbered("status", ComputeImageStatus::from_number, columns.take()?)?,
        name: columns.take()?,
        description: columns.take()?,
        labels: from_json(columns.take_ref()?.as_str()?)?,
        family: columns.take()?,
        size: columns.take()?,
        storage_size: columns.take()?,
        min_disk_size: columns.take()?,
        product_ids: from_json(columns.take_ref()?.as_str()?)?,
        os: optional_json(columns.take_ref()?)?,
        pooled: columns.take()?,
        hardware_generation: optional_json(columns.take_ref()?)?,
    };
    Ok((id, image))
}

fn optional_json<T: DeserializeOwned>(value: ValueRef<'_>) -> rusqlite::Result<Option<T>> {
    value.as_str_or_null()?.map(from_json).transpose()
}
