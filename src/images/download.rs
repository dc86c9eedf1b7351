//! Downloads: each byte is compared with its checksum before it leaves.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use disk_image::Format;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream, Stream, StreamExt, TryStreamExt};
use tokio::sync::{Mutex, OwnedSemaphorePermit};
use tokio_util::task::AbortOnDropHandle;

use super::permissions::{self, Watchman};
use super::{Error, Images, Result};
use crate::blobs::{self, BlobReader, Checksums};
use crate::model::{BlobFacts, DesktopImage, LiveBlob, Refusal, RequestContext, Role};

/// The whole blocks, of 4 MiB each, that all downloads together keep in memory. Downloads that find no room read
/// in pieces, which takes more of the processor.
pub(super) const BLOCKS_IN_MEMORY: usize = 64;
/// The bytes that are passed on at a time.
const PIECE: u64 = 512 * 1024;
/// The reads that are under way or wait to be sent, beside the one that is being sent.
const READS_AHEAD: usize = 2;

/// A desktop image and its bytes, readable to the end even if the image is deleted meanwhile.
pub(crate) struct Download {
    pub image: DesktopImage,
    pub facts: BlobFacts,
    blob_id: String,
    is_damaged: bool,
    reader: Arc<dyn BlobReader>,
    images: Images,
    watchman: Mutex<Watchman>,
    /// The renewal of the tombstone of the bytes, for as long as they are read.
    _keeping: AbortOnDropHandle<()>,
}

impl Images {
    /// Opens the bytes of a desktop image. Those that are missing or cut are noted as damaged.
    ///
    /// # Errors
    /// - [`Error::Damaged`] where the bytes are missing or cut, or damaged and without checksums;
    /// - [`Error::Store`] with `Refusal::ImageNotFound` or `ImageNotReady`;
    /// - [`Error::Blobs`] where the file cannot be opened.
    pub(crate) async fn download(
        &self,
        request: &RequestContext,
        image_id: &str,
    ) -> Result<Download> {
        let damaged = || {
            let id = image_id.to_owned();
            Error::Damaged(Refusal::BlobDamaged { id })
        };
        let mut missing = None;
        loop {
            let (image, blob) = self.store.desktop_image_blob(image_id).await?;
            permissions::of_image(request, image_id, &image.folder_id)?;
            let size = u64::try_from(blob.facts.size).unwrap_or_default();
            let checksums = checksums(&blob, size);
            // Without checksums it is not known which blocks are sound.
            if blob.damaged && checksums.is_none() {
                return Err(damaged());
            }
            match self.blobs.open(&blob.id, size, checksums).await {
                Ok(reader) => {
                    return Ok(Download {
                        watchman: Mutex::new(Watchman::new(
                            request,
                            Role::Viewer,
                            &image.folder_id,
                        )),
                        image,
                        facts: blob.facts,
                        _keeping: self.keep_bytes(blob.id.clone()),
                        blob_id: blob.id,
                        is_damaged: blob.damaged,
                        reader,
                        images: self.clone(),
                    });
                }
                // The image was deleted, or an equal file took this one's place, between the two steps:
                // the next look-up says so. It names another file each time, so that this has an end.
                Err(blobs::Error::Missing) if missing.as_ref() != Some(&blob.id) => {
                    missing = Some(blob.id);
                }
                Err(damage) if damage.is_damage() => {
                    self.note_damage(&blob.id, &damage).await;
                    return Err(damaged());
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Has the bytes of a blob stay though its image was deleted or equal bytes have taken their place, until the task is
    /// dropped. Renews their tombstone often enough that one renewal may fail.
    fn keep_bytes(&self, blob_id: String) -> AbortOnDropHandle<()> {
        let (store, every) = (self.store.clone(), self.blob_retention / 4);
        AbortOnDropHandle::new(tokio::spawn(async move {
            while !every.is_zero() {
                tokio::time::sleep(every).await;
                if let Err(error) = store.renew_tombstone(&blob_id).await {
                    tracing::warn!(blob_id, %error, "bytes that are read may be removed");
                }
            }
        }))
    }

    /// Notes that the file of a blob has other bytes than were written, or none.
    pub(super) async fn note_damage(&self, blob_id: &str, damage: &blobs::Error) {
        tracing::error!(
            blob_id,
            %damage,
            "a blob is damaged; an upload or import of the same bytes mends all of its images"
        );
        if let Err(error) = self.store.mark_damaged(vec![blob_id.to_owned()]).await {
            tracing::error!(blob_id, %error, "the damage was not noted");
        }
    }
}

/// The checksums of a blob, if it has any that can be relied on.
fn checksums(blob: &LiveBlob, size: u64) -> Option<Checksums> {
    let checksums = Checksums::from_bytes(blob.checksums.as_ref()?, size);
    if checksums.is_none() {
        tracing::warn!(
            blob_id = blob.id,
            "the checksums of a blob are damaged: its bytes leave unchecked until it is verified"
        );
    }
    checksums
}

impl Download {
    /// The usual ending of the name of a file of its format, without the dot.
    pub(crate) fn file_extension(&self) -> &str {
        match Format::from_name(&self.facts.format) {
            Some(format) => format.file_extension(),
            None => &self.facts.format,
        }
    }

    /// A URL at which the storage of the blobs itself gives the bytes, with this `Content-Disposition`, for some minutes. None
    /// where readers are not redirected, and of bytes that are known to be damaged: only here is each block compared.
    pub(crate) async fn presigned(&self, disposition: &str) -> Option<String> {
        if self.is_damaged {
            return None;
        }
        let size = u64::try_from(self.facts.size).unwrap_or_default();
        let blobs = &self.images.blobs;
        match blobs.presigned(&self.blob_id, size, disposition).await {
            Ok(url) => url,
            Err(error) => {
                tracing::warn!(blob_id = self.blob_id, %error, "a download is not redirected");
                None
            }
        }
    }

    /// The bytes of a range, read while those before them are sent.
    ///
    /// # Errors
    /// The stream ends with an error around [`blobs::Error`] where the bytes cannot be read, or are not those that
    /// were written; and where the caller may read them no more.
    pub(crate) fn read(self, range: Range<u64>) -> impl Stream<Item = io::Result<Bytes>> + Send {
        // A short range is read by small looks at its blocks.
        let at_once = match range.end - range.start {
            ..=blobs::BLOCK => 1,
            _ => self.reader.blocks_at_once(),
        };
        Arc::new(self).read_parts(blobs::by_many_blocks(range, at_once))
    }

    fn read_parts(
        self: Arc<Self>,
        parts: impl Iterator<Item = Range<u64>> + Send + 'static,
    ) -> Pieces {
        stream::iter(parts)
            .map(move |part| ahead(self.clone().read_part(part)))
            .buffered(READS_AHEAD)
            .try_flatten()
            .boxed()
    }

    /// A range that is read at once where there is room for its blocks and all are sound, or else block by block.
    fn read_part(self: Arc<Self>, part: Range<u64>) -> BoxFuture<'static, io::Result<Pieces>> {
        let read = async move {
            let blocks = blobs::by_blocks(part.clone()).count();
            if blocks == 1 {
                return self.read_block(part).await;
            }
            let rooms = self.images.download_blocks.clone();
            // Half of the room is for downloads that come later, which would read in pieces.
            if rooms.available_permits() >= BLOCKS_IN_MEMORY / 2
                && let Ok(room) = rooms.try_acquire_many_owned(blocks as u32)
                && let Some(data) = self.read_sound(part.clone()).await?
            {
                return Ok(pieces(data, room));
            }
            Ok(self.read_parts(blobs::by_blocks(part)))
        };
        read.boxed()
    }

    /// A range in one block, which is read at once where there is room for the block, or else in pieces.
    async fn read_block(self: Arc<Self>, part: Range<u64>) -> io::Result<Pieces> {
        let rooms = self.images.download_blocks.clone();
        if let Ok(room) = rooms.try_acquire_owned() {
            return Ok(pieces(self.read_checked(part).await?, room));
        }
        let read = stream::iter(part.clone().step_by(PIECE as usize)).map(move |start| {
            let (download, piece) = (self.clone(), start..part.end.min(start + PIECE));
            ahead(async move { download.read_checked(piece).await })
        });
        Ok(read.buffered(READS_AHEAD).boxed())
    }

    /// The bytes of several blocks; none where one of them is damaged. Block by block, the sound ones before it still leave.
    async fn read_sound(&self, part: Range<u64>) -> io::Result<Option<Bytes>> {
        self.look().await?;
        match self.reader.read(part).await {
            Ok(data) => Ok(Some(data)),
            Err(blobs::Error::BadBlock { .. }) => Ok(None),
            Err(error) => Err(self.failed(error).await),
        }
    }

    async fn read_checked(&self, part: Range<u64>) -> io::Result<Bytes> {
        self.look().await?;
        match self.reader.read(part).await {
            Ok(data) => Ok(data),
            Err(error) => Err(self.failed(error).await),
        }
    }

    /// Looks at the caller, if it is time.
    async fn look(&self) -> io::Result<()> {
        let look = self.watchman.lock().await.look().await;
        look.map_err(io::Error::other)
    }

    /// The error of a read, which is noted if it is damage.
    async fn failed(&self, error: blobs::Error) -> io::Error {
        if error.is_damage() {
            self.images.note_damage(&self.blob_id, &error).await;
            // An error that is there at the first look at the body would take the head along.
            tokio::task::yield_now().await;
        }
        io::Error::other(error)
    }
}

/// Runs a read to its end while the bytes before it are sent, however slowly the client takes those. A request to an object
/// storage whose answer nobody takes runs into its time limits.
fn ahead<T: Send + 'static>(
    read: impl Future<Output = io::Result<T>> + Send + 'static,
) -> impl Future<Output = io::Result<T>> + Send {
    let read = AbortOnDropHandle::new(tokio::spawn(read));
    async { read.await.map_err(io::Error::from)? }
}

/// Bytes that are passed on piece by piece, with their share of the memory for blocks.
fn pieces(data: Bytes, room: OwnedSemaphorePermit) -> Pieces {
    let data = Bytes::from_owner(Blocks { data, _room: room });
    let pieces = (0..data.len()).step_by(PIECE as usize).map(move |start| {
        let end = data.len().min(start + PIECE as usize);
        Ok(data.slice(start..end))
    });
    stream::iter(pieces).boxed()
}

/// The bytes of a part of a download, one after the other.
type Pieces = BoxStream<'static, io::Result<Bytes>>;

/// Blocks, and their share of the memory for blocks.
struct Blocks {
    data: Bytes,
    _room: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Blocks {
    fn as_ref(&self) -> &[u8] {
        &self.data
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::stream;

    use super::super::tests::{disk, new};
    use super::super::upload::{Piece, Upload};
    use super::*;
    use crate::blobs::LocalBlobs;
    use crate::model::{Labels, ManualClock, NewDesktopImage, Outcome, Timestamp};
    use crate::operations::{Engine, Settings};
    use crate::store::Store;
    use crate::store::memory::MemoryStore;

    const HOUR: Duration = Duration::from_secs(60 * 60);

    #[tokio::test]
    async fn the_bytes_of_a_deleted_image_stay_while_they_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let blobs = LocalBlobs::open(&folder.path().join("contents")).unwrap();
        let clock = Arc::new(ManualClock::new(Timestamp(1_800_000_000_000_000)));
        let store = Arc::new(MemoryStore::new(clock.clone()));
        let engine = Engine::new(store.clone(), Settings::default());
        let images =
            Images::new(store.clone(), Arc::new(blobs), engine, None).with_blob_retention(HOUR);
        let request = || RequestContext::internal("somebody");
        let upload = Upload {
            new: new(),
            sha256: None,
            length: None,
            body: stream::iter([Ok(Piece::Data(disk().into()))]),
        };
        let source = images
            .upload_compute_image(request(), upload)
            .await
            .unwrap();
        let copy = NewDesktopImage {
            folder_id: "f".to_owned(),
            name: "copy".to_owned(),
            description: String::new(),
            labels: Labels::new(),
            compute_image_id: source.image_id.clone(),
        };
        let copy = images.copy_desktop_image(request(), copy).await.unwrap();
        let download = images.download(&request(), &copy.image_id).await.unwrap();
        for deleted in [
            images.delete_desktop_image(request(), &copy.image_id).await,
            images
                .delete_compute_image(request(), &source.image_id)
                .await,
        ] {
            assert_eq!(deleted.unwrap().outcome, Some(Outcome::Succeeded(None)));
        }
        assert_eq!(store.remove_unreferenced(9).await.unwrap(), 1);

        // The upload needed real time.
        tokio::time::pause();
        let minute = Duration::from_secs(60);
        let deleted_after = async |passed| {
            for _ in 0..passed {
                clock.set(store.now().after(minute));
                tokio::time::advance(minute).await;
            }
            let deleted = store.blobs_to_delete(HOUR, None, 9).await.unwrap();
            deleted.len()
        };
        for _ in 0..9 {
            assert_eq!(deleted_after(50).await, 0);
        }
        download.read_checked(0..512).await.unwrap();
        drop(download);
        assert_eq!(deleted_after(40).await, 0);
        assert_eq!(deleted_after(60).await, 1);
    }
}
