//! The subject of a client's certificate: a name of one kind, which must be its only one of that kind.

use std::fmt;
use std::sync::Arc;

use tokio_rustls::rustls::pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// The longest name that is a subject.
const LONGEST: usize = 255;

/// The kind of subject alternative name that says who a client is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum SubjectKind {
    /// A uniform resource identifier, as SPIFFE has it
    Uri,
    /// A name of the domain name system
    Dns,
}

/// Why a certificate names no subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum NoSubject {
    #[error("it cannot be read")]
    Unreadable,
    #[error("it has no subject alternative name of the kind")]
    None,
    #[error("it has several subject alternative names of the kind")]
    Several,
    #[error("its subject alternative name is too long, or has spaces or control characters")]
    Unfit,
}

impl fmt::Display for SubjectKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Uri => "uri",
            Self::Dns => "dns",
        })
    }
}

/// The subject that a certificate names.
pub(super) fn of(
    certificate: &CertificateDer<'_>,
    kind: SubjectKind,
) -> Result<Arc<str>, NoSubject> {
    let (_, certificate) =
        X509Certificate::from_der(certificate).map_err(|_| NoSubject::Unreadable)?;
    let names = certificate.subject_alternative_name();
    let names = names.map_err(|_| NoSubject::Unreadable)?;
    let names = names.map_or(&[][..], |names| &names.value.general_names);
    let mut of_kind = names.iter().filter_map(|name| match (kind, name) {
        (SubjectKind::Uri, GeneralName::URI(uri)) => Some((*uri).to_owned()),
        (SubjectKind::Dns, GeneralName::DNSName(name)) => Some(name.to_ascii_lowercase()),
        _ => None,
    });
    let name = of_kind.next().ok_or(NoSubject::None)?;
    if of_kind.next().is_some() {
        return Err(NoSubject::Several);
    }
    let is_fit =
        (1..=LONGEST).contains(&name.len()) && name.bytes().all(|it| it.is_ascii_graphic());
    if !is_fit {
        return Err(NoSubject::Unfit);
    }
    Ok(name.into())
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, SanType};

    use super::*;

    #[test]
    fn a_subject_is_the_only_name_of_its_kind() {
        let dns = |name: &str| SanType::DnsName(name.try_into().unwrap());
        let uri = |name: &str| SanType::URI(name.try_into().unwrap());
        let key = KeyPair::generate().unwrap();
        for (names, by_uri, by_dns) in [
            (vec![], Err(NoSubject::None), Err(NoSubject::None)),
            (
                vec![uri("spiffe://a.example/Host"), dns("Host.a.example")],
                Ok("spiffe://a.example/Host"),
                Ok("host.a.example"),
            ),
            (
                vec![dns("a"), dns("b")],
                Err(NoSubject::None),
                Err(NoSubject::Several),
            ),
            (
                vec![uri("a:1"), uri("a:2")],
                Err(NoSubject::Several),
                Err(NoSubject::None),
            ),
            (
                vec![uri("a: b")],
                Err(NoSubject::Unfit),
                Err(NoSubject::None),
            ),
            (
                vec![uri(&format!("a:{}", "b".repeat(LONGEST)))],
                Err(NoSubject::Unfit),
                Err(NoSubject::None),
            ),
        ] {
            let mut params = CertificateParams::default();
            params.subject_alt_names = names.clone();
            let certificate = params.self_signed(&key).unwrap();
            for (kind, expected) in [(SubjectKind::Uri, by_uri), (SubjectKind::Dns, by_dns)] {
                let found = of(certificate.der(), kind);
                assert_eq!(
                    found.as_deref().map_err(|error| *error),
                    expected,
                    "{names:?}"
                );
            }
        }
        let nonsense = CertificateDer::from(vec![1, 2, 3]);
        assert_eq!(of(&nonsense, SubjectKind::Uri), Err(NoSubject::Unreadable));
    }
}
