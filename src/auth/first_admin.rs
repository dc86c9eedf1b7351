//! The token of the first admin, without which nobody could begin.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::{Identity, NewGrant, NewToken};
use crate::model::{RequestContext, Role, TOKEN_SUBJECT, owner};
use crate::store;

/// The subject that makes the first token.
const CREATOR: &str = "desktop-images";

#[derive(Debug, thiserror::Error)]
pub(crate) enum FirstAdminError {
    #[error("cannot write the token of the first admin to {path}: {source}")]
    File { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Store(#[from] store::Error),
}

impl Identity {
    /// Makes a token that is admin of all folders, where callers need credentials and nobody is such an admin yet.
    /// Writes it to a file that only its owner can read.
    ///
    /// # Errors
    /// Where the file cannot be written, or the store not be changed.
    pub(crate) async fn ensure_admin(&self, file: &Path) -> Result<(), FirstAdminError> {
        if !self.inner.is_required || self.has_admin().await? {
            return Ok(());
        }
        let request = RequestContext::internal(CREATOR);
        let new = NewToken {
            description: "The first admin".to_owned(),
            lifetime: None,
        };
        let (token, text) = self.create_token(request.clone(), new).await?;
        // The file first: a token that nobody knows must not be an admin, nor stay.
        if let Err(source) = write(file, &text) {
            self.revoke_token(request, &token.id).await?;
            return Err(FirstAdminError::File {
                path: file.to_owned(),
                source,
            });
        }
        let grant = NewGrant {
            holder: format!("{TOKEN_SUBJECT}{}", token.id),
            folder_id: String::new(),
            role: Role::Admin,
            import_uris: Vec::new(),
        };
        self.grant(request, grant).await?;
        tracing::warn!(
            path = %file.display(),
            token_id = token.id,
            "nobody was admin: the token of a first admin is in this file"
        );
        Ok(())
    }
}

impl Identity {
    /// Whether anybody is admin of all folders, and still there.
    async fn has_admin(&self) -> store::Result<bool> {
        let snapshot = self.snapshot();
        for admin in snapshot.permissions.admins() {
            let is_there = match owner(admin) {
                Some(key) => self.is_there(key).await?,
                None => true,
            };
            if is_there {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Writes a file that only its owner can read, in the place of one that is there.
fn write(path: &Path, token: &str) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    writeln!(file, "{token}")?;
    file.sync_all()
}
