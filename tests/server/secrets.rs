//! Secrets: none is ever in the log, nor in what audit events tell.

use serde_json::{Value, json};
use test_support::{Disk, Fill, ServerProcess, image_id, text};

/// A client of a server that runs as a process.
struct Client<'a> {
    server: &'a ServerProcess,
    admin: String,
}

impl Client<'_> {
    async fn send(&self, method: &str, path: &str, body: Value) -> Value {
        let method = method.parse().unwrap();
        let request = self.server.http.request(method, self.server.url(path));
        let request = request.bearer_auth(&self.admin).body(body.to_string());
        let reply = request.send().await.unwrap().bytes().await.unwrap();
        serde_json::from_slice(&reply).unwrap_or(Value::Null)
    }
}

#[tokio::test]
async fn no_secret_is_in_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = ["--require-auth", "--log-level", "debug"];
    let server = ServerProcess::start_with(folder.path(), &arguments).await;
    let file = folder.path().join("data/bootstrap-token");
    let admin = std::fs::read_to_string(&file).unwrap().trim().to_owned();
    let client = Client {
        server: &server,
        admin: admin.clone(),
    };
    let mut secrets = vec![admin.clone()];
    let token = client
        .send("POST", "/desktop-images/v1/tokens", json!({}))
        .await;
    secrets.push(text(&token, "secret").to_owned());
    let accounts = "/desktop-images/v1/serviceAccounts";
    let account = client.send("POST", accounts, json!({"name": "ci"})).await;
    let keys = format!("{accounts}/{}/keys", text(&account, "id"));
    let key = client.send("POST", &keys, json!({})).await;
    // Lines of PEM alone: the whole text has line breaks.
    let private_key = text(&key, "privateKey").lines().nth(3).unwrap();
    secrets.push(private_key.to_owned());
    let exchange = json!({"yandexPassportOauthToken": secrets[1]});
    let exchanged = client.send("POST", "/iam/v1/tokens", exchange).await;
    secrets.push(text(&exchanged, "iamToken").to_owned());
    let upload = server.upload("f", "base").bearer_auth(&admin);
    let uploaded = upload
        .body(Disk::mbr(1, Fill::Sparse(1)))
        .send()
        .await
        .unwrap();
    let uploaded: Value = serde_json::from_slice(&uploaded.bytes().await.unwrap()).unwrap();
    let copy = json!({"folderId": "f", "name": "a", "imageId": image_id(&uploaded)});
    let copied = client
        .send("POST", "/cloud-desktop/v1/images:copy", copy)
        .await;
    let target = json!({"imageId": image_id(&copied)});
    let signed = client
        .send("POST", "/desktop-images/v1/signedUrls", target)
        .await;
    let path = text(&signed, "path");
    secrets.push(path.rsplit_once("signature=").unwrap().1.to_owned());
    let download = server.http.get(server.url(path)).send().await.unwrap();
    assert_eq!(download.status(), 200);
    // Also where they are wrong, or in the wrong place.
    for secret in secrets.clone() {
        let wrong = format!("{secret}x");
        let url = server.url(&format!(
            "/operations/x?access_token={secret}&signature={secret}"
        ));
        let _ = server.http.get(url).bearer_auth(&wrong).send().await;
        let _ = client
            .send("POST", "/iam/v1/tokens", json!({"jwt": secret}))
            .await;
        let _ = client
            .send("POST", "/iam/v1/tokens:revoke", json!({"iamToken": wrong}))
            .await;
    }
    let events = server
        .http
        .get(server.url("/desktop-images/v1/auditEvents"));
    let events = events
        .bearer_auth(&admin)
        .send()
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    assert!(events.contains("CreateServiceAccountKey"), "{events}");
    server.kill().await;
    let log = std::fs::read_to_string(folder.path().join("server.log")).unwrap();
    assert!(
        log.contains("IamTokenService") || log.contains("/iam/v1/tokens"),
        "{log}"
    );
    for secret in &secrets {
        assert!(secret.len() > 30, "{secret}");
        for (what, text) in [("log", &log), ("audit events", &events)] {
            assert!(
                !text.contains(secret.as_str()),
                "the {what} has {secret}:\n{text}"
            );
        }
    }
}
