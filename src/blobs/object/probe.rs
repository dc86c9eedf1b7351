//! The probe of an object storage at the start: all that blobs need of it is tried once, so that what is missing is told
//! before a caller meets it.

use bytes::Bytes;
use object_store::path::Path;
use object_store::{ObjectStoreExt, PutPayload};
use rand::Rng;

use super::super::Error;
use super::storage::Storage;

const BYTES: &[u8] = b"desktop-images writes, reads and deletes this object when it starts";

/// Tries the requests that blobs are made of.
///
/// # Errors
/// [`Error::Lost`], [`Error::Unreachable`] and [`Error::Refused`], with what to do about it.
pub(super) async fn probe(storage: &Storage) -> Result<(), Error> {
    let refused = |reason: String| Error::Refused {
        place: storage.place.clone(),
        reason,
    };
    let failed = |error: object_store::Error| match storage.failed(&error) {
        // None of these requests is for something that may be missing.
        Error::Missing => refused(
            "it does not find what it was given: is this the address of an object storage?"
                .to_owned(),
        ),
        error => error,
    };
    // Of all requests that read, this one tells best of a bucket that is not there.
    storage.text(&storage.owner()).await?;
    let name = format!("{:032x}", rand::rng().random::<u128>());
    let path = storage.prefix.clone().join("probe").join(name);

    let payload = PutPayload::from(Bytes::from_static(BYTES));
    storage.bucket.put(&path, payload).await.map_err(failed)?;
    let tried = read(storage, &path).await.map_err(failed);
    let uploaded = in_parts(storage, &path).await;
    storage.delete(&path).await?;
    match tried? {
        (length, part) if length == BYTES.len() as u64 && part == BYTES[8..17] => {}
        _ => {
            return Err(refused(
                "it gives other bytes than it was given, or not those of a range".to_owned(),
            ));
        }
    }
    match uploaded.map_err(failed) {
        Err(Error::Refused { reason, .. }) => {
            return Err(refused(format!(
                "it takes no upload in parts (multipart), which images need: {reason}"
            )));
        }
        ended => ended?,
    }
    if let Some(presigner) = &storage.presigner
        && let Err(error) = presigner.url(&path, "attachment").await
    {
        let why = storage.failed(&error);
        return Err(refused(format!(
            "downloads are not redirected to it, since URLs cannot be signed: {why}"
        )));
    }
    Ok(())
}

async fn read(storage: &Storage, path: &Path) -> object_store::Result<(u64, Bytes)> {
    let length = storage.bucket.head(path).await?.size;
    Ok((length, storage.bucket.get_range(path, 8..17).await?))
}

async fn in_parts(storage: &Storage, path: &Path) -> object_store::Result<()> {
    let upload = storage.bucket.create_multipart(path).await?;
    let payload = PutPayload::from(Bytes::from_static(BYTES));
    let put = storage.bucket.put_part(path, &upload, 0, payload).await;
    let aborted = storage.bucket.abort_multipart(path, &upload).await;
    put?;
    aborted
}
