//! `serve`: the server itself.

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use sd_notify::NotifyState;

use super::blobs::{BlobArguments, RedirectArguments};
use super::errors::{Error, Result};
use super::signals::Stop;
use super::{network, output, values};
use crate::app::{
    AllowedOrigin, Bound, Config, Data, IssuerSettings, OperationSettings, PostgresSettings,
    Retention, Server, StoreSettings, SubjectSettings,
};
use crate::telemetry::chain;
use crate::telemetry::log::{self, LogFormat};

const DEFAULT_LOG_LEVEL: &str = "info";
/// The variable that has the filter of the log where no argument has it.
pub(super) const LOG_VARIABLE: &str = "RUST_LOG";

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Read settings from this TOML file: the names of flags, and issuers of JWTs. Flags and variables come first
    #[arg(long, value_name = "FILE", env = "DESKTOP_IMAGES_CONFIG")]
    pub(super) config: Option<PathBuf>,
    /// Of the file.
    #[arg(skip)]
    pub(super) issuers: Vec<IssuerSettings>,
    #[command(flatten)]
    identity: IdentityArguments,
    #[command(flatten)]
    network: network::NetworkArguments,
    /// The host and port at which clients find this server, as in images.example:443: what its service of
    /// endpoints tells them; when left out the address of the listener
    #[arg(long, value_name = "HOST:PORT", value_parser = values::advertised)]
    advertise: Option<String>,
    /// The folder that holds all data; made if it is not there
    #[arg(long, value_name = "FOLDER", default_value = "./data")]
    data_dir: PathBuf,
    /// Keep records in a PostgreSQL database, as in postgres://user@host/database: the data folder then has the bytes of
    /// images alone, and several servers may share both. In a file of the data folder when left out
    #[arg(
        long,
        value_name = "URL",
        env = "DESKTOP_IMAGES_STORE",
        hide_env_values = true
    )]
    store: Option<String>,
    /// The file that has the password for the database, where neither its URL nor PGPASSWORD nor PGPASSFILE has it
    #[arg(long, value_name = "FILE", requires = "store")]
    store_password_file: Option<PathBuf>,
    #[command(flatten)]
    blobs: BlobArguments,
    #[command(flatten)]
    redirect: RedirectArguments,
    /// Keep all data in a temporary folder that is removed at the end
    #[arg(long, conflicts_with_all = ["data_dir", "store", "blobs"])]
    ephemeral: bool,
    /// Start also if the database is empty or new beside files of images, which are then left alone, or if
    /// all files that the database names are gone
    #[arg(long, conflicts_with = "ephemeral")]
    adopt_empty: bool,
    /// The folder below which file:// uris may be imported; none when left out
    #[arg(long, value_name = "FOLDER")]
    import_dir: Option<PathBuf>,
    /// Import installer images (ISO 9660, UDF) too, which are no installed disks
    #[arg(long)]
    allow_installer_images: bool,
    /// Let web pages of this origin, as in https://app.example:8443, call the server; may be repeated
    #[arg(long, value_name = "ORIGIN")]
    cors_allow_origin: Vec<AllowedOrigin>,
    /// How long the server goes on answering after the order to stop, while its readiness fails, so that load balancers
    /// send nothing more before it refuses
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = values::duration)]
    drain_delay: Duration,
    /// How long requests may run on after the order to stop and that delay
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = values::duration)]
    drain_timeout: Duration,
    /// How long a connection without a request is kept
    #[arg(long, value_name = "DURATION", default_value = "180s",
          value_parser = values::positive_duration)]
    idle_timeout: Duration,
    /// How many operations run at the same time
    #[arg(long, value_name = "COUNT", default_value_t = 4,
          value_parser = clap::value_parser!(u16).range(1..))]
    concurrency: u16,
    /// How long a worker may be silent before another takes over its operation
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = values::lease)]
    lease_duration: Duration,
    /// Keep every operation running for this long, to test programs that wait for operations
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = values::duration)]
    simulate_latency: Duration,
    /// How long operations that have ended, and their idempotency keys, are kept
    #[arg(long, value_name = "DURATION", default_value = "720h", value_parser = values::duration)]
    operation_retention: Duration,
    /// How long audit events are kept
    #[arg(long, value_name = "DURATION", default_value = "8760h", value_parser = values::duration)]
    audit_retention: Duration,
    /// How long the bytes of images are kept after the last image of them was deleted, so that a dump of the database
    /// that is as old can be restored; when left out 1h in a bucket and beside PostgreSQL, so that downloads come to their
    /// end, and 0s otherwise
    #[arg(long, value_name = "DURATION", value_parser = values::duration)]
    blob_retention: Option<Duration>,
    /// How the log on the standard error is written
    #[arg(long, value_enum, default_value_t)]
    log_format: LogFormat,
    /// Level of the log: error, warn, info, debug, trace or off, or directives TARGET=LEVEL divided by commas;
    /// when left out what RUST_LOG says, or info
    #[arg(long, value_name = "LEVEL", value_parser = log::filter)]
    log_level: Option<String>,
}

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Identity")]
struct IdentityArguments {
    /// A TOML file of roles, beside those that `access grant` gives; read again when it changes
    #[arg(long, value_name = "FILE")]
    permissions_file: Option<PathBuf>,
    /// The file for the token of the first admin, made where callers need credentials and nobody is admin;
    /// bootstrap-token in the data folder when left out
    #[arg(long, value_name = "FILE")]
    bootstrap_token_file: Option<PathBuf>,
    /// The most requests a second of one subject; without a limit when left out
    #[arg(long, value_name = "COUNT")]
    max_requests_per_second: Option<NonZeroU32>,
    /// The most uploads, and the most downloads, that one subject may have under way
    #[arg(long, value_name = "COUNT", default_value_t = 64,
          value_parser = clap::value_parser!(u16).range(1..))]
    max_transfers_per_subject: u16,
}

/// The filter of the log: the argument's, that of the environment if it has one, or the default.
fn log_filter(argument: Option<String>) -> Result<String> {
    match (argument, std::env::var(LOG_VARIABLE)) {
        (Some(filter), _) => Ok(filter),
        (None, Ok(level)) if !level.is_empty() => log::filter(&level)
            .map_err(|wrong| Error::Usage(format!("the variable {LOG_VARIABLE}: {wrong}"))),
        _ => Ok(DEFAULT_LOG_LEVEL.to_owned()),
    }
}

/// Serves until it is told to stop, then lets running requests end. A second order ends at once.
pub(crate) async fn run(arguments: Arguments) -> Result<()> {
    // Before all else: signals that come early must not end the process.
    let mut stop = Stop::of_a_server()?;
    log::start(arguments.log_format, &log_filter(arguments.log_level)?)
        .map_err(|error| Error::failed("cannot start the log", &*error))?;
    let data = match (arguments.ephemeral, arguments.adopt_empty) {
        (true, _) => Data::Ephemeral,
        (false, true) => Data::AdoptEmpty(arguments.data_dir),
        (false, false) => Data::Folder(arguments.data_dir),
    };
    let store = match arguments.store {
        None => StoreSettings::Embedded,
        Some(url) => StoreSettings::Postgres(PostgresSettings {
            password_file: arguments.store_password_file,
            ..PostgresSettings::new(url)
        }),
    };
    let mut config = Config {
        store,
        blobs: arguments.blobs.settings(),
        advertise: arguments.advertise,
        issuers: arguments.issuers,
        subjects: SubjectSettings {
            requests_per_second: arguments.identity.max_requests_per_second,
            transfers: Some(usize::from(arguments.identity.max_transfers_per_subject)),
        },
        permissions_file: arguments.identity.permissions_file,
        bootstrap_token_file: arguments.identity.bootstrap_token_file,
        import_dir: arguments.import_dir,
        allow_installer_images: arguments.allow_installer_images,
        cors_allow_origins: arguments.cors_allow_origin,
        drain_delay: arguments.drain_delay,
        drain_timeout: arguments.drain_timeout,
        idle_timeout: arguments.idle_timeout,
        operations: OperationSettings {
            concurrency: usize::from(arguments.concurrency),
            lease: arguments.lease_duration,
            simulated_latency: arguments.simulate_latency,
        },
        retention: Retention {
            operations: arguments.operation_retention,
            audit_events: arguments.audit_retention,
            blobs: arguments.blob_retention,
        },
        ..Config::new(data)
    };
    arguments.redirect.apply(&mut config.blobs);
    arguments.network.apply(&mut config);
    let scheme = match config.tls {
        Some(_) => "https",
        None => "http",
    };
    let mut starting = std::pin::pin!(start(config));
    let (server, ordered) = tokio::select! {
        server = &mut starting => (server?, false),
        () = stop.ordered() => {
            tracing::info!("stopping once the start is over; another signal ends it");
            tokio::select! {
                server = &mut starting => (server?, true),
                () = stop.ordered() => return Err(Error::Interrupted),
            }
        }
    };
    if !ordered {
        // Scripts that asked for port 0 read it here; a server needs no reader.
        for bound in server.bound() {
            let url = match bound {
                Bound::Tcp(address) => format!("{scheme}://{address}"),
                Bound::Unix(_) => bound.to_string(),
            };
            let _ = output::print(&format!("Listening on {url}\n"));
        }
        tell_systemd(NotifyState::Ready);
        stop.ordered().await;
    }
    tell_systemd(NotifyState::Stopping);
    tracing::info!(
        drain_delay = ?arguments.drain_delay,
        "stopping: readiness fails; after the delay new requests are refused, and those that run may end; another \
         signal ends them"
    );
    finish(server, &mut stop).await
}

/// Tells a unit with `Type=notify` how far the server is; nobody, where systemd does not wait for it.
fn tell_systemd(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(%error, "systemd was not told how far the server is");
    }
}

/// Starts a server, with an error that a person can read.
pub(crate) async fn start(config: Config) -> Result<Server> {
    let started = Server::start(config).await;
    started.map_err(|error| Error::Failed(chain(&error)))
}

/// Stops a server; another order to stop cuts that short.
pub(crate) async fn finish(server: Server, stop: &mut Stop) -> Result<()> {
    tokio::select! {
        stopped = server.stop() => stopped.map_err(|error| Error::Failed(chain(&error))),
        () = stop.ordered() => Err(Error::Interrupted),
    }
}
