//! Rows of operations: how they are read, and their columns as they are written.

use tokio_postgres::Row;

use super::super::Result;
use super::columns::Columns;
use super::error::{from_json, numbered, to_json, unreadable};
use crate::model::{
    Change, Failure, Idempotency, Kind, OperationRow, Phase, Progress, Reason, Resource, State,
    Task, Timestamp, UploadKey,
};

/// Defines the columns of [`from_row`], with what follows them.
macro_rules! select_operation {
    ($rest:literal) => {
        concat!(
            "SELECT operation.key, operation.id_rest, kind, phase, cancel_requested, folder.id,
                image_key, image_rest, subject, request_id, idempotency_key, request_hash, upload,
                modified_at, attempt, claimable_at, lease_token, retry_until, task, progress_done,
                progress_total, response, error_reason, error_message, error_subject, error_quota
             FROM operations AS operation JOIN folders AS folder ON folder.key = folder_key ",
            $rest
        )
    };
}
pub(super) use select_operation;

pub(super) fn from_row(row: &Row) -> Result<OperationRow> {
    let mut columns = Columns::of(row);
    let id = columns.take_id()?;
    let kind = numbered("operation kind", Kind::from_number, columns.take()?)?;
    let state = State {
        phase: numbered("phase", Phase::from_number, columns.take()?)?,
        cancel_requested: columns.take()?,
    };
    Ok(OperationRow {
        id,
        kind,
        state,
        folder_id: columns.take()?,
        image: columns.take_id()?,
        subject: columns.take()?,
        request_id: columns.take()?,
        idempotency: idempotency(&mut columns)?,
        upload_key: numbered("upload", UploadKey::from_number, columns.take()?)?,
        modified_at: Timestamp(columns.take()?),
        attempt: columns.take()?,
        claimable_at: columns.take_time()?,
        lease_token: columns.take()?,
        retry_until: columns.take_time()?,
        task: match columns.take::<Option<&str>>()? {
            None => Task::None,
            // One that only a later version understands is not for this one to describe.
            Some(task) => match serde_json::from_str::<Change>(task) {
                Ok(change) => Task::Known(Box::new(change)),
                Err(_) => Task::Unknown(task.to_owned()),
            },
        },
        progress: Progress {
            done: unsigned(columns.take()?),
            total: columns.take::<Option<i64>>()?.map(unsigned),
        },
        resource: columns
            .take::<Option<&str>>()?
            .map(|response| resource(kind, response))
            .transpose()?,
        failure: failure(&mut columns)?,
    })
}

fn idempotency(columns: &mut Columns<'_>) -> Result<Option<Idempotency>> {
    let (key, hash): (Option<&[u8]>, Option<&[u8]>) = (columns.take()?, columns.take()?);
    let (Some(key), Some(hash)) = (key, hash) else {
        return Ok(None);
    };
    let wrong = |_| unreadable("an idempotency key of another length".to_owned());
    Ok(Some(Idempotency {
        key: key.try_into().map_err(wrong)?,
        request_hash: hash.try_into().map_err(wrong)?,
    }))
}

/// The image in the JSON of the column `response`.
fn resource(kind: Kind, json: &str) -> Result<Resource> {
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
pub(super) fn response_column(row: &OperationRow) -> Result<Option<String>> {
    let json = |resource: &Resource| match resource {
        Resource::DesktopImage(image) => to_json(image),
        Resource::ComputeImage(image) => to_json(image),
    };
    row.resource.as_ref().map(json).transpose()
}

fn failure(columns: &mut Columns<'_>) -> Result<Option<Failure>> {
    let reason: Option<&str> = columns.take()?;
    let message: Option<String> = columns.take()?;
    let subject = columns.take()?;
    let quota = columns.take_optional_json()?;
    Ok(reason.map(|reason| Failure {
        subject,
        quota,
        ..Failure::new(Reason::from_name(reason), message.unwrap_or_default())
    }))
}

/// The column `task`.
pub(super) fn task_column(task: &Task) -> Result<Option<String>> {
    Ok(match task {
        Task::Known(change) => Some(to_json(&**change)?),
        Task::Unknown(task) => Some(task.clone()),
        Task::None => None,
    })
}

fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
