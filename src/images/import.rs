//! Imports: bytes from a file, and the last steps of bytes from any source.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::os::unix::fs::MetadataExt;

use bytes::BytesMut;
use disk_image::Inspection;
use tokio_util::sync::CancellationToken;

use super::Images;
use super::compute_images::{LARGEST_BLOB, LARGEST_DISK};
use super::failures::{blob_failure, internal, source_failure, store_failure, too_large};
use super::faults::Step;
use super::follow::Following;
use super::stated::StatedSha256;
use crate::blobs::{BlobWriter, Chunk, Written};
use crate::model::rules::{CompleteImport, TieKey};
use crate::model::{BlobFacts, Failure, Lease, Reason};
use crate::operations::{Ended, ProgressCounter, Run};
use crate::sources::{FileUri, SourceError, extents};

const READ_SIZE: usize = 1 << 20;
/// Holes are passed on in parts, between which a copy can be stopped.
const HOLE_PART: u64 = 64 << 20;

impl Images {
    /// Brings in the bytes of a file.
    pub(super) async fn import(&self, run: &Run, uri: &str) -> Ended {
        let (folder, uri) = (self.import_folder.clone(), FileUri::parse(uri));
        let opened = tokio::task::spawn_blocking(move || {
            let file = folder.ok_or(SourceError::NoFolder)?.file(&uri?)?;
            let length = file.metadata().map_err(SourceError::Io)?.len();
            Ok((file, length))
        });
        let (mut file, length) = opened
            .await
            .map_err(|stopped| internal(&stopped).transient())?
            .map_err(source_failure)?;
        let writer = self.create_blob(&run.lease, Some(length)).await?;
        self.faults.before(Step::Write).await?;
        // Dropping this future ends the copy too.
        let stop = run.stop().child_token();
        let _stop_when_dropped = stop.clone().drop_guard();
        let progress = run.progress();
        let target = Target {
            following: Following::start(&stop),
            writer,
        };
        let copied = tokio::task::spawn_blocking(move || {
            let ended = copy(&mut file, &target, &stop, &progress).map_err(SourceError::Io);
            ended.map(|ended| (ended, target))
        });
        let (copied, target) = copied
            .await
            .map_err(|stopped| internal(&stopped).transient())?
            .map_err(source_failure)?;
        self.faults.after(Step::Write).await?;
        match copied {
            Copied::TooLarge => Err(too_large()),
            Copied::All | Copied::Refused => self.finish(&run.lease, target, None).await,
            Copied::Changed => Err(Failure::new(
                Reason::Aborted,
                "uri: the file changed while it was read; import it again",
            )),
            Copied::Stopped => Err(Failure::cancelled()),
        }
    }

    /// Starts the blob of a lease, of `length` bytes where that is known.
    pub(super) async fn create_blob(
        &self,
        lease: &Lease,
        length: Option<u64>,
    ) -> std::result::Result<BlobWriter, Failure> {
        self.faults.before(Step::Create).await?;
        let created = self.blobs.create(&lease.blob_id, length).await;
        let writer = created.map_err(|error| blob_failure(&error))?;
        self.faults.after(Step::Create).await?;
        Ok(writer)
    }

    /// Ends an import whose bytes are written: checks them, also against the digest that they should
    /// have, and makes the blob live and the image READY.
    pub(super) async fn finish(
        &self,
        lease: &Lease,
        target: Target,
        sha256: Option<StatedSha256>,
    ) -> Ended {
        self.faults.before(Step::Seal).await?;
        let written = target
            .writer
            .finish()
            .await
            .map_err(|error| blob_failure(&error))?;
        self.faults.after(Step::Seal).await?;
        if let Some(stated) = sha256 {
            stated.check(&written.sha256)?;
        }
        if lease.key_is_free {
            let tied = self.store.execute(TieKey(lease.clone())).await;
            tied.map_err(|error| store_failure(&error))?;
        }
        let following = target.following;
        let (blobs, id) = (&*self.blobs, &lease.blob_id);
        let inspection = following.inspect(blobs, id, written.size, self.accepted);
        let inspection = inspection.await?;
        for note in &inspection.notes {
            tracing::warn!(operation = %lease.operation_id, note, "an image is accepted that is not as it should be");
        }
        self.faults.after(Step::Inspect).await?;
        if inspection.virtual_size > LARGEST_DISK {
            return Err(Failure::new(
                Reason::Invalid,
                format!(
                    "The disk inside has {} bytes; at most {LARGEST_DISK} (4 TiB) are supported",
                    inspection.virtual_size
                ),
            ));
        }
        let facts = facts(&written, &inspection);
        self.faults.before(Step::Complete).await?;
        let complete = CompleteImport {
            lease: lease.clone(),
            facts,
            checksums: written.checksums.to_bytes(),
        };
        let ended = self.store.execute(complete).await;
        self.faults.after(Step::Complete).await?;
        let operation = ended.map_err(|error| store_failure(&error))?;
        // An equal blob may have been there.
        self.collect_garbage_soon();
        Ok(operation)
    }
}

fn facts(written: &Written, inspection: &Inspection) -> BlobFacts {
    // Files of more than 2^63 bytes do not exist.
    let signed = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
    BlobFacts {
        format: inspection.format.as_str().to_owned(),
        size: signed(written.size),
        stored_size: signed(written.stored_size),
        virtual_size: signed(inspection.virtual_size),
        sha256: written.sha256,
    }
}

/// The target of the bytes of an image: its blob, and the inspection of it.
pub(super) struct Target {
    pub(super) writer: BlobWriter,
    pub(super) following: Following,
}

impl Target {
    /// Adds a chunk. False when the blob takes no more: finishing it tells why.
    pub(super) async fn write(&self, chunk: Chunk) -> bool {
        self.following.write(&chunk).await;
        self.writer.write(chunk).await
    }

    /// Like `write`, for a thread that may block.
    fn write_blocking(&self, chunk: Chunk) -> bool {
        self.following.write_blocking(&chunk);
        self.writer.write_blocking(chunk)
    }
}

/// The end of a copy from a file.
enum Copied {
    All,
    /// The blob takes no more; finishing it tells why.
    Refused,
    Changed,
    TooLarge,
    /// The copy was told to stop.
    Stopped,
}

/// Copies a file, passing over its holes without reading them.
fn copy(
    file: &mut File,
    target: &Target,
    stop: &CancellationToken,
    progress: &ProgressCounter,
) -> io::Result<Copied> {
    let before = file.metadata()?;
    let length = before.len();
    progress.set_total(length);
    if length > LARGEST_BLOB {
        return Ok(Copied::TooLarge);
    }
    let mut buffers = Buffers::default();
    let mut position = 0;
    while position < length {
        let Range { start: data, end } = extents::next_data(file, position, length)?;
        while position < data {
            if stop.is_cancelled() {
                return Ok(Copied::Stopped);
            }
            let part = HOLE_PART.min(data - position);
            position += part;
            progress.set_done(position);
            if !target.write_blocking(Chunk::Zeros(part)) {
                return Ok(Copied::Refused);
            }
        }
        file.seek(SeekFrom::Start(position))?;
        while position < end {
            if stop.is_cancelled() {
                return Ok(Copied::Stopped);
            }
            let mut buffer = buffers.next();
            buffer.resize(READ_SIZE.min((end - position) as usize), 0);
            let count = file.read(&mut buffer)?;
            if count == 0 {
                return Ok(Copied::Changed);
            }
            buffer.truncate(count);
            position += count as u64;
            progress.set_done(position);
            let data = buffer.split().freeze();
            buffers.give_back(buffer);
            if !target.write_blocking(Chunk::Data(data)) {
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
