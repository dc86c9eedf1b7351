//! Service accounts, and the keys by which they sign. The private half of a key is told once and not kept.

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::KeyPair as _;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::{Identity, secrets};
use crate::model::rules::IdentityChange;
use crate::model::{
    IdentityKey, IdentityKind, IdentityRow, Refusal, RequestContext, Role, ServiceAccount,
    ServiceAccountKey,
};
use crate::store;

/// The prefix of the ids of service accounts and their keys, as the public service has it.
const PREFIX: &str = "aje";
/// The length of the lines of PEM (RFC 7468, section 2).
const PEM_LINE: usize = 64;

impl Identity {
    /// Makes a service account.
    ///
    /// # Errors
    /// `Refusal::Denied`, and those of the store.
    pub(crate) async fn create_service_account(
        &self,
        request: RequestContext,
        name: String,
        description: String,
    ) -> store::Result<ServiceAccount> {
        let account = ServiceAccount {
            id: secrets::id(PREFIX),
            name,
            description,
            created_at: self.inner.store.now(),
            created_by: request.subject.clone(),
        };
        let row = Box::new(IdentityRow::ServiceAccount(account.clone()));
        self.change(request, IdentityChange::Put(row)).await?;
        Ok(account)
    }

    /// All service accounts, by id.
    ///
    /// # Errors
    /// `Refusal::Denied`, and those of the store.
    pub(crate) async fn service_accounts(
        &self,
        request: &RequestContext,
    ) -> store::Result<Vec<ServiceAccount>> {
        request.rights.demand_everywhere(Role::Admin)?;
        let store = &self.inner.store;
        let rows = store.identities(IdentityKind::ServiceAccount).await?;
        let accounts = rows.into_iter().filter_map(|row| match row {
            IdentityRow::ServiceAccount(account) => Some(account),
            _ => None,
        });
        Ok(accounts.collect())
    }

    /// Removes a service account with its keys, its tokens, and what was granted to it.
    ///
    /// # Errors
    /// `Refusal::Denied` or `IdentityNotFound`, and those of the store.
    pub(crate) async fn delete_service_account(
        &self,
        request: RequestContext,
        id: &str,
    ) -> store::Result<()> {
        let key = IdentityKey::new(IdentityKind::ServiceAccount, id);
        self.change(request, IdentityChange::Remove(key)).await
    }

    /// Makes a key of a service account, an RSA key of 2048 bits; the private half is told this once.
    ///
    /// # Errors
    /// `Refusal::Denied` or `IdentityNotFound`, and those of the store.
    pub(crate) async fn create_service_account_key(
        &self,
        request: RequestContext,
        account_id: &str,
        description: String,
    ) -> store::Result<(ServiceAccountKey, String)> {
        // Before the work of finding primes.
        request.rights.demand_everywhere(Role::Admin)?;
        let made = tokio::task::spawn_blocking(key_pair).await;
        let failed = || store::Error::Failed("an RSA key could not be made".into());
        let (private_key, public_key) = made.ok().flatten().ok_or_else(failed)?;
        let key = ServiceAccountKey {
            id: secrets::id(PREFIX),
            service_account_id: account_id.to_owned(),
            description,
            public_key,
            created_at: self.inner.store.now(),
            created_by: request.subject.clone(),
        };
        let row = Box::new(IdentityRow::ServiceAccountKey(key.clone()));
        self.change(request, IdentityChange::Put(row)).await?;
        Ok((key, private_key))
    }

    /// The keys of a service account, by id.
    ///
    /// # Errors
    /// `Refusal::Denied` or `IdentityNotFound`, and those of the store.
    pub(crate) async fn service_account_keys(
        &self,
        request: &RequestContext,
        account_id: &str,
    ) -> store::Result<Vec<ServiceAccountKey>> {
        request.rights.demand_everywhere(Role::Admin)?;
        let store = &self.inner.store;
        let account = IdentityKey::new(IdentityKind::ServiceAccount, account_id);
        if store.identity(account).await?.is_none() {
            return Err(Refusal::IdentityNotFound {
                kind: IdentityKind::ServiceAccount,
                id: account_id.to_owned(),
            }
            .into());
        }
        let rows = store.identities(IdentityKind::ServiceAccountKey).await?;
        let keys = rows.into_iter().filter_map(|row| match row {
            IdentityRow::ServiceAccountKey(key) if key.service_account_id == account_id => {
                Some(key)
            }
            _ => None,
        });
        Ok(keys.collect())
    }

    /// Removes a key, with the tokens that were exchanged for what it signed.
    ///
    /// # Errors
    /// `Refusal::Denied` or `IdentityNotFound`, and those of the store.
    pub(crate) async fn delete_service_account_key(
        &self,
        request: RequestContext,
        id: &str,
    ) -> store::Result<()> {
        let key = IdentityKey::new(IdentityKind::ServiceAccountKey, id);
        self.change(request, IdentityChange::Remove(key)).await
    }
}

/// A fresh key pair in PEM: PKCS #8, and SubjectPublicKeyInfo. Blocks for a tenth of a second or so.
fn key_pair() -> Option<(String, String)> {
    let pair = KeyPair::generate(KeySize::Rsa2048).ok()?;
    let private: Pkcs8V1Der<'_> = pair.as_der().ok()?;
    let public: PublicKeyX509Der<'_> = pair.public_key().as_der().ok()?;
    Some((
        pem("PRIVATE KEY", private.as_ref()),
        pem("PUBLIC KEY", public.as_ref()),
    ))
}

/// Bytes as PEM (RFC 7468).
fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let mut pem = format!("-----BEGIN {label}-----\n");
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(PEM_LINE));
        pem.push_str(line);
        pem.push('\n');
        rest = after;
    }
    pem.push_str(&format!("-----END {label}-----\n"));
    pem
}
