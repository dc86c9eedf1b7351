//! The verification of the database and of every byte of every blob, beside a server that works with them.

use std::collections::HashSet;

use tokio::runtime::Handle;

use super::errors::damaged_blob;
use crate::blobs::{self, BlobStore, Checksums, Examined};
use crate::store::{self, Recorded, Records};

/// The most images that are named of those with damaged bytes.
const IMAGES_NAMED: usize = 10;

/// Findings of a verification.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Findings {
    /// Blobs that were looked at.
    pub blobs: u64,
    /// Bytes that were read.
    pub bytes: u64,
    /// Blobs that had no checksums, or damaged ones, and have them now.
    pub checksums_made: u64,
    pub problems: Vec<Problem>,
}

/// Something that is not as it must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub kind: ProblemKind,
    /// The blob with the problem, if the problem is one of a blob.
    pub blob_id: Option<String>,
    /// Some of the images that have these bytes.
    pub image_ids: Vec<String>,
    pub message: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProblemKind {
    /// The database is damaged.
    Database,
    /// A blob is missing, cut, or has other bytes than were written.
    Blob,
    /// A file or an object among the blobs that no row names.
    UnknownFile,
    /// The state of something could not be found out.
    Unverified,
}

impl ProblemKind {
    /// The name for programs that read it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Database => "database",
            Self::Blob => "content",
            Self::UnknownFile => "unknown_file",
            Self::Unverified => "unverified",
        }
    }
}

/// A listener to the progress of a verification; it ends the verification by returning false.
pub trait Progress {
    /// So many bytes in so many blobs are to be read.
    fn total(&mut self, blobs: u64, bytes: u64);
    /// So many more bytes were read.
    fn read(&mut self, bytes: u64) -> bool;
}

/// Reads the database and all blobs. Damage of a blob is noted in its row; a sound blob gets the checksums that it
/// lacks. None where `progress` ended the verification. Blocks, in a thread of a tokio runtime that may block.
pub(crate) fn verify(
    database: &mut dyn Records,
    blobs: &dyn BlobStore,
    progress: &mut impl Progress,
) -> Option<Findings> {
    let mut findings = Findings::default();
    match database.faults() {
        Ok(faults) => {
            for fault in faults {
                findings.database(fault);
            }
        }
        Err(error) => findings.database(error.to_string()),
    }
    if let Err(error) = unknown_files(database, blobs, &mut findings) {
        findings.unverified(error);
    }
    match database.extent() {
        Ok((count, bytes)) => progress.total(count, bytes),
        Err(error) => findings.database(error.to_string()),
    }
    let mut last = None;
    loop {
        let page = match database.blobs_after(last) {
            Ok(page) => page,
            Err(error) => {
                findings.database(error.to_string());
                return Some(findings);
            }
        };
        for blob in &page {
            match verify_blob(database, blobs, blob, progress, &mut findings) {
                Next::GoOn => {}
                Next::Stop => return None,
                Next::End => return Some(findings),
            }
        }
        match page.last() {
            Some(blob) => last = Some(blob.row()),
            None => return Some(findings),
        }
    }
}

enum Next {
    GoOn,
    /// `progress` ended the verification.
    Stop,
    /// There is nothing more to be read.
    End,
}

fn verify_blob(
    database: &mut dyn Records,
    blobs: &dyn BlobStore,
    blob: &Recorded,
    progress: &mut impl Progress,
    findings: &mut Findings,
) -> Next {
    let mut blob = blob.clone();
    loop {
        let opened = Handle::current().block_on(blobs.open_unchecked(&blob.id, blob.size));
        let examined = opened.and_then(|opened| {
            blobs::examine(&*opened, |bytes| {
                findings.bytes += bytes;
                progress.read(bytes)
            })
        });
        let judged = match examined {
            Ok(None) => return Next::Stop,
            Ok(Some(examined)) => judge(&blob, &examined).map(|()| examined.checksums),
            Err(error) => Err(error),
        };
        // The file of a blob that was removed, or replaced by an equal one, may be gone.
        match (&judged, database.blob(blob.row())) {
            (Err(_), Ok(None)) => return Next::GoOn,
            (Err(_), Ok(Some(now))) if now.id != blob.id => {
                blob = now;
                continue;
            }
            _ => {}
        }
        if let Err(
            lost @ (blobs::Error::Lost { .. }
            | blobs::Error::Unreachable { .. }
            | blobs::Error::Refused { .. }),
        ) = &judged
        {
            findings.unverified(lost.to_string());
            return Next::End;
        }
        findings.blobs += 1;
        match judged {
            Ok(checksums) => findings.sound(database, &blob, &checksums),
            Err(damage) if damage.is_damage() => findings.damaged(database, &blob, &damage),
            Err(error) => findings.unverified(format!("blob {}: {error}", blob.id)),
        }
        return Next::GoOn;
    }
}

/// Compares a blob with its digest and its checksums.
fn judge(blob: &Recorded, examined: &Examined) -> Result<(), blobs::Error> {
    if examined.sha256 == blob.sha256 {
        return Ok(());
    }
    let kept = blob.checksums.as_ref();
    let kept = kept.and_then(|kept| Checksums::from_bytes(kept, blob.size));
    let blocks = kept.map(|kept| kept.differences(&examined.checksums));
    Err(blobs::Error::WrongDigest {
        blocks: blocks.unwrap_or_default(),
    })
}

/// Files and objects that no row names. A row comes before its file, so that the files are listed first.
fn unknown_files(
    database: &mut dyn Records,
    blobs: &dyn BlobStore,
    findings: &mut Findings,
) -> Result<(), String> {
    let list = || Handle::current().block_on(blobs.list());
    let files = list().map_err(|error| error.to_string())?;
    let known = known(database)?;
    let strangers: Vec<String> = files.into_iter().filter(|it| !known.contains(it)).collect();
    if strangers.is_empty() {
        return Ok(());
    }
    // A blob that was removed meanwhile lost its row first, and then its file.
    let files: HashSet<String> = list()
        .map_err(|error| error.to_string())?
        .into_iter()
        .collect();
    for file in strangers.into_iter().filter(|file| files.contains(file)) {
        findings.problems.push(Problem {
            kind: ProblemKind::UnknownFile,
            blob_id: None,
            image_ids: Vec::new(),
            message: format!("no image has {file:?}, which is among the stored blobs"),
        });
    }
    Ok(())
}

fn known(database: &mut dyn Records) -> Result<HashSet<String>, String> {
    database.known_blobs().map_err(|error| error.to_string())
}

impl Findings {
    fn database(&mut self, message: String) {
        self.problems.push(Problem {
            kind: ProblemKind::Database,
            blob_id: None,
            image_ids: Vec::new(),
            message,
        });
    }

    fn unverified(&mut self, message: String) {
        self.problems.push(Problem {
            kind: ProblemKind::Unverified,
            blob_id: None,
            image_ids: Vec::new(),
            message,
        });
    }

    fn sound(&mut self, database: &mut dyn Records, blob: &Recorded, checksums: &Checksums) {
        let checksums = checksums.to_bytes();
        let has_them = blob.checksums.as_ref() == Some(&checksums);
        if has_them && !blob.damaged {
            return;
        }
        match database.note_sound(blob, &checksums) {
            Ok(()) => self.checksums_made += u64::from(!has_them),
            Err(error) => self.not_noted(blob, &error),
        }
    }

    fn damaged(&mut self, database: &mut dyn Records, blob: &Recorded, damage: &blobs::Error) {
        let image_ids = database.images_of(&blob.id, IMAGES_NAMED);
        self.problems.push(Problem {
            kind: ProblemKind::Blob,
            blob_id: Some(blob.id.clone()),
            image_ids: image_ids.unwrap_or_default(),
            message: damaged_blob(&blob.id, damage),
        });
        if !blob.damaged
            && let Err(error) = database.note_damaged(blob)
        {
            self.not_noted(blob, &error);
        }
    }

    fn not_noted(&mut self, blob: &Recorded, error: &store::Error) {
        self.unverified(format!(
            "what was found of blob {} could not be noted: {error}",
            blob.id
        ));
    }
}
