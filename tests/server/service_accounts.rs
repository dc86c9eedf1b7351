//! Service accounts: keys of their own, and the exchange of what they sign for a token.

use std::time::{SystemTime, UNIX_EPOCH};

use http::Method;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};
use test_support::{eventually, text};

use super::identity::Guarded;

const AUDIENCE: &str = "https://iam.api.cloud.yandex.net/iam/v1/tokens";
const LIST: &str = "/compute/v1/images?folderId=f";

/// A service account with a role in the folder `f`, and a key of it.
struct Account {
    id: String,
    key_id: String,
    private_key: String,
    public_key: String,
}

async fn account(guarded: &Guarded) -> Account {
    let accounts = "/desktop-images/v1/serviceAccounts";
    let made = guarded
        .ask(Method::POST, accounts, json!({"name": "ci"}))
        .await;
    let id = text(&made, "id").to_owned();
    guarded.grant(&format!("sa:{id}"), "f", "viewer").await;
    let keys = format!("{accounts}/{id}/keys");
    let made = guarded.ask(Method::POST, &keys, json!({})).await;
    Account {
        id,
        key_id: text(&made["key"], "id").to_owned(),
        private_key: text(&made, "privateKey").to_owned(),
        public_key: text(&made["key"], "publicKey").to_owned(),
    }
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap().as_secs()
}

/// A JWT as stock clients make it, after a change of its header and its claims.
fn jwt(account: &Account, change: impl FnOnce(&mut Header, &mut Value)) -> String {
    let mut header = Header::new(Algorithm::PS256);
    header.kid = Some(account.key_id.clone());
    let mut claims = json!({
        "iss": account.id,
        "aud": AUDIENCE,
        "iat": now(),
        "exp": now() + 3600,
    });
    change(&mut header, &mut claims);
    let key = match header.alg {
        // The confusion of a public key with a secret.
        Algorithm::HS256 => EncodingKey::from_secret(account.public_key.as_bytes()).unwrap(),
        _ => EncodingKey::from_rsa_pem(account.private_key.as_bytes()).unwrap(),
    };
    encode(&header, &claims, &key).unwrap()
}

async fn exchange(guarded: &Guarded, request: Value) -> (u16, Value) {
    guarded
        .send("", Method::POST, "/iam/v1/tokens", &request)
        .await
}

#[tokio::test]
async fn a_service_account_exchanges_what_it_signs_for_a_token_that_ends() {
    let guarded = Guarded::start().await;
    let account = account(&guarded).await;
    let signed = jwt(&account, |_, _| {});
    let mut tokens = Vec::new();
    for _ in 0..2 {
        let (status, reply) = exchange(&guarded, json!({"jwt": signed})).await;
        assert_eq!(status, 200, "{reply}");
        assert!(reply["expiresAt"].is_string(), "{reply}");
        tokens.push(text(&reply, "iamToken").to_owned());
    }
    for token in &tokens {
        let (status, reply) = guarded.send(token, Method::GET, LIST, &Value::Null).await;
        assert_eq!(status, 200, "{reply}");
    }
    // The JWT of the account is good for nothing else.
    let (status, _) = guarded.send(&signed, Method::GET, LIST, &Value::Null).await;
    assert_eq!(status, 401);
    // An exchanged token is exchanged for none that would live longer.
    let again = json!({"yandexPassportOauthToken": tokens[0]});
    assert_eq!(exchange(&guarded, again).await.0, 401);
    let revoke = json!({"iamToken": tokens[0]});
    let revoked = guarded
        .send(&tokens[0], Method::POST, "/iam/v1/tokens:revoke", &revoke)
        .await;
    assert_eq!(
        revoked.1["subjectId"],
        format!("sa:{}", account.id),
        "{revoked:?}"
    );
    let (status, _) = guarded
        .send(&tokens[0], Method::GET, LIST, &Value::Null)
        .await;
    assert_eq!(status, 401);
    let (status, _) = guarded
        .send(&tokens[1], Method::GET, LIST, &Value::Null)
        .await;
    assert_eq!(status, 200);
    let path = format!("/desktop-images/v1/serviceAccountKeys/{}", account.key_id);
    guarded.ask(Method::DELETE, &path, json!({})).await;
    let (status, _) = guarded
        .send(&tokens[1], Method::GET, LIST, &Value::Null)
        .await;
    assert_eq!(status, 401, "the key that signed for it is gone");
    assert_eq!(exchange(&guarded, json!({"jwt": signed})).await.0, 401);
}

#[tokio::test]
async fn a_static_token_is_exchanged_for_one_that_ends_with_it() {
    let guarded = Guarded::start().await;
    let (token, subject) = guarded.token().await;
    guarded.grant(&subject, "f", "viewer").await;
    let request = json!({"yandexPassportOauthToken": token});
    let (status, reply) = exchange(&guarded, request).await;
    assert_eq!(status, 200, "{reply}");
    let short = text(&reply, "iamToken");
    let (status, _) = guarded.send(short, Method::GET, LIST, &Value::Null).await;
    assert_eq!(status, 200);
    let id = subject.strip_prefix("token:").unwrap();
    let path = format!("/desktop-images/v1/tokens/{id}");
    guarded.ask(Method::DELETE, &path, json!({})).await;
    let (status, _) = guarded.send(short, Method::GET, LIST, &Value::Null).await;
    assert_eq!(status, 401);
}

#[tokio::test]
async fn what_an_account_has_not_signed_so_is_refused() {
    let guarded = Guarded::start().await;
    let account = account(&guarded).await;
    let other = self::account(&guarded).await;
    let unsigned = {
        let signed = jwt(&account, |_, _| {});
        let (rest, _) = signed.rsplit_once('.').unwrap();
        let (_, claims) = rest.split_once('.').unwrap();
        let header = json!({"alg": "none", "typ": "JWT", "kid": account.key_id});
        format!("{}.{claims}.", super::base64_url(&header.to_string()))
    };
    let cut = {
        let signed = jwt(&account, |_, _| {});
        signed[..signed.len() - 4].to_owned()
    };
    let table: Vec<(&str, String)> = vec![
        ("alg none", unsigned),
        ("a signature that is cut", cut),
        (
            "RS256",
            jwt(&account, |header, _| header.alg = Algorithm::RS256),
        ),
        (
            "PS512",
            jwt(&account, |header, _| header.alg = Algorithm::PS512),
        ),
        (
            "HS256 by the public key",
            jwt(&account, |header, _| header.alg = Algorithm::HS256),
        ),
        ("no kid", jwt(&account, |header, _| header.kid = None)),
        (
            "an unknown kid",
            jwt(&account, |header, _| header.kid = Some("aje".to_owned())),
        ),
        (
            "the key of another",
            jwt(&account, |header, _| {
                header.kid = Some(other.key_id.clone())
            }),
        ),
        (
            "another issuer",
            jwt(&account, |_, claims| claims["iss"] = json!(other.id)),
        ),
        (
            "no issuer",
            jwt(&account, |_, claims| claims["iss"] = Value::Null),
        ),
        (
            "another audience",
            jwt(&account, |_, claims| {
                claims["aud"] = json!("https://example")
            }),
        ),
        (
            "no audience",
            jwt(&account, |_, claims| claims["aud"] = Value::Null),
        ),
        (
            "expired",
            jwt(&account, |_, claims| claims["exp"] = json!(now() - 120)),
        ),
        (
            "no expiry",
            jwt(&account, |_, claims| claims["exp"] = Value::Null),
        ),
        (
            "too long",
            jwt(&account, |_, claims| claims["exp"] = json!(now() + 3700)),
        ),
        (
            "from the future",
            jwt(&account, |_, claims| {
                claims["iat"] = json!(now() + 600);
                claims["exp"] = json!(now() + 900);
            }),
        ),
        (
            "not yet",
            jwt(&account, |_, claims| claims["nbf"] = json!(now() + 600)),
        ),
        (
            "no iat",
            jwt(&account, |_, claims| claims["iat"] = Value::Null),
        ),
        ("huge", "a.".repeat(3900)),
    ];
    for (what, jwt) in table {
        let (status, reply) = exchange(&guarded, json!({"jwt": jwt})).await;
        assert_eq!(status, 401, "{what}: {reply}");
        assert_eq!(
            reply["message"], "Token is invalid or has expired.",
            "{what}"
        );
    }
    let (status, _) = exchange(&guarded, json!({"jwt": "a".repeat(8001)})).await;
    assert_eq!(status, 400);
    let (status, _) = exchange(&guarded, json!({})).await;
    assert_eq!(status, 400);
    let good = jwt(&account, |_, claims| claims["sub"] = json!("anybody"));
    eventually("the good one is good", || async {
        (exchange(&guarded, json!({"jwt": good})).await.0 == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_account_goes_with_its_keys_its_tokens_and_its_roles() {
    let guarded = Guarded::start().await;
    let account = account(&guarded).await;
    let signed = jwt(&account, |_, _| {});
    let (_, reply) = exchange(&guarded, json!({"jwt": signed})).await;
    let token = text(&reply, "iamToken");
    let path = format!("/desktop-images/v1/serviceAccounts/{}", account.id);
    guarded.ask(Method::DELETE, &path, json!({})).await;
    let (status, _) = guarded.send(token, Method::GET, LIST, &Value::Null).await;
    assert_eq!(status, 401);
    assert_eq!(exchange(&guarded, json!({"jwt": signed})).await.0, 401);
    let grants = guarded
        .ask(Method::GET, "/desktop-images/v1/access", Value::Null)
        .await;
    assert!(!grants.to_string().contains(&account.id), "{grants}");
    let (status, reply) = guarded
        .send(&guarded.admin, Method::DELETE, &path, &json!({}))
        .await;
    assert_eq!(status, 404);
    assert_eq!(
        reply["message"],
        format!("Service account \"{}\" not found", account.id)
    );
    let subject = format!("sa:{}", account.id);
    let grant = json!({"subject": subject, "folderId": "f", "role": "viewer"});
    let access = "/desktop-images/v1/access";
    let (status, _) = guarded
        .send(&guarded.admin, Method::PUT, access, &grant)
        .await;
    assert_eq!(status, 404);
}
