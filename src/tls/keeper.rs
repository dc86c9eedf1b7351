//! Keeps the configuration of a server at what its files hold.

use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use super::acceptor::Acceptor;
use super::pair::{Error, Files};
use super::self_signed::{Folder, Made, Names};
use super::{Certificate, TlsSettings};

/// Reads the files of a server's TLS again and again. What does not fit is told, and the pair before it serves on.
pub(crate) struct Keeper {
    acceptor: Arc<Acceptor>,
    files: Files,
    own: Option<Own>,
    /// The digest of the bytes that are in force.
    seen: [u8; 32],
    /// The words of the last failure, which are not said again.
    told: Option<String>,
}

/// Certificates that the server makes.
struct Own {
    folder: Folder,
    names: Names,
}

impl Keeper {
    /// Reads the files, and makes certificates in `folder` where the server is to have its own, with `names`. Blocks.
    pub(crate) fn start(
        settings: &TlsSettings,
        folder: &Path,
        names: Names,
        now: SystemTime,
    ) -> Result<Self, Error> {
        let authorities = settings.clients.as_ref().map(|it| it.authorities.clone());
        let (files, own) = match &settings.certificate {
            Certificate::Files { certificate, key } => (
                Files {
                    certificate: certificate.clone(),
                    key: key.clone(),
                    authorities,
                },
                None,
            ),
            Certificate::SelfSigned => {
                let own = Own {
                    folder: Folder::new(folder.to_owned()),
                    names,
                };
                own.renew(now)?;
                tell_trust(&own.folder.authority());
                (own.folder.files(authorities), Some(own))
            }
        };
        let read = files.read()?;
        let subject = settings.clients.as_ref().map(|it| it.subject);
        let config = files.configure(&read)?;
        Ok(Self {
            acceptor: Acceptor::new(config, subject, settings.handshake),
            files,
            own,
            seen: read.digest(),
            told: None,
        })
    }

    pub(crate) fn acceptor(&self) -> Arc<Acceptor> {
        Arc::clone(&self.acceptor)
    }

    /// Looks at the files, and takes what is new. Blocks.
    pub(crate) fn look(&mut self, now: SystemTime) {
        match self.try_look(now) {
            Ok(()) => self.told = None,
            Err(error) => {
                let words = error.to_string();
                if self.told.as_ref() != Some(&words) {
                    tracing::warn!(
                        %error,
                        "the certificate of TLS is not replaced; the one before serves on"
                    );
                    self.told = Some(words);
                }
            }
        }
    }

    fn try_look(&mut self, now: SystemTime) -> Result<(), Error> {
        if let Some(own) = &self.own {
            own.renew(now)?;
        }
        let read = self.files.read()?;
        let digest = read.digest();
        if digest == self.seen {
            return Ok(());
        }
        let config = self.files.configure(&read)?;
        self.seen = digest;
        self.acceptor.replace(config);
        tracing::info!(certificate = %self.files.certificate.display(), "a new certificate of TLS serves");
        Ok(())
    }
}

impl Own {
    fn renew(&self, now: SystemTime) -> Result<(), Error> {
        let authority = self.folder.authority();
        match self.folder.renew(&self.names, now)? {
            Made::Nothing => {}
            Made::Certificate => tracing::info!("a certificate of TLS is made"),
            Made::Authority => tracing::warn!(
                ca = %authority.display(),
                "a certificate authority is made: clients must trust it before they can connect"
            ),
        }
        Ok(())
    }
}

/// Says how each kind of client comes to trust the authority.
fn tell_trust(authority: &Path) {
    let ca = authority.display();
    for (client, how) in [
        (
            "desktop-images",
            format!("--ca-file {ca}, or DESKTOP_IMAGES_CA_FILE={ca}"),
        ),
        ("curl", format!("--cacert {ca}")),
        ("grpcurl", format!("-cacert {ca}")),
        (
            "Python",
            format!(
                "SDK(root_certificates=open('{ca}','rb').read()), or verify='{ca}' in requests"
            ),
        ),
        ("Go", format!("SSL_CERT_FILE={ca}")),
        ("Node", format!("NODE_EXTRA_CA_CERTS={ca}")),
        (
            "Java",
            format!(
                "keytool -importcert -noprompt -file {ca} -keystore trust.p12 -storepass changeit -alias desktop-images, then -Djavax.net.ssl.trustStore=trust.p12"
            ),
        ),
        (
            "browsers",
            format!("import {ca} as an authority in their settings"),
        ),
    ] {
        tracing::info!(client, how, "how clients trust this server");
    }
}
