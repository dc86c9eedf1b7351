//! The head of an upload: all that is said before its body.

use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use tonic::Status;
use tonic::metadata::MetadataMap;

use crate::contract::rules::{Violation, violations};
use crate::contract::yandex::cloud::compute::v1::CreateImageRequest;
use crate::contract::{self, texts};
use crate::grpc;
use crate::images::StatedSha256;
use crate::model::{NewComputeImage, RequestContext};
use crate::server::digest::{self, Algorithm, Check, Stated};

/// The fields and headers of an upload, checked.
pub(super) struct Announced {
    pub context: RequestContext,
    pub new: NewComputeImage,
    pub sha256: Option<StatedSha256>,
    /// The check of digests that are stated beside the SHA-256.
    pub check: Check,
}

/// Why a body is not read.
pub(super) struct Refused {
    pub status: Status,
    /// The HTTP status, where it is not that of the gRPC code.
    pub http_status: Option<StatusCode>,
}

impl From<Status> for Refused {
    fn from(status: Status) -> Self {
        Self {
            status,
            http_status: None,
        }
    }
}

const RIGHT: &str = "send the image itself as the body, with Content-Type: application/octet-stream or none, as \
    curl -X POST -T FILE does";

/// The first parts of the names of fields by which clients send a part of a body, and what they are.
const PARTIAL: [(&str, &str); 9] = [
    ("content-range", "A part of an image cannot be uploaded"),
    ("range", "A part of an image cannot be uploaded"),
    ("tus-", "Uploads cannot be resumed here"),
    ("upload-", "Uploads cannot be resumed here"),
    ("x-upload-", "Uploads cannot be resumed here"),
    ("x-goog-resumable", "Uploads cannot be resumed here"),
    ("x-goog-upload-", "Uploads cannot be resumed here"),
    ("x-chunk-", "A part of an image cannot be uploaded"),
    ("x-content-range", "A part of an image cannot be uploaded"),
];

/// Reads the head. What is wrong with its fields is told together.
pub(super) fn announced(head: &mut Parts) -> Result<Announced, Refused> {
    check_media_type(&head.headers)?;
    let descriptor = contract::descriptor::<CreateImageRequest>();
    let query = head.uri.query().unwrap_or_default();
    let request: CreateImageRequest = transcoding::message_from_query(&descriptor, query)?
        .transcode_to()
        .map_err(|error| grpc::internal(&error))?;
    let mut violations = violations(&request);
    // The body is the source.
    violations.retain(|violation| violation.field != "source");
    if request.source.is_some() {
        violations.push(Violation {
            field: "source".to_owned(),
            description: "The body is the source of an upload; leave out all others".to_owned(),
        });
    }
    let (sha256, others) = stated_digests(&head.headers).unwrap_or_else(|wrong| {
        violations.extend(wrong);
        (Vec::new(), Vec::new())
    });
    if !violations.is_empty() {
        return Err(grpc::invalid(violations).into());
    }
    let sha256 = sha256.into_iter().next();
    let value = sha256.map(|stated| stated.value);
    let mut method = format!("ImageService/Upload {value:?}");
    for Stated { value, .. } in &others {
        method.push_str(&format!(" {value:?}"));
    }
    let metadata = MetadataMap::from_headers(head.headers.clone());
    let context = grpc::context(&mut head.extensions)?;
    let context = grpc::idempotent(context, &metadata, &method, &request)?;
    let (new, _) = grpc::new_compute_image(request);
    Ok(Announced {
        context,
        new,
        sha256,
        check: Check::of(others, &digest::announced(&head.headers)),
    })
}

/// Refuses types that say that the image is wrapped in something else, or is none.
fn check_media_type(headers: &HeaderMap) -> Result<(), Refused> {
    for content_type in headers.get_all(header::CONTENT_TYPE) {
        let content_type = content_type.to_str().unwrap_or("?").to_ascii_lowercase();
        let essence = content_type.split(';').next().unwrap_or_default().trim();
        let what = match essence {
            "application/x-www-form-urlencoded" => "a form",
            _ if essence.starts_with("multipart/") => "of several parts",
            _ if essence.starts_with("message/") => "a message",
            _ if essence.starts_with("text/") => "text",
            "application/json" | "application/xml" | "application/x-ndjson" => "no disk image",
            _ if essence.ends_with("+json") || essence.ends_with("+xml") => "no disk image",
            _ => continue,
        };
        return Err(Refused {
            status: Status::invalid_argument(format!(
                "Content-Type: a body of the type {} is {what}; {RIGHT}",
                texts::shown(essence)
            )),
            http_status: Some(StatusCode::UNSUPPORTED_MEDIA_TYPE),
        });
    }
    Ok(())
}

/// The digests that header or trailer fields state, the SHA-256 and others, or all that is wrong with the
/// fields that speak of the body.
pub(super) fn stated_digests(
    fields: &HeaderMap,
) -> Result<(Vec<StatedSha256>, Vec<Stated>), Vec<Violation>> {
    let mut wrong = Vec::new();
    let mut refuse = |field: &str, description: String| {
        wrong.push(Violation {
            field: field.to_owned(),
            description,
        });
    };
    let encodings = fields.get_all(header::CONTENT_ENCODING);
    let is_identity = |it: &HeaderValue| it.as_bytes().eq_ignore_ascii_case(b"identity");
    if !encodings.iter().all(is_identity) {
        refuse("Content-Encoding", "Send the image as it is".to_owned());
    }
    for name in fields.keys().map(HeaderName::as_str) {
        let partial = PARTIAL
            .iter()
            .find(|(start, _)| match start.ends_with('-') {
                true => name.starts_with(start),
                false => name == *start,
            });
        if let Some((_, what)) = partial {
            refuse(
                name,
                format!(
                    "{what}; send all of it in one request, again under the same Idempotency-Key if that breaks off"
                ),
            );
        }
    }
    let stated = digest::stated(fields).unwrap_or_else(|others| {
        wrong.extend(others);
        Vec::new()
    });
    if !wrong.is_empty() {
        return Err(wrong);
    }
    let (sha256, others): (Vec<_>, Vec<_>) = stated
        .into_iter()
        .partition(|stated| stated.algorithm == Algorithm::Sha256);
    let sha256 = sha256.into_iter().filter_map(|stated| {
        let value = stated.value.try_into().ok()?;
        Some(StatedSha256 {
            field: stated.field,
            value,
        })
    });
    Ok((sha256.collect(), others))
}
