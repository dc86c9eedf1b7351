//! Certificates that the server makes itself: a CA, which clients trust, and a certificate of that CA, which is renewed.
//!
//! The CA may sign for the names that the server has when the CA is made, and for no others: whoever steals its key
//! cannot speak for other servers. Where the server is told names that the CA does not cover, a new CA is made.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    NameConstraints, SanType,
};
use tokio_rustls::rustls::pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::pair::{self, Error, Files};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const CA_LIFE: Duration = Duration::from_secs(3650 * 24 * 60 * 60);
const LIFE: Duration = Duration::from_secs(90 * 24 * 60 * 60);
/// The part of its life at the end of which a certificate is renewed.
const RENEW: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// Clocks of clients may be behind by that much.
const SKEW: Duration = Duration::from_secs(60 * 60);

const FOLDER_MODE: u32 = 0o700;
const KEY_MODE: u32 = 0o600;
const CERTIFICATE_MODE: u32 = 0o644;

/// The names of a server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Names {
    domains: BTreeSet<String>,
    addresses: BTreeSet<IpAddr>,
    /// The name of the machine, which may be another tomorrow.
    machine: Option<String>,
}

impl Names {
    /// The names of every server: those of loopback, and of the machine.
    pub(crate) fn of_this_machine() -> Self {
        let mut names = Self::default();
        names.add("localhost");
        names.add(&Ipv4Addr::LOCALHOST.to_string());
        names.add(&Ipv6Addr::LOCALHOST.to_string());
        let machine = rustix::system::uname();
        let machine = machine.nodename().to_string_lossy().to_ascii_lowercase();
        names.machine = Some(machine).filter(|name| is_domain(name));
        names
    }

    /// Adds a domain or an address. What is neither, as the address of all addresses, is no name.
    pub(crate) fn add(&mut self, name: &str) {
        let name = name.trim_start_matches('[').trim_end_matches(']');
        match name.parse::<IpAddr>() {
            Ok(address) if address.is_unspecified() => {}
            Ok(address) => drop(self.addresses.insert(address.to_canonical())),
            Err(_) => {
                let name = name.to_ascii_lowercase();
                if is_domain(&name) {
                    self.domains.insert(name);
                }
            }
        }
    }

    /// The names with that of the machine.
    fn all(&self) -> Self {
        let mut all = self.clone();
        all.domains.extend(all.machine.take());
        all
    }

    /// The names without that of the machine.
    fn told(&self) -> Self {
        Self {
            machine: None,
            ..self.clone()
        }
    }

    fn alternative_names(&self) -> Result<Vec<SanType>, Error> {
        let domains = self.domains.iter().map(|name| {
            let name = name.as_str().try_into();
            name.map(SanType::DnsName)
        });
        let addresses = self.addresses.iter().map(|it| Ok(SanType::IpAddress(*it)));
        Ok(domains
            .chain(addresses)
            .collect::<Result<_, rcgen::Error>>()?)
    }

    /// The constraints of a CA that signs for these names alone.
    fn constraints(&self) -> NameConstraints {
        let domains = self.domains.iter().cloned().map(GeneralSubtree::DnsName);
        let addresses = self.addresses.iter().map(|address| {
            let bits = if address.is_ipv4() { 32 } else { 128 };
            GeneralSubtree::IpAddress(CidrSubnet::from_addr_prefix(*address, bits))
        });
        NameConstraints {
            permitted_subtrees: domains.chain(addresses).collect(),
            excluded_subtrees: Vec::new(),
        }
    }

    fn is_subset(&self, other: &Self) -> bool {
        self.domains.is_subset(&other.domains) && self.addresses.is_subset(&other.addresses)
    }
}

/// Whether a text is a name that may stand in a certificate.
fn is_domain(name: &str) -> bool {
    let is_label = |label: &str| {
        let inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        (1..=63).contains(&label.len())
            && label.bytes().all(inner)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    name.len() <= 253 && name.split('.').all(is_label)
}

/// The files of the CA and of the certificate that it signs.
#[derive(Debug, Clone)]
pub(super) struct Folder {
    path: PathBuf,
}

/// The changes that [`Folder::renew`] made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Made {
    Nothing,
    Certificate,
    /// A CA, and a certificate of it.
    Authority,
}

impl Folder {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// The certificate of the CA, for clients.
    pub(super) fn authority(&self) -> PathBuf {
        self.path.join("ca.pem")
    }

    fn authority_key(&self) -> PathBuf {
        self.path.join("ca-key.pem")
    }

    /// The files to serve with.
    pub(super) fn files(&self, authorities: Option<PathBuf>) -> Files {
        Files {
            certificate: self.path.join("server.pem"),
            key: self.path.join("server-key.pem"),
            authorities,
        }
    }

    /// Makes what is missing, and anew what does not fit the names or is about to expire.
    pub(super) fn renew(&self, names: &Names, now: SystemTime) -> Result<Made, Error> {
        let failed = |source| Error::File {
            path: self.path.clone(),
            source,
        };
        create_folder(&self.path).map_err(failed)?;
        for key in [self.authority_key(), self.files(None).key] {
            restrict(&key).map_err(failed)?;
        }
        let authority = Known::read(&self.authority());
        let authority = authority.filter(|known| {
            let key = fs::read_to_string(self.authority_key()).ok();
            let key = key.and_then(|key| KeyPair::from_pem(&key).ok());
            key.is_some_and(|key| key.public_key_raw() == known.public_key)
                && known.lives_at(now + LIFE)
                && names.is_subset(&known.constraints)
        });
        let (names, made) = match authority {
            // The machine's name is served where the CA covers it.
            Some(known) if names.all().is_subset(&known.constraints) => {
                (names.all(), Made::Nothing)
            }
            Some(_) => (names.told(), Made::Nothing),
            None => {
                self.make_authority(&names.all(), now)?;
                (names.all(), Made::Authority)
            }
        };
        let files = self.files(None);
        let is_good = Known::read(&files.certificate).is_some_and(|known| {
            known.lives_at(now + RENEW)
                && known.names == names
                && files
                    .read()
                    .is_ok_and(|read| files.configure(&read).is_ok())
        });
        if made == Made::Nothing && is_good {
            return Ok(Made::Nothing);
        }
        self.make_certificate(&names, &files, now)?;
        Ok(match made {
            Made::Nothing => Made::Certificate,
            made => made,
        })
    }

    fn make_authority(&self, names: &Names, now: SystemTime) -> Result<(), Error> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.not_before = (now - SKEW).into();
        params.not_after = (now + CA_LIFE).into();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.name_constraints = Some(names.constraints());
        let machine = names.domains.iter().find(|name| *name != "localhost");
        let machine = machine.map_or("localhost", String::as_str);
        let day = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() / DAY.as_secs();
        // Two CAs of one server have different names: clients that know both then find the right one.
        params.distinguished_name = named(&format!("desktop-images CA of {machine} ({day})"));
        let certificate = params.self_signed(&key)?;
        write(&self.authority_key(), &key.serialize_pem(), KEY_MODE)?;
        write(&self.authority(), &certificate.pem(), CERTIFICATE_MODE)
    }

    fn make_certificate(&self, names: &Names, files: &Files, now: SystemTime) -> Result<(), Error> {
        let key = pair::read(&self.authority_key())?;
        let authority_key = KeyPair::from_pem(&String::from_utf8_lossy(&key))?;
        let authority = pair::read(&self.authority())?;
        let issuer = Issuer::from_ca_cert_pem(&String::from_utf8_lossy(&authority), authority_key)?;
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.not_before = (now - SKEW).into();
        params.not_after = (now + LIFE).into();
        params.subject_alt_names = names.alternative_names()?;
        params.distinguished_name = named("desktop-images server");
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&key, &issuer)?;
        // The key first: a look between the two finds a pair that does not fit, and keeps what it has.
        write(&files.key, &key.serialize_pem(), KEY_MODE)?;
        write(&files.certificate, &certificate.pem(), CERTIFICATE_MODE)
    }
}

fn named(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

/// The contents of a certificate on the disk.
struct Known {
    expires: SystemTime,
    public_key: Vec<u8>,
    names: Names,
    constraints: Names,
}

impl Known {
    /// The certificate of a file, where there is a good one.
    fn read(path: &Path) -> Option<Self> {
        let pem = pair::read(path).ok()?;
        let certificates = pair::certificates(path, &pem).ok()?;
        Self::parse(certificates.first()?)
    }

    fn parse(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
        let expires = u64::try_from(certificate.validity().not_after.timestamp()).ok()?;
        let names = certificate.subject_alternative_name().ok()?;
        let constraints = certificate.name_constraints().ok()?;
        let permitted = constraints.and_then(|it| it.value.permitted_subtrees.as_ref());
        Some(Self {
            expires: UNIX_EPOCH + Duration::from_secs(expires),
            public_key: certificate.public_key().subject_public_key.data.to_vec(),
            names: read_names(names.iter().flat_map(|it| &it.value.general_names)),
            constraints: read_names(permitted.into_iter().flatten().map(|it| &it.base)),
        })
    }

    fn lives_at(&self, time: SystemTime) -> bool {
        time < self.expires
    }
}

fn read_names<'n>(names: impl Iterator<Item = &'n GeneralName<'n>>) -> Names {
    let mut read = Names::default();
    for name in names {
        match name {
            GeneralName::DNSName(name) => read.add(name),
            // In a constraint a mask stands behind the address.
            GeneralName::IPAddress(bytes) => {
                let four = bytes.get(..4).and_then(|it| <[u8; 4]>::try_from(it).ok());
                let sixteen = bytes.get(..16).and_then(|it| <[u8; 16]>::try_from(it).ok());
                let address = match bytes.len() {
                    4 | 8 => four.map(IpAddr::from),
                    _ => sixteen.map(IpAddr::from),
                };
                read.addresses.extend(address);
            }
            _ => {}
        }
    }
    read
}

fn create_folder(path: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(FOLDER_MODE).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// Takes from others what they may do with a key, as after a backup was put back.
fn restrict(key: &Path) -> io::Result<()> {
    match fs::symlink_metadata(key) {
        Ok(found) if found.is_file() && found.permissions().mode() & 0o077 != 0 => {
            fs::set_permissions(key, Permissions::from_mode(KEY_MODE))
        }
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Writes a file as a whole: whoever reads it finds the old bytes or the new ones.
fn write(path: &Path, text: &str, mode: u32) -> Result<(), Error> {
    let new = path.with_extension("new");
    let write = || {
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = File::options()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&new)?;
        // The mask of the process may have taken more away.
        file.set_permissions(Permissions::from_mode(mode))?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, path)
    };
    write().map_err(|source| Error::File {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(all: &[&str], machine: Option<&str>) -> Names {
        let mut names = Names {
            machine: machine.map(str::to_owned),
            ..Names::default()
        };
        for name in all {
            names.add(name);
        }
        names
    }

    fn of(folder: &Folder) -> (Known, Known) {
        let known = |path: &Path| Known::read(path).expect("a certificate");
        (
            known(&folder.authority()),
            known(&folder.files(None).certificate),
        )
    }

    #[test]
    fn certificates_are_made_once_and_renewed_at_two_thirds_of_their_life() {
        let temporary = tempfile::tempdir().unwrap();
        let folder = Folder::new(temporary.path().join("tls"));
        let names = names(&["localhost", "127.0.0.1", "::1"], Some("host"));
        let now = SystemTime::now();
        assert_eq!(folder.renew(&names, now).unwrap(), Made::Authority);
        let (authority, first) = of(&folder);
        assert_eq!(first.names, names.all());
        assert_eq!(authority.constraints, names.all());
        let life = first.expires.duration_since(now).unwrap();
        assert!(life <= LIFE && life > LIFE - DAY, "{life:?}");
        for (days, made) in [
            (1, Made::Nothing),
            (59, Made::Nothing),
            (61, Made::Certificate),
            (62, Made::Nothing),
            (122, Made::Certificate),
        ] {
            assert_eq!(
                folder.renew(&names, now + days * DAY).unwrap(),
                made,
                "day {days}"
            );
        }
        let (same, second) = of(&folder);
        assert_eq!(same.public_key, authority.public_key);
        assert_ne!(second.public_key, first.public_key);
        let end = now + CA_LIFE - 80 * DAY;
        assert_eq!(folder.renew(&names, end).unwrap(), Made::Authority);
    }

    #[test]
    fn names_that_the_authority_does_not_cover_need_a_new_one() {
        let temporary = tempfile::tempdir().unwrap();
        let folder = Folder::new(temporary.path().join("tls"));
        let now = SystemTime::now();
        let first = names(&["localhost", "192.0.2.1"], Some("one"));
        assert_eq!(folder.renew(&first, now).unwrap(), Made::Authority);
        // A machine that is called otherwise is served without its name.
        let renamed = names(&["localhost", "192.0.2.1"], Some("two"));
        assert_eq!(folder.renew(&renamed, now).unwrap(), Made::Certificate);
        assert_eq!(folder.renew(&renamed, now).unwrap(), Made::Nothing);
        assert_eq!(
            of(&folder).1.names,
            names(&["localhost", "192.0.2.1"], None)
        );
        // Fewer names.
        let fewer = names(&["localhost"], None);
        assert_eq!(folder.renew(&fewer, now).unwrap(), Made::Certificate);
        let told = names(&["localhost", "images.example"], Some("two"));
        assert_eq!(folder.renew(&told, now).unwrap(), Made::Authority);
        assert_eq!(of(&folder).1.names, told.all());
    }

    #[test]
    fn what_is_damaged_is_made_anew() {
        let temporary = tempfile::tempdir().unwrap();
        let folder = Folder::new(temporary.path().join("tls"));
        let (names, now) = (names(&["localhost"], None), SystemTime::now());
        folder.renew(&names, now).unwrap();
        let files = folder.files(None);
        for (path, made) in [
            (files.certificate, Made::Certificate),
            (files.key, Made::Certificate),
            (folder.authority(), Made::Authority),
            (folder.authority_key(), Made::Authority),
        ] {
            fs::write(&path, "nonsense").unwrap();
            assert_eq!(
                folder.renew(&names, now).unwrap(),
                made,
                "{}",
                path.display()
            );
            assert_eq!(folder.renew(&names, now).unwrap(), Made::Nothing);
        }
    }

    #[test]
    fn keys_are_for_the_servers_user_alone() {
        let temporary = tempfile::tempdir().unwrap();
        let folder = Folder::new(temporary.path().join("tls"));
        let (names, now) = (names(&["localhost"], None), SystemTime::now());
        folder.renew(&names, now).unwrap();
        let keys = [folder.authority_key(), folder.files(None).key];
        for key in &keys {
            fs::set_permissions(key, Permissions::from_mode(0o644)).unwrap();
        }
        assert_eq!(folder.renew(&names, now).unwrap(), Made::Nothing);
        for key in &keys {
            let mode = fs::metadata(key).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, KEY_MODE);
        }
    }

    #[test]
    fn a_name_is_a_domain_or_an_address() {
        let found = names(
            &[
                "Images.Example",
                "10.0.0.1",
                "[2001:db8::1]",
                "0.0.0.0",
                "::",
                "a b",
                "",
                "-a",
                "*.a",
                "::ffff:10.0.0.2",
            ],
            Some("m"),
        );
        let domains: Vec<_> = found.domains.iter().map(String::as_str).collect();
        assert_eq!(domains, ["images.example"]);
        let addresses: Vec<_> = found.addresses.iter().map(IpAddr::to_string).collect();
        assert_eq!(addresses, ["10.0.0.1", "10.0.0.2", "2001:db8::1"]);
    }
}
