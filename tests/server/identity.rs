//! Identity: who may call with which credentials.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use desktop_images::app::Config;
use http::Method;
use serde_json::{Value, json};
use test_support::{Disk, Fill, TestServer, eventually, image_id, response, text};

/// A server that asks for tokens, with the token of its first admin.
pub(crate) struct Guarded {
    pub server: TestServer,
    pub admin: String,
}

impl Guarded {
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    /// The same with another configuration.
    pub(crate) async fn start_with(configure: impl FnOnce(&mut Config)) -> Self {
        let server = TestServer::start_with(|config| {
            config.require_auth = true;
            configure(config);
        })
        .await;
        let admin = std::fs::read_to_string(server.data().join("bootstrap-token"));
        let admin = admin
            .expect("the token of the first admin")
            .trim()
            .to_owned();
        Self { server, admin }
    }

    /// Sends a request with a token, if there is one; the HTTP status and the body.
    pub(crate) async fn send(
        &self,
        token: &str,
        method: Method,
        path: &str,
        body: &Value,
    ) -> (u16, Value) {
        let mut request = self
            .server
            .http
            .request(method.clone(), self.server.url(path));
        if !token.is_empty() {
            request = request.bearer_auth(token);
        }
        if method != Method::GET {
            request = request.body(body.to_string());
        }
        let reply = request.send().await.expect("a reply");
        let status = reply.status().as_u16();
        let body = reply.bytes().await.expect("a body");
        (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
    }

    /// A request of the admin, which must be granted.
    pub(crate) async fn ask(&self, method: Method, path: &str, body: Value) -> Value {
        let (status, reply) = self.send(&self.admin, method, path, &body).await;
        assert_eq!(status, 200, "{path} {body}: {reply}");
        reply
    }

    /// The text of a new token, and its subject.
    pub(crate) async fn token(&self) -> (String, String) {
        let created = self
            .ask(Method::POST, "/desktop-images/v1/tokens", json!({}))
            .await;
        let subject = text(&created["token"], "subject");
        (text(&created, "secret").to_owned(), subject.to_owned())
    }

    pub(crate) async fn grant(&self, subject: &str, folder_id: &str, role: &str) {
        let grant = json!({"subject": subject, "folderId": folder_id, "role": role});
        self.ask(Method::PUT, "/desktop-images/v1/access", grant)
            .await;
    }

    /// The text of a new token with a role in a folder.
    pub(crate) async fn token_with(&self, folder_id: &str, role: &str) -> String {
        let (token, subject) = self.token().await;
        self.grant(&subject, folder_id, role).await;
        token
    }

    /// The id of a new READY compute image.
    pub(crate) async fn compute_image(&self, folder_id: &str, name: &str) -> String {
        let upload = self.server.upload(folder_id, name).bearer_auth(&self.admin);
        let upload = upload.body(Disk::mbr(1, Fill::Sparse(1)));
        let operation: Value = {
            let reply = upload.send().await.expect("a reply");
            serde_json::from_slice(&reply.bytes().await.expect("a body")).expect("JSON")
        };
        response(&operation);
        image_id(&operation)
    }
}

#[tokio::test]
async fn the_first_admin_gets_a_token_in_a_file_and_only_once() {
    let mut guarded = Guarded::start().await;
    let file = guarded.server.data().join("bootstrap-token");
    let mode = std::fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let tokens = guarded
        .ask(Method::GET, "/desktop-images/v1/tokens", Value::Null)
        .await;
    assert_eq!(
        tokens["tokens"].as_array().map(Vec::len),
        Some(1),
        "{tokens}"
    );
    assert!(!tokens.to_string().contains(&guarded.admin), "{tokens}");
    std::fs::remove_file(&file).unwrap();
    guarded.server.restart().await;
    assert!(!file.exists(), "an admin is there");
    let tokens = guarded
        .ask(Method::GET, "/desktop-images/v1/tokens", Value::Null)
        .await;
    assert_eq!(
        tokens["tokens"].as_array().map(Vec::len),
        Some(1),
        "{tokens}"
    );
    // Without an admin the next start makes another.
    let id = text(&tokens["tokens"][0], "id").to_owned();
    let path = format!("/desktop-images/v1/tokens/{id}");
    guarded.ask(Method::DELETE, &path, json!({})).await;
    guarded.server.restart().await;
    let other = std::fs::read_to_string(&file).unwrap();
    assert_ne!(other.trim(), guarded.admin);
}

#[tokio::test]
async fn bad_credentials_are_refused_in_the_same_words_and_never_logged_in() {
    let guarded = Guarded::start().await;
    let path = "/compute/v1/images?folderId=f";
    let (status, _) = guarded
        .send(&guarded.admin, Method::GET, path, &Value::Null)
        .await;
    assert_eq!(status, 200);
    let (revoked, subject) = guarded.token().await;
    let id = subject.strip_prefix("token:").unwrap();
    let other_secret = format!("{}{}", &revoked[..20], "A".repeat(40));
    let revoke = format!("/desktop-images/v1/tokens/{id}");
    let (status, _) = guarded
        .send(&revoked, Method::GET, path, &Value::Null)
        .await;
    assert_eq!(status, 403, "it is good, and has no role");
    guarded.ask(Method::DELETE, &revoke, json!({})).await;
    let cut = &guarded.admin[..guarded.admin.len() - 1];
    for token in [
        &revoked,
        &other_secret,
        cut,
        "x",
        "dit__",
        "a.b.c",
        "eyJhbGciOiJub25lIn0.e30.",
    ] {
        let (status, reply) = guarded.send(token, Method::GET, path, &Value::Null).await;
        assert_eq!(status, 401, "{token}: {reply}");
        assert_eq!(
            reply["message"], "Token is invalid or has expired.",
            "{token}"
        );
    }
    for (name, value) in [
        ("authorization", format!("Basic {}", guarded.admin)),
        ("authorization", guarded.admin.clone()),
        ("x-authorization", format!("Bearer {}", guarded.admin)),
    ] {
        let request = guarded.server.http.get(guarded.server.url(path));
        let reply = request.header(name, &value).send().await.unwrap();
        assert_eq!(reply.status(), 401, "{name}: {value}");
        assert_eq!(reply.headers()["www-authenticate"], "Bearer");
    }
    let request = guarded.server.http.get(guarded.server.url(path));
    let twice = request
        .bearer_auth(&guarded.admin)
        .header("authorization", "Bearer x");
    assert_eq!(twice.send().await.unwrap().status(), 401);
    let in_query = format!("{path}&access_token={}", guarded.admin);
    let (status, _) = guarded.send("", Method::GET, &in_query, &Value::Null).await;
    assert_eq!(status, 401, "no token is read from a query");
}

#[tokio::test]
async fn a_token_ends_at_its_time() {
    let guarded = Guarded::start().await;
    let create = json!({"description": "short", "expiresIn": "1s"});
    let created = guarded
        .ask(Method::POST, "/desktop-images/v1/tokens", create)
        .await;
    let token = text(&created, "secret");
    eventually("the token expires", || async {
        let path = "/operations/e3v00000000000000000";
        let (status, _) = guarded.send(token, Method::GET, path, &Value::Null).await;
        assert!([401, 404].contains(&status), "{status}");
        (status == 401).then_some(())
    })
    .await;
    for expires_in in ["0s", "-1s", "0.5s"] {
        let create = json!({"expiresIn": expires_in});
        let path = "/desktop-images/v1/tokens";
        let (status, reply) = guarded
            .send(&guarded.admin, Method::POST, path, &create)
            .await;
        assert_eq!(status, 400, "{reply}");
        assert!(
            reply["message"].as_str().unwrap().contains("expires_in"),
            "{reply}"
        );
    }
}

#[tokio::test]
async fn a_repeat_is_answered_only_to_those_who_still_may() {
    let guarded = Guarded::start().await;
    let base = guarded.compute_image("f", "base").await;
    let (editor, subject) = guarded.token().await;
    guarded.grant(&subject, "f", "editor").await;
    let copy = json!({"folderId": "f", "name": "a", "imageId": base});
    let key = "123e4567-e89b-12d3-a456-426614174000";
    let send = |method: Method, path: String, body: Value| {
        let request = guarded
            .server
            .http
            .request(method, guarded.server.url(&path));
        let request = request.bearer_auth(&editor).header("idempotency-key", key);
        async move {
            let reply = request.body(body.to_string()).send().await.unwrap();
            let status = reply.status().as_u16();
            let body: Value = serde_json::from_slice(&reply.bytes().await.unwrap()).unwrap();
            (status, body)
        }
    };
    let path = "/cloud-desktop/v1/images:copy".to_owned();
    let (status, first) = send(Method::POST, path.clone(), copy.clone()).await;
    assert_eq!((status, text(&first, "createdBy")), (200, &*subject));
    let (_, again) = send(Method::POST, path.clone(), copy.clone()).await;
    assert_eq!(again, first);
    guarded.grant(&subject, "f", "viewer").await;
    let (status, _) = send(Method::POST, path, copy).await;
    assert_eq!(status, 403);
    let path = "/desktop-images/v1/auditEvents?folderId=f";
    let request = guarded.server.http.get(guarded.server.url(path));
    let events = request.bearer_auth(&guarded.admin).send().await.unwrap();
    let events = events.text().await.unwrap();
    assert!(
        events.contains(&subject) && events.contains("\"peerAddress\":\"127.0.0.1\""),
        "{events}"
    );
    assert!(
        events.contains("desktopimages.audit.identity.GrantAccess"),
        "{events}"
    );
}

#[tokio::test]
async fn a_signed_url_reads_one_image_until_its_signer_may_no_more() {
    let guarded = Guarded::start().await;
    let base = guarded.compute_image("f", "base").await;
    let copy = json!({"folderId": "f", "name": "a", "imageId": base});
    let made = guarded
        .ask(Method::POST, "/cloud-desktop/v1/images:copy", copy)
        .await;
    let (viewer, subject) = guarded.token().await;
    guarded.grant(&subject, "f", "viewer").await;
    let sign = async |target: Value| {
        let path = "/desktop-images/v1/signedUrls";
        let (status, signed) = guarded.send(&viewer, Method::POST, path, &target).await;
        assert_eq!(status, 200, "{signed}");
        text(&signed, "path").to_owned()
    };
    let download = sign(json!({"imageId": image_id(&made)})).await;
    let watch = sign(json!({"operationId": text(&made, "id")})).await;
    for (method, path, wanted) in [
        (Method::GET, download.clone(), 200),
        (Method::HEAD, download.clone(), 200),
        (Method::GET, watch.clone(), 200),
        (Method::POST, download.clone(), 401),
        (Method::DELETE, download.clone(), 401),
        (Method::GET, download.replace("signer=", "signer=x"), 403),
        (Method::GET, download.replace("expires=1", "expires=2"), 403),
        (Method::GET, download.replace(":download", ":downloae"), 403),
        (Method::GET, format!("{download}A"), 403),
        (Method::GET, format!("{download}&x=y"), 401),
        (Method::GET, download.replace("?", "?x=y&"), 403),
        (Method::GET, watch.replace(":watch", ""), 403),
        (
            Method::GET,
            download[..download.rfind('&').unwrap()].to_owned(),
            401,
        ),
    ] {
        let request = guarded
            .server
            .http
            .request(method.clone(), guarded.server.url(&path));
        let reply = request.send().await.unwrap();
        assert_eq!(reply.status(), wanted, "{method} {path}");
        if wanted == 200 {
            assert_eq!(reply.headers()["referrer-policy"], "no-referrer");
            assert_eq!(reply.headers()["cache-control"], "private");
        }
    }
    let get = |path: &str| {
        let request = guarded.server.http.get(guarded.server.url(path));
        async move { request.send().await.unwrap().status().as_u16() }
    };
    // The rights of the signer are judged at the use.
    let revoke = json!({"folderId": "f", "subject": subject});
    guarded
        .ask(Method::POST, "/desktop-images/v1/access:revoke", revoke)
        .await;
    assert_eq!(get(&download).await, 404);
    guarded.grant(&subject, "f", "viewer").await;
    assert_eq!(get(&download).await, 200);
    // A new key ends no URL; without the old one none of its URLs is good.
    let keys = "/desktop-images/v1/urlKeys";
    guarded
        .ask(Method::POST, "/desktop-images/v1/urlKeys:rotate", json!({}))
        .await;
    assert_eq!(get(&download).await, 200);
    let listed = guarded.ask(Method::GET, keys, Value::Null).await;
    for key in listed["keys"].as_array().unwrap() {
        let path = format!("{keys}/{}", text(key, "id"));
        guarded.ask(Method::DELETE, &path, json!({})).await;
    }
    assert_eq!(get(&download).await, 403);
    let download = sign(json!({"imageId": image_id(&made)})).await;
    assert_eq!(get(&download).await, 200);
    let id = subject.strip_prefix("token:").unwrap();
    let path = format!("/desktop-images/v1/tokens/{id}");
    guarded.ask(Method::DELETE, &path, json!({})).await;
    assert_eq!(
        get(&download).await,
        403,
        "the token that signed it is revoked"
    );
}

#[tokio::test]
async fn a_cancel_takes_an_editor_and_the_audit_log_names_who_asked_for_it() {
    let mut guarded = Guarded::start().await;
    let source = guarded.compute_image("f", "source").await;
    guarded.server.config.operations.simulated_latency = Duration::from_secs(3600);
    guarded.server.restart().await;
    let (editor, subject) = guarded.token().await;
    guarded.grant(&subject, "f", "editor").await;
    let viewer = guarded.token_with("f", "viewer").await;
    let copy = json!({"folderId": "f", "name": "n", "imageId": source});
    let path = "/cloud-desktop/v1/images:copy";
    let running = guarded.ask(Method::POST, path, copy).await;
    let id = text(&running, "id");
    let cancel = format!("/operations/{id}:cancel");
    let (status, refused) = guarded
        .send(&viewer, Method::POST, &cancel, &json!({}))
        .await;
    assert_eq!((status, &refused["code"]), (403, &json!(7)), "{refused}");
    // Asking twice is asking once.
    for _ in 0..2 {
        let (status, _) = guarded
            .send(&editor, Method::POST, &cancel, &json!({}))
            .await;
        assert_eq!(status, 200);
    }
    eventually("the copy ends", || async {
        let path = format!("/operations/{id}");
        let operation = guarded.ask(Method::GET, &path, Value::Null).await;
        (operation["done"] == true).then_some(())
    })
    .await;
    let path = "/desktop-images/v1/auditEvents?folderId=f";
    let events = guarded.ask(Method::GET, path, Value::Null).await;
    let creator = text(&running, "createdBy");
    let events = events.as_array().expect("events").iter();
    let of_it: Vec<[String; 4]> = events
        .filter(|event| event["operationId"] == id)
        .map(|event| {
            let told = ["eventType", "status", "subject", "peerAddress"];
            told.map(|name| text(event, name).to_owned())
        })
        .collect();
    let copied = "desktopimages.audit.clouddesktop.CopyDesktopImage";
    let cancelled = "desktopimages.audit.operation.CancelOperation";
    let address = "127.0.0.1";
    assert_eq!(
        of_it,
        [
            [copied, "STARTED", creator, address],
            [cancelled, "STARTED", &subject, address],
            [cancelled, "DONE", &subject, address],
            [copied, "CANCELLED", creator, ""],
        ]
    );
}

#[tokio::test]
async fn no_cache_keeps_a_reply_with_a_secret() {
    let guarded = Guarded::start().await;
    let source = guarded.compute_image("f", "source").await;
    let copy = json!({"folderId": "f", "name": "n", "imageId": source});
    let copied = guarded
        .ask(Method::POST, "/cloud-desktop/v1/images:copy", copy)
        .await;
    let accounts = "/desktop-images/v1/serviceAccounts";
    let account = guarded
        .ask(Method::POST, accounts, json!({"name": "ci"}))
        .await;
    let keys = format!("{accounts}/{}/keys", text(&account, "id"));
    let exchange = json!({"yandexPassportOauthToken": guarded.admin});
    let signed = json!({"imageId": image_id(&copied)});
    for (path, body) in [
        ("/desktop-images/v1/tokens", json!({})),
        (keys.as_str(), json!({})),
        ("/iam/v1/tokens", exchange),
        ("/desktop-images/v1/signedUrls", signed),
    ] {
        let request = guarded.server.http.post(guarded.server.url(path));
        let request = request.bearer_auth(&guarded.admin).body(body.to_string());
        let reply = request.send().await.unwrap();
        assert_eq!(reply.status(), 200, "{path}");
        assert_eq!(reply.headers()["cache-control"], "no-store", "{path}");
    }
}

#[tokio::test]
async fn roles_of_a_file_hold_are_listed_and_follow_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("permissions.toml");
    std::fs::write(&file, "").unwrap();
    let guarded = Guarded::start_with(|config| config.permissions_file = Some(file.clone())).await;
    let (token, subject) = guarded.token().await;
    let path = "/compute/v1/images?folderId=f";
    let (status, _) = guarded.send(&token, Method::GET, path, &Value::Null).await;
    assert_eq!(status, 403);
    let grant =
        format!("[[grant]]\nsubject = \"{subject}\"\nrole = \"viewer\"\nfolder_id = \"f\"\n");
    std::fs::write(&file, grant).unwrap();
    eventually("the role of the file holds", || async {
        let (status, _) = guarded.send(&token, Method::GET, path, &Value::Null).await;
        (status == 200).then_some(())
    })
    .await;
    let listed = "/desktop-images/v1/access?folderId=f";
    let listed = guarded.ask(Method::GET, listed, Value::Null).await;
    let grant = &listed["grants"][0];
    assert_eq!(grant["subject"], subject, "{listed}");
    assert_eq!(grant["createdBy"], "permissions-file", "{listed}");
    assert_eq!(grant.get("createdAt"), None, "{listed}");
    // A file that is not as it must be changes nothing.
    std::fs::write(&file, "[[grant]]").unwrap();
    let (other, other_subject) = guarded.token().await;
    guarded.grant(&other_subject, "f", "viewer").await;
    eventually("a role that was granted holds", || async {
        let (status, _) = guarded.send(&other, Method::GET, path, &Value::Null).await;
        (status == 200).then_some(())
    })
    .await;
    let (status, _) = guarded.send(&token, Method::GET, path, &Value::Null).await;
    assert_eq!(status, 200);
    std::fs::write(&file, "").unwrap();
    eventually("the role is gone with the file's", || async {
        let (status, _) = guarded.send(&token, Method::GET, path, &Value::Null).await;
        (status == 403).then_some(())
    })
    .await;
}
