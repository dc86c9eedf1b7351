//! TLS: what it speaks and refuses, and how certificates come, change and are renewed.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use desktop_images::app::{Certificate, Error, Listen, Server, TlsSettings};
use test_support::{
    Authority, Clients, Disk, Fill, ServerProcess, Signed, TestServer, eventually, has_tool, within,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;

const QUOTAS: &str = "/desktop-images/v1/quotas";
/// How often servers of these tests look at their files.
const OFTEN: Duration = Duration::from_millis(20);

/// TLS with the certificate of a folder.
fn settings(signed: &Signed, folder: &Path) -> TlsSettings {
    let (certificate, key) = signed.files(folder);
    TlsSettings {
        look_interval: OFTEN,
        ..TlsSettings::new(Certificate::Files { certificate, key })
    }
}

/// A client that trusts an authority alone.
fn trusting(authority: &Authority) -> reqwest::ClientBuilder {
    let root = reqwest::Certificate::from_pem(authority.pem().as_bytes()).expect("PEM");
    let client = reqwest::Client::builder().no_proxy();
    client.tls_certs_only([root])
}

fn url(server: &Clients, path: &str) -> String {
    format!("https://127.0.0.1:{}{path}", server.address.port())
}

async fn output(tool: &str, arguments: &[&str]) -> Output {
    let ended = Command::new(tool)
        .args(arguments)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    within("the tool ends", ended).await.expect(tool)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[tokio::test]
async fn tls_carries_both_versions_of_http_and_whole_images() {
    let (authority, folder) = (Authority::new("a"), tempfile::tempdir().unwrap());
    let tls = settings(&authority.server(), folder.path());
    let server = TestServer::start_with(|config| config.tls = Some(tls)).await;
    let disk = Disk::mbr(20, Fill::Random(1));
    for (http1, version) in [
        (true, http::Version::HTTP_11),
        (false, http::Version::HTTP_2),
    ] {
        let client = trusting(&authority);
        let client = if http1 { client.http1_only() } else { client };
        let client = client.build().unwrap();
        let path = format!(
            "/compute/v1/images:upload?folderId=f&name=n{}",
            u8::from(http1)
        );
        let reply = client.post(url(&server, &path)).body(disk.to_vec()).send();
        let reply = within("a reply", reply).await.unwrap();
        assert_eq!((reply.status().as_u16(), reply.version()), (200, version));
        let operation: serde_json::Value =
            serde_json::from_slice(&reply.bytes().await.unwrap()).unwrap();
        test_support::response(&operation);
        let copy = format!(
            "{{\"folderId\": \"f\", \"name\": \"c{}\", \"imageId\": \"{}\"}}",
            u8::from(http1),
            test_support::image_id(&operation)
        );
        let request = client
            .post(url(&server, "/cloud-desktop/v1/images:copy"))
            .body(copy);
        let reply = request.send().await.unwrap().bytes().await.unwrap();
        let operation: serde_json::Value = serde_json::from_slice(&reply).unwrap();
        let path = format!(
            "/cloud-desktop/v1/images/{}:download",
            test_support::image_id(&operation)
        );
        let reply = client.get(url(&server, &path)).send().await.unwrap();
        assert!(reply.bytes().await.unwrap() == disk[..], "{version:?}");
    }
}

#[tokio::test]
async fn old_versions_of_tls_are_refused() {
    if !has_tool("old_versions_of_tls_are_refused", "openssl") {
        return;
    }
    let (authority, folder) = (Authority::new("a"), tempfile::tempdir().unwrap());
    let root = authority.file(folder.path());
    let tls = settings(&authority.server(), folder.path());
    let server = TestServer::start_with(|config| config.tls = Some(tls)).await;
    let address = server.address.to_string();
    for (version, accepted) in [
        ("-tls1", false),
        ("-tls1_1", false),
        ("-tls1_2", true),
        ("-tls1_3", true),
    ] {
        // The client's own level of security would keep it from trying.
        let mut arguments = vec![
            "s_client",
            "-connect",
            &address,
            version,
            "-cipher",
            "ALL:@SECLEVEL=0",
        ];
        arguments.extend(["-alpn", "h2,http/1.1", "-verify_return_error", "-CAfile"]);
        arguments.push(root.to_str().unwrap());
        let tried = output("openssl", &arguments).await;
        assert_eq!(
            tried.status.success(),
            accepted,
            "{version}: {}",
            text(&tried.stderr)
        );
        if accepted {
            let said = text(&tried.stdout);
            assert!(said.contains("ALPN protocol: h2"), "{version}: {said}");
        } else {
            let said = text(&tried.stderr);
            assert!(said.contains("alert"), "{version}: {said}");
        }
    }
}

#[tokio::test]
async fn a_certificate_is_swapped_under_load_without_a_failed_request() {
    let (authority, folder) = (Authority::new("a"), tempfile::tempdir().unwrap());
    let first = authority.server();
    let tls = settings(&first, folder.path());
    let server = TestServer::start_with(|config| config.tls = Some(tls)).await;
    let stop = Arc::new(AtomicBool::new(false));
    let load = (0..4).map(|_| {
        let (stop, url) = (stop.clone(), url(&server, QUOTAS));
        // A connection for each request.
        let client = trusting(&authority)
            .pool_max_idle_per_host(0)
            .build()
            .unwrap();
        tokio::spawn(async move {
            let mut asked = 0;
            while !stop.load(Ordering::Relaxed) {
                let reply = client.get(&url).send().await;
                assert_eq!(reply.expect("no failed request").status(), 200);
                asked += 1;
            }
            asked
        })
    });
    let load: Vec<_> = load.collect();
    for _ in 0..5 {
        let next = authority.server();
        next.files(folder.path());
        serves(&server, &next).await;
    }
    stop.store(true, Ordering::Relaxed);
    for task in load {
        assert!(task.await.expect("no failed request") > 5);
    }
}

/// Waits until the log of a server in this folder has these words.
async fn logged(folder: &Path, words: &str) {
    eventually(words, || async {
        let log = std::fs::read_to_string(folder.join("server.log")).unwrap();
        log.contains(words).then_some(())
    })
    .await;
}

/// Waits until a server shows a certificate.
async fn serves(server: &Clients, signed: &Signed) {
    eventually("the certificate is served", || async {
        (shown(server).await == der(signed)).then_some(())
    })
    .await;
}

fn der(signed: &Signed) -> Vec<u8> {
    use rustls_pki_types::pem::PemObject;
    let certificate =
        rustls_pki_types::CertificateDer::from_pem_slice(signed.certificate.as_bytes());
    certificate.expect("PEM").to_vec()
}

/// The certificate that a server shows.
async fn shown(server: &Clients) -> Vec<u8> {
    let client = reqwest::Client::builder()
        .no_proxy()
        .tls_danger_accept_invalid_certs(true)
        .tls_info(true);
    let reply = client.build().unwrap().get(url(server, QUOTAS)).send();
    let reply = within("a reply", reply).await.unwrap();
    let info = reply.extensions().get::<reqwest::tls::TlsInfo>().unwrap();
    info.peer_certificate().expect("a certificate").to_vec()
}

#[tokio::test]
async fn a_certificate_that_does_not_fit_is_told_and_the_one_before_serves_on() {
    let (authority, folder) = (Authority::new("a"), tempfile::tempdir().unwrap());
    let first = authority.server();
    let (certificate, key) = first.files(folder.path());
    let arguments = [
        "--tls-cert",
        certificate.to_str().unwrap(),
        "--tls-key",
        key.to_str().unwrap(),
        "--tls-reload-interval",
        "20ms",
    ];
    let server = ServerProcess::start_with(folder.path(), &arguments).await;
    let log = || std::fs::read_to_string(folder.path().join("server.log")).unwrap();
    let complaints = || log().matches("is not replaced").count();
    serves(&server, &first).await;
    let other = authority.server();
    let mut expected = 0;
    for (path, text, words) in [
        (
            &certificate,
            other.certificate.as_str(),
            "do not fit together",
        ),
        (&key, "nonsense", "key.pem"),
        (&certificate, "", "has no certificate"),
    ] {
        std::fs::write(path, text).unwrap();
        expected += 1;
        eventually("it is told", || async {
            (complaints() == expected).then_some(())
        })
        .await;
        assert!(
            log().lines().last().unwrap().contains(words),
            "{words}: {}",
            log()
        );
        assert!(shown(&server).await == der(&first), "{words}");
    }
    std::fs::remove_file(&key).unwrap();
    eventually("it is told", || async {
        (complaints() == expected + 1).then_some(())
    })
    .await;
    other.files(folder.path());
    serves(&server, &other).await;
    logged(folder.path(), "a new certificate of TLS serves").await;
    assert!(!log().contains("PRIVATE KEY"), "{}", log());
}

#[tokio::test]
async fn a_pair_that_does_not_fit_is_refused_at_the_start() {
    let (authority, folder) = (Authority::new("a"), tempfile::tempdir().unwrap());
    let tls = settings(&authority.server(), folder.path());
    let server = TestServer::start().await;
    for (file, text) in [
        ("cert.pem", authority.server().certificate),
        ("key.pem", String::new()),
    ] {
        std::fs::write(folder.path().join(file), text).unwrap();
        let mut config = server.config();
        config.data = desktop_images::app::Data::Ephemeral;
        config.tls = Some(tls.clone());
        let refusal = Server::start(config).await.err().expect("a refusal");
        assert!(matches!(refusal, Error::Tls(_)), "{refusal}");
        assert!(refusal.to_string().contains(file), "{refusal}");
    }
}

#[tokio::test]
async fn a_silent_client_holds_no_other_and_is_cut_off() {
    let (authority, folder) = (Authority::new("a"), tempfile::tempdir().unwrap());
    let mut tls = settings(&authority.server(), folder.path());
    tls.handshake = Duration::from_secs(2);
    let server = TestServer::start_with(|config| config.tls = Some(tls)).await;
    let mut silent = Vec::new();
    for number in 0..50 {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        if number % 2 == 1 {
            // The beginning of a handshake.
            stream.write_all(&[22, 3, 1, 2, 0, 1]).await.unwrap();
        }
        silent.push(stream);
    }
    let begun = Instant::now();
    let client = trusting(&authority).build().unwrap();
    let reply = client.get(url(&server, QUOTAS)).send().await.unwrap();
    assert_eq!(reply.status(), 200);
    assert!(
        begun.elapsed() < Duration::from_secs(2),
        "{:?}",
        begun.elapsed()
    );
    for mut stream in silent {
        let mut rest = Vec::new();
        let read = within("the server closes it", stream.read_to_end(&mut rest)).await;
        assert!(
            read.is_err() || rest.is_empty() || rest[0] == 21,
            "{rest:?}"
        );
    }
}

#[tokio::test]
async fn a_client_at_the_wrong_kind_of_port_is_told_as_is_the_log() {
    let (authority, folder) = (Authority::new("a"), tempfile::tempdir().unwrap());
    let (certificate, key) = authority.server().files(folder.path());
    let arguments = [
        "--tls-cert",
        certificate.to_str().unwrap(),
        "--tls-key",
        key.to_str().unwrap(),
    ];
    let server = ServerProcess::start_with(folder.path(), &arguments).await;
    let log = || std::fs::read_to_string(folder.path().join("server.log")).unwrap();
    let plain = reqwest::Client::builder().no_proxy().build().unwrap();
    let reply = plain.get(server.url(QUOTAS)).send().await.unwrap();
    assert_eq!(reply.status(), 400);
    let said = reply.text().await.unwrap();
    assert!(said.contains("https"), "{said}");
    // Many of them are few lines.
    for _ in 0..20 {
        plain.get(server.url(QUOTAS)).send().await.unwrap();
    }
    let lines = || log().matches("without TLS to a port of TLS").count();
    eventually("the log tells", || async { (lines() > 0).then_some(()) }).await;
    assert!(lines() <= 5, "{}", log());

    let folder = tempfile::tempdir().unwrap();
    let server = ServerProcess::start(folder.path()).await;
    let refused = trusting(&authority)
        .build()
        .unwrap()
        .get(url(&server, QUOTAS))
        .send();
    within("a failure", refused)
        .await
        .expect_err("no TLS there");
    logged(folder.path(), "speaks TLS to a port without TLS").await;
}

#[tokio::test]
async fn self_signed_certificates_are_private_named_and_trusted_by_their_authority() {
    let test = "self_signed_certificates_are_private_named_and_trusted_by_their_authority";
    if !has_tool(test, "openssl") || !has_tool(test, "curl") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("server.sock");
    let server = TestServer::start_with(|config| {
        config.tls = Some(TlsSettings::new(Certificate::SelfSigned));
        config.listen.push(Listen::Unix(socket.clone()));
    })
    .await;
    let tls = server.data().join("tls");
    let mode = |name: &str| {
        let found = std::fs::metadata(tls.join(name)).unwrap();
        found.permissions().mode() & 0o777
    };
    let modes = ["", "ca-key.pem", "server-key.pem", "ca.pem", "server.pem"].map(mode);
    assert_eq!(modes, [0o700, 0o600, 0o600, 0o644, 0o644], "{modes:?}");
    let path = |name: &str| tls.join(name).to_str().unwrap().to_owned();
    let (ca, certificate) = (path("ca.pem"), path("server.pem"));
    let shown = output("openssl", &["x509", "-in", &certificate, "-noout", "-text"]).await;
    let shown = text(&shown.stdout);
    for words in [
        "DNS:localhost",
        "IP Address:127.0.0.1",
        "IP Address:0:0:0:0:0:0:0:1",
        "TLS Web Server Authentication",
    ] {
        assert!(shown.contains(words), "{words}: {shown}");
    }
    let shown = output("openssl", &["x509", "-in", &ca, "-noout", "-text"]).await;
    let shown = text(&shown.stdout);
    for words in ["X509v3 Name Constraints: critical", "CA:TRUE, pathlen:0"] {
        assert!(shown.contains(words), "{words}: {shown}");
    }
    for days in ["89", "91"] {
        let seconds = (days.parse::<u64>().unwrap() * 24 * 60 * 60).to_string();
        let lives = ["x509", "-in", &certificate, "-noout", "-checkend", &seconds];
        let lives = output("openssl", &lives).await.status.success();
        assert_eq!(lives, days == "89", "{days}");
    }
    let verified = output(
        "openssl",
        &["verify", "-x509_strict", "-CAfile", &ca, &certificate],
    )
    .await;
    assert!(verified.status.success(), "{}", text(&verified.stderr));
    for host in ["localhost", "127.0.0.1"] {
        let url = format!("https://{host}:{}{QUOTAS}", server.address.port());
        let asked = [
            "--silent",
            "--show-error",
            "--fail",
            "--cacert",
            &ca,
            "--noproxy",
            "*",
            &url,
        ];
        let asked = output("curl", &asked).await;
        assert!(asked.status.success(), "{host}: {}", text(&asked.stderr));
    }
    // The socket has nobody to hide from.
    let plain = reqwest::Client::builder()
        .unix_socket(socket.as_path())
        .build()
        .unwrap();
    let reply = plain
        .get(format!("http://localhost{QUOTAS}"))
        .send()
        .await
        .unwrap();
    assert_eq!(reply.status(), 200);
}

#[tokio::test]
async fn self_signed_certificates_stay_over_a_restart() {
    let mut server = TestServer::start_with(|config| {
        config.tls = Some(TlsSettings::new(Certificate::SelfSigned));
    })
    .await;
    let first = shown(&server).await;
    server.restart().await;
    assert!(shown(&server).await == first);
}

#[tokio::test]
async fn certificates_of_clients_are_verified_and_name_them_in_the_log() {
    let (authority, folder) = (Authority::new("a"), tempfile::tempdir().unwrap());
    let clients = Authority::new("clients");
    let (certificate, key) = authority.server().files(folder.path());
    let root = clients.file(folder.path());
    let arguments = [
        "--tls-cert",
        certificate.to_str().unwrap(),
        "--tls-key",
        key.to_str().unwrap(),
        "--tls-client-ca",
        root.to_str().unwrap(),
    ];
    let server = ServerProcess::start_with(folder.path(), &arguments).await;
    let ask = async |signed: Option<Signed>| {
        let mut client = trusting(&authority);
        if let Some(signed) = signed {
            let both = format!("{}{}", signed.certificate, signed.key);
            client = client.identity(reqwest::Identity::from_pem(both.as_bytes()).unwrap());
        }
        let asked = client.build().unwrap().get(url(&server, QUOTAS)).send();
        within("a reply", asked)
            .await
            .map(|reply| reply.status().as_u16())
    };
    let log = || std::fs::read_to_string(folder.path().join("server.log")).unwrap();
    assert_eq!(ask(None).await.unwrap(), 200);
    assert!(!log().contains("certificate="), "{}", log());
    let known = clients.client("spiffe://hosts.example/one");
    assert_eq!(ask(Some(known)).await.unwrap(), 200);
    let subject = "certificate=\"spiffe://hosts.example/one\"";
    logged(folder.path(), subject).await;
    let stranger = Authority::new("strangers").client("spiffe://hosts.example/two");
    ask(Some(stranger)).await.expect_err("a stranger");
    assert!(!log().contains("hosts.example/two"), "{}", log());
}
