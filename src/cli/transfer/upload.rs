//! A file or the standard input becomes a compute image.

use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, TryStreamExt};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use indicatif::ProgressBar;
use prost_reflect::DynamicMessage;
use reqwest::Body;
use tokio::io::{AsyncRead, AsyncReadExt};
use tonic::Code;
use uuid::Uuid;

use super::PIECE;
use super::headers::digest_header;
use crate::cli::client::{Http, escaped};
use crate::cli::errors::{Error, Result};
use crate::cli::progress;
use crate::contract::descriptor;
use crate::contract::google::rpc::ErrorInfo;
use crate::contract::yandex::cloud::compute::v1::CreateImageRequest;
use crate::contract::yandex::cloud::operation::{Operation, operation::Result as Outcome};

const PATH: &str = "/compute/v1/images:upload";
/// Before each time that what broke off is sent again.
const PAUSES: [Duration; 5] = [
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
    Duration::from_secs(8),
    Duration::from_secs(15),
];

/// An upload: a file, and the image that it becomes.
pub(crate) struct Upload<'a> {
    /// A file, or `-` for the standard input.
    pub file: &'a Path,
    /// The request without a `source`: that is the file.
    pub image: CreateImageRequest,
    /// Has the server refuse bytes that do not have this digest.
    pub sha256: Option<[u8; 32]>,
}

/// Uploads, and returns the operation, which is done. What breaks off is sent again, under the same
/// idempotency key: whatever becomes of a try, at most one image results.
pub(crate) async fn upload(http: &Http, upload: Upload<'_>) -> Result<Operation> {
    let key = Uuid::new_v4();
    let mut pauses = PAUSES.into_iter();
    let mut connected = false;
    loop {
        let Try { ended, whole } = attempt(http, &upload, &key).await?;
        connected |= !matches!(ended, Err(Error::Unreachable { .. }));
        let why = match &ended {
            Ok(operation) => broken_off(operation),
            // One that was never reached is hardly there a moment later.
            Err(Error::Unreachable { .. }) if !connected => None,
            Err(error) if passes(error) => Some(error.to_string()),
            Err(_) => None,
        };
        let Some((why, pause)) = why.filter(|_| whole).zip(pauses.next()) else {
            return ended;
        };
        // To those who watch; a closed standard error is no reason to end.
        let _ = writeln!(
            io::stderr(),
            "The upload broke off: {why}\nSending it again in {} s",
            pause.as_secs()
        );
        tokio::time::sleep(pause).await;
    }
}

/// One try of an upload.
struct Try {
    ended: Result<Operation>,
    /// Whether there is all of the file to be sent again.
    whole: bool,
}

async fn attempt(http: &Http, upload: &Upload<'_>, key: &Uuid) -> Result<Try> {
    let (reader, length) = open(upload.file).await?;
    let bar = progress::bytes("Upload", length);
    let failed = Arc::new(AtomicBool::new(false));
    let stream = pieces(reader, length, bar.clone()).inspect_err({
        let failed = Arc::clone(&failed);
        move |_| failed.store(true, Ordering::Relaxed)
    });
    let mut request = http
        .post(&format!("{PATH}?{}", query(&upload.image)))
        .header(CONTENT_TYPE, "application/octet-stream")
        .header("idempotency-key", key.to_string())
        .body(Body::wrap_stream(stream));
    if let Some(length) = length {
        request = request.header(CONTENT_LENGTH, length);
    }
    if let Some(sha256) = &upload.sha256 {
        request = request.header("content-digest", digest_header(sha256));
    }
    let sent = http.send(request).await;
    bar.finish_and_clear();
    let ended = match sent {
        Ok(reply) => reply.bytes().await.map_err(|error| http.broken(error)),
        Err(error) => Err(error),
    };
    Ok(Try {
        ended: ended.and_then(|reply| operation(&reply)),
        // Bytes that were read of a pipe cannot be read again.
        whole: length.is_some() && !failed.load(Ordering::Relaxed),
    })
}

/// Whether a failure may have passed a moment later.
fn passes(error: &Error) -> bool {
    match error {
        Error::Unreachable { .. } => true,
        Error::Refused { code, .. } => *code == Code::Unavailable,
        _ => false,
    }
}

/// Why an upload was cut short, unless that was by another program that sends the same.
fn broken_off(operation: &Operation) -> Option<String> {
    let Some(Outcome::Error(error)) = &operation.result else {
        return None;
    };
    let is_superseded = error.details.iter().any(|detail| {
        let info = detail.to_msg::<ErrorInfo>();
        info.is_ok_and(|info| info.reason == "SUPERSEDED")
    });
    let aborted = Code::from_i32(error.code) == Code::Aborted;
    (aborted && !is_superseded).then(|| error.message.clone())
}

type Reader = Box<dyn AsyncRead + Send + Sync + Unpin>;

/// The bytes of a file, and how many they are where that is known.
async fn open(path: &Path) -> Result<(Reader, Option<u64>)> {
    if path.as_os_str() == "-" {
        return Ok((Box::new(tokio::io::stdin()), None));
    }
    let failed =
        |error: io::Error| Error::failed(format!("cannot read {}", path.display()), &error);
    let file = tokio::fs::File::open(path).await.map_err(failed)?;
    let metadata = file.metadata().await.map_err(failed)?;
    if metadata.is_dir() {
        return Err(Error::Failed(format!(
            "{} is a folder; give a disk image",
            path.display()
        )));
    }
    let length = metadata.is_file().then_some(metadata.len());
    Ok((Box::new(file), length))
}

/// The bytes of a reader, in pieces. Where a length was announced it is held: more is left out, and
/// less is an error.
fn pieces(
    reader: Reader,
    length: Option<u64>,
    bar: ProgressBar,
) -> impl Stream<Item = io::Result<Bytes>> {
    let limited = reader.take(length.unwrap_or(u64::MAX));
    futures_util::stream::try_unfold((limited, 0), move |(mut reader, sent)| {
        let bar = bar.clone();
        async move {
            let mut piece = Vec::with_capacity(PIECE);
            let read = reader.read_buf(&mut piece).await?;
            if read == 0 {
                return match length {
                    Some(length) if sent < length => Err(io::Error::other(format!(
                        "the file ended after {sent} of {length} bytes: it changed while it was read"
                    ))),
                    _ => Ok(None),
                };
            }
            bar.inc(read as u64);
            Ok(Some((Bytes::from(piece), (reader, sent + read as u64))))
        }
    })
}

/// The fields of the request as query parameters, by their JSON names.
fn query(image: &CreateImageRequest) -> String {
    let mut pairs = vec![("folderId".to_owned(), image.folder_id.clone())];
    for (name, value) in [
        ("name", &image.name),
        ("description", &image.description),
        ("family", &image.family),
    ] {
        if !value.is_empty() {
            pairs.push((name.to_owned(), value.clone()));
        }
    }
    for (key, value) in &image.labels {
        pairs.push((format!("labels[{key}]"), value.clone()));
    }
    for id in &image.product_ids {
        pairs.push(("productIds".to_owned(), id.clone()));
    }
    if image.min_disk_size != 0 {
        pairs.push(("minDiskSize".to_owned(), image.min_disk_size.to_string()));
    }
    if let Some(os) = &image.os {
        pairs.push(("os.type".to_owned(), os.r#type().as_str_name().to_owned()));
    }
    let pairs: Vec<String> = pairs
        .iter()
        .map(|(name, value)| format!("{}={}", escaped(name), escaped(value)))
        .collect();
    pairs.join("&")
}

/// The operation in a reply.
pub(crate) fn operation(json: &[u8]) -> Result<Operation> {
    let wrong = |error: &dyn std::error::Error| {
        Error::failed("the server's answer is not an operation", error)
    };
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    DynamicMessage::deserialize(descriptor::<Operation>(), &mut deserializer)
        .map_err(|error| wrong(&error))?
        .transcode_to()
        .map_err(|error| wrong(&error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::yandex::cloud::compute::v1::Os;

    #[test]
    fn all_fields_are_in_the_query() {
        let image = CreateImageRequest {
            folder_id: "f/1".to_owned(),
            name: "n".to_owned(),
            description: "a & b".to_owned(),
            family: "fam".to_owned(),
            labels: [("k".to_owned(), "v".to_owned())].into(),
            product_ids: vec!["p1".to_owned(), "p2".to_owned()],
            min_disk_size: 4 << 20,
            os: Some(Os {
                r#type: 2,
                nvidia: None,
            }),
            ..CreateImageRequest::default()
        };
        assert_eq!(
            query(&image),
            "folderId=f%2F1&name=n&description=a%20%26%20b&family=fam&labels%5Bk%5D=v\
             &productIds=p1&productIds=p2&minDiskSize=4194304&os.type=WINDOWS"
        );
    }

    #[test]
    fn a_reply_is_an_operation_or_an_error() {
        let unknown = operation(br#"{"id": "e3v1", "done": true, "new": 1}"#);
        assert!(unknown.is_err(), "{unknown:?}");
        let known = operation(br#"{"id": "e3v1", "done": true}"#).unwrap();
        assert_eq!((known.id.as_str(), known.done), ("e3v1", true));
        assert!(operation(b"<html>").is_err());
    }

    async fn sent(content: &'static [u8], length: Option<u64>) -> io::Result<Vec<u8>> {
        let pieces: Vec<Bytes> = pieces(Box::new(content), length, ProgressBar::hidden())
            .try_collect()
            .await?;
        Ok(pieces.concat())
    }

    #[tokio::test]
    async fn an_announced_length_is_held() {
        assert_eq!(sent(b"12345", None).await.unwrap(), b"12345");
        assert_eq!(sent(b"12345", Some(5)).await.unwrap(), b"12345");
        assert_eq!(sent(b"12345", Some(3)).await.unwrap(), b"123");
        let error = sent(b"12345", Some(6)).await.unwrap_err();
        assert!(error.to_string().contains("after 5 of 6 bytes"), "{error}");
    }
}
