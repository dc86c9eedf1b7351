//! Writing one blob to an object storage: in one request where it fits in one part, or else in parts, several of which
//! are under way at a time.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use disk_image::is_zero;
use object_store::multipart::PartId;
use object_store::path::Path;
use object_store::{MultipartId, ObjectStoreExt, PutPayload};
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use super::super::Error;
use super::super::checksums::Summing;
use super::super::writer::{Chunk, Step, Stored, abandoned};
use super::layout::{BlobLayout, MapBuilder, UNIT};
use super::parts::{PartMemory, PartRoom, PartSizes};
use super::storage::Storage;

/// The most parts of one upload that are under way.
const MOST_UNDER_WAY: usize = 8;

/// An upload of one blob.
pub(super) struct Upload {
    storage: Arc<Storage>,
    id: String,
    path: Path,
    layout: BlobLayout,
    memory: PartMemory,
    sizes: PartSizes,
    /// The length of the object at the most, where that is known.
    most: Option<u64>,
    /// The beginning of a unit.
    gathered: Vec<u8>,
    map: MapBuilder,
    summing: Summing,
    size: u64,
    stored: u64,
    part: Option<Part>,
    begun: Option<MultipartId>,
    /// Parts by their number; none while they are under way.
    parts: Vec<Option<PartId>>,
    under_way: JoinSet<Result<(usize, PartId), Error>>,
}

/// A part that is being filled.
struct Part {
    data: Vec<u8>,
    size: usize,
    room: PartRoom,
}

impl Upload {
    pub(super) fn new(
        storage: Arc<Storage>,
        id: &str,
        length: Option<u64>,
        layout: BlobLayout,
        memory: PartMemory,
    ) -> Self {
        Self {
            layout,
            path: storage.blob(id),
            storage,
            id: id.to_owned(),
            sizes: PartSizes::new(length, &memory),
            most: length.map(MapBuilder::most),
            memory,
            gathered: Vec::new(),
            map: MapBuilder::default(),
            summing: Summing::default(),
            size: 0,
            stored: 0,
            part: None,
            begun: None,
            parts: Vec::new(),
            under_way: JoinSet::new(),
        }
    }

    /// Stores what comes. Where that fails, or the writer is dropped, what was stored is removed in the background.
    ///
    /// # Errors
    /// [`Error::Full`], [`Error::Lost`], [`Error::Unreachable`], [`Error::Refused`] and [`Error::Io`].
    pub(super) async fn run(
        mut self,
        steps: mpsc::Receiver<Step>,
        dropped: CancellationToken,
    ) -> Result<Stored, Error> {
        let ended = tokio::select! {
            ended = self.store(steps) => ended,
            () = dropped.cancelled() => Err(abandoned()),
        };
        if ended.is_err() {
            self.abort();
        }
        ended
    }

    async fn store(&mut self, mut steps: mpsc::Receiver<Step>) -> Result<Stored, Error> {
        loop {
            match steps.recv().await {
                Some(Step::Chunk(Chunk::Data(data))) => self.data(&data).await?,
                Some(Step::Chunk(Chunk::Zeros(count))) => self.zeros(count).await?,
                Some(Step::Finish) => return self.finish().await,
                None => return Err(abandoned()),
            }
            while let Some(ended) = self.under_way.try_join_next() {
                self.note(ended)?;
            }
        }
    }

    async fn data(&mut self, mut data: &[u8]) -> Result<(), Error> {
        self.summing.data(data);
        self.size += data.len() as u64;
        while !data.is_empty() {
            let wanted = (UNIT - self.gathered.len()).min(data.len());
            let (part, rest) = data.split_at(wanted);
            if wanted == UNIT {
                self.unit(part).await?;
            } else {
                self.gathered.extend_from_slice(part);
                if self.gathered.len() == UNIT {
                    self.gathered_unit().await?;
                }
            }
            data = rest;
        }
        Ok(())
    }

    async fn zeros(&mut self, count: u64) -> Result<(), Error> {
        static ZEROS: [u8; UNIT] = [0; UNIT];
        self.summing.zeros(count);
        self.size += count;
        let mut left = count;
        while left > 0 {
            let wanted = (UNIT - self.gathered.len()).min(usize::try_from(left).unwrap_or(UNIT));
            if wanted == UNIT {
                self.unit(&ZEROS).await?;
            } else {
                self.gathered.extend_from_slice(&ZEROS[..wanted]);
                if self.gathered.len() == UNIT {
                    self.gathered_unit().await?;
                }
            }
            left -= wanted as u64;
        }
        Ok(())
    }

    async fn gathered_unit(&mut self) -> Result<(), Error> {
        let mut unit = std::mem::take(&mut self.gathered);
        self.unit(&unit).await?;
        unit.clear();
        self.gathered = unit;
        Ok(())
    }

    /// Adds a unit, the last one of which may be shorter.
    async fn unit(&mut self, unit: &[u8]) -> Result<(), Error> {
        let is_left_out = self.layout == BlobLayout::Packed && is_zero(unit);
        if !is_left_out {
            self.stored += unit.len() as u64;
        }
        self.map.push(!is_left_out);
        match is_left_out {
            true => Ok(()),
            false => self.append(unit).await,
        }
    }

    /// Adds bytes to the object.
    async fn append(&mut self, mut bytes: &[u8]) -> Result<(), Error> {
        while !bytes.is_empty() {
            let mut part = match self.part.take() {
                Some(part) => part,
                None => self.next_part().await?,
            };
            let (now, later) = bytes.split_at(bytes.len().min(part.size - part.data.len()));
            part.data.extend_from_slice(now);
            bytes = later;
            if part.data.len() < part.size {
                self.part = Some(part);
            } else {
                self.send(part).await?;
            }
        }
        Ok(())
    }

    /// Waits for room for the next part.
    async fn next_part(&mut self) -> Result<Part, Error> {
        let number = self.parts.len();
        let size = self.sizes.size(number).ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::FileTooLarge,
                "the image does not fit in 10,000 parts; more memory for parts makes them larger",
            )
        })?;
        // A small blob takes no more room than it needs. All parts of a larger one have one size.
        let size = match self.most {
            Some(most) if number == 0 => size.min(most.next_multiple_of(UNIT as u64)),
            _ => size,
        };
        let (memory, mut room) = (self.memory.clone(), None);
        let mut taking = std::pin::pin!(memory.take(size));
        while room.is_none() {
            tokio::select! {
                taken = &mut taking => room = Some(taken.ok_or_else(abandoned)?),
                // One that has failed is not waited beside.
                Some(ended) = self.under_way.join_next() => self.note(ended)?,
            }
        }
        let room = room.ok_or_else(abandoned)?;
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        Ok(Part {
            data: Vec::with_capacity(size),
            size,
            room,
        })
    }

    /// Sends a part on its way.
    async fn send(&mut self, part: Part) -> Result<(), Error> {
        let upload = match &self.begun {
            Some(upload) => upload.clone(),
            None => self.begin().await?,
        };
        while self.under_way.len() >= MOST_UNDER_WAY {
            if let Some(ended) = self.under_way.join_next().await {
                self.note(ended)?;
            }
        }
        let number = self.parts.len();
        self.parts.push(None);
        let (storage, path) = (self.storage.clone(), self.path.clone());
        self.under_way.spawn(async move {
            let Part { data, room, .. } = part;
            let data = Bytes::from(data);
            let put = || {
                let payload = PutPayload::from(data.clone());
                storage.for_parts.put_part(&path, &upload, number, payload)
            };
            let id = storage.repeated(put).await?;
            drop((data, room));
            Ok((number, id))
        });
        Ok(())
    }

    fn note(
        &mut self,
        ended: Result<Result<(usize, PartId), Error>, JoinError>,
    ) -> Result<(), Error> {
        let (number, id) = ended.map_err(io::Error::from)??;
        self.parts[number] = Some(id);
        Ok(())
    }

    /// Begins an upload in parts, and notes its id where whoever removes the blob finds it.
    async fn begin(&mut self) -> Result<MultipartId, Error> {
        let create = || self.storage.bucket.create_multipart(&self.path);
        let upload = self.storage.repeated(create).await?;
        self.begun = Some(upload.clone());
        let note = self.storage.upload(&self.id);
        let text = Bytes::from(upload.clone().into_bytes());
        self.storage.put(&note, text).await?;
        Ok(upload)
    }

    async fn finish(&mut self) -> Result<Stored, Error> {
        if !self.gathered.is_empty() {
            self.gathered_unit().await?;
        }
        let map = self.map.finish(self.size, self.stored);
        let length = match map.len() as u64 {
            0 => self.size,
            map => self.stored + map,
        };
        self.append(&map).await?;
        let part = self.part.take();
        match self.begun.clone() {
            None => {
                let data = part.map(|part| (part.data, part.room));
                let (data, _room) = data.unzip();
                let data = Bytes::from(data.unwrap_or_default());
                self.storage.put(&self.path, data).await?;
            }
            Some(upload) => {
                if let Some(part) = part {
                    self.send(part).await?;
                }
                while let Some(ended) = self.under_way.join_next().await {
                    self.note(ended)?;
                }
                self.complete(&upload, length).await?;
            }
        }
        Ok(Stored {
            size: self.size,
            stored_size: self.stored,
            checksums: std::mem::take(&mut self.summing).finish(),
        })
    }

    /// Makes the object of its parts.
    async fn complete(&mut self, upload: &MultipartId, length: u64) -> Result<(), Error> {
        let parts: Vec<PartId> = self.parts.iter().flatten().cloned().collect();
        let completed = self
            .storage
            .repeated(|| async {
                let complete =
                    self.storage
                        .for_parts
                        .complete_multipart(&self.path, upload, parts.clone());
                match complete.await {
                    Ok(_) => Ok(()),
                    // An earlier try may have come through, and its answer not.
                    Err(error) => match self.storage.bucket.head(&self.path).await {
                        Ok(found) if found.size == length => Ok(()),
                        _ => Err(error),
                    },
                }
            })
            .await;
        match completed {
            // The upload is not known any more: it was aborted.
            Err(Error::Missing) => Err(abandoned()),
            Err(error) => Err(error),
            Ok(()) => {
                self.begun = None;
                let note = self.storage.upload(&self.id);
                if let Err(error) = self.storage.delete(&note).await {
                    tracing::debug!(%error, "the note of an upload is left until its blob is removed");
                }
                Ok(())
            }
        }
    }

    /// Aborts in the background. Where that fails, or does not happen, the removal of the blob does it.
    fn abort(&mut self) {
        self.under_way.abort_all();
        let Some(upload) = self.begun.take() else {
            return;
        };
        let (storage, path, id) = (self.storage.clone(), self.path.clone(), self.id.clone());
        tokio::spawn(async move {
            if let Err(error) = abort(&storage, &path, &id, &upload).await {
                tracing::warn!(%error, "an upload was not aborted; the removal of its blob does it");
            }
        });
    }
}

/// Aborts an upload, and removes the note of it.
///
/// # Errors
/// [`Error::Lost`], [`Error::Unreachable`] and [`Error::Refused`].
pub(super) async fn abort(
    storage: &Storage,
    path: &Path,
    id: &str,
    upload: &MultipartId,
) -> Result<(), Error> {
    if let Err(error) = storage.bucket.abort_multipart(path, upload).await {
        match storage.failed(&error) {
            Error::Missing => {}
            error => return Err(error),
        }
    }
    storage.delete(&storage.upload(id)).await
}
