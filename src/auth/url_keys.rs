//! Signed URLs, for hypervisors and browsers that send no header: a GET, its query, a time of expiry and a subject,
//! with an HMAC-SHA-256 over all of it.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{Method, Uri};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use super::{Authentication, Caller, Identity, NotAuthenticated, secrets};
use crate::model::rules::IdentityChange;
use crate::model::{
    IdentityKey, IdentityKind, IdentityRow, RequestContext, Rights, Role, Timestamp, UrlKey, owner,
};
use crate::store;

/// The last field of the query of a signed URL; all before it is signed.
pub(crate) const SIGNATURE: &str = "signature";
const EXPIRES: &str = "expires";
const SIGNER: &str = "signer";
const SIGNER_GROUP: &str = "signer-group";
const SIGNING_KEY: &str = "signing-key";

/// The lifetime of a signed URL unless its signer says otherwise, and the longest one.
pub(crate) const USUAL_LIFETIME: Duration = Duration::from_secs(60 * 60);
pub(crate) const LONGEST_LIFETIME: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// A text as a segment of a path, or a value of a query, of a URL to be signed.
pub(crate) fn escaped(text: &str) -> String {
    const KEPT: &AsciiSet = &NON_ALPHANUMERIC
        .remove(b'-')
        .remove(b'_')
        .remove(b'.')
        .remove(b'~');
    utf8_percent_encode(text, KEPT).to_string()
}

/// A path with a query that says it is signed.
pub(crate) struct SignedPath<'a> {
    path: &'a str,
    /// The query before the signature.
    query: &'a str,
    signature: &'a str,
}

impl<'a> SignedPath<'a> {
    /// The signed path of a request, if it says that it has one. HEAD is signed as GET is.
    pub(crate) fn of(method: &Method, uri: &'a Uri) -> Option<Self> {
        if !matches!(*method, Method::GET | Method::HEAD) {
            return None;
        }
        let (query, last) = uri.query()?.rsplit_once('&')?;
        let signature = last.strip_prefix(SIGNATURE)?.strip_prefix('=')?;
        Some(Self {
            path: uri.path(),
            query,
            signature,
        })
    }

    /// The query without the fields of the signature, as the method that is called knows it.
    pub(crate) fn unsigned_query(&self) -> String {
        let fields = self.query.split('&').filter(|field| {
            let name = field.split('=').next().unwrap_or_default();
            ![EXPIRES, SIGNER, SIGNER_GROUP, SIGNING_KEY].contains(&name)
        });
        fields.collect::<Vec<_>>().join("&")
    }

    fn fields(&self, name: &str) -> impl Iterator<Item = String> {
        let fields = self
            .query
            .split('&')
            .filter_map(|field| field.split_once('='));
        fields
            .filter(move |(it, _)| *it == name)
            .map(|(_, value)| percent_decode_str(value).decode_utf8_lossy().into_owned())
    }
}

/// The bytes that are signed. The method is part of them, so that no other method can ever be allowed by a URL.
fn signed_text(path: &str, query: &str) -> String {
    format!("GET\n{path}?{query}")
}

fn hmac_key(key: &UrlKey) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, key.secret.as_bytes())
}

impl Identity {
    /// Signs a GET of a path with these fields of a query, already encoded; the path with its whole query.
    ///
    /// # Errors
    /// Those of the store, where the first key has to be made.
    pub(crate) async fn sign(
        &self,
        request: &RequestContext,
        path: &str,
        query: &str,
        lifetime: Duration,
    ) -> store::Result<(String, Timestamp)> {
        let key = match self.newest_url_key() {
            Some(key) => key,
            None => {
                self.make_url_key(RequestContext::internal(&request.subject))
                    .await?
            }
        };
        let lifetime = lifetime.min(LONGEST_LIFETIME);
        let expires_at = self.inner.store.now().after(lifetime);
        let mut fields: Vec<String> = Vec::new();
        if !query.is_empty() {
            fields.push(query.to_owned());
        }
        let mut add = |name: &str, value: &str| {
            fields.push(format!("{name}={}", escaped(value)));
        };
        add(EXPIRES, &(expires_at.0 / 1_000_000).to_string());
        add(SIGNER, &request.subject);
        if let Rights::Granted { holders, .. } = &request.rights {
            for group in holders.iter().skip(1) {
                add(SIGNER_GROUP, group);
            }
        }
        add(SIGNING_KEY, &key.id);
        let query = fields.join("&");
        let tag = hmac::sign(&hmac_key(&key), signed_text(path, &query).as_bytes());
        let signature = URL_SAFE_NO_PAD.encode(tag);
        Ok((
            format!("{path}?{query}&{SIGNATURE}={signature}"),
            expires_at,
        ))
    }

    /// Makes a key, by which URLs are signed from now on. URLs that were signed by the keys before it stay good.
    ///
    /// # Errors
    /// `Refusal::Denied`, and those of the store.
    pub(crate) async fn make_url_key(&self, request: RequestContext) -> store::Result<UrlKey> {
        let key = UrlKey {
            id: secrets::id(""),
            secret: secrets::secret(),
            created_at: self.inner.store.now(),
            created_by: request.subject.clone(),
        };
        let row = Box::new(IdentityRow::UrlKey(key.clone()));
        self.change(request, IdentityChange::Put(row)).await?;
        Ok(key)
    }

    /// The keys of signed URLs, by id.
    ///
    /// # Errors
    /// `Refusal::Denied`, and those of the store.
    pub(crate) async fn url_keys(&self, request: &RequestContext) -> store::Result<Vec<UrlKey>> {
        request.rights.demand_everywhere(Role::Admin)?;
        self.refresh().await?;
        Ok(self.snapshot().url_keys.clone())
    }

    /// Removes a key: URLs that were signed by it are good no more.
    ///
    /// # Errors
    /// `Refusal::Denied` or `IdentityNotFound`, and those of the store.
    pub(crate) async fn revoke_url_key(
        &self,
        request: RequestContext,
        id: &str,
    ) -> store::Result<()> {
        let key = IdentityKey::new(IdentityKind::UrlKey, id);
        self.change(request, IdentityChange::Remove(key)).await
    }

    fn newest_url_key(&self) -> Option<UrlKey> {
        let snapshot = self.snapshot();
        let newest = snapshot.url_keys.iter().max_by_key(|key| key.created_at);
        newest.cloned()
    }

    /// The signer of a URL, whose rights are judged when the URL is used.
    pub(super) fn of_signed_path(&self, signed: &SignedPath<'_>) -> Authentication {
        let wrong = || NotAuthenticated::Denied("The signature of this URL is wrong".to_owned());
        let id = signed.fields(SIGNING_KEY).next().unwrap_or_default();
        let snapshot = self.snapshot();
        let key = snapshot.url_keys.iter().find(|key| key.id == id);
        let tag = URL_SAFE_NO_PAD.decode(signed.signature).unwrap_or_default();
        let text = signed_text(signed.path, signed.query);
        let is_signed =
            key.is_some_and(|key| hmac::verify(&hmac_key(key), text.as_bytes(), &tag).is_ok());
        if !is_signed {
            return Authentication::Known(Err(wrong()));
        }
        let expires = signed.fields(EXPIRES).next();
        let expires: i64 = expires.and_then(|text| text.parse().ok()).unwrap_or(0);
        if self.inner.store.now() >= Timestamp(expires.saturating_mul(1_000_000)) {
            let expired = NotAuthenticated::Denied("This signed URL has expired".to_owned());
            return Authentication::Known(Err(expired));
        }
        let Some(subject) = signed.fields(SIGNER).next() else {
            return Authentication::Known(Err(wrong()));
        };
        let holders: Arc<[String]> = std::iter::once(subject.clone())
            .chain(signed.fields(SIGNER_GROUP))
            .collect();
        let standing = {
            let (identity, key_id, owner) = (self.clone(), id.clone(), owner(&subject));
            let is_good = move || {
                let (identity, key_id) = (identity.clone(), key_id.clone());
                let owner = owner.clone();
                async move {
                    let snapshot = identity.snapshot();
                    let has_key = snapshot.url_keys.iter().any(|key| key.id == key_id);
                    // A store that cannot be asked ends nothing that runs.
                    let is_there = match owner {
                        Some(owner) => identity.is_there(owner).await.unwrap_or(true),
                        None => true,
                    };
                    has_key && is_there
                }
            };
            self.standing_while(holders.clone(), is_good)
        };
        let caller = Caller::new(holders, standing);
        match owner(&subject) {
            None => Authentication::Known(Ok(caller)),
            Some(key) => Authentication::Asked(Box::pin(self.clone().of_owner(key, caller))),
        }
    }

    /// The signer, as long as the token or the account that signed is there.
    async fn of_owner(
        self,
        key: IdentityKey,
        caller: Arc<Caller>,
    ) -> Result<Arc<Caller>, NotAuthenticated> {
        match self.is_there(key).await {
            Ok(true) => Ok(caller),
            Ok(false) => Err(NotAuthenticated::Denied(
                "The signer of this URL has no access any more".to_owned(),
            )),
            Err(error) => {
                tracing::error!(%error, "the signer of a URL could not be verified");
                Err(NotAuthenticated::Unavailable)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{IdentitySettings, NewToken};
    use super::*;
    use crate::model::SystemClock;
    use crate::store::memory::MemoryStore;

    async fn identity() -> Identity {
        let store = Arc::new(MemoryStore::new(Arc::new(SystemClock)));
        let settings = IdentitySettings {
            require_auth: true,
            ..IdentitySettings::default()
        };
        Identity::new(store, settings).await.unwrap()
    }

    /// The caller with a signed path, or why there is none.
    async fn caller(identity: &Identity, path: &str) -> Result<Arc<Caller>, NotAuthenticated> {
        let uri: Uri = path.parse().unwrap();
        let signed = SignedPath::of(&Method::GET, &uri).expect("a signature");
        match identity.of_signed_path(&signed) {
            Authentication::Known(known) => known,
            Authentication::Asked(asked) => asked.await,
        }
    }

    #[tokio::test]
    async fn a_stream_by_a_signed_url_ends_with_the_token_and_with_the_key() {
        for ends_with_key in [true, false] {
            let identity = identity().await;
            let admin = RequestContext::internal("admin");
            let new = NewToken {
                description: String::new(),
                lifetime: None,
            };
            let (token, _) = identity.create_token(admin.clone(), new).await.unwrap();
            let signer = RequestContext::internal(&token.subject);
            let signed = identity.sign(&signer, "/a:watch", "b=c", USUAL_LIFETIME);
            let (path, _) = signed.await.unwrap();
            let caller = self::caller(&identity, &path).await.unwrap();
            assert_eq!(caller.subject(), token.subject);
            let rights = identity.rights(&caller);
            let standing = caller.standing.clone();
            assert!(standing.rights(&rights).await.is_some());
            if ends_with_key {
                let keys = identity.url_keys(&admin).await.unwrap();
                identity.revoke_url_key(admin, &keys[0].id).await.unwrap();
            } else {
                identity.revoke_token(admin, &token.id).await.unwrap();
            }
            assert!(standing.rights(&rights).await.is_none());
            assert!(self::caller(&identity, &path).await.is_err());
        }
    }

    #[tokio::test]
    async fn the_signature_is_the_last_field_and_nothing_is_behind_it() {
        let identity = identity().await;
        let signer = RequestContext::internal("oidc:corp:me & you");
        let signed = identity.sign(&signer, "/a", "", USUAL_LIFETIME);
        let (path, _) = signed.await.unwrap();
        let caller = self::caller(&identity, &path).await.unwrap();
        assert_eq!(caller.subject(), "oidc:corp:me & you");
        let uri: Uri = path.parse().unwrap();
        let signed = SignedPath::of(&Method::HEAD, &uri).unwrap();
        assert_eq!(signed.unsigned_query(), "");
        for (method, path) in [
            (Method::POST, path.clone()),
            (Method::GET, format!("{path}&x=y")),
            (Method::GET, "/a?signature=x".to_owned()),
            (Method::GET, "/a".to_owned()),
        ] {
            let uri: Uri = path.parse().unwrap();
            assert!(SignedPath::of(&method, &uri).is_none(), "{method} {path}");
        }
    }
}
