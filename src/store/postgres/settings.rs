//! Where the database is, and how it is reached: the URL, TLS, the password and the time limits. The password is in
//! nothing that is shown.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use rustls_platform_verifier::BuilderVerifierExt;
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{Client, Config, NoTls, Socket};
use tokio_postgres_rustls::MakeRustlsConnect;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::super::{Error, Result};
use super::password;
use crate::telemetry::chain;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const USUAL_PORT: u16 = 5432;
const SCHEMES: [&str; 2] = ["postgres://", "postgresql://"];
/// After this a server that answers nothing is gone.
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(15);
const KEEPALIVE_IDLE: Duration = Duration::from_secs(15);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVES: u32 = 3;
/// The server's own limits, in milliseconds: of a statement, of a wait for a lock, and of a transaction whose client
/// says nothing: no transaction waits for anything but the database, and one of a process that stands still holds locks
/// that all others wait for, the renewal of their leases too. The last setting tells whether they have arrived
/// (`server.rs`).
const SERVER_LIMITS: &str = "-c statement_timeout=30000 -c lock_timeout=10000 \
     -c idle_in_transaction_session_timeout=2000 -c desktop_images.direct=on";

/// The database that is to be opened, and where its password is.
#[derive(Clone)]
pub struct PostgresSettings {
    /// As in `postgres://user@host:port/database?parameters`.
    pub url: String,
    /// A file with the password alone.
    pub password_file: Option<PathBuf>,
}

impl PostgresSettings {
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            password_file: None,
        }
    }

    /// The address of the database, without user and password.
    ///
    /// # Errors
    /// Words about the first thing that is wrong with the settings.
    pub(crate) fn shown(&self) -> Result<String> {
        Ok(Settings::new(self)?.shown)
    }
}

impl fmt::Debug for PostgresSettings {
    /// Without the URL: a password may be in it.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = formatter.debug_struct("PostgresSettings");
        shown.field("password_file", &self.password_file);
        shown.finish_non_exhaustive()
    }
}

/// How connections are made. It has no `Debug`: the password is in it.
#[derive(Clone)]
pub(super) struct Settings {
    config: Config,
    tls: Option<MakeRustlsConnect>,
    shown: String,
}

impl Settings {
    /// The settings of a URL, `postgres://user:password@host:port/database?parameters`. Beside the parameters of
    /// tokio-postgres it may have `sslmode` (disable, require, verify-ca or verify-full: but for the first, the
    /// certificate is verified), `sslrootcert` and `passfile`.
    ///
    /// # Errors
    /// Words about the first thing that is wrong, without the password.
    pub(super) fn new(settings: &PostgresSettings) -> Result<Self> {
        let url = &*settings.url;
        if !SCHEMES.iter().any(|scheme| url.starts_with(scheme)) {
            return Err(wrong(
                "the URL of the store must begin with postgres://".to_owned(),
            ));
        }
        let (address, parameters) = url.split_once('?').unwrap_or((url, ""));
        let (mut own, mut rest) = (Own::default(), Vec::new());
        own.password_file = settings.password_file.clone();
        for parameter in parameters.split('&').filter(|it| !it.is_empty()) {
            let (name, text) = parameter.split_once('=').unwrap_or((parameter, ""));
            let text = percent_decode_str(text).decode_utf8_lossy().into_owned();
            match name {
                "sslmode" => own.mode = Some(text),
                "sslrootcert" => own.roots = Some(text.into()),
                "passfile" => own.passwords_file = Some(text.into()),
                _ => rest.push(parameter),
            }
        }
        // Its errors show a wrong value: of the parameters alone, never of the address.
        let mut config: Config = format!("{address}?{}", rest.join("&")).parse().map_err(
            |error: tokio_postgres::Error| {
                wrong(format!("the URL of the store: {}", chain(&error)))
            },
        )?;
        let shown = shown(&config);
        own.set_tls_mode(&mut config)?;
        let tls = match config.get_ssl_mode() {
            SslMode::Disable => None,
            _ => Some(own.tls()?),
        };
        if config.get_hosts().is_empty() {
            return Err(wrong("the URL of the store names no host".to_owned()));
        }
        let file = own.password_file.as_deref();
        match (config.get_password(), file) {
            (Some(_), Some(_)) => {
                return Err(wrong(
                    "the URL of the store has a password, and a file of it is named, too"
                        .to_owned(),
                ));
            }
            (Some(_), None) => {}
            (None, Some(file)) => {
                config.password(password::read_alone(file)?);
            }
            (None, None) => {
                if let Some(password) = password::find(&config, own.passwords_file)? {
                    config.password(password);
                }
            }
        }
        set_limits(&mut config);
        Ok(Self { config, tls, shown })
    }

    /// Where the database is, without user and password.
    pub(super) fn shown(&self) -> &str {
        &self.shown
    }

    /// A new connection, which runs in a task of its own until it is dropped.
    pub(super) async fn connect(&self) -> Result<Client> {
        Ok(match self.connected().await? {
            Connected::Plain(client, connection) => {
                serve(connection);
                client
            }
            Connected::Tls(client, connection) => {
                serve(connection);
                client
            }
        })
    }

    /// A new connection that nothing runs yet.
    pub(super) async fn connected(&self) -> Result<Connected> {
        let connected = async {
            Ok(match self.tls.clone() {
                None => {
                    let (client, connection) = self.config.connect(NoTls).await?;
                    Connected::Plain(client, Box::new(connection))
                }
                Some(tls) => {
                    let (client, connection) = self.config.connect(tls).await?;
                    Connected::Tls(client, Box::new(connection))
                }
            })
        };
        let connected: std::result::Result<_, tokio_postgres::Error> = connected.await;
        connected.map_err(|error| Error::Unreachable(error.into()))
    }
}

type Tls = <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream;

/// A connection, with or without TLS.
pub(super) enum Connected {
    Plain(
        Client,
        Box<tokio_postgres::Connection<Socket, tokio_postgres::tls::NoTlsStream>>,
    ),
    Tls(Client, Box<tokio_postgres::Connection<Socket, Tls>>),
}

fn serve(
    connection: impl Future<Output = std::result::Result<(), tokio_postgres::Error>> + Send + 'static,
) {
    tokio::spawn(async move {
        // Who waits for an answer is told of the error, too.
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a connection to the database ended");
        }
    });
}

fn wrong(what: String) -> Error {
    Error::Failed(what.into())
}

/// The parameters that tokio-postgres does not know.
#[derive(Default)]
struct Own {
    mode: Option<String>,
    roots: Option<PathBuf>,
    /// Of this server alone.
    password_file: Option<PathBuf>,
    /// Of many servers.
    passwords_file: Option<PathBuf>,
}

impl Own {
    fn set_tls_mode(&self, config: &mut Config) -> Result<()> {
        let mode = match self.mode.as_deref() {
            Some("disable") => SslMode::Disable,
            Some("require" | "verify-ca" | "verify-full") => SslMode::Require,
            // Without a word: TLS, but for a server on this machine.
            None if config.get_hosts().iter().all(is_local) && self.roots.is_none() => {
                SslMode::Disable
            }
            None => SslMode::Require,
            Some(other) => {
                return Err(wrong(format!(
                    "sslmode={other} would not keep anybody from listening: use verify-full, or disable"
                )));
            }
        };
        config.ssl_mode(mode);
        Ok(())
    }

    /// TLS that verifies the server's certificate.
    fn tls(&self) -> Result<MakeRustlsConnect> {
        let failed = |what: &dyn std::fmt::Display| wrong(format!("TLS to the database: {what}"));
        let builder = ClientConfig::builder_with_provider(aws_lc_rs::default_provider().into())
            .with_safe_default_protocol_versions()
            .map_err(|error| failed(&error))?;
        let config = match &self.roots {
            None => builder
                .with_platform_verifier()
                .map_err(|error| failed(&error))?
                .with_no_client_auth(),
            Some(path) => {
                let at = path.display();
                let mut roots = RootCertStore::empty();
                let certificates = CertificateDer::pem_file_iter(path)
                    .map_err(|error| failed(&format!("{at}: {error}")))?;
                for certificate in certificates {
                    let certificate =
                        certificate.map_err(|error| failed(&format!("{at}: {error}")))?;
                    roots
                        .add(certificate)
                        .map_err(|error| failed(&format!("{at}: {error}")))?;
                }
                if roots.is_empty() {
                    return Err(failed(&format!("{at} has no certificate")));
                }
                builder.with_root_certificates(roots).with_no_client_auth()
            }
        };
        Ok(MakeRustlsConnect::new(config))
    }
}

fn is_local(host: &Host) -> bool {
    match host {
        Host::Tcp(name) => {
            name == "localhost"
                || name
                    .parse::<std::net::IpAddr>()
                    .is_ok_and(|it| it.is_loopback())
        }
        Host::Unix(_) => true,
    }
}

fn shown(config: &Config) -> String {
    // One port for each host, one for all, or none.
    let ports = config.get_ports();
    let port = |number| ports.get(number).or(ports.first());
    let hosts = config.get_hosts().iter().enumerate();
    let hosts = hosts.map(|(number, host)| match host {
        Host::Tcp(name) => match port(number).filter(|port| **port != USUAL_PORT) {
            Some(port) => format!("{name}:{port}"),
            None => name.clone(),
        },
        Host::Unix(path) => path.display().to_string(),
    });
    let database = config.get_dbname().unwrap_or_default();
    format!(
        "postgres://{}/{database}",
        hosts.collect::<Vec<_>>().join(",")
    )
}

/// Sets the limits that the URL leaves open.
fn set_limits(config: &mut Config) {
    if config.get_connect_timeout().is_none() {
        config.connect_timeout(CONNECT_TIMEOUT);
    }
    if config.get_tcp_user_timeout().is_none() {
        config.tcp_user_timeout(TCP_USER_TIMEOUT);
    }
    if config.get_keepalives_interval().is_none() {
        config
            .keepalives_idle(KEEPALIVE_IDLE)
            .keepalives_interval(KEEPALIVE_INTERVAL)
            .keepalives_retries(KEEPALIVES);
    }
    if config.get_application_name().is_none() {
        config.application_name("desktop-images");
    }
    // Those of the URL come later, and have the last word.
    let options = config.get_options().unwrap_or_default();
    let options = format!("{SERVER_LIMITS} {options}");
    config.options(options);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tls_is_verified_or_asked_to_be_left_out() {
        for (url, mode) in [
            ("postgres://db.example/d?sslmode=disable", SslMode::Disable),
            ("postgres://127.0.0.1/d", SslMode::Disable),
            ("postgres://localhost/d?sslmode=require", SslMode::Require),
            ("postgres://db.example/d", SslMode::Require),
            ("postgres://localhost,db.example/d", SslMode::Require),
        ] {
            let settings =
                Settings::new(&PostgresSettings::new(url)).map(|it| it.config.get_ssl_mode());
            assert_eq!(settings.unwrap(), mode, "{url}");
        }
    }

    #[test]
    fn what_is_wrong_is_told_without_the_password() {
        for url in [
            "postgres://u:hidden@db/d?sslmode=prefer",
            "postgres://u:hidden@db/d?nothing=1",
            "postgres://u:hidden@db:port/d",
            "postgres://u:hidden@db/d?sslrootcert=/none",
            "mysql://u:hidden@db/d",
        ] {
            let told = Settings::new(&PostgresSettings::new(url))
                .map(|_| ())
                .unwrap_err()
                .to_string();
            assert!(!told.contains("hidden"), "{told}");
        }
        for address in ["localhost", "localhost:5433", "a:1,b:2"] {
            let url = format!("postgres://u:hidden@{address}/d?sslmode=disable");
            let settings = Settings::new(&PostgresSettings::new(url)).unwrap();
            assert_eq!(settings.shown(), format!("postgres://{address}/d"));
            assert!(!format!("{:?}", settings.config).contains("hidden"));
        }
    }
}
