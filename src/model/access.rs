//! Permissions: which roles a subject has, and where. Pure: who the caller is was found out before.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Refusal, Timestamp};

/// A role. Each one may do what those before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Reads images and operations, and downloads bytes.
    Viewer,
    /// Makes, changes and removes images too.
    Editor,
    /// Sets quotas and permissions, and reads audit events too.
    Admin,
}

impl Role {
    pub(crate) const ALL: [Self; 3] = [Self::Viewer, Self::Editor, Self::Admin];

    /// The name that callers know it by.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Editor => "editor",
            Self::Admin => "admin",
        }
    }

    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.name() == name)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A role that a subject or a group has in a folder, or in all of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Grant {
    /// A subject or a group, with its prefix.
    pub holder: String,
    /// Empty: all folders.
    pub folder_id: String,
    pub role: Role,
    /// The beginnings of uris that may be imported by this grant; all where there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub import_uris: Vec<String>,
    /// None of a grant of the file of permissions.
    pub created_at: Option<Timestamp>,
    pub created_by: String,
}

impl Grant {
    /// The id of its row: a holder has one grant in a folder. Neither part can hold a line break.
    pub(crate) fn row_id(holder: &str, folder_id: &str) -> String {
        format!("{holder}\n{folder_id}")
    }

    fn holds_in(&self, folder_id: &str) -> bool {
        self.folder_id.is_empty() || self.folder_id == folder_id
    }

    fn admits_import(&self, uri: &str) -> bool {
        let mut beginnings = self.import_uris.iter();
        self.role >= Role::Editor
            && (self.import_uris.is_empty()
                || beginnings.any(|beginning| uri.starts_with(&**beginning)))
    }
}

/// All grants that stand, by holder.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Permissions {
    by_holder: HashMap<String, Vec<Grant>>,
}

impl Permissions {
    pub(crate) fn new(grants: impl IntoIterator<Item = Grant>) -> Self {
        let mut by_holder: HashMap<String, Vec<Grant>> = HashMap::new();
        for grant in grants {
            let grants = by_holder.entry(grant.holder.clone()).or_default();
            grants.push(grant);
        }
        Self { by_holder }
    }

    /// Subjects and groups that are admin of all folders.
    pub(crate) fn admins(&self) -> impl Iterator<Item = &str> {
        let grants = self.by_holder.values().flatten();
        let admins = grants.filter(|grant| grant.folder_id.is_empty() && grant.role == Role::Admin);
        admins.map(|grant| &*grant.holder)
    }
}

/// The rights of a caller.
#[derive(Debug, Clone)]
pub(crate) enum Rights {
    /// Everything: the server asks nobody who calls.
    All,
    /// The grants of the subject and the groups of the caller.
    Granted {
        holders: Arc<[String]>,
        permissions: Arc<Permissions>,
    },
}

impl Rights {
    /// The grants of the caller, or None where everything is allowed.
    fn grants(&self) -> Option<impl Iterator<Item = &Grant>> {
        match self {
            Self::All => None,
            Self::Granted {
                holders,
                permissions,
            } => {
                let grants = holders
                    .iter()
                    .filter_map(|it| permissions.by_holder.get(it));
                Some(grants.flatten())
            }
        }
    }

    fn have(&self, role: Role, is_there: impl Fn(&Grant) -> bool) -> bool {
        self.grants()
            .is_none_or(|mut grants| grants.any(|grant| grant.role >= role && is_there(grant)))
    }

    /// Whether the caller may know what is in a folder.
    pub(crate) fn see(&self, folder_id: &str) -> bool {
        self.have(Role::Viewer, |grant| grant.holds_in(folder_id))
    }

    /// Demands a role in a folder.
    ///
    /// # Errors
    /// [`Refusal::FolderDenied`], whether the folder exists or not.
    pub(crate) fn demand(&self, role: Role, folder_id: &str) -> Result<(), Refusal> {
        if self.have(role, |grant| grant.holds_in(folder_id)) {
            return Ok(());
        }
        Err(Refusal::FolderDenied {
            folder_id: folder_id.to_owned(),
        })
    }

    /// Demands a role in all folders.
    ///
    /// # Errors
    /// [`Refusal::Denied`].
    pub(crate) fn demand_everywhere(&self, role: Role) -> Result<(), Refusal> {
        if self.have(role, |grant| grant.folder_id.is_empty()) {
            return Ok(());
        }
        Err(Refusal::Denied { role })
    }

    /// Demands a role in the folder of this id, or in all folders where the id is empty.
    ///
    /// # Errors
    /// [`Refusal::FolderDenied`] or [`Refusal::Denied`].
    pub(crate) fn demand_in(&self, role: Role, folder_id: &str) -> Result<(), Refusal> {
        match folder_id {
            "" => self.demand_everywhere(role),
            id => self.demand(role, id),
        }
    }

    /// Demands a role in the folder of something that the caller named by its id.
    ///
    /// # Errors
    /// `missing` where the caller may not know what is in the folder, so that nobody learns which ids exist;
    /// [`Refusal::FolderDenied`] where the role is not enough.
    pub(crate) fn demand_of(
        &self,
        role: Role,
        folder_id: &str,
        missing: impl FnOnce() -> Refusal,
    ) -> Result<(), Refusal> {
        if !self.see(folder_id) {
            return Err(missing());
        }
        self.demand(role, folder_id)
    }

    /// Demands that a uri may be imported into a folder.
    ///
    /// # Errors
    /// [`Refusal::FolderDenied`] without the role; [`Refusal::UriDenied`] where the grants of the role name other
    /// uris.
    pub(crate) fn demand_import(&self, folder_id: &str, uri: &str) -> Result<(), Refusal> {
        self.demand(Role::Editor, folder_id)?;
        let admitted = self.grants().is_none_or(|mut grants| {
            grants.any(|grant| grant.holds_in(folder_id) && grant.admits_import(uri))
        });
        if admitted {
            return Ok(());
        }
        Err(Refusal::UriDenied {
            folder_id: folder_id.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant(holder: &str, folder_id: &str, role: Role, import_uris: &[&str]) -> Grant {
        Grant {
            holder: holder.to_owned(),
            folder_id: folder_id.to_owned(),
            role,
            import_uris: import_uris.iter().map(|uri| (*uri).to_owned()).collect(),
            created_at: None,
            created_by: "token:admin".to_owned(),
        }
    }

    fn rights(holders: &[&str], grants: &[Grant]) -> Rights {
        Rights::Granted {
            holders: holders.iter().map(|it| (*it).to_owned()).collect(),
            permissions: Arc::new(Permissions::new(grants.iter().cloned())),
        }
    }

    #[test]
    fn a_role_holds_in_its_folder_and_includes_those_before_it() {
        let grants = [
            grant("token:v", "a", Role::Viewer, &[]),
            grant("token:e", "a", Role::Editor, &[]),
            grant("token:x", "", Role::Editor, &[]),
            grant("oidc:corp:ops", "b", Role::Admin, &[]),
        ];
        for (holders, folder, greatest, everywhere) in [
            (&["token:v"][..], "a", Some(Role::Viewer), None),
            (&["token:v"], "b", None, None),
            (&["token:v"], "", None, None),
            (&["token:e"], "a", Some(Role::Editor), None),
            (&["token:x"], "a", Some(Role::Editor), Some(Role::Editor)),
            (
                &["token:x"],
                "no such",
                Some(Role::Editor),
                Some(Role::Editor),
            ),
            (
                &["oidc:corp:me", "oidc:corp:ops"],
                "b",
                Some(Role::Admin),
                None,
            ),
            (&["oidc:corp:me"], "b", None, None),
            (
                &["token:v", "token:x"],
                "a",
                Some(Role::Editor),
                Some(Role::Editor),
            ),
            (&["TOKEN:v"], "a", None, None),
            (&[], "a", None, None),
        ] {
            let rights = rights(holders, &grants);
            for role in Role::ALL {
                let has = rights.demand(role, folder).is_ok();
                assert_eq!(has, greatest >= Some(role), "{holders:?} {folder} {role}");
                let has = rights.demand_everywhere(role).is_ok();
                assert_eq!(has, everywhere >= Some(role), "{holders:?} {role}");
            }
            assert_eq!(rights.see(folder), greatest.is_some(), "{holders:?}");
        }
        assert!(Rights::All.demand(Role::Admin, "a").is_ok());
        assert!(Rights::All.demand_everywhere(Role::Admin).is_ok());
        assert!(Rights::All.demand_import("a", "file:///x").is_ok());
    }

    #[test]
    fn a_folder_that_may_not_be_known_is_as_if_it_were_missing() {
        let missing = || Refusal::ImageNotFound { id: "i".to_owned() };
        let rights = rights(&["v"], &[grant("v", "a", Role::Viewer, &[])]);
        let denied = |folder_id: &str| Refusal::FolderDenied {
            folder_id: folder_id.to_owned(),
        };
        assert_eq!(rights.demand_of(Role::Viewer, "a", missing), Ok(()));
        assert_eq!(
            rights.demand_of(Role::Editor, "a", missing),
            Err(denied("a"))
        );
        assert_eq!(rights.demand_of(Role::Editor, "b", missing), Err(missing()));
        assert_eq!(rights.demand(Role::Viewer, "b"), Err(denied("b")));
    }

    #[test]
    fn a_grant_may_narrow_what_is_imported() {
        let narrow = grant("e", "a", Role::Editor, &["file:///golden/"]);
        let wide = grant("e", "", Role::Viewer, &[]);
        for (grants, uri, admitted) in [
            (&[narrow.clone()][..], "file:///golden/x", true),
            (std::slice::from_ref(&narrow), "file:///other/x", false),
            (&[narrow.clone(), wide], "file:///other/x", false),
            (
                &[narrow.clone(), grant("e", "", Role::Admin, &[])],
                "file:///other/x",
                true,
            ),
            (&[grant("e", "a", Role::Viewer, &[])], "file:///x", false),
        ] {
            let rights = rights(&["e"], grants);
            assert_eq!(
                rights.demand_import("a", uri).is_ok(),
                admitted,
                "{grants:?}"
            );
        }
    }
}
