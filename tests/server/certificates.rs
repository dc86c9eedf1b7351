//! Callers that are known by the certificate of their connection: their rights, and what pages cannot make of them.

use desktop_images::app::{Certificate, ClientCertificates, SubjectKind, TlsSettings};
use http::Method;
use serde_json::json;
use test_support::{Authority, Signed, within};

use super::identity::Guarded;

const LIST: &str = "/cloud-desktop/v1/images?folderId=f";
const ONE: &str = "spiffe://hosts.example/one";

struct Place {
    guarded: Guarded,
    servers: Authority,
    clients: Authority,
    _folder: tempfile::TempDir,
}

impl Place {
    /// A server on which one client's certificate may change a folder.
    async fn start() -> Self {
        let (servers, clients) = (Authority::new("servers"), Authority::new("clients"));
        let folder = tempfile::tempdir().unwrap();
        let (certificate, key) = servers.server().files(folder.path());
        let authorities = clients.file(folder.path());
        let guarded = Guarded::start_with(|config| {
            config.tls = Some(TlsSettings {
                clients: Some(ClientCertificates {
                    authorities,
                    subject: SubjectKind::Uri,
                }),
                ..TlsSettings::new(Certificate::Files { certificate, key })
            });
        })
        .await;
        let place = Self {
            guarded,
            servers,
            clients,
            _folder: folder,
        };
        let grant = json!({"folderId": "f", "subject": format!("cert:{ONE}"), "role": "editor"});
        let admin = format!("Bearer {}", place.guarded.admin);
        let granted = place
            .client(None)
            .request(Method::PUT, place.url("/desktop-images/v1/access"))
            .header("authorization", admin)
            .body(grant.to_string())
            .send();
        assert_eq!(within("a reply", granted).await.unwrap().status(), 200);
        place
    }

    fn client(&self, signed: Option<&Signed>) -> reqwest::Client {
        let root = reqwest::Certificate::from_pem(self.servers.pem().as_bytes()).unwrap();
        let mut client = reqwest::Client::builder().no_proxy().tls_certs_only([root]);
        if let Some(signed) = signed {
            let both = format!("{}{}", signed.certificate, signed.key);
            client = client.identity(reqwest::Identity::from_pem(both.as_bytes()).unwrap());
        }
        client.build().unwrap()
    }

    fn url(&self, path: &str) -> String {
        format!(
            "https://localhost:{}{path}",
            self.guarded.server.address.port()
        )
    }

    /// The status of a request.
    async fn ask(
        &self,
        client: &reqwest::Client,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
    ) -> u16 {
        let mut request = client.request(method, self.url(path));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let reply = within("a reply", request.body("{}").send()).await;
        reply.unwrap().status().as_u16()
    }
}

#[tokio::test]
async fn a_certificate_has_its_rights_and_stands_in_for_no_wrong_token() {
    let place = Place::start().await;
    let one = place.client(Some(&place.clients.client(ONE)));
    let two = place.client(Some(&place.clients.client("spiffe://hosts.example/two")));
    let none = place.client(None);
    let signed = format!("{LIST}&signature=x");
    for (client, path, headers, status) in [
        (&one, LIST, &[][..], 200),
        (&two, LIST, &[], 403),
        (&none, LIST, &[], 401),
        (&one, "/cloud-desktop/v1/images?folderId=g", &[], 403),
        (&one, LIST, &[("authorization", "Bearer wrong")], 401),
        (&one, LIST, &[("authorization", "Basic wrong")], 401),
        (&one, &signed, &[], 403),
    ] {
        let found = place.ask(client, Method::GET, path, headers).await;
        assert_eq!(found, status, "{path} {headers:?}");
    }
}

#[tokio::test]
async fn a_page_of_another_site_cannot_use_the_certificate_of_its_visitor() {
    let place = Place::start().await;
    let one = place.client(Some(&place.clients.client(ONE)));
    // A change of which the server only says that it is incomplete.
    assert_eq!(
        place
            .ask(&one, Method::POST, "/cloud-desktop/v1/images:copy", &[])
            .await,
        400
    );
    let pages = [
        &[
            ("origin", "https://evil.example"),
            ("sec-fetch-site", "cross-site"),
        ][..],
        &[("origin", "null")],
        &[
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-mode", "navigate"),
            ("sec-fetch-dest", "document"),
        ],
    ];
    for page in pages {
        for suffix in [
            "",
            "?signature=x",
            "?a=b&signature=x",
            "?signature=x&a=b",
            "?a&signature=",
            "#&signature=x",
        ] {
            let path = format!("/cloud-desktop/v1/images:copy{suffix}");
            let found = place.ask(&one, Method::POST, &path, page).await;
            assert_eq!(found, 403, "{path} {page:?}");
        }
        for suffix in ["", "&signature=x", "&signature=x&a=b", "&a=b&signature="] {
            let path = format!("{LIST}{suffix}");
            let found = place.ask(&one, Method::GET, &path, page).await;
            assert_eq!(found, 403, "{path} {page:?}");
        }
    }
}
