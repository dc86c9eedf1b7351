//! Grants: which subject or group has which role, and where.

use super::Identity;
use crate::model::rules::IdentityChange;
use crate::model::{Grant, IdentityKey, IdentityKind, IdentityRow, RequestContext, Role};
use crate::store;

/// The prefixes of subjects and groups that something can be granted to.
const HOLDER_PREFIXES: [&str; 4] = ["token:", "sa:", "oidc:", "cert:"];
/// The longest subject or group, in bytes.
const LONGEST_HOLDER: usize = 512;

/// A grant to be made.
#[derive(Debug, Clone)]
pub(crate) struct NewGrant {
    pub holder: String,
    /// Empty: all folders.
    pub folder_id: String,
    pub role: Role,
    pub import_uris: Vec<String>,
}

/// Why a text names no subject and no group that something can be granted to, if it does not.
pub(crate) fn check_holder(holder: &str) -> Result<(), String> {
    let rest = HOLDER_PREFIXES
        .iter()
        .find_map(|prefix| holder.strip_prefix(prefix));
    let is_whole = match holder.strip_prefix("oidc:") {
        // The name of the issuer, and the subject or group that it tells.
        Some(rest) => rest
            .split_once(':')
            .is_some_and(|(issuer, name)| !issuer.is_empty() && !name.is_empty()),
        None => rest.is_some_and(|rest| !rest.is_empty()),
    };
    if !is_whole {
        return Err(
            "Must be token:<id>, sa:<id>, oidc:<issuer>:<subject or group> or cert:<name>"
                .to_owned(),
        );
    }
    if holder.len() > LONGEST_HOLDER {
        return Err(format!("Must have at most {LONGEST_HOLDER} bytes"));
    }
    match holder.chars().any(char::is_control) {
        true => Err("Must have no control characters".to_owned()),
        false => Ok(()),
    }
}

/// Why a grant cannot narrow imports as it says, if it cannot. An admin could widen a grant of its own.
pub(crate) fn check_import_uris(role: Role, beginnings: &[String]) -> Result<(), &'static str> {
    if beginnings.is_empty() {
        return Ok(());
    }
    if role != Role::Editor {
        return Err(
            "Only the role editor can be narrowed: a viewer imports nothing, and an admin grants roles",
        );
    }
    match beginnings.iter().all(|beginning| beginning.ends_with('/')) {
        true => Ok(()),
        false => Err("Must end in a slash, so that no other name begins so"),
    }
}

impl Identity {
    /// Grants a role, in the place of the one that the holder had in the folder.
    ///
    /// # Errors
    /// `Refusal::Denied` or `FolderDenied`; `IdentityNotFound` for a token or service account that is not there; and
    /// those of the store.
    pub(crate) async fn grant(
        &self,
        request: RequestContext,
        new: NewGrant,
    ) -> store::Result<Grant> {
        let grant = Grant {
            holder: new.holder,
            folder_id: new.folder_id,
            role: new.role,
            import_uris: new.import_uris,
            created_at: Some(self.inner.store.now()),
            created_by: request.subject.clone(),
        };
        let row = Box::new(IdentityRow::Grant(grant.clone()));
        self.change(request, IdentityChange::Put(row)).await?;
        Ok(grant)
    }

    /// Takes away what a holder was granted in a folder, or in all folders where its id is empty.
    ///
    /// # Errors
    /// `Refusal::Denied`, `FolderDenied` or `IdentityNotFound`, and those of the store.
    pub(crate) async fn revoke_grant(
        &self,
        request: RequestContext,
        holder: &str,
        folder_id: &str,
    ) -> store::Result<()> {
        let key = IdentityKey::new(IdentityKind::Grant, Grant::row_id(holder, folder_id));
        self.change(request, IdentityChange::Remove(key)).await
    }

    /// The grants in a folder, or all of them where its id is empty: those of the store, then those of the file of
    /// permissions.
    ///
    /// # Errors
    /// `Refusal::Denied` or `FolderDenied`, and those of the store.
    pub(crate) async fn grants(
        &self,
        request: &RequestContext,
        folder_id: &str,
    ) -> store::Result<Vec<Grant>> {
        request.rights.demand_in(Role::Admin, folder_id)?;
        let rows = self.inner.store.identities(IdentityKind::Grant).await?;
        let stored = rows.into_iter().filter_map(|row| match row {
            IdentityRow::Grant(grant) => Some(grant),
            _ => None,
        });
        let all = stored.chain(self.file_grants().await);
        let asked = |grant: &Grant| folder_id.is_empty() || grant.folder_id == folder_id;
        Ok(all.filter(asked).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_holder_has_a_known_prefix_and_a_name() {
        for good in [
            "token:a",
            "sa:b",
            "oidc:corp:me",
            "oidc:corp:a:b",
            "cert:host.example",
        ] {
            assert_eq!(check_holder(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "me",
            "token:",
            "anonymous",
            "oidc:corp",
            "oidc::me",
            "oidc:corp:",
            "sa:a\nb",
            "TOKEN:a",
        ] {
            assert!(check_holder(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn imports_are_narrowed_for_editors_by_whole_folders() {
        let beginnings = |uri: &str| vec![uri.to_owned()];
        assert_eq!(check_import_uris(Role::Admin, &[]), Ok(()));
        assert_eq!(
            check_import_uris(Role::Editor, &beginnings("file:///golden/")),
            Ok(())
        );
        assert!(check_import_uris(Role::Editor, &beginnings("file:///golden")).is_err());
        for role in [Role::Viewer, Role::Admin] {
            assert!(check_import_uris(role, &beginnings("file:///golden/")).is_err());
        }
    }
}
