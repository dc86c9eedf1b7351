//! Files that hold a secret: only their owner can read them.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use super::errors::{Error, Result};

/// A new file for a secret, removed again unless the secret is written.
pub(super) struct SecretFile {
    path: PathBuf,
    file: Option<File>,
}

impl SecretFile {
    /// Makes the file. One that is there is never replaced: it may hold another secret.
    pub(super) fn create(path: PathBuf) -> Result<Self> {
        let mut options = OpenOptions::new();
        let file = options.write(true).create_new(true).mode(0o600).open(&path);
        match file {
            Ok(file) => Ok(Self {
                path,
                file: Some(file),
            }),
            Err(error) => Err(Error::failed(path.display().to_string(), &error)),
        }
    }

    pub(super) fn write(mut self, secret: &str) -> Result<()> {
        let Some(mut file) = self.file.take() else {
            return Ok(());
        };
        let written = file
            .write_all(secret.as_bytes())
            .and_then(|()| file.sync_all());
        written.map_err(|error| Error::failed(self.path.display().to_string(), &error))
    }
}

impl Drop for SecretFile {
    fn drop(&mut self) {
        if self.file.is_some() {
            // Nothing was written to it.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}
