//! The status that callers get when something goes wrong: code, message, details.

use std::collections::HashMap;
use std::time::Duration;

use http::HeaderMap;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt};

use crate::auth::NotAuthenticated;
use crate::contract::rules::Violation;
use crate::contract::texts::shown;
use crate::images::Error;
use crate::model::{ExceededQuota, QuotaScope, ReachedQuota, Refusal};
use crate::store;

/// The words for a failure whose cause is for the log only.
const INTERNAL: &str = "Internal error; the server's log says more";

/// The words for a shortage of file descriptors.
pub(crate) const NO_DESCRIPTORS: &str = "The server has no file descriptors left; try again later";
/// The pause that a caller is asked to make after a full disk refused: somebody has to make room.
pub(crate) const DISK_FULL_PAUSE: Duration = Duration::from_secs(30);
/// The same for what passes by itself.
pub(crate) const SHORT_PAUSE: Duration = Duration::from_secs(1);
/// The domain and the reasons of ErrorInfo.
pub(crate) const DOMAIN: &str = "desktop-images";
/// The reason of an error after which the change may have been made.
const OUTCOME_UNKNOWN: &str = "OUTCOME_UNKNOWN";
pub(crate) const QUOTA_REASON: &str = "QUOTA_EXCEEDED";

/// The most bytes of words in a status, those beyond ASCII counted twice. They travel three times,
/// once percent-encoded and twice in base64, and gRPC clients refuse more than 8 KiB of metadata.
const LONGEST_WORDS: usize = 1600;
/// The pause that a caller is asked to make where others use what it asks for.
const BUSY_PAUSE: Duration = Duration::from_secs(5);

/// INVALID_ARGUMENT that names all failing fields, one to a line, and in BadRequest details. Where
/// those are too many, entries of maps come last, and the rest is counted.
pub(crate) fn invalid(mut violations: Vec<Violation>) -> Status {
    violations.sort_by_key(|violation| violation.field.contains('['));
    let mut message = "Validation failed:".to_owned();
    let (mut told, mut weight) = (0, 0);
    for violation in &violations {
        let line = format!("\n  - {}: {}", violation.field, violation.description);
        weight += line
            .bytes()
            .map(|b| 1 + usize::from(!b.is_ascii()))
            .sum::<usize>();
        if weight > LONGEST_WORDS {
            break;
        }
        message.push_str(&line);
        told += 1;
    }
    if told < violations.len() {
        message.push_str(&format!("\n  … and {} more", violations.len() - told));
        violations.truncate(told);
    }
    let fields: Vec<FieldViolation> = violations
        .into_iter()
        .map(|violation| FieldViolation::new(violation.field, violation.description))
        .collect();
    let details = ErrorDetails::with_bad_request(fields);
    Status::with_error_details(Code::InvalidArgument, message, details)
}

/// INVALID_ARGUMENT that names one field.
pub(crate) fn invalid_field(field: &str, description: impl Into<String>) -> Status {
    invalid(vec![Violation {
        field: field.to_owned(),
        description: description.into(),
    }])
}

/// The status of a use case that failed. Logs what the caller is not told.
pub(crate) fn from_error(error: Error) -> Status {
    match error {
        Error::Invalid(fields) => invalid(
            fields
                .into_iter()
                .map(|wrong| Violation {
                    field: wrong.field.to_owned(),
                    description: wrong.description,
                })
                .collect(),
        ),
        Error::Unauthenticated => Status::unauthenticated(error.to_string()),
        Error::Busy => busy("Too many uploads are running; try again later"),
        Error::FamilyNotFound { folder_id, family } => Status::not_found(format!(
            "No image of family \"{}\" in folder {}",
            shown(&family),
            shown(&folder_id)
        )),
        Error::Unsupported(what) => {
            Status::unimplemented(format!("{what} is not supported by this server"))
        }
        Error::Damaged(refusal) => Status::data_loss(echoed(refusal).to_string()),
        Error::Store(error) => from_store(error),
        Error::Blobs(crate::blobs::Error::Full) => disk_full(),
        Error::Blobs(error @ crate::blobs::Error::NoDescriptors(_)) => no_descriptors(&error),
        Error::Blobs(lost @ crate::blobs::Error::Lost { .. }) => {
            tracing::error!(error = %lost, "a request failed");
            Status::unavailable("The server's content folder is not there; its log says more")
        }
        Error::Blobs(
            away @ (crate::blobs::Error::Unreachable { .. } | crate::blobs::Error::Refused { .. }),
        ) => {
            tracing::error!(error = %away, "a request failed");
            Status::unavailable("The server cannot use its storage; its log says more")
        }
        Error::Blobs(error) => internal(&error),
    }
}

pub(super) fn from_store(error: store::Error) -> Status {
    use store::Error as E;
    match error {
        E::Refused(refusal) => from_refusal(refusal),
        E::PageTokenExpired => invalid_field("page_token", "has expired; start again without one"),
        E::Full => disk_full(),
        E::Closed => stopping(),
        error @ E::Unreachable(_) => {
            tracing::error!(%error, "a request failed");
            unavailable("The server's database cannot be reached", SHORT_PAUSE)
        }
        error @ E::OutcomeUnknown => {
            tracing::error!(%error, "a request failed");
            let details = ErrorDetails::with_error_info(OUTCOME_UNKNOWN, DOMAIN, HashMap::new());
            let message =
                "The server's database went away; whether the change was made is not known";
            Status::with_error_details(Code::Unavailable, message, details)
        }
        error @ E::CannotOpen(_) => no_descriptors(&error),
        error @ E::ReadOnly(_) => {
            tracing::error!(%error, "a request failed");
            Status::unavailable("The server's database cannot be written to")
        }
        error @ E::Damaged(_) => {
            tracing::error!(%error, "a request failed");
            Status::data_loss("The server's database is damaged")
        }
        error @ (E::NewerSchema { .. }
        | E::OlderSchema { .. }
        | E::Foreign(_)
        | E::Start { .. }
        | E::Failed(_)) => internal(&error),
    }
}

fn from_refusal(refusal: Refusal) -> Status {
    use Refusal as R;
    let refusal = echoed(refusal);
    let message = refusal.to_string();
    match refusal {
        R::ImageNotFound { id } => {
            let details = ErrorDetails::with_resource_info("image", id, "", message.clone());
            Status::with_error_details(Code::NotFound, message, details)
        }
        R::OperationNotFound { id } => {
            let details = ErrorDetails::with_resource_info("operation", id, "", message.clone());
            Status::with_error_details(Code::NotFound, message, details)
        }
        R::NameTaken { name, .. } => {
            let details = ErrorDetails::with_resource_info("image", name, "", message.clone());
            Status::with_error_details(Code::AlreadyExists, message, details)
        }
        R::ImageNotReady { .. } | R::ImageBeingDeleted { .. } => {
            Status::failed_precondition(message)
        }
        R::BlobDamaged { id } => {
            let details = ErrorDetails::with_precondition_failure_violation(
                "CONTENT_DAMAGED",
                id,
                message.clone(),
            );
            Status::with_error_details(Code::FailedPrecondition, message, details)
        }
        R::QuotaExceeded(exceeded) => {
            let reached = exceeded.reached();
            let description = quota_words(&message, &reached);
            let mut details =
                ErrorDetails::with_quota_failure_violation(exceeded.subject(), description);
            let numbers: HashMap<_, _> = quota_numbers(&reached).into_iter().collect();
            details.set_error_info(QUOTA_REASON, DOMAIN, numbers);
            Status::with_error_details(Code::ResourceExhausted, message, details)
        }
        R::FolderDenied { .. } | R::Denied { .. } | R::UriDenied { .. } => {
            Status::permission_denied(message)
        }
        R::TooManyTokens => busy(&message),
        R::IdentityNotFound { kind, id } => {
            let details = ErrorDetails::with_resource_info(kind.noun(), id, "", message.clone());
            Status::with_error_details(Code::NotFound, message, details)
        }
        R::MinDiskSizeTooSmall { .. } => invalid_field("min_disk_size", message),
        R::IdempotencyKeyReused => Status::invalid_argument(message),
        refusal @ (R::LeaseLost { .. } | R::CancelRequested { .. }) => internal(&refusal),
    }
}

/// The same refusal with ids and names that can be sent back.
fn echoed(refusal: Refusal) -> Refusal {
    use Refusal as R;
    let cut = |text: String| shown(&text).into_owned();
    match refusal {
        R::ImageNotFound { id } => R::ImageNotFound { id: cut(id) },
        R::OperationNotFound { id } => R::OperationNotFound { id: cut(id) },
        R::NameTaken { folder_id, name } => R::NameTaken {
            folder_id: cut(folder_id),
            name: cut(name),
        },
        R::ImageNotReady { id } => R::ImageNotReady { id: cut(id) },
        R::ImageBeingDeleted { id } => R::ImageBeingDeleted { id: cut(id) },
        R::BlobDamaged { id } => R::BlobDamaged { id: cut(id) },
        R::FolderDenied { folder_id } => R::FolderDenied {
            folder_id: cut(folder_id),
        },
        R::UriDenied { folder_id } => R::UriDenied {
            folder_id: cut(folder_id),
        },
        R::IdentityNotFound { kind, id } => R::IdentityNotFound { kind, id: cut(id) },
        R::QuotaExceeded(exceeded) => R::QuotaExceeded(ExceededQuota {
            scope: match exceeded.scope {
                QuotaScope::Folder(id) => QuotaScope::Folder(cut(id)),
                QuotaScope::Total => QuotaScope::Total,
            },
            ..exceeded
        }),
        other => other,
    }
}

/// The words for a limit that is in the way, with its numbers.
pub(crate) fn quota_words(message: &str, reached: &ReachedQuota) -> String {
    let more = match reached.requested {
        Some(more) => format!(", {more} more asked for"),
        None => String::new(),
    };
    format!(
        "{message}: limit {}, used {}{more}",
        reached.limit, reached.used
    )
}

/// The numbers of a limit that is in the way, as ErrorInfo has them.
pub(crate) fn quota_numbers(reached: &ReachedQuota) -> Vec<(String, String)> {
    let mut numbers = vec![
        ("quota".to_owned(), reached.name.clone()),
        ("limit".to_owned(), reached.limit.to_string()),
        ("used".to_owned(), reached.used.to_string()),
    ];
    let requested = reached.requested;
    numbers.extend(requested.map(|more| ("requested".to_owned(), more.to_string())));
    numbers
}

/// The status for a caller whose credentials are not good.
pub(crate) fn not_authenticated(refused: NotAuthenticated) -> Status {
    match refused {
        NotAuthenticated::Unauthenticated(why) => Status::unauthenticated(why),
        NotAuthenticated::Denied(why) => Status::permission_denied(why),
        NotAuthenticated::Unavailable => unavailable(
            "The server cannot verify credentials now; try again later",
            SHORT_PAUSE,
        ),
    }
}

/// RESOURCE_EXHAUSTED of what others use now, with the time to wait before it is asked for again.
pub(crate) fn busy(message: &str) -> Status {
    let details = ErrorDetails::with_retry_info(Some(BUSY_PAUSE));
    Status::with_error_details(Code::ResourceExhausted, message, details)
}

/// UNAVAILABLE for a request that comes when the server stops. Nothing was done.
pub(crate) fn stopping() -> Status {
    unavailable("The server is shutting down", SHORT_PAUSE)
}

/// RESOURCE_EXHAUSTED for a subject that has made too many requests.
pub(crate) fn too_many_requests(wait: Duration) -> Status {
    let details = ErrorDetails::with_retry_info(Some(wait));
    Status::with_error_details(
        Code::ResourceExhausted,
        "Too many requests in the last second; try again later",
        details,
    )
}

fn disk_full() -> Status {
    tracing::warn!("a request was refused: the disk is full");
    let details = ErrorDetails::with_retry_info(Some(DISK_FULL_PAUSE));
    Status::with_error_details(
        Code::ResourceExhausted,
        "The server's disk is full",
        details,
    )
}

/// UNAVAILABLE for what the server lacks for a moment.
fn unavailable(message: &str, pause: Duration) -> Status {
    let details = ErrorDetails::with_retry_info(Some(pause));
    Status::with_error_details(Code::Unavailable, message, details)
}

fn no_descriptors(cause: &dyn std::error::Error) -> Status {
    tracing::warn!(error = %cause, "a request was refused: no file can be opened");
    unavailable(NO_DESCRIPTORS, SHORT_PAUSE)
}

/// Whether headers have a status after which the same call may be sent again: UNAVAILABLE of a call that changed nothing.
pub(crate) fn may_be_sent_again(headers: &HeaderMap) -> bool {
    let code = headers.get(Status::GRPC_STATUS).map(|code| code.as_bytes());
    if code.map(Code::from_bytes) != Some(Code::Unavailable) {
        return false;
    }
    let status = Status::from_header_map(headers);
    let info = status.and_then(|status| status.get_details_error_info());
    info.is_none_or(|info| info.reason != OUTCOME_UNKNOWN)
}

/// INTERNAL, whose cause is for the log only.
pub(crate) fn internal(cause: &dyn std::error::Error) -> Status {
    tracing::error!(error = %cause, "a request failed");
    Status::internal(INTERNAL)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The most bytes of metadata that clients of the C core and of Java take.
    const METADATA_LIMIT: usize = 8192;

    fn metadata_size(status: &Status) -> usize {
        let mut headers = http::HeaderMap::new();
        status.add_header(&mut headers).unwrap();
        headers
            .iter()
            .map(|(name, value)| name.as_str().len() + value.len() + 32)
            .sum()
    }

    #[test]
    fn a_call_may_be_sent_again_where_it_changed_nothing() {
        let unreachable = store::Error::Unreachable("no route".into());
        for (status, expected) in [
            (from_store(unreachable), true),
            (from_store(store::Error::Closed), true),
            (from_store(store::Error::OutcomeUnknown), false),
            (busy("too many"), false),
            (Status::ok(""), false),
        ] {
            let mut headers = HeaderMap::new();
            status.add_header(&mut headers).unwrap();
            assert_eq!(may_be_sent_again(&headers), expected, "{status:?}");
        }
        assert!(!may_be_sent_again(&HeaderMap::new()));
    }

    #[test]
    fn a_status_fits_the_metadata_of_clients_whatever_was_sent() {
        let label = |number| Violation {
            field: format!("labels[{number:я>60}]"),
            description: "Key must match [a-z][-_0-9a-z]*".to_owned(),
        };
        let mut violations: Vec<Violation> = (0..5000).map(label).collect();
        violations.push(Violation {
            field: "name".to_owned(),
            description: "Field is required".to_owned(),
        });
        let status = invalid(violations);
        assert!(
            metadata_size(&status) < METADATA_LIMIT,
            "{}",
            metadata_size(&status)
        );
        assert!(status.message().contains("\n  - name: Field is required\n"));
        assert!(status.message().ends_with(" more"), "{}", status.message());
        let id = "я".repeat(100_000);
        let status = from_refusal(Refusal::ImageNotFound { id });
        assert!(metadata_size(&status) < METADATA_LIMIT);
    }
}
