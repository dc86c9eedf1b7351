//! The blobs of an installation that is moved.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use disk_image::is_zero;
use futures_util::{StreamExt, TryStreamExt, stream};

use super::source::Source;
use super::{Error, Listener, Report, Result, advance, begin, blocking};
use crate::blobs::{
    self, BlobReader, BlobStore, BlobWriter, Chunk, LocalBlobs, Written, by_blocks, examine,
};
use crate::store::{Recorded, Records};

/// Blobs that are on their way at once.
const AT_ONCE: usize = 4;
/// Damage is told of so many blobs.
const TOLD: usize = 10;

/// A blob that is damaged or missing: its id, and what is wrong.
pub(super) type Damage = (String, String);

/// Blobs that are to come from one store of them into another.
pub(super) struct Move {
    pub source: LocalBlobs,
    /// None where it is only looked whether they are there.
    pub target: Option<Arc<dyn BlobStore>>,
    pub listener: Listener,
}

/// The way in which a blob came to its place.
enum Moved {
    /// It was there, with the right bytes.
    Kept,
    Copied,
    Damaged(Damage),
    /// The listener ended it.
    Ended,
}

pub(super) fn refusal(damaged: &[Damage]) -> Error {
    let told = damaged.iter().take(TOLD);
    let told: Vec<_> = told.map(|(id, why)| format!("blob {id}: {why}")).collect();
    Error::Damaged {
        count: damaged.len(),
        told: told.join("; "),
    }
}

impl Move {
    /// Moves all live blobs; those that are damaged. None where the listener ended it.
    pub(super) async fn all(
        &self,
        mut source: Source,
        report: &mut Report,
    ) -> Result<Option<(Source, Vec<Damage>)>> {
        begin(&self.listener, "blobs", report.bytes);
        let there = match &self.target {
            Some(target) => target.list().await.map_err(|error| failed("", error))?,
            None => Vec::new(),
        };
        let there: HashSet<String> = there.into_iter().collect();
        let (mut damaged, mut last) = (Vec::new(), None);
        loop {
            let page;
            (source, page) = blocking(move || {
                let page = source.database.blobs_after(last)?;
                Ok((source, page))
            })
            .await?;
            let Some(blob) = page.last() else { break };
            last = Some(blob.row());
            let moving = stream::iter(page)
                .map(|blob| async {
                    let is_there = there.contains(&blob.id);
                    self.one(blob, is_there).await
                })
                .buffer_unordered(AT_ONCE);
            let mut moving = std::pin::pin!(moving);
            while let Some(moved) = moving.try_next().await? {
                match moved {
                    Moved::Kept => report.kept += 1,
                    Moved::Copied => report.copied += 1,
                    Moved::Damaged(damage) => damaged.push(damage),
                    Moved::Ended => return Ok(None),
                }
            }
        }
        report.damaged = damaged.len() as u64;
        Ok(Some((source, damaged)))
    }

    async fn one(&self, blob: Recorded, is_there: bool) -> Result<Moved> {
        let Some(target) = &self.target else {
            let opened = self.source.open_unchecked(&blob.id, blob.size).await;
            return match opened {
                Ok(_) if advance(&self.listener, blob.size) => Ok(Moved::Kept),
                Ok(_) => Ok(Moved::Ended),
                Err(error) if error.is_damage() => Ok(Moved::Damaged((blob.id, error.to_string()))),
                Err(error) => Err(failed(&blob.id, error)),
            };
        };
        let failed = |error| failed(&blob.id, error);
        if is_there {
            match self.is_sound(&**target, &blob).await.map_err(failed)? {
                Some(true) => return Ok(Moved::Kept),
                Some(false) => {}
                None => return Ok(Moved::Ended),
            }
            // A blob that was not finished, or one that is damaged.
            let ids = vec![blob.id.clone()];
            target.remove(ids).await.map_err(failed)?;
        }
        let writer = target.create(&blob.id, Some(blob.size));
        let writer = writer.await.map_err(failed)?;
        let why = match self.copy(&blob, &writer).await {
            Ok(Copied::All) => {
                let Written { sha256, .. } = writer.finish().await.map_err(failed)?;
                if sha256 == blob.sha256 {
                    return Ok(Moved::Copied);
                }
                "its bytes are not those of its digest".to_owned()
            }
            // The error of the target comes with the end.
            Ok(Copied::Refused) => return Err(refused(&blob.id, writer).await),
            Ok(Copied::Ended) => return Ok(Moved::Ended),
            Err(error) if error.is_damage() => {
                drop(writer);
                error.to_string()
            }
            Err(error) => return Err(failed(error)),
        };
        let ids = vec![blob.id.clone()];
        target.remove(ids).await.map_err(failed)?;
        Ok(Moved::Damaged((blob.id, why)))
    }

    /// Whether a blob of the target has the right bytes. None where the listener ended it.
    async fn is_sound(
        &self,
        target: &dyn BlobStore,
        blob: &Recorded,
    ) -> std::result::Result<Option<bool>, blobs::Error> {
        let found = match target.open_unchecked(&blob.id, blob.size).await {
            Ok(found) => found,
            Err(error) if error.is_damage() => return Ok(Some(false)),
            Err(error) => return Err(error),
        };
        let listener = self.listener.clone();
        let examined = tokio::task::spawn_blocking(move || {
            examine(&*found, |bytes| advance(&listener, bytes))
        });
        match examined.await.map_err(std::io::Error::from)? {
            Ok(None) => Ok(None),
            Ok(Some(examined)) => Ok(Some(examined.sha256 == blob.sha256)),
            Err(error) if error.is_damage() => Ok(Some(false)),
            Err(error) => Err(error),
        }
    }

    async fn copy(
        &self,
        blob: &Recorded,
        writer: &BlobWriter,
    ) -> std::result::Result<Copied, blobs::Error> {
        let (id, size) = (&*blob.id, blob.size);
        let unchecked = self.source.open_unchecked(id, size).await?;
        let areas = tokio::task::spawn_blocking(move || {
            let mut areas = Vec::new();
            let mut at = 0;
            while let Some(area) = unchecked.next_data(at) {
                at = area.end;
                areas.push(area);
            }
            areas
        });
        let areas = areas.await.map_err(std::io::Error::from)?;
        // The digest tells at the end, and reads every byte but once.
        let reader: Arc<dyn BlobReader> = self.source.open(id, size, None).await?;
        let mut at = 0;
        for area in areas.into_iter().chain(std::iter::once(size..size)) {
            let mut chunks = vec![(area.start - at, None)];
            chunks.extend(by_blocks(area.clone()).map(|part| (part.end - part.start, Some(part))));
            at = area.end;
            for (length, part) in chunks.into_iter().filter(|(length, _)| *length > 0) {
                let chunk = match part {
                    None => Chunk::Zeros(length),
                    Some(part) => data(reader.read(part).await?),
                };
                if !writer.write(chunk).await {
                    return Ok(Copied::Refused);
                }
                if !advance(&self.listener, length) {
                    return Ok(Copied::Ended);
                }
            }
        }
        Ok(Copied::All)
    }
}

/// The end of a copy.
enum Copied {
    All,
    /// The target takes no more.
    Refused,
    /// The listener ended it.
    Ended,
}

fn data(bytes: Bytes) -> Chunk {
    match is_zero(&bytes) {
        true => Chunk::Zeros(bytes.len() as u64),
        false => Chunk::Data(bytes),
    }
}

async fn refused(id: &str, writer: BlobWriter) -> Error {
    match writer.finish().await {
        Err(error) => failed(id, error),
        Ok(_) => failed(
            id,
            std::io::Error::from(std::io::ErrorKind::WriteZero).into(),
        ),
    }
}

fn failed(id: &str, source: blobs::Error) -> Error {
    let id = id.to_owned();
    Error::Blob { id, source }
}
