//! The settings of `serve` by which it is reached.

use std::path::PathBuf;
use std::time::Duration;

use super::values;
use crate::app::{
    AllowedHost, Certificate, ClientCertificates, Config, Listen, SubjectKind, TlsSettings,
    TrustedProxy,
};

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Network")]
pub(crate) struct NetworkArguments {
    /// Where to listen: a port of loopback, as 8080 or localhost:8080, a port of all addresses, as :8080, or
    /// an IP address and a port, port 0 takes a free one; or unix:PATH, a Unix socket; or systemd, the sockets
    /// that systemd passes; may be repeated
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080",
          value_parser = values::listen)]
    listen: Vec<Listen>,
    /// Speak TLS with the certificate of this PEM file, which has its chain too
    #[arg(long, value_name = "FILE", requires = "tls_key", group = "tls")]
    tls_cert: Option<PathBuf>,
    /// The PEM file of the certificate's key
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Speak TLS with a certificate of an authority that the server makes, in the folder tls of the data folder
    #[arg(long, group = "tls")]
    tls_self_signed: bool,
    /// Take certificates of clients that the authorities of this PEM file have signed
    #[arg(long, value_name = "FILE", requires = "tls")]
    tls_client_ca: Option<PathBuf>,
    /// The kind of name in a client's certificate that is its subject
    #[arg(
        long,
        value_name = "KIND",
        default_value = "uri",
        requires = "tls_client_ca"
    )]
    tls_client_subject: SubjectKind,
    /// How often the files of certificates are read again
    #[arg(long, value_name = "DURATION", default_value = "5s",
          value_parser = values::positive_duration)]
    tls_reload_interval: Duration,
    /// Believe the forwarding headers of this proxy, an address or a network such as 10.0.0.0/24, or unix for
    /// whoever connects to the Unix socket; may be repeated
    #[arg(long, value_name = "CIDR")]
    trusted_proxy: Vec<TrustedProxy>,
    /// A name by which clients ask for this server, without a port; may be repeated
    #[arg(long, value_name = "NAME")]
    allow_host: Vec<AllowedHost>,
    /// How many connections there may be at a time
    #[arg(long, value_name = "COUNT", default_value_t = 20_000,
          value_parser = clap::value_parser!(u32).range(1..))]
    max_connections: u32,
    /// Callers must say who they are
    #[arg(long, conflicts_with = "insecure_allow_anonymous")]
    require_auth: bool,
    /// Serve other machines without TLS: tokens and images travel unencrypted
    #[arg(long)]
    insecure_plaintext: bool,
    /// Serve other machines without asking who calls: whoever reaches the server may do everything
    #[arg(long)]
    insecure_allow_anonymous: bool,
}

impl NetworkArguments {
    pub(crate) fn apply(self, config: &mut Config) {
        config.listen = self.listen;
        config.trusted_proxies = self.trusted_proxy;
        config.allow_hosts = self.allow_host;
        config.transfers.connections = usize::try_from(self.max_connections).unwrap_or(usize::MAX);
        config.require_auth = self.require_auth;
        config.insecure_plaintext = self.insecure_plaintext;
        config.insecure_allow_anonymous = self.insecure_allow_anonymous;
        let certificate = match (self.tls_cert, self.tls_key) {
            (Some(certificate), Some(key)) => Some(Certificate::Files { certificate, key }),
            _ => self.tls_self_signed.then_some(Certificate::SelfSigned),
        };
        let subject = self.tls_client_subject;
        config.tls = certificate.map(|certificate| TlsSettings {
            clients: self.tls_client_ca.map(|authorities| ClientCertificates {
                authorities,
                subject,
            }),
            look_interval: self.tls_reload_interval,
            ..TlsSettings::new(certificate)
        });
    }
}
