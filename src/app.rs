//! The composition root: the one place that names concrete backends.

mod backends;
pub mod backup;
mod bucket;
mod certificates;
mod data_folder;
mod exposure;
mod health;
mod listeners;
mod maintenance;
pub mod migration;
mod owner;
pub mod progress;
mod shared_folder;
pub mod verification;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::auth::{Anonymous, FirstAdminError, Identity, IdentitySettings};
pub use crate::auth::{
    Authentication, Authenticator, Caller, Credentials, IdentityError, IssuerSettings,
    NotAuthenticated,
};
use crate::blobs;
use crate::grpc;
pub use crate::images::UploadSettings;
use crate::images::{self, Images};
use crate::operations::Engine;
pub use crate::operations::Settings as OperationSettings;
use crate::server::{
    self, Callers, Gateway, Guard, Readiness, SubjectLimits, TrustedProxies, serve,
};
pub use crate::server::{
    AllowedHost, AllowedOrigin, OPEN, Open, SubjectSettings, TransferSettings, TrustedProxy,
};
use crate::sources::ImportFolder;
use crate::store::{self, Store};
use crate::tls;
pub use crate::tls::{Certificate, ClientCertificates, SubjectKind, TlsSettings};
use backends::{Backends, Held};
pub use backends::{
    BlobLayout, BlobSettings, ObjectSettings, PostgresSettings, RedirectSettings, StoreSettings,
};
use data_folder::BOOTSTRAP_TOKEN;
use health::Health;
pub use listeners::{Bound, Listen};
use listeners::{SocketFile, Sockets};
use maintenance::{keep_fresh, keep_room, maintain};

/// How long a connection without a request is kept unless told otherwise: longer than proxies keep theirs
/// (nginx 60 s, Caddy 120 s), which would else send a request on a connection that closes.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(180);

/// How long requests may run on after the order to stop, unless told otherwise.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// Configuration of a server.
#[derive(Debug, Clone)]
pub struct Config {
    /// The places to listen, one at the least.
    pub listen: Vec<Listen>,
    /// The host and port at which clients find the server, where it is not the address of the listener.
    pub advertise: Option<String>,
    /// TLS on all listeners of the network.
    pub tls: Option<TlsSettings>,
    /// Proxies whose forwarding headers are believed.
    pub trusted_proxies: Vec<TrustedProxy>,
    /// Names by which clients ask for this server, beside those of loopback.
    pub allow_hosts: Vec<AllowedHost>,
    /// Whether callers must say who they are.
    pub require_auth: bool,
    /// Whether other machines may reach the server without TLS.
    pub insecure_plaintext: bool,
    /// Whether other machines may reach the server without saying who calls.
    pub insecure_allow_anonymous: bool,
    pub data: Data,
    pub store: StoreSettings,
    pub blobs: BlobSettings,
    /// The folder below which `file://` uris may be imported.
    pub import_dir: Option<PathBuf>,
    /// Whether ISO 9660 and UDF images are imported too, which are made to install from.
    pub allow_installer_images: bool,
    /// Origins of web pages, beside this server's own, that may call it.
    pub cors_allow_origins: Vec<AllowedOrigin>,
    /// How long the server goes on answering after the order to stop, with failing readiness, so that load balancers send
    /// nothing more before it refuses.
    pub drain_delay: Duration,
    /// How long requests may run on after that.
    pub drain_timeout: Duration,
    /// Limits of the transfers of one connection: how many at a time, and for how long unread.
    pub transfers: TransferSettings,
    /// Limits of what one subject may do at a time.
    pub subjects: SubjectSettings,
    /// Limits of uploads: their number, and the speed below which one gives way.
    pub uploads: UploadSettings,
    /// How long a connection without a request is kept.
    pub idle_timeout: Duration,
    /// Settings of the engine that runs operations.
    pub operations: OperationSettings,
    /// The retention of operations and audit events.
    pub retention: Retention,
    /// Issuers whose JWTs are good here.
    pub issuers: Vec<IssuerSettings>,
    /// A file of grants beside those that `access grant` makes.
    pub permissions_file: Option<PathBuf>,
    /// The file for the token of the first admin; one in the data folder where none is named.
    pub bootstrap_token_file: Option<PathBuf>,
    /// Tells who calls, in the place of what the settings above say.
    pub authenticator: Option<Arc<dyn Authenticator>>,
}

impl Config {
    /// A server on a free port of the loopback address, as it is unless told otherwise.
    pub fn new(data: Data) -> Self {
        Self {
            listen: vec![Listen::Tcp((Ipv4Addr::LOCALHOST, 0).into())],
            advertise: None,
            tls: None,
            trusted_proxies: Vec::new(),
            allow_hosts: Vec::new(),
            require_auth: false,
            insecure_plaintext: false,
            insecure_allow_anonymous: false,
            data,
            store: StoreSettings::default(),
            blobs: BlobSettings::default(),
            import_dir: None,
            allow_installer_images: false,
            cors_allow_origins: Vec::new(),
            drain_delay: Duration::ZERO,
            drain_timeout: DRAIN_TIMEOUT,
            transfers: TransferSettings::default(),
            subjects: SubjectSettings::default(),
            uploads: UploadSettings::default(),
            idle_timeout: IDLE_TIMEOUT,
            operations: OperationSettings::default(),
            retention: Retention::default(),
            issuers: Vec::new(),
            permissions_file: None,
            bootstrap_token_file: None,
            authenticator: None,
        }
    }
}

/// Retention: the age at which operations that have ended, audit events, and bytes without an image are removed.
#[derive(Debug, Clone)]
pub struct Retention {
    /// Operations, and with them their idempotency keys.
    pub operations: Duration,
    pub audit_events: Duration,
    /// Bytes of images, from when no image has them any more. None: an hour in a bucket and beside PostgreSQL, so that
    /// downloads that are under way come to their end; not at all in the folder of one server, where a file that is removed
    /// stays for those who have opened it.
    pub blobs: Option<Duration>,
}

impl Default for Retention {
    fn default() -> Self {
        let day = Duration::from_secs(24 * 60 * 60);
        Self {
            operations: 30 * day,
            audit_events: 365 * day,
            blobs: None,
        }
    }
}

/// The time for which bytes without an image are kept for those who read them. Whoever reads for longer has it begin anew.
const FOR_READERS: Duration = Duration::from_secs(60 * 60);

/// The retention of the bytes of images that a server with some settings has.
fn blob_retention(config: &Config) -> Duration {
    let unless_told = match (&config.store, &config.blobs) {
        (StoreSettings::Embedded, BlobSettings::Folder) => Duration::ZERO,
        _ => FOR_READERS,
    };
    config.retention.blobs.unwrap_or(unless_told)
}

/// The data folder of a server.
#[derive(Debug, Clone)]
pub enum Data {
    Folder(PathBuf),
    /// The same, also if the database knows nothing of the files beside it, or the files that it names are
    /// all gone.
    AdoptEmpty(PathBuf),
    /// In a temporary folder that is removed at the end.
    Ephemeral,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the data folder {0} is in use by another process")]
    Locked(PathBuf),
    #[error("{what} {path}: {source}")]
    Folder {
        what: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error(
        "{database} {why}, but {blobs} beside it has {files} files: put the database back, with its log \
         (metadata.sqlite-wal), or say --adopt-empty to begin with an empty one; unknown files are left alone"
    )]
    DatabaseLost {
        database: PathBuf,
        why: &'static str,
        blobs: PathBuf,
        files: usize,
    },
    #[error(
        "the database names {blobs} blobs below {folder}, but {reason}: mount that folder or put it \
         back, or say --adopt-empty to go on without their bytes"
    )]
    BlobsLost {
        folder: PathBuf,
        blobs: usize,
        reason: String,
    },
    #[error(
        "{folder} has {files} files of images that the database knows nothing of: name the database or the folder \
         that belongs to it, or say --adopt-empty to leave them alone"
    )]
    UnknownBlobs { folder: PathBuf, files: usize },
    #[error(
        "the images in {folder} belong to the installation {owner}, and the database is that of the installation \
         {installation}: name the database or the folder that belongs to it"
    )]
    OtherOwner {
        folder: PathBuf,
        owner: String,
        installation: String,
    },
    #[error(
        "{0} has a database of its own (metadata.sqlite): name another folder for the images of the database on a \
         server, or leave out --store"
    )]
    EmbeddedFolder(PathBuf),
    #[error(
        "{folder} has the images of the installation {owner}, whose database is on a server: name it by --store, or \
         another folder"
    )]
    SharedFolder { folder: PathBuf, owner: String },
    #[error(
        "the installation in {folder} was moved to {to}, where it goes on: serve that, or remove {folder}/{mark} to go \
         back to what it was before the move",
        mark = data_folder::MIGRATED
    )]
    Migrated { folder: PathBuf, to: String },
    #[error("cannot listen on {address}: {source}")]
    Listen { address: String, source: io::Error },
    /// Other machines reach the server, and it does not say how it is protected.
    #[error("{0}")]
    Exposed(String),
    #[error("TLS: {0}")]
    Tls(#[from] tls::Error),
    #[error("cannot make a temporary folder: {0}")]
    Temporary(io::Error),
    #[error("cannot write the token of the first admin to {path}: {source}")]
    BootstrapToken { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error(transparent)]
    Store(#[from] store::Error),
    #[error(transparent)]
    Blobs(#[from] blobs::Error),
    #[error(transparent)]
    Images(#[from] images::Error),
    #[error(transparent)]
    Transcoding(#[from] transcoding::BuildError),
}

/// A running server.
pub struct Server {
    bound: Vec<Bound>,
    /// Removed once nothing is served any more.
    socket_files: Vec<SocketFile>,
    stop: CancellationToken,
    health: Health,
    drain_delay: Duration,
    serving: JoinHandle<()>,
    maintenance: JoinHandle<()>,
    engine: Engine,
    store: Arc<dyn Store>,
    held: Held,
}

impl From<FirstAdminError> for Error {
    fn from(error: FirstAdminError) -> Self {
        match error {
            FirstAdminError::File { path, source } => Self::BootstrapToken { path, source },
            FirstAdminError::Store(error) => Self::Store(error),
        }
    }
}

impl Server {
    /// Opens the data, resumes what an earlier process left unfinished, and listens.
    pub async fn start(config: Config) -> Result<Self, Error> {
        server::raise_descriptor_limit();
        // First of all: a taken port must leave all as it was.
        let mut sockets = Sockets::bind(&config.listen).await?;
        if let Some(refusal) = exposure::refusal(&sockets.bound, &config) {
            return Err(Error::Exposed(refusal));
        }
        exposure::warn(&sockets.bound, &config);
        let import_dir = config.import_dir.clone();
        let opened = tokio::task::spawn_blocking(move || {
            import_dir.as_deref().map(open_import_folder).transpose()
        });
        let import_folder = opened
            .await
            .map_err(|stopped| Error::Temporary(stopped.into()))??;
        let Backends {
            store,
            blobs,
            place,
            ballast,
            folder,
            held,
        } = Backends::open(&config).await?;

        let settings = IdentitySettings {
            require_auth: config.require_auth,
            advertise: config.advertise.clone(),
            is_plain: config.tls.is_none() && config.trusted_proxies.is_empty(),
            issuers: config.issuers.clone(),
            permissions_file: config.permissions_file.clone(),
        };
        let identity = Identity::new(store.clone(), settings).await?;
        identity.refresh().await?;
        let token_file = config.bootstrap_token_file.clone();
        let token_file = token_file.unwrap_or_else(|| folder.join(BOOTSTRAP_TOKEN));
        identity.ensure_admin(&token_file).await?;
        let authenticator: Arc<dyn Authenticator> = match &config.authenticator {
            Some(authenticator) => authenticator.clone(),
            None if config.require_auth => Arc::new(identity.clone()),
            None => Arc::new(Anonymous::default()),
        };

        let engine = Engine::new(store.clone(), config.operations.clone());
        let images = Images::new(store.clone(), blobs, engine.clone(), import_folder)
            .allow_installer_images(config.allow_installer_images)
            .with_upload_settings(config.uploads.clone())
            .with_blob_retention(blob_retention(&config));
        let adopt_empty = matches!(config.data, Data::AdoptEmpty(_));
        if let Err(error) = images.serve(adopt_empty).await {
            store.close().await;
            return Err(error.into());
        }
        let own = sockets.bound.iter().map(Bound::to_string).next();
        let own = own.unwrap_or_default();
        let endpoints = grpc::Endpoints::new(config.advertise.as_deref(), &own);
        let (routes, grpc_health) = grpc::routes(&images, &identity, endpoints).await;
        let readiness = Readiness::default();
        let health = Health::new(grpc_health, readiness.clone());
        let origins = config.cors_allow_origins.as_slice();
        let guard = Guard::new(config.require_auth, &config.allow_hosts, origins);
        let proxies = Arc::new(TrustedProxies::new(config.trusted_proxies.clone()));
        let callers = Callers {
            authenticator,
            identity: identity.clone(),
            limits: SubjectLimits::new(&config.subjects),
        };
        let gateway = Gateway::new(
            images.clone(),
            routes,
            callers,
            guard,
            readiness,
            Arc::clone(&proxies),
            origins,
        )?;
        let stop = CancellationToken::new();
        if exposure::is_for_proxies(&config) {
            sockets.only_for(&proxies);
        }
        if let Some(settings) = config.tls {
            let advertise = config.advertise.as_deref();
            let names = certificates::names(&sockets.bound, &config.allow_hosts, advertise);
            let acceptor = certificates::keep(settings, &folder, names, stop.clone()).await?;
            sockets.speak_tls(&acceptor);
        }
        let gateway = Arc::new(gateway);
        let serving = tokio::spawn(serve(
            sockets.listeners,
            move |request| gateway.answer(request),
            stop.clone(),
            server::Times {
                drain: config.drain_timeout,
                idle: config.idle_timeout,
            },
            config.transfers.clone(),
        ));
        let maintenance = tokio::spawn(maintain(
            images,
            engine.clone(),
            store.clone(),
            config.retention.clone(),
            stop.clone(),
        ));
        tokio::spawn(health::watch(
            place,
            store.clone(),
            health.clone(),
            stop.clone(),
        ));
        if config.require_auth {
            tokio::spawn(keep_fresh(identity, stop.clone()));
        }
        if let Some(ballast) = ballast {
            tokio::spawn(keep_room(ballast, stop.clone()));
        }
        for address in &sockets.bound {
            tracing::info!(%address, "listening");
        }
        Ok(Self {
            bound: sockets.bound,
            socket_files: sockets.files,
            stop,
            health,
            drain_delay: config.drain_delay,
            serving,
            maintenance,
            engine,
            store,
            held,
        })
    }

    /// The first address of the network on which the server listens; 0.0.0.0:0 where there is none.
    pub fn address(&self) -> SocketAddr {
        let addresses = self.bound.iter().filter_map(|bound| match bound {
            Bound::Tcp(address) => Some(*address),
            Bound::Unix(_) => None,
        });
        let nowhere = || SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
        addresses.into_iter().next().unwrap_or_else(nowhere)
    }

    /// All addresses on which the server listens.
    pub fn bound(&self) -> &[Bound] {
        &self.bound
    }

    /// Fails readiness, refuses new requests after the delay, lets running ones end, hands back the leases of what runs
    /// on, and closes the data.
    pub async fn stop(self) -> Result<(), Error> {
        self.health.announce_drain().await;
        tokio::time::sleep(self.drain_delay).await;
        self.health.begin_drain();
        self.stop.cancel();
        self.engine.drain();
        for task in [self.serving, self.maintenance] {
            if let Err(error) = task.await {
                tracing::error!(%error, "a task of the server ended in a panic");
            }
        }
        drop(self.socket_files);
        self.engine.stop().await;
        self.store.close().await;
        self.held.release()?;
        tracing::info!("stopped");
        Ok(())
    }
}

fn open_import_folder(path: &Path) -> Result<ImportFolder, Error> {
    ImportFolder::open(path).map_err(|source| Error::Folder {
        what: "import folder",
        path: path.to_owned(),
        source,
    })
}
