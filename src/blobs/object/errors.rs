//! Errors of an object storage, and their meaning.
//!
//! The library has kinds of its own for few answers. All others are one text, with the status and the body of the answer
//! in it (object_store 0.14.2, `RequestError` in
//! <https://docs.rs/object_store/0.14.2/src/object_store/client/retry.rs.html>), so that they are told apart by that text.
//! The tests against a real storage (`tests/server/object_starts.rs`) notice where a later version words it otherwise.

use super::super::Error;
use crate::telemetry::chain;

/// The error of a request to an object storage, which `place` names.
pub(super) fn failed(place: &str, error: &object_store::Error) -> Error {
    use object_store::Error as E;
    let place = place.to_owned();
    let text = chain(error);
    let told = told(&text);
    match error {
        _ if text.contains("169.254.169.254") || text.contains("metadata.google.internal") => {
            Error::Refused {
                place,
                reason: "there are no credentials, neither in the environment nor in a file, and this machine has \
                         none of its own"
                    .to_owned(),
            }
        }
        E::NotFound { .. } if is_code(&text, &["NoSuchBucket", "ContainerNotFound"]) => Error::Lost {
            place,
            reason: "there is no such bucket".to_owned(),
        },
        E::NotFound { .. } => Error::Missing,
        _ if is_code(&text, FULL) || text.contains("status code: 507") => Error::Full,
        E::PermissionDenied { .. } | E::Unauthenticated { .. } => Error::Refused {
            place,
            reason: advice(&text).map_or(told, str::to_owned),
        },
        E::NotSupported { .. } | E::NotImplemented { .. } => Error::Refused {
            place,
            reason: told,
        },
        // S3 in another region, or a redirect to it.
        _ if is_code(&text, &["PermanentRedirect", "AuthorizationHeaderMalformed"])
            || text.contains("Received redirect without LOCATION") =>
        {
            let reason = format!("the bucket is in another region: set AWS_REGION ({told})");
            Error::Refused { place, reason }
        }
        _ if is_code(&text, &["InvalidBucketName"]) => Error::Refused {
            place,
            reason: "no bucket can have this name".to_owned(),
        },
        _ if is_refusal(&text) => Error::Refused {
            place,
            reason: told,
        },
        _ => Error::Unreachable {
            place,
            reason: told,
        },
    }
}

const FULL: &[&str] = &[
    "XMinioStorageFull",
    "QuotaExceeded",
    "InsufficientStorage",
    "EntityTooLarge",
];

/// Advice about a refusal, by the code that S3 gives it.
fn advice(text: &str) -> Option<&'static str> {
    const ADVICE: &[(&[&str], &str)] = &[
        (
            &["RequestTimeTooSkewed"],
            "its clock and the clock of this machine differ by more than 15 minutes: set the clock that is wrong",
        ),
        (
            &["InvalidAccessKeyId"],
            "it does not know the access key id (AWS_ACCESS_KEY_ID)",
        ),
        (
            &["SignatureDoesNotMatch"],
            "the secret access key (AWS_SECRET_ACCESS_KEY) does not fit the access key id, or a proxy changes \
             requests on their way",
        ),
        (
            &["ExpiredToken", "InvalidToken", "TokenRefreshRequired"],
            "the session token (AWS_SESSION_TOKEN) has expired or is not known",
        ),
        (
            &["AccessDenied", "AllAccessDisabled"],
            "these credentials may not do it: they need to read, write, delete and list objects, and to abort \
             uploads in parts",
        ),
    ];
    let found = ADVICE.iter().find(|(codes, _)| is_code(text, codes));
    found.map(|(_, advice)| *advice)
}

fn is_code(text: &str, codes: &[&str]) -> bool {
    element(text, "Code").is_some_and(|code| codes.contains(&code))
}

/// Whether the answer has a status that a repetition does not change.
fn is_refusal(text: &str) -> bool {
    let status = text.split_once("status code: 4").map(|(_, rest)| rest);
    // 408 and 429 say that the request comes at the wrong time.
    status.is_some_and(|rest| !rest.starts_with("08") && !rest.starts_with("29"))
        && !is_code(text, &["RequestTimeout", "SlowDown"])
}

/// The words of an error: those of the storage, where it gave some, without the XML around them.
fn told(text: &str) -> String {
    const LONGEST: usize = 500;
    let told = match (element(text, "Code"), element(text, "Message")) {
        (Some(code), Some(message)) => format!("{code}: {message}"),
        (Some(code), None) => code.to_owned(),
        _ => text.to_owned(),
    };
    let visible = told.chars().filter(|letter| !letter.is_control());
    visible.take(LONGEST).collect()
}

/// The text of the first XML element with this name.
fn element<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(&format!("<{name}>"))?;
    Some(rest.split_once(&format!("</{name}>"))?.0)
}

/// Whether a repetition may help.
pub(super) fn may_pass(error: &Error) -> bool {
    matches!(error, Error::Unreachable { .. })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn xml(code: &str) -> String {
        format!(
            "Error performing GET in 9ms - Server returned non-2xx status code: 403 Forbidden: \
             <?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>told</Message></Error>"
        )
    }

    fn denied(text: String) -> object_store::Error {
        object_store::Error::PermissionDenied {
            path: "owner".to_owned(),
            source: text.into(),
        }
    }

    fn generic(text: &str) -> object_store::Error {
        object_store::Error::Generic {
            store: "S3",
            source: text.to_owned().into(),
        }
    }

    #[test]
    fn each_error_says_what_to_do_about_it() {
        let missing = |text: &str| object_store::Error::NotFound {
            path: "owner".to_owned(),
            source: text.to_owned().into(),
        };
        for (error, expected) in [
            (
                denied(xml("RequestTimeTooSkewed")),
                "by more than 15 minutes",
            ),
            (denied(xml("InvalidAccessKeyId")), "AWS_ACCESS_KEY_ID"),
            (
                denied(xml("SignatureDoesNotMatch")),
                "AWS_SECRET_ACCESS_KEY",
            ),
            (denied(xml("AccessDenied")), "read, write, delete and list"),
            (denied(xml("ExpiredToken")), "AWS_SESSION_TOKEN"),
            (
                denied(xml("Odd")),
                "refuses what the server must do: Odd: told",
            ),
            (missing(&xml("NoSuchBucket")), "no such bucket"),
            (missing(&xml("NoSuchKey")), "missing"),
            (generic(&xml("AuthorizationHeaderMalformed")), "AWS_REGION"),
            (generic("status code: 507 Insufficient Storage"), "full"),
            (generic("status code: 400 Bad Request: "), "refuses"),
            (generic("status code: 503 Slow Down: "), "cannot be reached"),
            (generic("status code: 429 Too Many: "), "cannot be reached"),
            (generic("error sending request"), "cannot be reached"),
            (
                generic("Error performing PUT http://169.254.169.254/latest/api/token"),
                "no credentials",
            ),
        ] {
            let said = failed("the bucket s3://b/p", &error).to_string();
            assert!(said.contains(expected), "{error}: {said}");
        }
    }
}
