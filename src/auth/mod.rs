//! Identity. Knows which credentials name which subject, what is granted to it, and the tokens, service accounts and
//! keys of this server. Never mentions images, gRPC messages, or what a request asks for.

mod cache;
mod exchange;
mod first_admin;
mod grants;
mod issuers;
mod permissions_file;
mod secrets;
mod service_accounts;
mod tokens;
mod url_keys;

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use futures_util::future::BoxFuture;
use http::{HeaderMap, Method, Uri, header};

use crate::model::rules::{ChangeIdentity, IdentityChange};
use crate::model::{
    Grant, IdentityKey, IdentityKind, IdentityRow, Permissions, RequestContext, Rights, Standing,
    UrlKey,
};
use crate::store::{self, Store};

use cache::Cache;
pub(crate) use exchange::Credential;
pub(crate) use first_admin::FirstAdminError;
pub(crate) use grants::{NewGrant, check_holder, check_import_uris};
pub use issuers::IssuerSettings;
use issuers::Issuers;
use issuers::SetupError as IssuerError;
use permissions_file::PermissionsFileError;
pub(crate) use tokens::NewToken;
pub(crate) use url_keys::{LONGEST_LIFETIME, SignedPath, USUAL_LIFETIME, escaped};

/// The subject of a request without credentials, where none are asked for.
pub(crate) const ANONYMOUS: &str = "anonymous";

/// The longest time for which a process goes by what it has read of the store: tokens, grants and keys.
pub(crate) const FRESHNESS: Duration = Duration::from_secs(2);

/// The words for credentials that are not good, whatever is wrong with them.
const INVALID_TOKEN: &str = "Token is invalid or has expired.";

/// Tells who sent a request.
pub trait Authenticator: fmt::Debug + Send + Sync {
    /// The caller with these credentials.
    fn authenticate(&self, credentials: &Credentials<'_>) -> Authentication;
}

/// The parts of a request that may name its caller.
#[derive(Debug, Clone, Copy)]
pub struct Credentials<'a> {
    pub method: &'a Method,
    pub uri: &'a Uri,
    pub headers: &'a HeaderMap,
    /// The name in the verified certificate of the client.
    pub certificate: Option<&'a Arc<str>>,
}

/// The outcome of a look at credentials.
pub enum Authentication {
    Known(Result<Arc<Caller>, NotAuthenticated>),
    /// The store has to be asked first.
    Asked(BoxFuture<'static, Result<Arc<Caller>, NotAuthenticated>>),
}

/// The sender of a request.
#[derive(Debug)]
pub struct Caller {
    /// The subject, then its groups.
    holders: Arc<[String]>,
    standing: Standing,
}

/// Why a caller is not known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotAuthenticated {
    /// In words for the caller.
    #[error("{0}")]
    Unauthenticated(String),
    /// A signed URL that is good no more, in words for the caller.
    #[error("{0}")]
    Denied(String),
    /// It cannot be found out now.
    #[error("the store cannot be asked who the caller is")]
    Unavailable,
}

impl NotAuthenticated {
    fn invalid_token() -> Self {
        Self::Unauthenticated(INVALID_TOKEN.to_owned())
    }
}

impl Caller {
    /// A caller without groups, whose credentials do not end.
    pub fn of(subject: &str) -> Arc<Self> {
        Self::new(Arc::new([subject.to_owned()]), Standing::default())
    }

    /// A caller by its subject and its groups.
    fn new(holders: Arc<[String]>, standing: Standing) -> Arc<Self> {
        Arc::new(Self { holders, standing })
    }

    pub(crate) fn subject(&self) -> &str {
        self.holders.first().map_or(ANONYMOUS, String::as_str)
    }
}

/// Knows all callers as [`ANONYMOUS`].
#[derive(Debug)]
pub(crate) struct Anonymous(Arc<Caller>);

impl Default for Anonymous {
    fn default() -> Self {
        Self(Caller::of(ANONYMOUS))
    }
}

impl Authenticator for Anonymous {
    fn authenticate(&self, _: &Credentials<'_>) -> Authentication {
        Authentication::Known(Ok(self.0.clone()))
    }
}

/// The settings of identity.
#[derive(Debug, Clone, Default)]
pub(crate) struct IdentitySettings {
    /// Whether callers need credentials.
    pub require_auth: bool,
    /// The host and port at which clients find the server.
    pub advertise: Option<String>,
    /// Whether clients come without TLS, to this server and to a proxy.
    pub is_plain: bool,
    /// Issuers whose JWTs are good here.
    pub issuers: Vec<IssuerSettings>,
    /// A file of grants beside those of the store.
    pub permissions_file: Option<PathBuf>,
}

/// A setting of identity that is not as it must be.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error(transparent)]
    Issuer(#[from] IssuerError),
    #[error(transparent)]
    PermissionsFile(#[from] PermissionsFileError),
}

/// Identities and rights of callers, by the rows of the store. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Identity {
    inner: Arc<Inner>,
}

struct Inner {
    store: Arc<dyn Store>,
    /// Whether callers need credentials; otherwise everybody may do everything.
    is_required: bool,
    /// The host and the port that clients are told, if the server was.
    advertise: Option<String>,
    /// Whether clients come without TLS.
    is_plain: bool,
    /// The audiences of the JWTs of service accounts.
    audiences: Vec<String>,
    issuers: Issuers,
    permissions_file: Option<PathBuf>,
    /// The grants of the file as they were when it was last as it must be.
    file_grants: Mutex<Vec<Grant>>,
    tokens: Cache,
    snapshot: RwLock<Arc<Snapshot>>,
    refreshing: tokio::sync::Mutex<()>,
}

/// The rows that every request may need, as they were at the last look.
#[derive(Default)]
struct Snapshot {
    permissions: Arc<Permissions>,
    url_keys: Vec<UrlKey>,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").finish_non_exhaustive()
    }
}

impl Identity {
    /// The identities of a store. Nobody has any rights before the first [`Identity::refresh`].
    ///
    /// # Errors
    /// Where the settings of an issuer, or the file of permissions, are not as they must be.
    pub(crate) async fn new(
        store: Arc<dyn Store>,
        settings: IdentitySettings,
    ) -> Result<Self, IdentityError> {
        let file_grants = match &settings.permissions_file {
            Some(path) => permissions_file::read(path).await?,
            None => Vec::new(),
        };
        Ok(Self {
            inner: Arc::new(Inner {
                store,
                is_required: settings.require_auth,
                audiences: exchange::audiences(settings.advertise.as_deref()),
                advertise: settings.advertise,
                is_plain: settings.is_plain,
                tokens: Cache::default(),
                issuers: Issuers::new(&settings.issuers)?,
                permissions_file: settings.permissions_file,
                file_grants: Mutex::new(file_grants),
                snapshot: RwLock::default(),
                refreshing: tokio::sync::Mutex::default(),
            }),
        })
    }

    /// Fetches the keys of issuers again and again. The future never ends.
    pub(crate) async fn keep_issuers_fresh(&self) {
        self.inner.issuers.keep_fresh().await;
    }

    /// Whether callers need credentials.
    pub(crate) fn is_required(&self) -> bool {
        self.inner.is_required
    }

    /// Reads grants and keys anew. To be called at least every [`FRESHNESS`], since other processes change them.
    ///
    /// # Errors
    /// Those of a store that cannot be read; what was read before stays.
    pub(crate) async fn refresh(&self) -> store::Result<()> {
        // One at a time: what was read first must not take the place of what was read later.
        let _turn = self.inner.refreshing.lock().await;
        let store = &self.inner.store;
        let grants = store.identities(IdentityKind::Grant).await?;
        let grants = grants.into_iter().filter_map(|row| match row {
            IdentityRow::Grant(grant) => Some(grant),
            _ => None,
        });
        let permissions = Permissions::new(grants.chain(self.file_grants().await));
        let permissions = Arc::new(permissions);
        let keys = store.identities(IdentityKind::UrlKey).await?;
        let url_keys = keys.into_iter().filter_map(|row| match row {
            IdentityRow::UrlKey(key) => Some(key),
            _ => None,
        });
        let snapshot = Arc::new(Snapshot {
            permissions,
            url_keys: url_keys.collect(),
        });
        let mut current = self
            .inner
            .snapshot
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        *current = snapshot;
        Ok(())
    }

    /// The grants of the file of permissions. Those that it had before stay while it is not as it must be.
    async fn file_grants(&self) -> Vec<Grant> {
        let read = match &self.inner.permissions_file {
            Some(path) => permissions_file::read(path).await,
            None => return Vec::new(),
        };
        let mut known = self
            .inner
            .file_grants
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match read {
            Ok(grants) => *known = grants,
            Err(error) => tracing::error!(%error, "the permissions before it stay"),
        }
        known.clone()
    }

    /// The rights of a caller as they are now.
    pub(crate) fn rights(&self, caller: &Caller) -> Rights {
        match self.inner.is_required {
            true => self.granted(caller.holders.clone()),
            false => Rights::All,
        }
    }

    /// The context of a request of this caller.
    pub(crate) fn context(&self, caller: &Caller) -> RequestContext {
        RequestContext {
            rights: self.rights(caller),
            standing: caller.standing.clone(),
            ..RequestContext::internal(caller.subject())
        }
    }

    /// The context of a request that is open to everybody, whose caller may do nothing.
    pub(crate) fn open_context(&self) -> RequestContext {
        RequestContext {
            rights: match self.inner.is_required {
                true => Rights::Granted {
                    holders: Arc::default(),
                    permissions: Arc::default(),
                },
                false => Rights::All,
            },
            ..RequestContext::internal(ANONYMOUS)
        }
    }

    /// Whether an identity row is there and has not expired.
    async fn is_there(&self, key: IdentityKey) -> store::Result<bool> {
        let found = self.inner.store.identity(key).await?;
        let now = self.inner.store.now();
        Ok(found.is_some_and(|row| row.expires_at().is_none_or(|at| at > now)))
    }

    /// The whole URL of a path, where the server knows its own address.
    pub(crate) fn url(&self, path: &str) -> Option<String> {
        let address = self.inner.advertise.as_ref()?;
        let scheme = if self.inner.is_plain { "http" } else { "https" };
        Some(format!("{scheme}://{address}{path}"))
    }

    fn snapshot(&self) -> Arc<Snapshot> {
        let snapshot = self.inner.snapshot.read();
        snapshot.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes the rows, and goes by them at once.
    async fn change(&self, request: RequestContext, change: IdentityChange) -> store::Result<()> {
        let store = &self.inner.store;
        store.execute(ChangeIdentity { request, change }).await?;
        self.inner.tokens.clear();
        // The change is made; that it was not read back is no reason to tell otherwise.
        if let Err(error) = self.refresh().await {
            tracing::warn!(%error, "a change of identity is seen a little later");
        }
        Ok(())
    }
}

impl Authenticator for Identity {
    fn authenticate(&self, credentials: &Credentials<'_>) -> Authentication {
        match bearer(credentials.headers) {
            Ok(Some(token)) => return self.of_token(token),
            Err(refused) => return Authentication::Known(Err(refused)),
            Ok(None) => {}
        }
        if let Some(signed) = SignedPath::of(credentials.method, credentials.uri) {
            return self.of_signed_path(&signed);
        }
        // A token that is not good never falls back to the certificate.
        if let Some(name) = credentials.certificate {
            let holders: Arc<[String]> = Arc::new([format!("cert:{name}")]);
            let standing = self.standing_of(holders.clone());
            return Authentication::Known(Ok(Caller::new(holders, standing)));
        }
        Authentication::Known(Err(NotAuthenticated::Unauthenticated(
            "Authorization: a token is needed; send `authorization: Bearer <token>`".to_owned(),
        )))
    }
}

impl Identity {
    /// The standing of a caller whose credentials do not end: only rights can change.
    fn standing_of(&self, holders: Arc<[String]>) -> Standing {
        self.standing_while(holders, async || true)
    }

    /// The standing of a caller whose credentials are good as long as `is_good` says so.
    fn standing_while<F>(
        &self,
        holders: Arc<[String]>,
        is_good: impl Fn() -> F + Clone + Send + Sync + 'static,
    ) -> Standing
    where
        F: Future<Output = bool> + Send,
    {
        let identity = self.clone();
        Standing::new(move || {
            let (identity, holders, is_good) = (identity.clone(), holders.clone(), is_good.clone());
            Box::pin(async move { is_good().await.then(|| identity.granted(holders)) })
        })
    }

    /// The grants of a subject and its groups as they are now.
    fn granted(&self, holders: Arc<[String]>) -> Rights {
        Rights::Granted {
            holders,
            permissions: self.snapshot().permissions.clone(),
        }
    }
}

/// The bearer token of a request, if it has one.
///
/// # Errors
/// Where there are several, or another scheme.
fn bearer(headers: &HeaderMap) -> Result<Option<&str>, NotAuthenticated> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    let refused = |why: &str| Err(NotAuthenticated::Unauthenticated(why.to_owned()));
    if values.next().is_some() {
        return refused("Authorization: was sent more than once");
    }
    let text = value.to_str().unwrap_or_default();
    // Schemes are compared without regard to case (RFC 9110, section 11.1).
    match text.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => Ok(Some(token.trim())),
        _ => refused("Authorization: only `Bearer <token>` is understood"),
    }
}
