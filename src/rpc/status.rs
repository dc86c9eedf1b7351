//! What callers are told when something goes wrong: the code, the words, the details.

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt};

use crate::contract::rules::Violation;
use crate::images::Error;
use crate::metadata;

/// The words for a failure whose cause is for the log only.
const INTERNAL: &str = "Internal error; the server's log says more";

/// INVALID_ARGUMENT that names all failing fields, one to a line, and in BadRequest details.
pub fn invalid(violations: Vec<Violation>) -> Status {
    let mut message = "Validation failed:".to_owned();
    for violation in &violations {
        message.push_str(&format!(
            "\n  - {}: {}",
            violation.field, violation.description
        ));
    }
    let fields: Vec<FieldViolation> = violations
        .into_iter()
        .map(|violation| FieldViolation::new(violation.field, violation.description))
        .collect();
    let details = ErrorDetails::with_bad_request(fields);
    Status::with_error_details(Code::InvalidArgument, message, details)
}

/// The same for one field.
pub fn invalid_field(field: &str, description: impl Into<String>) -> Status {
    invalid(vec![Violation {
        field: field.to_owned(),
        description: description.into(),
    }])
}

/// The status of a use case that failed. Logs what the caller is not told.
pub fn from_error(error: Error) -> Status {
    match error {
        Error::Invalid(wrong) => invalid_field(wrong.field, wrong.description),
        Error::FamilyNotFound { .. } | Error::Unsupported(_) => {
            let code = match error {
                Error::Unsupported(_) => Code::Unimplemented,
                _ => Code::NotFound,
            };
            Status::new(code, capitalized(&error.to_string()))
        }
        Error::Metadata(error) => from_metadata(error),
        Error::Blobs(crate::blobs::Error::Full) => disk_full(),
        Error::Blobs(error @ crate::blobs::Error::Io(_)) => internal(&error),
    }
}

fn from_metadata(error: metadata::Error) -> Status {
    use metadata::Error as E;
    match error {
        E::ImageNotFound { id } => {
            let message = format!("Image \"{id}\" not found");
            let details = ErrorDetails::with_resource_info("image", id, "", message.clone());
            Status::with_error_details(Code::NotFound, message, details)
        }
        E::OperationNotFound { id } => {
            let message = format!("Operation \"{id}\" not found");
            let details = ErrorDetails::with_resource_info("operation", id, "", message.clone());
            Status::with_error_details(Code::NotFound, message, details)
        }
        E::NameTaken { folder_id, name } => {
            let message =
                format!("Image with name \"{name}\" already exists in folder {folder_id}");
            let details = ErrorDetails::with_resource_info("image", name, "", message.clone());
            Status::with_error_details(Code::AlreadyExists, message, details)
        }
        E::ImageNotReady { id } => Status::failed_precondition(format!(
            "Image \"{id}\" is not ready: wait for the operation that creates it, or cancel that"
        )),
        error @ E::MinDiskSizeTooSmall { .. } => invalid_field("min_disk_size", error.to_string()),
        E::IdempotencyKeyReused => Status::invalid_argument(
            "The idempotency key was used with another request; use a new key for a new request",
        ),
        E::PageTokenExpired => invalid_field("page_token", "has expired; start again without one"),
        E::Full => disk_full(),
        E::Closed => Status::unavailable("The server is shutting down"),
        error @ (E::LeaseLost { .. } | E::NewerSchema { .. } | E::Json(_) | E::Sqlite(_)) => {
            internal(&error)
        }
    }
}

fn disk_full() -> Status {
    Status::resource_exhausted("The server's disk is full")
}

fn internal(cause: &dyn std::error::Error) -> Status {
    tracing::error!(error = %cause, "a request failed");
    Status::internal(INTERNAL)
}

fn capitalized(text: &str) -> String {
    let mut letters = text.chars();
    match letters.next() {
        Some(first) => first.to_uppercase().chain(letters).collect(),
        None => String::new(),
    }
}
