//! One place in an object storage, and the requests that are sent there.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use object_store::multipart::MultipartStore;
use object_store::path::Path;
use object_store::signer::Signer;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload};
use tokio::time::Instant;

use super::super::Error;
use super::errors::{failed, may_pass};
use super::presigned::Presigner;

/// The library's view of a bucket.
pub(super) trait Bucket: ObjectStore + MultipartStore + Signer {}

impl<T: ObjectStore + MultipartStore + Signer> Bucket for T {}

/// The time for which a write that fails is repeated. The library repeats a request with its first signature, which is
/// good for 15 minutes and holds the first token (object_store 0.14.2, `Request::send` in
/// <https://docs.rs/object_store/0.14.2/src/object_store/aws/client.rs.html>); here each repetition is signed anew.
const PATIENCE: Duration = Duration::from_secs(180);
/// The time for which a read or a removal that fails is repeated. The library gives up sooner, after a number of
/// repetitions, and at once where an answer breaks off that is none of success, such as the one for an object that is not
/// there (object_store 0.14.2, `RetryableRequest::send` in
/// <https://docs.rs/object_store/0.14.2/src/object_store/client/retry.rs.html>).
const SHORT_PATIENCE: Duration = Duration::from_secs(30);
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// A prefix of a bucket. All of the blobs are below it.
#[derive(Debug)]
pub(super) struct Storage {
    /// The name for messages.
    pub place: String,
    pub prefix: Path,
    /// For requests with small bodies, whose answers are cut off when they fall silent.
    pub bucket: Arc<dyn Bucket>,
    /// For parts of uploads, whose answers come late.
    pub for_parts: Arc<dyn Bucket>,
    /// Where readers are redirected to the storage.
    pub presigner: Option<Presigner>,
    /// The installation that this process works for, once it is known.
    expected_owner: Mutex<Option<String>>,
}

impl Storage {
    pub(super) fn new(
        place: String,
        prefix: Path,
        bucket: Arc<dyn Bucket>,
        for_parts: Arc<dyn Bucket>,
        presigner: Option<Presigner>,
    ) -> Self {
        Self {
            place,
            prefix,
            bucket,
            for_parts,
            presigner,
            expected_owner: Mutex::default(),
        }
    }

    pub(super) fn blob(&self, id: &str) -> Path {
        self.blobs().join(id)
    }

    pub(super) fn blobs(&self) -> Path {
        self.prefix.clone().join("blobs")
    }

    /// The object that names the upload in parts of a blob, as long as it is neither complete nor aborted.
    pub(super) fn upload(&self, id: &str) -> Path {
        self.uploads().join(id)
    }

    pub(super) fn uploads(&self) -> Path {
        self.prefix.clone().join("uploads")
    }

    pub(super) fn owner(&self) -> Path {
        self.prefix.clone().join("owner")
    }

    pub(super) fn failed(&self, error: &object_store::Error) -> Error {
        failed(&self.place, error)
    }

    /// The text of a small object, if it is there.
    ///
    /// # Errors
    /// [`Error::Lost`] where the bucket is not there, [`Error::Unreachable`] and [`Error::Refused`].
    pub(super) async fn text(&self, path: &Path) -> Result<Option<String>, Error> {
        let read = async { self.bucket.get(path).await?.bytes().await };
        match read.await.map_err(|error| self.failed(&error)) {
            Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
            Err(Error::Missing) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Checks that the place can be reached, and is still that of the same installation.
    ///
    /// # Errors
    /// [`Error::Lost`], [`Error::Unreachable`] and [`Error::Refused`].
    pub(super) async fn check(&self) -> Result<(), Error> {
        let found = self.text(&self.owner()).await?;
        match &*self.lock() {
            None => Ok(()),
            expected if *expected == found => Ok(()),
            Some(_) => Err(Error::Lost {
                place: self.place.clone(),
                reason: match found {
                    None => "its object \"owner\" is gone",
                    Some(_) => "its object \"owner\" is that of another installation",
                }
                .to_owned(),
            }),
        }
    }

    /// Has [`Storage::check`] look for the note of an installation.
    pub(super) fn expect_owner(&self, installation: &str) {
        *self.lock() = Some(installation.to_owned());
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<String>> {
        self.expected_owner
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Deletes an object; none is no error.
    ///
    /// # Errors
    /// [`Error::Lost`], [`Error::Unreachable`] and [`Error::Refused`].
    pub(super) async fn delete(&self, path: &Path) -> Result<(), Error> {
        match self.bucket.delete(path).await {
            Ok(()) => Ok(()),
            Err(error) => match self.failed(&error) {
                Error::Missing => Ok(()),
                error => Err(error),
            },
        }
    }

    /// Writes an object whole.
    ///
    /// # Errors
    /// [`Error::Lost`], [`Error::Full`], [`Error::Unreachable`] and [`Error::Refused`].
    pub(super) async fn put(&self, path: &Path, bytes: bytes::Bytes) -> Result<(), Error> {
        self.repeated(|| async {
            let payload = PutPayload::from(bytes.clone());
            self.for_parts.put(path, payload).await.map(drop)
        })
        .await
    }

    /// Sends a request until it succeeds, is refused, or has failed for too long.
    ///
    /// # Errors
    /// That of the last try.
    pub(super) async fn repeated<T, F: Future<Output = object_store::Result<T>>>(
        &self,
        send: impl Fn() -> F,
    ) -> Result<T, Error> {
        let send = || async { send().await.map_err(|error| self.failed(&error)) };
        Self::patiently(PATIENCE, send).await
    }

    /// Tries to read or to remove something until that succeeds, is refused, or has failed for half a minute.
    ///
    /// # Errors
    /// That of the last try.
    pub(super) async fn repeated_briefly<T, F: Future<Output = Result<T, Error>>>(
        &self,
        attempt: impl Fn() -> F,
    ) -> Result<T, Error> {
        Self::patiently(SHORT_PATIENCE, attempt).await
    }

    /// A range of an object.
    ///
    /// # Errors
    /// [`Error::Missing`], [`Error::Lost`], [`Error::Unreachable`] and [`Error::Refused`].
    pub(super) async fn range(
        &self,
        path: &Path,
        range: &Range<u64>,
    ) -> Result<bytes::Bytes, Error> {
        self.repeated_briefly(|| async {
            let read = self.bucket.get_range(path, range.clone()).await;
            read.map_err(|error| self.failed(&error))
        })
        .await
    }

    async fn patiently<T, F: Future<Output = Result<T, Error>>>(
        patience: Duration,
        attempt: impl Fn() -> F,
    ) -> Result<T, Error> {
        let begun = Instant::now();
        let mut pause = FIRST_PAUSE;
        loop {
            let error = match attempt().await {
                Ok(done) => return Ok(done),
                Err(error) => error,
            };
            // The last try is at the end of the time, however long the pauses have become.
            let left = patience.saturating_sub(begun.elapsed());
            if !may_pass(&error) || left.is_zero() {
                return Err(error);
            }
            tracing::warn!(%error, "a request to the object storage failed; it is repeated");
            tokio::time::sleep(pause.min(left)).await;
            pause = (2 * pause).min(LONGEST_PAUSE);
        }
    }
}
