//! Issuers of JWTs: OpenID Connect providers, and files with keys (RFC 7517). Subjects and groups of an issuer carry
//! its name, so that none can produce those of another or of this server.

mod discovery;
mod keys;

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use jsonwebtoken::dangerous::insecure_decode_claims;
use jsonwebtoken::{Algorithm, Validation, decode, decode_header};
use serde::Deserialize;
use serde_json::{Map, Value};
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::{FRESHNESS, NotAuthenticated};
use crate::model::Timestamp;
use discovery::Provider;
pub(super) use discovery::SetupError;
use keys::Keys;

/// How far the clock of an issuer may be from ours, in seconds.
const LEEWAY: u64 = 60;
/// The longest JWT that is looked at, in bytes.
const LONGEST: usize = 16 << 10;
/// The longest subject, and the longest name of a group, in bytes.
const LONGEST_NAME: usize = 255;
/// The most groups of a caller; further ones are ignored, and logged.
const MOST_GROUPS: usize = 200;

/// An issuer as it is configured.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IssuerSettings {
    /// Stands in the subjects: `oidc:<name>:<sub>`. Lower-case letters, digits and hyphens.
    pub name: String,
    /// Exactly as `iss` has it; https.
    pub url: String,
    /// `aud` must have one of these.
    pub audiences: Vec<String>,
    /// A file with the keys (a JWK set), in the place of discovery.
    pub jwks_file: Option<PathBuf>,
    /// Hosts, beside that of the issuer, that `jwks_uri` may be at.
    #[serde(default)]
    pub jwks_hosts: Vec<String>,
    /// A file with the certificates that the issuer's TLS is verified by, in the place of the system's.
    pub ca_file: Option<PathBuf>,
    /// The claim with the groups of a caller.
    #[serde(default = "usual_groups_claim")]
    pub groups_claim: String,
    /// How often the keys are fetched again, in seconds; a token of an unknown key has them fetched at most as often.
    #[serde(default = "usual_refresh")]
    pub refresh_seconds: u64,
}

fn usual_groups_claim() -> String {
    "groups".to_owned()
}

fn usual_refresh() -> u64 {
    60
}

/// All issuers whose JWTs are good here.
#[derive(Default)]
pub(super) struct Issuers(Vec<Arc<Issuer>>);

/// The caller that a JWT names, and the end of the JWT.
pub(super) struct Verified {
    /// The subject, then its groups.
    pub holders: Arc<[String]>,
    pub expires_at: Timestamp,
}

pub(super) struct Issuer {
    settings: IssuerSettings,
    provider: Provider,
    keys: RwLock<Arc<Keys>>,
    /// When keys were last fetched for a token of an unknown one.
    asked_for_unknown: Mutex<Option<Instant>>,
}

impl fmt::Debug for Issuers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.0.iter().map(|issuer| &issuer.settings.name);
        f.debug_list().entries(names).finish()
    }
}

#[derive(Debug, Deserialize)]
struct Iss {
    iss: String,
}

impl Issuers {
    /// # Errors
    /// Where a setting is not as it must be, in words for administrators. An issuer that does not answer is none.
    pub(super) fn new(settings: &[IssuerSettings]) -> Result<Self, SetupError> {
        let issuers = settings
            .iter()
            .map(|settings| Issuer::new(settings.clone()).map(Arc::new));
        let issuers: Vec<_> = issuers.collect::<Result<_, _>>()?;
        for (position, issuer) in issuers.iter().enumerate() {
            let settings = &issuer.settings;
            let is_double = |other: &&Arc<Issuer>| {
                other.settings.name == settings.name || other.settings.url == settings.url
            };
            if issuers[..position].iter().any(|other| is_double(&other)) {
                let why = "its name or its url is that of another issuer";
                return Err(SetupError::new(&settings.name, why));
            }
        }
        Ok(Self(issuers))
    }

    /// Fetches the keys of all issuers again and again. The future never ends.
    pub(super) async fn keep_fresh(&self) {
        let issuers = self.0.iter().map(|issuer| async {
            loop {
                issuer.fetch().await;
                tokio::time::sleep(issuer.pause()).await;
            }
        });
        futures_util::future::join_all(issuers).await;
    }

    /// The issuer that a JWT says it is of.
    pub(super) fn of(&self, jwt: &str) -> Option<Arc<Issuer>> {
        if self.0.is_empty() || jwt.len() > LONGEST {
            return None;
        }
        // Nothing is believed: the issuer's keys are what the signature is verified by.
        let claims: Iss = insecure_decode_claims(jwt).ok()?;
        let issuer = self.0.iter().find(|it| it.settings.url == claims.iss);
        issuer.cloned()
    }
}

impl Issuer {
    fn new(settings: IssuerSettings) -> Result<Self, SetupError> {
        let provider = Provider::new(&settings)?;
        Ok(Self {
            provider,
            settings,
            keys: RwLock::default(),
            asked_for_unknown: Mutex::default(),
        })
    }

    /// The pause between two fetches; a file is read as often as the store is.
    fn pause(&self) -> Duration {
        match self.settings.jwks_file {
            Some(_) => FRESHNESS,
            None => Duration::from_secs(self.settings.refresh_seconds.max(1)),
        }
    }

    fn keys(&self) -> Arc<Keys> {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        keys.clone()
    }

    /// Fetches the keys. Those that are known stay where that fails.
    async fn fetch(&self) {
        match self.provider.keys().await {
            Ok(keys) => {
                let mut known = self.keys.write().unwrap_or_else(PoisonError::into_inner);
                if **known != keys {
                    let (issuer, count) = (&self.settings.name, keys.len());
                    tracing::info!(issuer, count, "the keys of an issuer are new");
                    *known = Arc::new(keys);
                }
            }
            Err(error) => {
                let issuer = &self.settings.name;
                tracing::warn!(issuer, %error, "the keys of an issuer were not fetched; those known stay");
            }
        }
    }

    /// Verifies a JWT. One of an unknown key has the keys fetched, now and then.
    pub(super) async fn verify(&self, jwt: &str) -> Result<Verified, NotAuthenticated> {
        match self.judge(jwt) {
            Err(Wrong::UnknownKey) => {
                // One request fetches; others do not wait for an issuer that may hang.
                if let Ok(mut asked) = self.asked_for_unknown.try_lock()
                    && asked.is_none_or(|asked| asked.elapsed() >= self.pause())
                {
                    *asked = Some(Instant::now());
                    self.fetch().await;
                }
                self.judge(jwt)
            }
            judged => judged,
        }
        .map_err(|wrong| {
            // As a text, which the log quotes: parts of the JWT may be in it.
            let why = wrong.to_string();
            tracing::info!(issuer = self.settings.name, why, "a JWT was refused");
            NotAuthenticated::invalid_token()
        })
    }

    fn judge(&self, jwt: &str) -> Result<Verified, Wrong> {
        let header = decode_header(jwt)?;
        let keys = self.keys();
        let key = keys.find(header.kid.as_deref(), header.alg);
        let key = key.ok_or(Wrong::UnknownKey)?;
        let mut validation = Validation::new(header.alg);
        validation.leeway = LEEWAY;
        validation.validate_nbf = true;
        validation.set_required_spec_claims(&["exp", "aud", "iss", "sub"]);
        validation.set_issuer(&[&self.settings.url]);
        validation.set_audience(&self.settings.audiences);
        let claims = decode::<Map<String, Value>>(jwt, key, &validation)?.claims;
        let subject = claims.get("sub").and_then(Value::as_str);
        let subject = subject
            .and_then(|sub| self.named(sub))
            .ok_or(Wrong::Subject)?;
        let expires = claims
            .get("exp")
            .and_then(Value::as_f64)
            .unwrap_or_default();
        Ok(Verified {
            holders: std::iter::once(subject)
                .chain(self.groups(&claims))
                .collect(),
            expires_at: Timestamp(((expires + LEEWAY as f64) * 1e6) as i64),
        })
    }

    /// A subject or a group of this issuer, as roles are granted to it.
    fn named(&self, name: &str) -> Option<String> {
        let is_good =
            !name.is_empty() && name.len() <= LONGEST_NAME && !name.chars().any(char::is_control);
        is_good.then(|| format!("oidc:{}:{name}", self.settings.name))
    }

    fn groups(&self, claims: &Map<String, Value>) -> Vec<String> {
        let groups = match claims.get(&self.settings.groups_claim) {
            Some(Value::Array(groups)) => groups.as_slice(),
            Some(group @ Value::String(_)) => std::slice::from_ref(group),
            _ => &[],
        };
        if groups.len() > MOST_GROUPS {
            let (issuer, count) = (&self.settings.name, groups.len());
            tracing::warn!(
                issuer,
                count,
                "a caller has too many groups; the last are ignored"
            );
        }
        let names = groups.iter().take(MOST_GROUPS).filter_map(Value::as_str);
        names.filter_map(|name| self.named(name)).collect()
    }
}

#[derive(Debug, thiserror::Error)]
enum Wrong {
    #[error("the key is not known")]
    UnknownKey,
    #[error("sub is no text that can be a subject")]
    Subject,
    #[error(transparent)]
    Jwt(#[from] jsonwebtoken::errors::Error),
}

/// Whether a JWT may be signed by this algorithm: none with a secret, which whoever verifies could forge by.
fn is_allowed(algorithm: Algorithm) -> bool {
    !matches!(
        algorithm,
        Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512
    )
}
