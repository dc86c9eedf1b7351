//! Permissions in a file: grants beside those of the store, read again when the file changes.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::grants::{check_holder, check_import_uris};
use crate::model::{Grant, Role};

/// The creator of the grants of a file.
const CREATOR: &str = "permissions-file";

/// A file of permissions that is not as it must be.
#[derive(Debug, thiserror::Error)]
#[error("permissions file {path}: {why}")]
pub struct PermissionsFileError {
    path: PathBuf,
    why: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default, rename = "grant")]
    grants: Vec<FileGrant>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileGrant {
    subject: String,
    role: Role,
    /// Left out: all folders.
    #[serde(default)]
    folder_id: String,
    #[serde(default)]
    import_uri_prefixes: Vec<String>,
}

/// The grants of a file.
///
/// # Errors
/// Where the file cannot be read, or is not as it must be.
pub(super) async fn read(path: &Path) -> Result<Vec<Grant>, PermissionsFileError> {
    let wrong = |why: String| PermissionsFileError {
        path: path.to_owned(),
        why,
    };
    let text = tokio::fs::read_to_string(path).await;
    let text = text.map_err(|error| wrong(error.to_string()))?;
    parse(&text).map_err(wrong)
}

fn parse(text: &str) -> Result<Vec<Grant>, String> {
    let file: File = toml::from_str(text).map_err(|error| error.to_string())?;
    let grants = file.grants.into_iter().map(|grant| {
        check_holder(&grant.subject)
            .map_err(|why| format!("subject {:?}: {why}", grant.subject))?;
        check_import_uris(grant.role, &grant.import_uri_prefixes)
            .map_err(|why| format!("import_uri_prefixes of {:?}: {why}", grant.subject))?;
        Ok(Grant {
            holder: grant.subject,
            folder_id: grant.folder_id,
            role: grant.role,
            import_uris: grant.import_uri_prefixes,
            created_at: None,
            created_by: CREATOR.to_owned(),
        })
    });
    grants.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_grants_and_nothing_else() {
        let grants = parse(
            "[[grant]]\nsubject = \"oidc:corp:ops\"\nrole = \"admin\"\n\n[[grant]]\nsubject = \"cert:host\"\n\
             role = \"editor\"\nfolder_id = \"f\"\nimport_uri_prefixes = [\"file:///golden/\"]\n",
        );
        let grants = grants.unwrap();
        assert_eq!(grants.len(), 2);
        assert_eq!(
            (grants[0].folder_id.as_str(), grants[0].role),
            ("", Role::Admin)
        );
        assert_eq!(grants[1].import_uris, ["file:///golden/"]);
        assert_eq!(parse("").unwrap(), []);
        for (text, wanted) in [
            ("[[grant]]\nrole = \"admin\"\n", "subject"),
            (
                "[[grant]]\nsubject = \"token:a\"\nrole = \"owner\"\n",
                "owner",
            ),
            (
                "[[grant]]\nsubject = \"me\"\nrole = \"admin\"\n",
                "token:<id>",
            ),
            (
                "[[grants]]\nsubject = \"token:a\"\nrole = \"admin\"\n",
                "grants",
            ),
            (
                "[[grant]]\nsubject = \"token:a\"\nrole = \"admin\"\nfolder = \"f\"\n",
                "folder",
            ),
            ("grant", "expected"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(wanted), "{text}: {error}");
        }
    }
}
