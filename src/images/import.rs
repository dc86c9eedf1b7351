//! Bringing bytes in: what a worker does for a new compute image.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::BytesMut;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::compute_images::{LARGEST_CONTENT, LARGEST_DISK};
use super::{Images, Result};
use crate::blobs::{self, Chunk, ContentWriter, Written};
use crate::formats::{self, FileReader, FormatError, Inspection};
use crate::metadata::{self, ContentFacts, Lease};
use crate::operations::{Ended, Failure, Operation, Reason, Worker, cancelled};
use crate::sources::{FileUri, SourceError};

const READ_SIZE: usize = 1 << 20;
/// Holes are passed on in parts, between which a copy can be stopped.
const HOLE_PART: u64 = 64 << 20;

/// What has to be done for an accepted operation, as it is kept in its row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Task {
    /// Read a file below the import folder.
    Import { uri: String },
    /// Take the body of the request that made the operation.
    Upload,
}

impl Task {
    pub fn to_json(&self) -> String {
        // Strings and unit variants always serialize.
        serde_json::to_string(self).expect("a task is plain data")
    }
}

#[async_trait]
impl Worker for Images {
    async fn run(&self, lease: &Lease, cancelled: CancellationToken) -> Ended {
        // The claim put what an earlier attempt wrote on the deletion list.
        self.sweep_soon();
        match serde_json::from_str(&lease.task) {
            Ok(Task::Import { uri }) => self.import(lease, &uri, cancelled).await,
            // Its body went with the process that read it.
            Ok(Task::Upload) => Err(Failure::new(
                Reason::Aborted,
                "The server stopped before the upload was complete; upload again",
            )),
            Err(error) => Err(Failure::new(
                Reason::Internal,
                format!("The task is not known to this version of the server: {error}"),
            )),
        }
    }
}

impl Images {
    /// Runs an accepted operation in the background.
    pub(super) fn start(&self, operation_id: &str) {
        self.engine.start(operation_id, Arc::new(self.clone()));
    }

    /// Takes up what an earlier process left undone.
    pub async fn recover(&self) -> Result<()> {
        // Before anything runs that makes contents of its own.
        let known = self.store.known_contents().await?;
        let contents = self.contents.clone();
        let files = tokio::task::spawn_blocking(move || contents.list())
            .await
            .map_err(|stopped| blobs::Error::Io(stopped.into()))?
            .map_err(blobs::Error::from)?;
        for file in files.iter().filter(|file| !known.contains(*file)) {
            tracing::warn!(
                file,
                "a file in the content folder is not known; it is left alone"
            );
        }
        if let Err(error) = self.sweep().await {
            tracing::warn!(%error, "contents were not removed; the next sweep tries again");
        }
        for id in self.store.unfinished_operations().await? {
            tracing::info!(operation_id = id, "taking up an unfinished operation");
            self.start(&id);
        }
        Ok(())
    }

    async fn import(&self, lease: &Lease, uri: &str, cancelled: CancellationToken) -> Ended {
        let writer = self.create_content(lease).await?;
        // Dropping this future ends the copy too.
        let stop = cancelled.child_token();
        let _stop_when_dropped = stop.clone().drop_guard();
        let folder = self.import_folder.clone();
        let uri = FileUri::parse(uri);
        let copied = tokio::task::spawn_blocking(move || {
            let mut file = folder.ok_or(SourceError::NoFolder)?.file(&uri?)?;
            let ended = copy(&mut file, &writer, &stop).map_err(SourceError::Io);
            ended.map(|ended| (ended, writer))
        });
        let (copied, writer) = match copied.await {
            Ok(Ok(copied)) => copied,
            Ok(Err(error)) => {
                let failure = Failure::new(Reason::Invalid, format!("uri: {error}"));
                return Err(self.undo(lease, failure).await);
            }
            Err(stopped) => return Err(self.undo(lease, internal(&stopped)).await),
        };
        match copied {
            Copied::TooLarge => Err(self.undo(lease, too_large()).await),
            Copied::All | Copied::Refused => self.finish(lease, writer, None).await,
            Copied::Changed => {
                let message = "uri: the file changed while it was read; import it again";
                Err(self
                    .undo(lease, Failure::new(Reason::Aborted, message))
                    .await)
            }
            Copied::Cancelled => Err(self.undo(lease, self::cancelled()).await),
        }
    }

    /// Starts the content of a lease.
    pub(super) async fn create_content(
        &self,
        lease: &Lease,
    ) -> std::result::Result<ContentWriter, Failure> {
        let contents = self.contents.clone();
        let id = lease.content_id.clone();
        let created = tokio::task::spawn_blocking(move || contents.create(&id)).await;
        let failure = match created {
            Ok(Ok(writer)) => return Ok(writer),
            Ok(Err(error)) => blob_failure(&error),
            Err(stopped) => internal(&stopped),
        };
        Err(self.undo(lease, failure).await)
    }

    /// Brings written bytes to their end: checked, also against the digest that they should
    /// have, live, and the image READY.
    pub(super) async fn finish(
        &self,
        lease: &Lease,
        writer: ContentWriter,
        sha256: Option<[u8; 32]>,
    ) -> Ended {
        match self.finish_or_fail(lease, writer, sha256).await {
            Ok(operation) => {
                // An equal content may have been there.
                self.sweep_soon();
                Ok(operation)
            }
            Err(Unfinished::Failed(failure)) => Err(self.undo(lease, failure).await),
            Err(Unfinished::Unknown(error)) => Err(internal(&error)),
        }
    }

    async fn finish_or_fail(
        &self,
        lease: &Lease,
        writer: ContentWriter,
        sha256: Option<[u8; 32]>,
    ) -> std::result::Result<Operation, Unfinished> {
        let written = writer
            .finish()
            .await
            .map_err(|error| blob_failure(&error))?;
        if sha256.is_some_and(|expected| expected != written.sha256) {
            return Err(Unfinished::Failed(Failure::new(
                Reason::Invalid,
                "Content-Digest: the SHA-256 of the body is another one",
            )));
        }
        let inspection = self.inspect(lease).await?;
        if inspection.virtual_size > LARGEST_DISK {
            return Err(Unfinished::Failed(Failure::new(
                Reason::Invalid,
                format!(
                    "The disk inside has {} bytes; at most {LARGEST_DISK} (4 TiB) are supported",
                    inspection.virtual_size
                ),
            )));
        }
        let facts = facts(&written, &inspection);
        match self.store.finish_import(lease, facts).await {
            Ok(operation) => Ok(operation),
            Err(error @ metadata::Error::MinDiskSizeTooSmall { .. }) => {
                Err(Failure::new(Reason::Invalid, error.to_string()).into())
            }
            Err(metadata::Error::Full) => Err(Failure::new(Reason::Exhausted, DISK_FULL).into()),
            Err(error @ metadata::Error::Closed) => Err(Unfinished::Unknown(error)),
            Err(error) => Err(internal(&error).into()),
        }
    }

    async fn inspect(&self, lease: &Lease) -> std::result::Result<Inspection, Failure> {
        let contents = self.contents.clone();
        let id = lease.content_id.clone();
        let inspected = tokio::task::spawn_blocking(move || {
            let file = FileReader::new(contents.read(&id)?)?;
            formats::inspect(&file)
        })
        .await
        .map_err(|stopped| internal(&stopped))?;
        inspected.map_err(|error| match error {
            FormatError::Io(error) => internal(&error),
            bad => Failure::new(Reason::Invalid, bad.to_string()),
        })
    }

    /// Removes the bytes of a failed attempt at once: the failure may be that there is no room
    /// left, which the record of it needs too.
    pub(super) async fn undo(&self, lease: &Lease, failure: Failure) -> Failure {
        let contents = self.contents.clone();
        let id = lease.content_id.clone();
        let removed = tokio::task::spawn_blocking(move || contents.remove(&id)).await;
        if !matches!(removed, Ok(Ok(()))) {
            tracing::warn!(
                content_id = lease.content_id,
                "the bytes of a failed import were not removed; the sweep tries again"
            );
        }
        failure
    }
}

/// Why written bytes did not become an image.
enum Unfinished {
    Failed(Failure),
    /// The store did not say: the bytes stay, and the next start finds out.
    Unknown(metadata::Error),
}

impl From<Failure> for Unfinished {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// The failure of a source of more bytes than any image has.
pub(super) fn too_large() -> Failure {
    Failure::new(
        Reason::Invalid,
        format!("The image has more than {LARGEST_CONTENT} bytes, the most that are supported"),
    )
}

const DISK_FULL: &str = "The server's disk is full";

fn blob_failure(error: &blobs::Error) -> Failure {
    match error {
        blobs::Error::Full => Failure::new(Reason::Exhausted, DISK_FULL),
        blobs::Error::Io(error) => internal(error),
    }
}

/// The cause is for the log, not for the caller.
pub(super) fn internal(cause: &dyn std::error::Error) -> Failure {
    tracing::error!(error = %cause, "an import failed");
    Failure::new(
        Reason::Internal,
        "Internal error; the server's log says more",
    )
}

fn facts(written: &Written, inspection: &Inspection) -> ContentFacts {
    // Files of more than 2^63 bytes do not exist.
    let signed = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
    ContentFacts {
        format: inspection.format.as_str().to_owned(),
        size: signed(written.size),
        stored_size: signed(written.stored_size),
        virtual_size: signed(inspection.virtual_size),
        sha256: written.sha256,
    }
}

/// How a copy from a file ended.
enum Copied {
    All,
    /// The content takes no more; finishing it tells why.
    Refused,
    Changed,
    TooLarge,
    Cancelled,
}

/// Copies a file, passing over its holes without reading them.
fn copy(file: &mut File, writer: &ContentWriter, stop: &CancellationToken) -> io::Result<Copied> {
    let before = file.metadata()?;
    let length = before.len();
    if length > LARGEST_CONTENT {
        return Ok(Copied::TooLarge);
    }
    let mut buffers = Buffers::default();
    let mut position = 0;
    while position < length {
        let data = next_data(file, position)?.unwrap_or(length).min(length);
        while position < data {
            if stop.is_cancelled() {
                return Ok(Copied::Cancelled);
            }
            let part = HOLE_PART.min(data - position);
            position += part;
            if !writer.write_blocking(Chunk::Zeros(part)) {
                return Ok(Copied::Refused);
            }
        }
        let hole = rustix::fs::seek(&*file, rustix::fs::SeekFrom::Hole(position))
            .unwrap_or(length)
            .min(length);
        file.seek(SeekFrom::Start(position))?;
        while position < hole {
            if stop.is_cancelled() {
                return Ok(Copied::Cancelled);
            }
            let mut buffer = buffers.next();
            buffer.resize(READ_SIZE.min((hole - position) as usize), 0);
            let count = file.read(&mut buffer)?;
            if count == 0 {
                return Ok(Copied::Changed);
            }
            buffer.truncate(count);
            position += count as u64;
            let data = buffer.split().freeze();
            buffers.give_back(buffer);
            if !writer.write_blocking(Chunk::Data(data)) {
                return Ok(Copied::Refused);
            }
        }
    }
    let after = file.metadata()?;
    let unchanged = after.len() == length
        && (after.mtime(), after.mtime_nsec()) == (before.mtime(), before.mtime_nsec());
    Ok(if unchanged {
        Copied::All
    } else {
        Copied::Changed
    })
}

/// Buffers for reading, used again once nobody holds what was read into them: fresh memory costs
/// more than the reading.
#[derive(Default)]
struct Buffers(VecDeque<BytesMut>);

impl Buffers {
    /// An empty buffer.
    fn next(&mut self) -> BytesMut {
        // The oldest is the first to be free.
        if let Some(mut oldest) = self.0.pop_front() {
            if oldest.try_reclaim(READ_SIZE) {
                return oldest;
            }
            self.0.push_front(oldest);
        }
        BytesMut::with_capacity(READ_SIZE)
    }

    /// Takes the rest of a buffer whose bytes were split off.
    fn give_back(&mut self, buffer: BytesMut) {
        self.0.push_back(buffer);
    }
}

/// Where data is next, at or after `position`; none when only a hole is left.
fn next_data(file: &File, position: u64) -> io::Result<Option<u64>> {
    match rustix::fs::seek(file, rustix::fs::SeekFrom::Data(position)) {
        Ok(data) => Ok(Some(data)),
        Err(rustix::io::Errno::NXIO) => Ok(None),
        // A file system that knows no holes.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::OPNOTSUPP) => Ok(Some(position)),
        Err(error) => Err(error.into()),
    }
}
