//! Rows of images, blobs and operations, many written by one statement.

use std::collections::BTreeMap;

use super::super::Result;
use super::columns::{column, try_column};
use super::connection::Pipeline;
use super::error::to_json;
use super::folders::key_of;
use super::image_rows::{LIVE, PENDING};
use super::operation_rows::{response_column, signed, task_column};
use crate::model::{BlobRow, BlobState, ComputeImageRow, DesktopImageRow, OperationRow};

type Folders = BTreeMap<String, i64>;

pub(super) fn insert_desktop_images(
    pipeline: &mut Pipeline,
    rows: &[&DesktopImageRow],
    folders: &Folders,
) -> Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    let values = vec![
        column(rows, |row| row.id.key),
        column(rows, |row| row.id.rest),
        try_column(rows, |row| key_of(folders, &row.image.folder_id))?,
        column(rows, |row| row.image.status as i64),
        column(rows, |row| row.image.name.clone()),
        column(rows, |row| row.image.description.clone()),
        try_column(rows, |row| to_json(&row.image.labels))?,
        column(rows, |row| row.image.min_disk_size),
        column(rows, |row| row.blob.key),
        column(rows, |row| row.blob.rest),
    ];
    pipeline.add(
        "INSERT INTO desktop_images (key, id_rest, folder_key, status, name, description, labels,
             min_disk_size, blob_key, blob_rest)
         SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::text[],
             $6::text[], $7::text[], $8::bigint[], $9::bigint[], $10::bigint[])",
        values,
    );
    Ok(())
}

pub(super) fn update_desktop_images(
    pipeline: &mut Pipeline,
    rows: &[&DesktopImageRow],
) -> Result<()> {
    // One after the other: a name may go from one image to another.
    for row in rows {
        let row = &[*row];
        let values = vec![
            column(row, |row| row.id.key),
            column(row, |row| row.id.rest),
            column(row, |row| row.image.status as i64),
            column(row, |row| row.image.name.clone()),
            column(row, |row| row.image.description.clone()),
            try_column(row, |row| to_json(&row.image.labels))?,
        ];
        pipeline.add(
            "UPDATE desktop_images AS image SET status = new.status, name = new.name,
                    description = new.description, labels = new.labels
             FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::text[], $5::text[],
                 $6::text[]) AS new (key, rest, status, name, description, labels)
             WHERE image.key = new.key AND image.id_rest = new.rest",
            values,
        );
    }
    Ok(())
}

pub(super) fn insert_compute_images(
    pipeline: &mut Pipeline,
    rows: &[&ComputeImageRow],
    folders: &Folders,
) -> Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    let values = vec![
        column(rows, |row| row.id.key),
        column(rows, |row| row.id.rest),
        try_column(rows, |row| key_of(folders, &row.image.folder_id))?,
        column(rows, |row| row.image.status as i64),
        column(rows, |row| row.image.name.clone()),
        column(rows, |row| row.image.description.clone()),
        try_column(rows, |row| to_json(&row.image.labels))?,
        column(rows, |row| row.image.family.clone()),
        column(rows, |row| row.image.min_disk_size),
        try_column(rows, |row| to_json(&row.image.product_ids))?,
        try_column(rows, |row| row.image.os.as_ref().map(to_json).transpose())?,
        column(rows, |row| row.image.pooled),
        try_column(rows, |row| {
            let generation = row.image.hardware_generation.as_ref();
            generation.map(to_json).transpose()
        })?,
        column(rows, |row| row.blob.map(|blob| blob.key)),
        column(rows, |row| row.blob.map(|blob| blob.rest)),
    ];
    pipeline.add(
        "INSERT INTO compute_images (key, id_rest, folder_key, status, name, description, labels,
             family, min_disk_size, product_ids, os, pooled, hardware_generation, blob_key,
             blob_rest)
         SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::text[],
             $6::text[], $7::text[], $8::text[], $9::bigint[], $10::text[], $11::text[],
             $12::boolean[], $13::text[], $14::bigint[], $15::bigint[])",
        values,
    );
    Ok(())
}

pub(super) fn update_compute_images(
    pipeline: &mut Pipeline,
    rows: &[&ComputeImageRow],
) -> Result<()> {
    for row in rows {
        let row = &[*row];
        let values = vec![
            column(row, |row| row.id.key),
            column(row, |row| row.id.rest),
            column(row, |row| row.image.status as i64),
            column(row, |row| row.image.name.clone()),
            column(row, |row| row.image.description.clone()),
            try_column(row, |row| to_json(&row.image.labels))?,
            column(row, |row| row.image.min_disk_size),
            column(row, |row| row.blob.map(|blob| blob.key)),
            column(row, |row| row.blob.map(|blob| blob.rest)),
        ];
        pipeline.add(
            "UPDATE compute_images AS image SET status = new.status, name = new.name,
                    description = new.description, labels = new.labels,
                    min_disk_size = new.min_disk_size, blob_key = new.blob_key,
                    blob_rest = new.blob_rest
             FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::text[], $5::text[],
                 $6::text[], $7::bigint[], $8::bigint[], $9::bigint[])
                 AS new (key, rest, status, name, description, labels, min_disk_size, blob_key,
                     blob_rest)
             WHERE image.key = new.key AND image.id_rest = new.rest",
            values,
        );
    }
    Ok(())
}

pub(super) fn insert_blobs(pipeline: &mut Pipeline, rows: &[&BlobRow]) {
    if rows.is_empty() {
        return;
    }
    let mut values = vec![
        column(rows, |row| row.id.key),
        column(rows, |row| row.id.rest),
        column(rows, |row| row.file.clone()),
    ];
    values.extend(blob_values(rows));
    pipeline.add(
        "INSERT INTO blobs (key, id_rest, file, damaged, state, operation_key, operation_rest,
             format, size, stored_size, virtual_size, sha256)
         SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::text[], $4::boolean[], $5::bigint[],
             $6::bigint[], $7::bigint[], $8::text[], $9::bigint[], $10::bigint[], $11::bigint[],
             $12::bytea[])",
        values,
    );
}

pub(super) fn update_blobs(pipeline: &mut Pipeline, rows: &[&BlobRow]) {
    if rows.is_empty() {
        return;
    }
    let mut values = vec![
        column(rows, |row| row.id.key),
        column(rows, |row| row.id.rest),
        column(rows, |row| row.file.clone()),
    ];
    values.extend(blob_values(rows));
    pipeline.add(
        "UPDATE blobs AS blob SET file = new.file, damaged = new.damaged, state = new.state,
                operation_key = new.operation_key, operation_rest = new.operation_rest,
                format = new.format, size = new.size, stored_size = new.stored_size,
                virtual_size = new.virtual_size, sha256 = new.sha256
         FROM unnest($1::bigint[], $2::bigint[], $3::text[], $4::boolean[], $5::bigint[],
             $6::bigint[], $7::bigint[], $8::text[], $9::bigint[], $10::bigint[], $11::bigint[],
             $12::bytea[])
             AS new (key, rest, file, damaged, state, operation_key, operation_rest, format, size,
                 stored_size, virtual_size, sha256)
         WHERE blob.key = new.key AND blob.id_rest = new.rest",
        values,
    );
}

/// The columns of blobs from `damaged` on.
fn blob_values(rows: &[&BlobRow]) -> Vec<super::connection::Value> {
    let writer = |row: &BlobRow| match &row.state {
        BlobState::Pending { operation } => Some(*operation),
        BlobState::Live(_) => None,
    };
    vec![
        column(rows, |row| row.damaged),
        column(rows, |row| match row.state {
            BlobState::Pending { .. } => PENDING,
            BlobState::Live(_) => LIVE,
        }),
        column(rows, |row| writer(row).map(|id| id.key)),
        column(rows, |row| writer(row).map(|id| id.rest)),
        column(rows, |row| row.facts().map(|it| it.format.clone())),
        column(rows, |row| row.facts().map(|it| it.size)),
        column(rows, |row| row.facts().map(|it| it.stored_size)),
        column(rows, |row| row.facts().map(|it| it.virtual_size)),
        column(rows, |row| row.facts().map(|it| it.sha256.to_vec())),
    ]
}

/// The columns that can change of operations.
fn operation_values(rows: &[&OperationRow]) -> Result<Vec<super::connection::Value>> {
    let failure = |row: &OperationRow| row.failure.clone();
    Ok(vec![
        column(rows, |row| row.id.key),
        column(rows, |row| row.id.rest),
        column(rows, |row| row.state.phase as i64),
        column(rows, |row| row.state.cancel_requested),
        column(rows, |row| {
            row.idempotency.as_ref().map(|it| it.key.to_vec())
        }),
        column(rows, |row| {
            row.idempotency.as_ref().map(|it| it.request_hash.to_vec())
        }),
        column(rows, |row| row.upload_key as i64),
        column(rows, |row| row.modified_at.0),
        column(rows, |row| row.attempt),
        column(rows, |row| row.claimable_at.map(|time| time.0)),
        column(rows, |row| row.lease_token),
        column(rows, |row| row.retry_until.map(|time| time.0)),
        try_column(rows, |row| task_column(&row.task))?,
        column(rows, |row| signed(row.progress.done)),
        column(rows, |row| row.progress.total.map(signed)),
        try_column(rows, response_column)?,
        column(rows, |row| {
            row.failure.as_ref().map(|it| it.reason.as_str())
        }),
        column(rows, |row| failure(row).map(|it| it.message)),
        column(rows, |row| failure(row).and_then(|it| it.subject)),
        try_column(rows, |row| {
            let quota = row.failure.as_ref().and_then(|it| it.quota.as_ref());
            quota.map(to_json).transpose()
        })?,
    ])
}

/// The types of [`operation_values`], and their names.
macro_rules! operation_columns {
    ($before:literal, $between:literal, $after:literal) => {
        concat!(
            $before,
            "unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::boolean[], $5::bytea[],
                $6::bytea[], $7::bigint[], $8::bigint[], $9::bigint[], $10::bigint[], $11::bigint[],
                $12::bigint[], $13::text[], $14::bigint[], $15::bigint[], $16::text[], $17::text[],
                $18::text[], $19::text[], $20::text[]",
            $between,
            ") AS new (key, rest, phase, cancel_requested, idempotency_key, request_hash, upload,
                modified_at, attempt, claimable_at, lease_token, retry_until, task, progress_done,
                progress_total, response, error_reason, error_message, error_subject, error_quota",
            $after
        )
    };
}

pub(super) fn insert_operations(
    pipeline: &mut Pipeline,
    rows: &[&OperationRow],
    folders: &Folders,
) -> Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    let mut values = operation_values(rows)?;
    values.extend([
        column(rows, |row| row.kind as i64),
        try_column(rows, |row| key_of(folders, &row.folder_id))?,
        column(rows, |row| row.image.key),
        column(rows, |row| row.image.rest),
        column(rows, |row| row.subject.clone()),
        column(rows, |row| row.request_id.clone()),
    ]);
    pipeline.add(
        operation_columns!(
            "INSERT INTO operations (key, id_rest, phase, cancel_requested, idempotency_key,
                 request_hash, upload, modified_at, attempt, claimable_at, lease_token, retry_until,
                 task, progress_done, progress_total, response, error_reason, error_message,
                 error_subject, error_quota, kind, folder_key, image_key, image_rest, subject,
                 request_id)
             SELECT * FROM ",
            ", $21::bigint[], $22::bigint[], $23::bigint[], $24::bigint[], $25::text[], $26::text[]",
            ", kind, folder_key, image_key, image_rest, subject, request_id)"
        ),
        values,
    );
    Ok(())
}

pub(super) fn update_operations(pipeline: &mut Pipeline, rows: &[&OperationRow]) -> Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    pipeline.add(
        operation_columns!(
            "UPDATE operations AS operation SET phase = new.phase,
                    cancel_requested = new.cancel_requested,
                    idempotency_key = new.idempotency_key, request_hash = new.request_hash,
                    upload = new.upload, modified_at = new.modified_at, attempt = new.attempt,
                    claimable_at = new.claimable_at, lease_token = new.lease_token,
                    retry_until = new.retry_until, task = new.task,
                    progress_done = new.progress_done, progress_total = new.progress_total,
                    response = new.response, error_reason = new.error_reason,
                    error_message = new.error_message, error_subject = new.error_subject,
                    error_quota = new.error_quota
             FROM ",
            "",
            ") WHERE operation.key = new.key AND operation.id_rest = new.rest"
        ),
        operation_values(rows)?,
    );
    Ok(())
}
