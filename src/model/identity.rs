//! Identity rows: tokens, service accounts and their keys, grants, and the keys of signed URLs. A store keeps them
//! alike, by kind and id; queries look into nothing else than what [`IdentityRow`] tells of each.

use serde::{Deserialize, Serialize};

use super::{Grant, Timestamp};

/// The prefix of the subjects of static tokens.
pub(crate) const TOKEN_SUBJECT: &str = "token:";
/// The prefix of the subjects of service accounts.
pub(crate) const SERVICE_ACCOUNT_SUBJECT: &str = "sa:";

/// A bearer token that this server has made. Its secret is not kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Token {
    pub id: String,
    /// SHA-256 of the whole token, in hexadecimal digits.
    pub sha256: String,
    pub subject: String,
    pub description: String,
    pub created_at: Timestamp,
    pub created_by: String,
    pub expires_at: Option<Timestamp>,
    /// The credential that it was exchanged for; it ends with that one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<IdentityKey>,
}

impl Token {
    pub(crate) fn has_expired(&self, now: Timestamp) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }
}

/// An account of a program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ServiceAccount {
    pub id: String,
    pub name: String,
    pub description: String,
    pub created_at: Timestamp,
    pub created_by: String,
}

/// The public half of a key by which a service account signs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ServiceAccountKey {
    pub id: String,
    pub service_account_id: String,
    pub description: String,
    /// PEM, SubjectPublicKeyInfo (RFC 7468).
    pub public_key: String,
    pub created_at: Timestamp,
    pub created_by: String,
}

/// A key that URLs are signed with.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct UrlKey {
    pub id: String,
    pub secret: String,
    pub created_at: Timestamp,
    pub created_by: String,
}

impl std::fmt::Debug for UrlKey {
    /// Without the secret: what is debugged may be logged.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UrlKey")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// A kind of identity rows. The numbers are those it is stored under.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IdentityKind {
    Token = 1,
    ServiceAccount = 2,
    ServiceAccountKey = 3,
    Grant = 4,
    UrlKey = 5,
}

impl IdentityKind {
    /// The noun that callers know it by.
    pub(crate) fn noun(self) -> &'static str {
        match self {
            Self::Token => "Token",
            Self::ServiceAccount => "Service account",
            Self::ServiceAccountKey => "Key",
            Self::Grant => "Grant",
            Self::UrlKey => "URL key",
        }
    }
}

/// The kind and the id of an identity row.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct IdentityKey {
    pub kind: IdentityKind,
    pub id: String,
}

impl IdentityKey {
    pub(crate) fn new(kind: IdentityKind, id: impl Into<String>) -> Self {
        Self {
            kind,
            id: id.into(),
        }
    }
}

/// A row about who callers are, and what they may do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum IdentityRow {
    Token(Token),
    ServiceAccount(ServiceAccount),
    ServiceAccountKey(ServiceAccountKey),
    Grant(Grant),
    UrlKey(UrlKey),
}

impl IdentityRow {
    pub(crate) fn key(&self) -> IdentityKey {
        match self {
            Self::Token(it) => IdentityKey::new(IdentityKind::Token, &it.id),
            Self::ServiceAccount(it) => IdentityKey::new(IdentityKind::ServiceAccount, &it.id),
            Self::ServiceAccountKey(it) => {
                IdentityKey::new(IdentityKind::ServiceAccountKey, &it.id)
            }
            Self::Grant(it) => {
                let id = Grant::row_id(&it.holder, &it.folder_id);
                IdentityKey::new(IdentityKind::Grant, id)
            }
            Self::UrlKey(it) => IdentityKey::new(IdentityKind::UrlKey, &it.id),
        }
    }

    /// The row that it is removed with.
    pub(crate) fn parent(&self) -> Option<IdentityKey> {
        match self {
            Self::Token(it) => it.parent.clone(),
            Self::ServiceAccountKey(it) => Some(IdentityKey::new(
                IdentityKind::ServiceAccount,
                &it.service_account_id,
            )),
            // A static token or an account takes along what was granted to it.
            Self::Grant(it) => owner(&it.holder),
            Self::ServiceAccount(_) | Self::UrlKey(_) => None,
        }
    }

    /// When it may be forgotten.
    pub(crate) fn expires_at(&self) -> Option<Timestamp> {
        match self {
            Self::Token(it) => it.expires_at,
            _ => None,
        }
    }
}

/// The row of a subject that is one of this server.
pub(crate) fn owner(subject: &str) -> Option<IdentityKey> {
    if let Some(id) = subject.strip_prefix(TOKEN_SUBJECT) {
        return Some(IdentityKey::new(IdentityKind::Token, id));
    }
    let id = subject.strip_prefix(SERVICE_ACCOUNT_SUBJECT)?;
    Some(IdentityKey::new(IdentityKind::ServiceAccount, id))
}
