//! The documents that describe this server to people and programs: `/openapi.json`, and `/docs` to browse it. All
//! of it is in the program; the page asks nobody else.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use prost_reflect::FieldDescriptor;
use serde_json::{Value, json};
use transcoding::{Info, Limits, ResponseBody};
use utoipa_swagger_ui::Config;

use crate::contract::{self, yandex::cloud::compute::v1::CreateImageRequest};

const DOCUMENT: &str = "/openapi.json";
const PAGE: &str = "/docs";

/// The page has scripts and styles of its own, and styles within elements.
const POLICY: &str = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
                      frame-ancestors 'none'; base-uri 'none'";

const DESCRIPTION: &str = "Images of disks for virtual desktops. Every method is served over gRPC, \
    gRPC-Web and as HTTP with JSON at the paths below. A call that changes something returns an \
    operation, which tells how it ends. Errors have a `google.rpc.Status` as their body.\n\n\
    Numbers of 64 bits (`format: int64`) are strings in JSON, since they do not fit the numbers of \
    JavaScript. Requests may have them as numbers, too.";

/// The fields of `CreateImageRequest` that name a source. An upload has none: its body is the source.
const SOURCES: [&str; 4] = ["image_id", "disk_id", "snapshot_id", "uri"];

/// The document and the page.
#[derive(Clone)]
pub(super) struct Docs {
    document: Bytes,
    page: Arc<Config<'static>>,
}

impl Docs {
    pub(super) fn new() -> Result<Self, transcoding::BuildError> {
        let info = Info {
            title: "desktop-images",
            version: env!("CARGO_PKG_VERSION"),
            description: DESCRIPTION,
        };
        let pool = contract::descriptor_pool();
        let mut document = transcoding::openapi(pool, contract::services(), info, limits)?;
        for (path, method, operation) in [
            ("/compute/v1/images:upload", "post", upload()),
            (
                "/cloud-desktop/v1/images/{image_id}:download",
                "get",
                download(),
            ),
        ] {
            document["paths"][path] = json!({method: operation});
        }
        // Relative to where the document is: proxies may stand before this server.
        document["servers"] =
            json!([{"url": "/", "description": "The server that this document is from"}]);
        Ok(Self {
            document: document.to_string().into(),
            // By default the page has the document judged by a server elsewhere.
            page: Arc::new(Config::from(DOCUMENT).validator_url("none")),
        })
    }

    /// Whether a path is one of these.
    pub(super) fn has(path: &str) -> bool {
        path == DOCUMENT || path == PAGE || Self::file(path).is_some()
    }

    fn file(path: &str) -> Option<&str> {
        path.strip_prefix(PAGE)?.strip_prefix('/')
    }

    /// The answer to a GET; `None` where there is no such file.
    pub(super) fn answer(&self, path: &str) -> Option<Response<ResponseBody>> {
        if path == DOCUMENT {
            return Some(response("application/json", self.document.clone()));
        }
        if path == PAGE {
            // The page names its files relative to its own folder.
            let mut response = Response::new(ResponseBody::default());
            *response.status_mut() = StatusCode::PERMANENT_REDIRECT;
            let folder = HeaderValue::from_static("/docs/");
            response.headers_mut().insert(header::LOCATION, folder);
            return Some(response);
        }
        let file = utoipa_swagger_ui::serve(Self::file(path)?, Arc::clone(&self.page));
        let file = file.ok().flatten()?;
        let mut response = response(&file.content_type, file.bytes.into_owned().into());
        let policy = HeaderValue::from_static(POLICY);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_SECURITY_POLICY, policy);
        Some(response)
    }
}

/// The options of a field, which the checks of requests are made of, too.
fn limits(field: &FieldDescriptor) -> Limits {
    let limits = contract::rules::limits(field);
    Limits {
        required: limits.required,
        value: limits.value,
        size: limits.size,
        length: limits.length,
        pattern: limits.pattern.map(str::to_owned),
        key_length: limits.key_length,
        key_pattern: limits.key_pattern.map(str::to_owned),
    }
}

fn response(content_type: &str, body: Bytes) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::from(body));
    if let Ok(content_type) = HeaderValue::try_from(content_type) {
        response
            .headers_mut()
            .insert(header::CONTENT_TYPE, content_type);
    }
    response
}

/// `upload`, which is no gRPC method.
fn upload() -> Value {
    let request = contract::descriptor::<CreateImageRequest>();
    let mut parameters = transcoding::openapi_query(&request, &SOURCES, limits);
    parameters.extend([
        json!({
            "name": "Content-Digest", "in": "header",
            "description": "Digest of the body (RFC 9530) by SHA-256, SHA-512 or MD5, which is compared with what \
                arrives. So are `Repr-Digest`, `Digest` and `Content-MD5`.",
            "schema": {"type": "string"}, "example": "sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:",
        }),
        json!({
            "name": "Idempotency-Key", "in": "header",
            "description": "A UUID. An upload that broke off is sent again under the same one.",
            "schema": {"type": "string"},
        }),
        json!({
            "name": "Prefer", "in": "header",
            "description": "With `handling=strict`, a failed operation is answered by the HTTP code of its error.",
            "schema": {"type": "string"}, "example": "handling=strict",
        }),
    ]);
    json!({
        "operationId": "ImageService_Upload",
        "tags": ["ImageService"],
        "summary": "Makes a compute image of a disk image in the body",
        "description": "The body is a qcow2 or raw disk image of any size. The query takes the fields of \
            `CreateImageRequest` other than a source. The reply is the operation, which has ended, well or badly.",
        "parameters": parameters,
        "requestBody": {"required": true, "content": disk()},
        "responses": {
            "200": {
                "description": "The operation",
                "content": {"application/json": {
                    "schema": {"$ref": "#/components/schemas/yandex.cloud.operation.Operation"},
                }},
            },
            "default": {"$ref": "#/components/responses/Error"},
        },
    })
}

/// The bytes of a disk image.
fn disk() -> Value {
    json!({"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}})
}

/// `download`, which is no gRPC method.
fn download() -> Value {
    json!({
        "operationId": "DesktopImageService_Download",
        "tags": ["DesktopImageService"],
        "summary": "Returns the bytes of a desktop image",
        "description": "Whole, or one range of them (RFC 9110, section 14). `ETag` is made of their SHA-256, \
            which `Repr-Digest` tells.",
        "parameters": [
            {
                "name": "image_id", "in": "path", "required": true,
                "description": "ID of the desktop image.", "schema": {"type": "string"},
            },
            {
                "name": "Range", "in": "header", "description": "One range of bytes.",
                "schema": {"type": "string"}, "example": "bytes=0-1023",
            },
        ],
        "responses": {
            "200": {"description": "The whole image", "content": disk()},
            "206": {"description": "The range", "content": disk()},
            "302": {
                "description": "The bytes are at the URL in `Location`, for some minutes: with servers that are set up to \
                    redirect downloads to their object storage. Requests with conditions are not redirected.",
                "headers": {"Location": {"schema": {"type": "string", "format": "uri"}}},
            },
            "304": {"description": "The client has it already"},
            "default": {"$ref": "#/components/responses/Error"},
        },
    })
}
