//! Rows of operations: how they are read and written.

use rusqlite::{OptionalExtension, Row, named_params};

use super::super::Result;
use super::error::{from_json, numbered, to_json};
use super::{Transaction, folders};
use crate::model::{
    Change, Failure, Id, Idempotency, Kind, OperationRow, Phase, Progress, Reason, Resource, State,
    Task, Timestamp, UploadKey,
};

/// The operations that have not ended, in the words of their indexes.
pub(super) const NOT_ENDED: &str = "phase < 3";
/// The operations of compute images, likewise.
pub(super) const OF_COMPUTE_IMAGES: &str = "kind >= 4";

/// The columns of [`from_row`].
pub(super) const SELECT: &str = "SELECT operation.key, id_rest, kind, phase, cancel_requested,
    folder.id AS folder_id, image_key, image_id_rest, subject, request_id, idempotency_key,
    request_hash, upload, modified_at, attempt, claimable_at, lease_token, retry_until, task,
    progress_done, progress_total, response, error_reason, error_message, error_subject,
    error_quota
    FROM operations AS operation JOIN folders AS folder ON folder.key = folder_key";

pub(super) fn get(transaction: &Transaction<'_>, id: Id) -> Result<Option<OperationRow>> {
    Ok(transaction
        .prepare_cached(&format!(
            "{SELECT} WHERE operation.key = ?1 AND id_rest = ?2"
        ))?
        .query_row([id.key, id.rest], from_row)
        .optional()?)
}

pub(super) fn from_row(row: &Row<'_>) -> rusqlite::Result<OperationRow> {
    let kind = numbered("operation kind", Kind::from_number, row.get("kind")?)?;
    let phase = numbered("phase", Phase::from_number, row.get("phase")?)?;
    let idempotency = match (row.get("idempotency_key")?, row.get("request_hash")?) {
        (Some(key), Some(request_hash)) => Some(Idempotency { key, request_hash }),
        _ => None,
    };
    let task: Option<String> = row.get("task")?;
    let response: Option<String> = row.get("response")?;
    let progress_total: Option<i64> = row.get("progress_total")?;
    let time = |column| {
        row.get::<_, Option<i64>>(column)
            .map(|time| time.map(Timestamp))
    };
    Ok(OperationRow {
        id: Id {
            key: row.get("key")?,
            rest: row.get("id_rest")?,
        },
        kind,
        state: State {
            phase,
            cancel_requested: row.get("cancel_requested")?,
        },
        folder_id: row.get("folder_id")?,
        image: Id {
            key: row.get("image_key")?,
            rest: row.get("image_id_rest")?,
        },
        subject: row.get("subject")?,
        request_id: row.get("request_id")?,
        idempotency,
        upload_key: numbered("upload", UploadKey::from_number, row.get("upload")?)?,
        modified_at: Timestamp(row.get("modified_at")?),
        attempt: row.get("attempt")?,
        claimable_at: time("claimable_at")?,
        lease_token: row.get("lease_token")?,
        retry_until: time("retry_until")?,
        task: match task {
            None => Task::None,
            // One that only a later version understands is not for this one to describe.
            Some(task) => match serde_json::from_str::<Change>(&task) {
                Ok(change) => Task::Known(Box::new(change)),
                Err(_) => Task::Unknown(task),
            },
        },
        progress: Progress {
            done: unsigned(row.get("progress_done")?),
            total: progress_total.map(unsigned),
        },
        resource: response
            .map(|response| resource(kind, &response))
            .transpose()?,
        failure: failure(row)?,
    })
}

/// The image in the JSON of the column `response`.
fn resource(kind: Kind, json: &str) -> rusqlite::Result<Resource> {
    match kind {
        Kind::CopyDesktopImage | Kind::UpdateDesktopImage | Kind::DeleteDesktopImage => {
            from_json(json).map(Resource::DesktopImage)
        }
        Kind::CreateComputeImage | Kind::UpdateComputeImage | Kind::DeleteComputeImage => {
            from_json(json).map(Resource::ComputeImage)
        }
    }
}

/// The column `response`.
pub(super) fn response_column(row: &OperationRow) -> rusqlite::Result<Option<String>> {
    let json = |resource: &Resource| match resource {
        Resource::DesktopImage(image) => to_json(image),
        Resource::ComputeImage(image) => to_json(image),
    };
    row.resource.as_ref().map(json).transpose()
}

fn failure(row: &Row<'_>) -> rusqlite::Result<Option<Failure>> {
    let reason: Option<String> = row.get("error_reason")?;
    let Some(reason) = reason else {
        return Ok(None);
    };
    let quota: Option<String> = row.get("error_quota")?;
    Ok(Some(Failure {
        subject: row.get("error_subject")?,
        quota: quota.map(|quota| from_json(&quota)).transpose()?,
        ..Failure::new(
            Reason::from_name(&reason),
            row.get::<_, String>("error_message")?,
        )
    }))
}

fn task_column(task: &Task) -> rusqlite::Result<Option<String>> {
    Ok(match task {
        Task::Known(change) => Some(to_json(&**change)?),
        Task::Unknown(task) => Some(task.clone()),
        Task::None => None,
    })
}

fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Inserts an operation that has not ended.
pub(super) fn insert(transaction: &Transaction<'_>, row: &OperationRow) -> Result<()> {
    let folder_key = folders::intern(transaction, &row.folder_id)?;
    transaction
        .prepare_cached(
            "INSERT INTO operations (key, id_rest, kind, phase, cancel_requested, folder_key, image_key,
                 image_id_rest, subject, request_id, idempotency_key, request_hash, upload,
                 modified_at, attempt, claimable_at, lease_token, task)
             VALUES (:key, :id_rest, :kind, :phase, :cancel_requested, :folder_key, :image_key,
                 :image_id_rest, :subject, :request_id, :idempotency_key, :request_hash, :upload,
                 :modified_at, :attempt, :claimable_at, :lease_token, :task)",
        )?
        .execute(named_params! {
            ":key": row.id.key,
            ":id_rest": row.id.rest,
            ":kind": row.kind as i64,
            ":phase": row.state.phase as i64,
            ":cancel_requested": row.state.cancel_requested,
            ":folder_key": folder_key,
            ":image_key": row.image.key,
            ":image_id_rest": row.image.rest,
            ":subject": row.subject,
            ":request_id": row.request_id,
            ":idempotency_key": row.idempotency.as_ref().map(|it| it.key),
            ":request_hash": row.idempotency.as_ref().map(|it| it.request_hash),
            ":upload": row.upload_key as i64,
            ":modified_at": row.modified_at.0,
            ":attempt": row.attempt,
            ":claimable_at": row.claimable_at.map(|time| time.0),
            ":lease_token": row.lease_token,
            ":task": task_column(&row.task)?,
        })?;
    Ok(())
}

/// Writes what can change of an operation.
pub(super) fn update(transaction: &Transaction<'_>, row: &OperationRow) -> Result<()> {
    let failure = row.failure.as_ref();
    let quota = failure.and_then(|failure| failure.quota.as_ref());
    transaction
        .prepare_cached(
            "UPDATE operations SET phase = :phase, cancel_requested = :cancel_requested,
                    idempotency_key = :idempotency_key, request_hash = :request_hash,
                    upload = :upload, modified_at = :modified_at, attempt = :attempt,
                    claimable_at = :claimable_at, lease_token = :lease_token,
                    retry_until = :retry_until, task = :task, progress_done = :progress_done,
                    progress_total = :progress_total, response = :response,
                    error_reason = :reason, error_message = :message, error_subject = :subject,
                    error_quota = :quota
             WHERE key = :key",
        )?
        .execute(named_params! {
            ":key": row.id.key,
            ":phase": row.state.phase as i64,
            ":cancel_requested": row.state.cancel_requested,
            ":idempotency_key": row.idempotency.as_ref().map(|it| it.key),
            ":request_hash": row.idempotency.as_ref().map(|it| it.request_hash),
            ":upload": row.upload_key as i64,
            ":modified_at": row.modified_at.0,
            ":attempt": row.attempt,
            ":claimable_at": row.claimable_at.map(|time| time.0),
            ":lease_token": row.lease_token,
            ":retry_until": row.retry_until.map(|time| time.0),
            ":task": task_column(&row.task)?,
            ":progress_done": signed(row.progress.done),
            ":progress_total": row.progress.total.map(signed),
            ":response": response_column(row)?,
            ":reason": failure.map(|failure| failure.reason.as_str()),
            ":message": failure.map(|failure| failure.message.as_str()),
            ":subject": failure.and_then(|failure| failure.subject.as_deref()),
            ":quota": quota.map(to_json).transpose()?,
        })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_in_the_words_of_indexes_have_the_numbers_of_the_model() {
        for phase in Phase::ALL {
            assert_eq!((phase as i64) < 3, !phase.is_done(), "{NOT_ENDED}");
        }
        for kind in Kind::ALL {
            let is_of_compute_image = kind.image_prefix() == crate::model::COMPUTE_IMAGE_PREFIX;
            assert_eq!(
                *kind as i64 >= 4,
                is_of_compute_image,
                "{OF_COMPUTE_IMAGES}"
            );
        }
    }
}
