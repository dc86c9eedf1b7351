//! Issuers of JWTs: where their keys come from, and which JWTs are refused.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use desktop_images::app::IssuerSettings;
use http::Method;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};
use test_support::{Authority, Signed, TestServer, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::identity::Guarded;

const LIST: &str = "/compute/v1/images?folderId=f";
const URL: &str = "https://issuer.example";

/// A key of an issuer.
struct Key {
    kid: String,
    key: EncodingKey,
}

impl Key {
    fn new(kid: &str) -> Self {
        let pem = rcgen::KeyPair::generate().unwrap().serialize_pem();
        Self {
            kid: kid.to_owned(),
            key: EncodingKey::from_ec_pem(pem.as_bytes()).unwrap(),
        }
    }

    fn jwk(&self) -> Value {
        let mut jwk = Jwk::from_encoding_key(&self.key, Algorithm::ES256).unwrap();
        jwk.common.key_id = Some(self.kid.clone());
        serde_json::to_value(jwk).unwrap()
    }

    /// A JWT for `me`, who is in the group `ops`, after a change.
    fn jwt(&self, url: &str, change: impl FnOnce(&mut Header, &mut Value)) -> String {
        let mut header = Header::new(Algorithm::ES256);
        header.kid = Some(self.kid.clone());
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap()
            .as_secs();
        let mut claims = json!({
            "iss": url, "aud": ["other", "desktop-images"], "sub": "me", "groups": ["ops", "dev"],
            "iat": now, "exp": now + 600,
        });
        change(&mut header, &mut claims);
        encode(&header, &claims, &self.key).unwrap()
    }
}

fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

fn settings(url: &str) -> IssuerSettings {
    IssuerSettings {
        name: "corp".to_owned(),
        url: url.to_owned(),
        audiences: vec!["desktop-images".to_owned()],
        jwks_file: None,
        jwks_hosts: Vec::new(),
        ca_file: None,
        groups_claim: "groups".to_owned(),
        refresh_seconds: 1,
    }
}

async fn guarded(issuer: IssuerSettings) -> Guarded {
    Guarded::start_with(|config| config.issuers = vec![issuer]).await
}

/// A server that trusts the keys of a file.
async fn with_keys(folder: &Path, keys: &[&Key]) -> Guarded {
    let file = folder.join("jwks.json");
    let keys: Vec<Value> = keys.iter().map(|key| key.jwk()).collect();
    std::fs::write(&file, json!({"keys": keys}).to_string()).unwrap();
    let issuer = IssuerSettings {
        jwks_file: Some(file),
        ..settings(URL)
    };
    guarded(issuer).await
}

impl Guarded {
    async fn list_with(&self, jwt: &str) -> u16 {
        self.send(jwt, Method::GET, LIST, &Value::Null).await.0
    }

    async fn accepts(&self, jwt: &str) {
        eventually("the JWT is taken", || async {
            (self.list_with(jwt).await == 200).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn subjects_and_groups_of_an_issuer_carry_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let key = Key::new("k");
    let guarded = with_keys(folder.path(), &[&key]).await;
    let jwt = key.jwt(URL, |_, _| {});
    guarded.grant("oidc:other:me", "f", "viewer").await;
    guarded.grant("cert:me", "f", "viewer").await;
    eventually("the issuer is known", || async {
        (guarded.list_with(&jwt).await == 403).then_some(())
    })
    .await;
    for holder in ["oidc:corp:me", "oidc:corp:dev"] {
        guarded.grant(holder, "f", "viewer").await;
        assert_eq!(guarded.list_with(&jwt).await, 200, "{holder}");
        let revoke = json!({"subject": holder, "folderId": "f"});
        guarded
            .ask(Method::POST, "/desktop-images/v1/access:revoke", revoke)
            .await;
        assert_eq!(guarded.list_with(&jwt).await, 403, "{holder}");
    }
    // No subject of the issuer is one of this server.
    let admin = guarded
        .ask(Method::GET, "/desktop-images/v1/tokens", Value::Null)
        .await;
    let admin = admin["tokens"][0]["subject"].clone();
    let jwt = key.jwt(URL, |_, claims| claims["sub"] = admin);
    assert_eq!(guarded.list_with(&jwt).await, 403);
}

#[tokio::test]
async fn a_jwt_that_is_not_as_it_must_be_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (key, other) = (Key::new("k"), Key::new("k"));
    let guarded = with_keys(folder.path(), &[&key]).await;
    guarded.grant("oidc:corp:me", "f", "viewer").await;
    guarded.accepts(&key.jwt(URL, |_, _| {})).await;
    let claim =
        |name: &'static str, value: Value| key.jwt(URL, move |_, claims| claims[name] = value);
    let unsigned = |alg: &str| {
        let jwt = key.jwt(URL, |_, _| {});
        let claims = jwt.split('.').nth(1).unwrap();
        let header = super::base64_url(&json!({"alg": alg, "kid": "k"}).to_string());
        format!("{header}.{claims}.")
    };
    let by_secret = {
        let mut header = Header::new(Algorithm::HS256);
        header.kid = Some("k".to_owned());
        let secret = EncodingKey::from_secret(key.jwk().to_string().as_bytes()).unwrap();
        let claims = json!({
            "iss": URL, "aud": "desktop-images", "sub": "me", "exp": now() + 600,
        });
        encode(&header, &claims, &secret).unwrap()
    };
    let crit = {
        let jwt = key.jwt(URL, |_, _| {});
        let claims = jwt.split('.').nth(1).unwrap();
        let header = json!({"alg": "ES256", "kid": "k", "crit": ["exp2"], "exp2": 1});
        let signed = format!("{}.{claims}", super::base64_url(&header.to_string()));
        let signature =
            jsonwebtoken::crypto::sign(signed.as_bytes(), &key.key, Algorithm::ES256).unwrap();
        format!("{signed}.{signature}")
    };
    for (what, jwt) in [
        ("alg none", unsigned("none")),
        ("alg NONE", unsigned("NONE")),
        ("no signature", unsigned("ES256")),
        ("a secret", by_secret),
        ("unknown crit", crit),
        ("another key of the same name", other.jwt(URL, |_, _| {})),
        (
            "an unknown key",
            key.jwt(URL, |header, _| header.kid = Some("x".to_owned())),
        ),
        ("another issuer", key.jwt("https://evil.example", |_, _| {})),
        (
            "another path of the issuer",
            key.jwt("https://issuer.example/", |_, _| {}),
        ),
        ("another audience", claim("aud", json!("other"))),
        ("no audience", claim("aud", Value::Null)),
        ("expired", claim("exp", json!(now() - 120))),
        ("no expiry", claim("exp", Value::Null)),
        ("not yet valid", claim("nbf", json!(now() + 600))),
        ("no subject", claim("sub", Value::Null)),
        ("an empty subject", claim("sub", json!(""))),
        ("a subject of two lines", claim("sub", json!("me\nf"))),
        ("a long subject", claim("sub", json!("a".repeat(300)))),
        ("a huge one", claim("extra", json!("a".repeat(20_000)))),
    ] {
        assert_eq!(guarded.list_with(&jwt).await, 401, "{what}");
    }
    guarded
        .accepts(&key.jwt(URL, |header, _| header.kid = None))
        .await;
}

/// An issuer that answers over TLS.
struct Issuer {
    url: String,
    /// Status, further headers, and body of the reply to a path.
    replies: Arc<Mutex<Replies>>,
}

type Replies = Box<dyn Fn(&str) -> (u16, String, String) + Send>;

impl Issuer {
    async fn start(signed: &Signed) -> Self {
        let certificates = CertificateDer::pem_slice_iter(signed.certificate.as_bytes());
        let config = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(
                certificates.map(Result::unwrap).collect(),
                PrivateKeyDer::from_pem_slice(signed.key.as_bytes()).unwrap(),
            );
        let acceptor = TlsAcceptor::from(Arc::new(config.unwrap()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!(
            "https://localhost:{}",
            listener.local_addr().unwrap().port()
        );
        let not_found = |_: &str| (404, String::new(), String::new());
        let replies: Arc<Mutex<Replies>> = Arc::new(Mutex::new(Box::new(not_found)));
        let told = replies.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, told) = (acceptor.clone(), told.clone());
                tokio::spawn(async move {
                    let Ok(mut stream) = acceptor.accept(stream).await else {
                        return;
                    };
                    let mut head = Vec::new();
                    while !head.ends_with(b"\r\n\r\n") {
                        match stream.read_u8().await {
                            Ok(byte) => head.push(byte),
                            Err(_) => return,
                        }
                    }
                    let head = String::from_utf8(head).unwrap();
                    let path = head.split(' ').nth(1).unwrap();
                    let (status, headers, body) = told.lock().unwrap()(path);
                    let length = body.len();
                    let reply = format!(
                        "HTTP/1.1 {status} X\r\ncontent-length: {length}\r\nconnection: close\r\n{headers}\r\n{body}"
                    );
                    let _ = stream.write_all(reply.as_bytes()).await;
                    let _ = stream.shutdown().await;
                });
            }
        });
        Self { url, replies }
    }

    fn tell(&self, replies: impl Fn(&str) -> (u16, String, String) + Send + 'static) {
        *self.replies.lock().unwrap() = Box::new(replies);
    }

    /// Tells a document and keys.
    fn tell_keys(&self, issuer: &str, jwks_uri: &str, keys: &[&Key]) {
        let document = json!({"issuer": issuer, "jwks_uri": jwks_uri}).to_string();
        let keys: Vec<Value> = keys.iter().map(|key| key.jwk()).collect();
        let keys = json!({"keys": keys}).to_string();
        self.tell(move |path| match path {
            "/.well-known/openid-configuration" => (200, String::new(), document.clone()),
            "/keys" => (200, String::new(), keys.clone()),
            _ => (404, String::new(), String::new()),
        });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_found_and_rotated_and_kept_while_the_issuer_errs() {
    let (authority, folder) = (Authority::new("a"), tempfile::tempdir().unwrap());
    let ca_file = folder.path().join("ca.pem");
    std::fs::write(&ca_file, authority.pem()).unwrap();
    let issuer = Issuer::start(&authority.server()).await;
    // An issuer that does not answer does not stop the start.
    let guarded = guarded(IssuerSettings {
        ca_file: Some(ca_file),
        ..settings(&issuer.url)
    })
    .await;
    guarded.grant("oidc:corp:me", "f", "viewer").await;
    let (old, new) = (Key::new("old"), Key::new("new"));
    let url = issuer.url.clone();
    let (by_old, by_new) = (old.jwt(&url, |_, _| {}), new.jwt(&url, |_, _| {}));
    assert_eq!(guarded.list_with(&by_old).await, 401);
    let keys = format!("{url}/keys");
    issuer.tell_keys(&url, &keys, &[&old]);
    guarded.accepts(&by_old).await;
    let new_keys = json!({"keys": [new.jwk()]}).to_string();
    let document = json!({"issuer": url, "jwks_uri": keys}).to_string();
    for wrong in 0..7 {
        match wrong {
            0 => issuer.tell_keys("https://other.example", &keys, &[&new]),
            1 => issuer.tell_keys(&url, &keys.replace("https", "http"), &[&new]),
            2 => issuer.tell_keys(&url, &keys.replace("localhost", "127.0.0.1"), &[&new]),
            3 => issuer.tell(|_| (500, String::new(), String::new())),
            4 => issuer.tell(|_| (200, String::new(), "no JSON".to_owned())),
            5 => {
                let (document, keys) = (document.clone(), new_keys.clone());
                issuer.tell(move |path| match path {
                    "/elsewhere" => (200, String::new(), keys.clone()),
                    "/keys" => (302, "location: /elsewhere\r\n".to_owned(), String::new()),
                    _ => (200, String::new(), document.clone()),
                });
            }
            _ => {
                let document = document.clone();
                let keys = format!("{new_keys}{}", " ".repeat(2 << 20));
                issuer.tell(move |path| match path {
                    "/keys" => (200, String::new(), keys.clone()),
                    _ => (200, String::new(), document.clone()),
                });
            }
        }
        // The unknown key has the keys fetched.
        assert_eq!(guarded.list_with(&by_new).await, 401, "{wrong}");
        assert_eq!(guarded.list_with(&by_old).await, 200, "{wrong}");
    }
    issuer.tell_keys(&url, &keys, &[&new]);
    guarded.accepts(&by_new).await;
    eventually("the old key is dropped", || async {
        (guarded.list_with(&by_old).await == 401).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_wrong_setting_is_told_at_the_start() {
    for (change, wanted) in [
        (
            IssuerSettings {
                url: "http://issuer.example".to_owned(),
                ..settings(URL)
            },
            "issuer \"corp\": its url must be https",
        ),
        (
            IssuerSettings {
                name: "Corp".to_owned(),
                ..settings(URL)
            },
            "lower-case letters, digits and hyphens",
        ),
        (
            IssuerSettings {
                audiences: Vec::new(),
                ..settings(URL)
            },
            "it needs audiences",
        ),
        (
            IssuerSettings {
                ca_file: Some("/no/such".into()),
                ..settings(URL)
            },
            "/no/such",
        ),
    ] {
        let mut server = TestServer::start().await;
        server.stop().await;
        server.config.issuers = vec![change];
        let error = server
            .start_again()
            .await
            .expect_err("a refusal")
            .to_string();
        assert!(error.contains(wanted), "{error}");
    }
}
