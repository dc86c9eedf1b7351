//! Tokens: making, listing and revoking those that people use, and verifying every one of this server.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use sha2::{Digest, Sha256};

use super::secrets;
use super::{Authentication, Caller, Identity, NotAuthenticated};
use crate::model::rules::IdentityChange;
use crate::model::{
    IdentityKey, IdentityKind, IdentityRow, RequestContext, Role, TOKEN_SUBJECT, Token, hex,
};
use crate::store;

/// A token to be made.
#[derive(Debug, Clone)]
pub(crate) struct NewToken {
    pub description: String,
    /// None: until it is revoked.
    pub lifetime: Option<Duration>,
}

impl Identity {
    /// Makes a token; its text is told this once.
    ///
    /// # Errors
    /// `Refusal::Denied`, and those of the store.
    pub(crate) async fn create_token(
        &self,
        request: RequestContext,
        new: NewToken,
    ) -> store::Result<(Token, String)> {
        let now = self.inner.store.now();
        let id = secrets::id("");
        let text = secrets::token(&id, &secrets::secret());
        let token = Token {
            subject: format!("{TOKEN_SUBJECT}{id}"),
            sha256: hex(&Sha256::digest(&text)),
            id,
            description: new.description,
            created_at: now,
            created_by: request.subject.clone(),
            expires_at: new.lifetime.map(|lifetime| now.after(lifetime)),
            parent: None,
        };
        let row = Box::new(IdentityRow::Token(token.clone()));
        self.change(request, IdentityChange::Put(row)).await?;
        Ok((token, text))
    }

    /// The static tokens, by id: not those that were exchanged for other credentials.
    ///
    /// # Errors
    /// `Refusal::Denied`, and those of the store.
    pub(crate) async fn tokens(&self, request: &RequestContext) -> store::Result<Vec<Token>> {
        request.rights.demand_everywhere(Role::Admin)?;
        let rows = self.inner.store.identities(IdentityKind::Token).await?;
        let tokens = rows.into_iter().filter_map(|row| match row {
            IdentityRow::Token(token) if token.parent.is_none() => Some(token),
            _ => None,
        });
        Ok(tokens.collect())
    }

    /// Revokes a token, with what was exchanged for it and what was granted to it.
    ///
    /// # Errors
    /// `Refusal::Denied` or `IdentityNotFound`, and those of the store.
    pub(crate) async fn revoke_token(
        &self,
        request: RequestContext,
        id: &str,
    ) -> store::Result<()> {
        let key = IdentityKey::new(IdentityKind::Token, id);
        self.change(request, IdentityChange::Remove(key)).await
    }

    /// The caller with a token.
    pub(super) fn of_token(&self, text: &str) -> Authentication {
        let Some(id) = secrets::token_id(text) else {
            return self.of_jwt(text);
        };
        let sha256: [u8; 32] = Sha256::digest(text).into();
        let now = self.inner.store.now();
        if let Some(caller) = self.inner.tokens.get(&sha256, now) {
            return Authentication::Known(Ok(caller));
        }
        let (identity, id) = (self.clone(), id.to_owned());
        Authentication::Asked(Box::pin(
            async move { identity.verify_token(&id, sha256).await },
        ))
    }

    /// The row of a token with this hash.
    pub(super) async fn good_token(
        &self,
        id: &str,
        sha256: &[u8; 32],
    ) -> Result<Token, NotAuthenticated> {
        let key = IdentityKey::new(IdentityKind::Token, id);
        let found = self.inner.store.identity(key).await.map_err(|error| {
            tracing::error!(%error, "a token could not be verified");
            NotAuthenticated::Unavailable
        })?;
        match found {
            Some(IdentityRow::Token(token))
                if verify_slices_are_equal(token.sha256.as_bytes(), hex(sha256).as_bytes())
                    .is_ok()
                    && !token.has_expired(self.inner.store.now()) =>
            {
                Ok(token)
            }
            _ => Err(NotAuthenticated::invalid_token()),
        }
    }

    async fn verify_token(
        &self,
        id: &str,
        sha256: [u8; 32],
    ) -> Result<Arc<Caller>, NotAuthenticated> {
        let verified_at = self.inner.store.now();
        let token = self.good_token(id, &sha256).await?;
        let holders: Arc<[String]> = Arc::new([token.subject]);
        let (identity, token_id) = (self.clone(), token.id);
        let is_good = move || {
            let (identity, id) = (identity.clone(), token_id.clone());
            async move {
                let found = identity.good_token(&id, &sha256).await;
                // A store that cannot be asked ends nothing that runs.
                !matches!(found, Err(NotAuthenticated::Unauthenticated(_)))
            }
        };
        let standing = self.standing_while(holders.clone(), is_good);
        let caller = Caller::new(holders, standing);
        let cache = &self.inner.tokens;
        cache.put(sha256, caller.clone(), verified_at, token.expires_at);
        Ok(caller)
    }

    /// The caller with the JWT of an issuer.
    fn of_jwt(&self, text: &str) -> Authentication {
        let Some(issuer) = self.inner.issuers.of(text) else {
            return Authentication::Known(Err(NotAuthenticated::invalid_token()));
        };
        let sha256: [u8; 32] = Sha256::digest(text).into();
        let now = self.inner.store.now();
        if let Some(caller) = self.inner.tokens.get(&sha256, now) {
            return Authentication::Known(Ok(caller));
        }
        let (identity, jwt) = (self.clone(), text.to_owned());
        Authentication::Asked(Box::pin(async move {
            let verified = issuer.verify(&jwt).await?;
            let is_good = move || {
                let (issuer, jwt) = (issuer.clone(), jwt.clone());
                async move { issuer.verify(&jwt).await.is_ok() }
            };
            let standing = identity.standing_while(verified.holders.clone(), is_good);
            let caller = Caller::new(verified.holders, standing);
            let cache = &identity.inner.tokens;
            cache.put(sha256, caller.clone(), now, Some(verified.expires_at));
            Ok(caller)
        }))
    }
}
