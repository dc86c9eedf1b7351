//! The bytes of a desktop image become a file.

use std::fs::{self, File};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use http::header::CONTENT_DISPOSITION;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

use super::PIECE;
use super::headers::{bare, file_name, sha256_of_header};
use crate::cli::client::{Http, Sent, escaped};
use crate::cli::errors::{Error, Result};
use crate::cli::{output, progress, values};

/// Zeros of this size, at a multiple of it, become a hole.
const HOLE: usize = 64 << 10;
/// How many chunks may wait for the disk.
const QUEUE: usize = 32;

/// A download: an image, and the file that it is written to.
pub(crate) struct Download<'a> {
    pub image_id: &'a str,
    /// A file, a folder, or `-` for the standard output; the proposed name when left out.
    pub output: Option<&'a Path>,
    /// Whether a file that exists is replaced.
    pub force: bool,
}

/// Downloads an image, verifies its digest and only then gives the file its name.
pub(crate) async fn download(http: &Http, download: Download<'_>) -> Result<()> {
    let to_stdout = download.output.is_some_and(|it| it.as_os_str() == "-");
    if to_stdout {
        let sent = request(http, download.image_id).await?;
        return fetch(http, sent, Box::new(Stdout)).await.map(drop);
    }
    // Before the first byte: what is refused should be refused soon.
    if let Some(path) = download.output.filter(|path| !path.is_dir()) {
        may_write(path, download.force)?;
    }
    let sent = request(http, download.image_id).await?;
    let path = target(&download, &sent);
    may_write(&path, download.force)?;
    let part = Part::create(&path, download.force)?;
    let (part_path, file) = part.parts()?;
    let received = fetch(http, sent, Box::new(Sparse::new(file))).await?;
    fs::rename(&part_path, &path).map_err(|error| cannot_write(&path, &error))?;
    part.keep();
    output::complain(&format!(
        "{}: {} bytes, SHA-256 {}",
        path.display(),
        received.length,
        values::hex(&received.sha256)
    ));
    Ok(())
}

/// Asks for the bytes of an image, which the server may have its object storage send.
pub(crate) async fn request(http: &Http, image_id: &str) -> Result<Sent> {
    let path = format!("/cloud-desktop/v1/images/{}:download", escaped(image_id));
    http.send_for_bytes(http.get(&path)).await
}

/// The result of a download whose digest is right.
pub(crate) struct Received {
    pub length: u64,
    pub sha256: [u8; 32],
}

/// A sink for the bytes of a download.
pub(crate) trait Sink: Send {
    fn write(&mut self, data: &[u8]) -> Result<()>;
    /// After the last byte.
    fn finish(&mut self) -> Result<()>;
}

/// Takes the body of a reply into a sink, and verifies the digest that the server states.
pub(crate) async fn fetch(http: &Http, sent: Sent, sink: Box<dyn Sink>) -> Result<Received> {
    let Sent {
        headers,
        mut response,
    } = sent;
    let stated = headers
        .get("repr-digest")
        .and_then(|value| value.to_str().ok())
        .and_then(sha256_of_header)
        .ok_or_else(|| Error::Failed("the server states no SHA-256 of the image".to_owned()))?;
    let bar = progress::bytes("Download", response.content_length());
    let (chunks, queue) = mpsc::channel(QUEUE);
    let taking = tokio::task::spawn_blocking(move || take(queue, sink));
    let mut broken = None;
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) => {
                bar.inc(chunk.len() as u64);
                if chunks.send(chunk).await.is_err() {
                    // The sink takes no more: it tells why.
                    break;
                }
            }
            Ok(None) => break,
            Err(error) => {
                broken = Some(http.broken(error));
                break;
            }
        }
    }
    drop(chunks);
    let taken = taking
        .await
        .map_err(|error| Error::failed("the download stopped", &error))?;
    bar.finish_and_clear();
    let received = taken?;
    if let Some(error) = broken {
        return Err(error);
    }
    if received.sha256 != stated {
        return Err(Error::Failed(format!(
            "the bytes received have the SHA-256 {}, the server states {}",
            values::hex(&received.sha256),
            values::hex(&stated)
        )));
    }
    Ok(received)
}

/// Writes and hashes what comes out of a queue, on a thread of its own.
fn take(mut queue: mpsc::Receiver<Bytes>, mut sink: Box<dyn Sink>) -> Result<Received> {
    let mut hash = Sha256::new();
    let mut length = 0;
    while let Some(chunk) = queue.blocking_recv() {
        hash.update(&chunk);
        length += chunk.len() as u64;
        sink.write(&chunk)?;
    }
    sink.finish()?;
    Ok(Received {
        length,
        sha256: hash.finalize().into(),
    })
}

/// The standard output, whose reader must stay to the end.
struct Stdout;

impl Sink for Stdout {
    fn write(&mut self, data: &[u8]) -> Result<()> {
        let written = io::stdout().lock().write_all(data);
        written.map_err(|error| Error::failed("cannot write the output", &error))
    }

    fn finish(&mut self) -> Result<()> {
        let flushed = io::stdout().lock().flush();
        flushed.map_err(|error| Error::failed("cannot write the output", &error))
    }
}

/// A file in which aligned blocks of zeros are holes.
struct Sparse {
    file: File,
    /// Bytes that are not written yet; they begin at a multiple of [`HOLE`].
    pending: Vec<u8>,
    length: u64,
}

impl Sparse {
    fn new(file: File) -> Self {
        Self {
            file,
            pending: Vec::with_capacity(PIECE),
            length: 0,
        }
    }

    fn write_pending(&mut self) -> io::Result<()> {
        let mut rest = self.pending.as_slice();
        while !rest.is_empty() {
            let hole = is_zero_block(rest);
            let mut run = 0;
            // Neighbours of a kind go in one step.
            while run < rest.len() && is_zero_block(&rest[run..]) == hole {
                run = (run + HOLE).min(rest.len());
            }
            let (now, later) = rest.split_at(run);
            match hole {
                true => drop(self.file.seek(SeekFrom::Current(run as i64))?),
                false => self.file.write_all(now)?,
            }
            rest = later;
        }
        self.pending.clear();
        Ok(())
    }

    fn take(&mut self, mut data: &[u8]) -> io::Result<()> {
        self.length += data.len() as u64;
        while !data.is_empty() {
            let (now, later) = data.split_at(data.len().min(PIECE - self.pending.len()));
            self.pending.extend_from_slice(now);
            data = later;
            if self.pending.len() == PIECE {
                self.write_pending()?;
            }
        }
        Ok(())
    }

    fn end(&mut self) -> io::Result<()> {
        self.write_pending()?;
        // A hole at the end is not there until the file has its length.
        self.file.set_len(self.length)?;
        self.file.sync_all()
    }
}

impl Sink for Sparse {
    fn write(&mut self, data: &[u8]) -> Result<()> {
        self.take(data)
            .map_err(|error| Error::failed("cannot write the file", &error))
    }

    fn finish(&mut self) -> Result<()> {
        self.end()
            .map_err(|error| Error::failed("cannot write the file", &error))
    }
}

/// Whether the first block of some bytes, which may be short, is all zeros.
fn is_zero_block(bytes: &[u8]) -> bool {
    bytes.iter().take(HOLE).all(|byte| *byte == 0)
}

/// The file that a download goes to.
fn target(download: &Download<'_>, sent: &Sent) -> PathBuf {
    let proposed = || {
        sent.headers
            .get(CONTENT_DISPOSITION)
            .and_then(|value| value.to_str().ok())
            .and_then(file_name)
            .or_else(|| bare(&format!("{}.img", download.image_id)))
            .unwrap_or_else(|| "image.img".to_owned())
    };
    match download.output {
        None => proposed().into(),
        Some(folder) if folder.is_dir() => folder.join(proposed()),
        Some(file) => file.to_owned(),
    }
}

/// Refuses to replace what is there.
fn may_write(path: &Path, force: bool) -> Result<()> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(cannot_write(path, &error)),
        Ok(found) if !found.is_file() => Err(Error::Failed(format!(
            "{} is not a regular file; to write to it use --output - and redirect",
            path.display()
        ))),
        Ok(_) if force => Ok(()),
        Ok(_) => Err(Error::Failed(format!(
            "{} exists; use --force to replace it",
            path.display()
        ))),
    }
}

fn cannot_write(path: &Path, error: &io::Error) -> Error {
    Error::failed(format!("cannot write {}", path.display()), error)
}

/// The file of a download under way: its name with `.part` added. It goes when the download fails
/// or is interrupted.
struct Part {
    path: PathBuf,
    file: File,
    kept: bool,
}

impl Part {
    fn create(target: &Path, force: bool) -> Result<Self> {
        let mut name = target.as_os_str().to_owned();
        name.push(".part");
        let path = PathBuf::from(name);
        if force {
            may_write(&path, true)?;
            // What could not be removed is met again below.
            let _ = fs::remove_file(&path);
        }
        let created = File::options().write(true).create_new(true).open(&path);
        let file = created.map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => Error::Failed(format!(
                "{} exists: a download is under way or was cut off; use --force to begin anew",
                path.display()
            )),
            _ => cannot_write(&path, &error),
        })?;
        Ok(Self {
            path,
            file,
            kept: false,
        })
    }

    fn parts(&self) -> Result<(PathBuf, File)> {
        let file = self.file.try_clone();
        let file = file.map_err(|error| cannot_write(&self.path, &error))?;
        Ok((self.path.clone(), file))
    }

    fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if !self.kept {
            // It may be gone already, and there is nobody left to tell.
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn a_file_has_the_bytes_and_its_zeros_are_holes() {
        let folder = tempfile::tempdir().unwrap();
        for (number, size) in [0, 1, HOLE, HOLE + 1, 3 * PIECE + 5]
            .into_iter()
            .enumerate()
        {
            let mut content = vec![0; size];
            for at in [size / 2, size.saturating_sub(HOLE + 7)] {
                if let Some(byte) = content.get_mut(at) {
                    *byte = 1;
                }
            }
            let path = folder.path().join(number.to_string());
            let mut sink = Sparse::new(File::create_new(&path).unwrap());
            for chunk in content.chunks(100_003) {
                sink.write(chunk).unwrap();
            }
            sink.finish().unwrap();
            assert!(fs::read(&path).unwrap() == content, "{size} bytes");
            let stored = fs::metadata(&path).unwrap().blocks() * 512;
            assert!(stored <= 4 * HOLE as u64, "{stored} of {size} bytes stored");
        }
    }

    #[test]
    fn nothing_is_replaced_unless_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.img");
        assert!(may_write(&path, false).is_ok());
        fs::write(&path, "old").unwrap();
        assert!(may_write(&path, false).is_err());
        assert!(may_write(&path, true).is_ok());
        assert!(may_write(folder.path(), true).is_err());
        assert!(may_write(Path::new("/dev/null"), true).is_err());
    }

    #[test]
    fn a_part_goes_when_its_download_does() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.img");
        let part = Part::create(&path, false).unwrap();
        assert!(Part::create(&path, false).is_err());
        drop(part);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        fs::write(folder.path().join("a.img.part"), "cut off").unwrap();
        assert!(Part::create(&path, false).is_err());
        drop(Part::create(&path, true).unwrap());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
