//! The exchange of a credential that lasts for a token that does not: the JWT that a service account has signed, or a
//! static token.

use std::time::Duration;

use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::secrets;
use super::{Identity, NotAuthenticated};
use crate::model::rules::{ChangeIdentity, IdentityChange};
use crate::model::{
    IdentityKey, IdentityKind, IdentityRow, Refusal, RequestContext, SERVICE_ACCOUNT_SUBJECT,
    ServiceAccountKey, Token, hex,
};
use crate::store;

/// The audience that stock clients put into the JWT of a service account.
const PUBLIC_AUDIENCE: &str = "https://iam.api.cloud.yandex.net/iam/v1/tokens";
/// The lifetime of a token that was exchanged.
const LIFETIME: Duration = Duration::from_secs(60 * 60);
/// The longest lifetime of a JWT, in seconds.
const LONGEST_JWT: u64 = 60 * 60;
/// How far the clock of a client may be from ours, in seconds.
const LEEWAY: u64 = 60;

/// A credential that can be exchanged.
pub(crate) enum Credential {
    /// A JWT that a service account has signed.
    Jwt(String),
    /// A static token.
    Token(String),
}

/// The claims of the JWT of a service account. Stock clients send no `sub`.
#[derive(Debug, Deserialize)]
struct Claims {
    iat: u64,
    exp: u64,
}

impl Identity {
    /// Exchanges a credential; the text of the token is told this once.
    ///
    /// # Errors
    /// [`NotAuthenticated`] for a credential that is not good, in the outer result; those of the store in the inner
    /// one.
    pub(crate) async fn exchange(
        &self,
        request: RequestContext,
        credential: Credential,
    ) -> Result<store::Result<(Token, String)>, NotAuthenticated> {
        let now = self.inner.store.now();
        let (subject, parent, latest) = match credential {
            Credential::Jwt(jwt) => {
                let key = self.signer(&jwt).await?;
                let subject = format!("{SERVICE_ACCOUNT_SUBJECT}{}", key.service_account_id);
                let parent = IdentityKey::new(IdentityKind::ServiceAccountKey, key.id);
                (subject, parent, None)
            }
            Credential::Token(text) => {
                let id = secrets::token_id(&text).ok_or_else(NotAuthenticated::invalid_token)?;
                let token = self.good_token(id, &Sha256::digest(&text).into()).await?;
                // One that was exchanged already would live on by being exchanged again.
                if token.parent.is_some() {
                    return Err(NotAuthenticated::invalid_token());
                }
                let parent = IdentityKey::new(IdentityKind::Token, token.id);
                (token.subject, parent, token.expires_at)
            }
        };
        let id = secrets::id("");
        let text = secrets::token(&id, &secrets::secret());
        let expires_at = now.after(LIFETIME);
        let token = Token {
            sha256: hex(&Sha256::digest(&text)),
            id,
            subject: subject.clone(),
            description: String::new(),
            created_at: now,
            created_by: subject.clone(),
            expires_at: Some(latest.map_or(expires_at, |latest| latest.min(expires_at))),
            parent: Some(parent),
        };
        let request = RequestContext { subject, ..request };
        let row = Box::new(IdentityRow::Token(token.clone()));
        let issued = self.inner.store.execute(ChangeIdentity {
            request,
            change: IdentityChange::Issue(row),
        });
        match issued.await {
            Ok(()) => Ok(Ok((token, text))),
            // It was revoked in between.
            Err(store::Error::Refused(Refusal::IdentityNotFound { .. })) => {
                Err(NotAuthenticated::invalid_token())
            }
            Err(error) => Ok(Err(error)),
        }
    }

    /// Ends a token that was exchanged; its subject.
    ///
    /// # Errors
    /// [`NotAuthenticated`] for a token that is not good, or not one that was exchanged, in the outer result; those
    /// of the store in the inner one.
    pub(crate) async fn end_token(
        &self,
        request: RequestContext,
        text: &str,
    ) -> Result<store::Result<String>, NotAuthenticated> {
        let id = secrets::token_id(text).ok_or_else(NotAuthenticated::invalid_token)?;
        let sha256: [u8; 32] = Sha256::digest(text).into();
        let token = self.good_token(id, &sha256).await?;
        if token.parent.is_none() {
            return Err(NotAuthenticated::invalid_token());
        }
        let key = IdentityKey::new(IdentityKind::Token, token.id);
        // Nothing hangs on it, so that nothing else has to be read again.
        let ended = self.inner.store.execute(ChangeIdentity {
            request,
            change: IdentityChange::End(key),
        });
        let ended = ended.await;
        self.inner.tokens.forget(&sha256);
        Ok(ended.map(|()| token.subject))
    }

    /// The key that has signed the JWT of a service account.
    async fn signer(&self, jwt: &str) -> Result<ServiceAccountKey, NotAuthenticated> {
        let invalid = |why: &str| {
            tracing::info!(why, "the JWT of a service account was refused");
            NotAuthenticated::invalid_token()
        };
        let header = decode_header(jwt).map_err(|error| invalid(&error.to_string()))?;
        let kid = header.kid.ok_or_else(|| invalid("there is no kid"))?;
        let key = IdentityKey::new(IdentityKind::ServiceAccountKey, kid);
        let found = self.inner.store.identity(key).await.map_err(|error| {
            tracing::error!(%error, "the JWT of a service account could not be verified");
            NotAuthenticated::Unavailable
        })?;
        let Some(IdentityRow::ServiceAccountKey(key)) = found else {
            return Err(invalid("the key is not known"));
        };
        let mut validation = Validation::new(Algorithm::PS256);
        validation.leeway = LEEWAY;
        validation.validate_nbf = true;
        validation.set_required_spec_claims(&["exp", "aud", "iss"]);
        validation.set_issuer(&[&key.service_account_id]);
        validation.set_audience(&self.inner.audiences);
        let public = DecodingKey::from_rsa_pem(key.public_key.as_bytes())
            .map_err(|error| invalid(&error.to_string()))?;
        let claims = decode::<Claims>(jwt, &public, &validation)
            .map_err(|error| invalid(&error.to_string()))?
            .claims;
        let now = u64::try_from(self.inner.store.now().0 / 1_000_000).unwrap_or_default();
        if claims.iat > now + LEEWAY {
            return Err(invalid("iat lies ahead"));
        }
        if claims.exp.saturating_sub(claims.iat) > LONGEST_JWT {
            return Err(invalid("exp is more than an hour after iat"));
        }
        Ok(key)
    }
}

/// The audiences of the JWT of a service account: the public one, and that of the address that clients are told. The public
/// Python SDK puts `iam.` before the endpoint that it is given, which has no port where that is 443
/// ([0.413](https://github.com/yandex-cloud/python-sdk/blob/master/yandexcloud/_auth_fabric.py)).
pub(super) fn audiences(advertise: Option<&str>) -> Vec<String> {
    let mut audiences = vec![PUBLIC_AUDIENCE.to_owned()];
    if let Some(address) = advertise {
        let hosts = [Some(address), address.strip_suffix(":443")];
        for host in hosts.into_iter().flatten() {
            audiences.push(format!("https://{host}/iam/v1/tokens"));
            audiences.push(format!("https://iam.{host}/iam/v1/tokens"));
        }
    }
    audiences
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn audiences_are_those_of_stock_clients() {
        assert_eq!(audiences(None), [PUBLIC_AUDIENCE]);
        assert_eq!(
            audiences(Some("images.example:8443")),
            [
                PUBLIC_AUDIENCE,
                "https://images.example:8443/iam/v1/tokens",
                "https://iam.images.example:8443/iam/v1/tokens",
            ]
        );
        let of_443 = audiences(Some("images.example:443"));
        assert!(of_443.contains(&"https://iam.images.example/iam/v1/tokens".to_owned()));
        assert_eq!(of_443.len(), 5);
    }
}
