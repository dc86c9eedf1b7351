//! Identity rows: what hangs on another goes with it, and what has expired is forgotten.

use super::*;

fn put(row: IdentityRow) -> IdentityChange {
    IdentityChange::Put(Box::new(row))
}

fn remove(kind: IdentityKind, id: &str) -> IdentityChange {
    IdentityChange::Remove(IdentityKey::new(kind, id))
}

fn account(id: &str) -> IdentityRow {
    IdentityRow::ServiceAccount(ServiceAccount {
        id: id.to_owned(),
        name: "ci".to_owned(),
        description: String::new(),
        created_at: START,
        created_by: "somebody".to_owned(),
    })
}

fn key(id: &str, account: &str) -> IdentityRow {
    IdentityRow::ServiceAccountKey(ServiceAccountKey {
        id: id.to_owned(),
        service_account_id: account.to_owned(),
        description: String::new(),
        public_key: "PEM".to_owned(),
        created_at: START,
        created_by: "somebody".to_owned(),
    })
}

fn token(id: &str, expires_at: Option<Timestamp>, parent: Option<IdentityKey>) -> IdentityRow {
    IdentityRow::Token(Token {
        id: id.to_owned(),
        sha256: "00".repeat(32),
        subject: format!("token:{id}"),
        description: String::new(),
        created_at: START,
        created_by: "somebody".to_owned(),
        expires_at,
        parent,
    })
}

fn grant(holder: &str, folder_id: &str, role: Role) -> IdentityRow {
    IdentityRow::Grant(Grant {
        holder: holder.to_owned(),
        folder_id: folder_id.to_owned(),
        role,
        import_uris: Vec::new(),
        created_at: Some(START),
        created_by: "somebody".to_owned(),
    })
}

impl Fixture {
    async fn change_identity(&self, change: IdentityChange) -> Result<()> {
        let request = caller();
        let command = ChangeIdentity { request, change };
        self.store.execute(command).await
    }

    /// The ids of all identity rows, by kind.
    async fn identities(&self) -> Vec<String> {
        let mut ids = Vec::new();
        for kind in [
            IdentityKind::Token,
            IdentityKind::ServiceAccount,
            IdentityKind::ServiceAccountKey,
            IdentityKind::Grant,
            IdentityKind::UrlKey,
        ] {
            let rows = self.store.identities(kind).await.unwrap();
            for row in rows {
                let found = self.store.identity(row.key()).await.unwrap();
                assert_eq!(found.as_ref(), Some(&row));
                ids.push(row.key().id.replace('\n', "@"));
            }
        }
        ids
    }
}

pub(super) async fn what_hangs_on_an_account_or_a_token_goes_with_it(backend: Backend) {
    let fixture = Fixture::new(backend).await;
    let by_key = |id: &str| Some(IdentityKey::new(IdentityKind::ServiceAccountKey, id));
    let by_token = |id: &str| Some(IdentityKey::new(IdentityKind::Token, id));
    for change in [
        put(account("a")),
        put(account("b")),
        put(key("ka", "a")),
        put(key("kb", "b")),
        put(token("t", None, None)),
        put(grant("sa:a", "f", Role::Editor)),
        put(grant("sa:b", "", Role::Viewer)),
        put(grant("token:t", "", Role::Admin)),
        put(grant("oidc:corp:ops", "f", Role::Admin)),
        IdentityChange::Issue(Box::new(token("ia", None, by_key("ka")))),
        IdentityChange::Issue(Box::new(token("ib", None, by_key("kb")))),
        IdentityChange::Issue(Box::new(token("it", None, by_token("t")))),
    ] {
        fixture.change_identity(change).await.unwrap();
    }
    let all = "ia ib it t a b ka kb oidc:corp:ops@f sa:a@f sa:b@ token:t@";
    assert_eq!(fixture.identities().await.join(" "), all);
    for (removed, left) in [
        (
            remove(IdentityKind::ServiceAccount, "a"),
            "ib it t b kb oidc:corp:ops@f sa:b@ token:t@",
        ),
        (
            remove(IdentityKind::ServiceAccountKey, "kb"),
            "it t b oidc:corp:ops@f sa:b@ token:t@",
        ),
        (remove(IdentityKind::Token, "t"), "b oidc:corp:ops@f sa:b@"),
        (remove(IdentityKind::Grant, "oidc:corp:ops\nf"), "b sa:b@"),
    ] {
        fixture.change_identity(removed.clone()).await.unwrap();
        assert_eq!(fixture.identities().await.join(" "), left);
        let again = fixture.change_identity(removed).await.unwrap_err();
        assert!(
            matches!(again, Error::Refused(Refusal::IdentityNotFound { .. })),
            "{again}"
        );
    }
}

pub(super) async fn a_row_hangs_on_one_that_is_there(backend: Backend) {
    let fixture = Fixture::new(backend).await;
    let expired = START.before(Duration::from_secs(1));
    fixture
        .change_identity(put(token("old", Some(expired), None)))
        .await
        .unwrap();
    let parent = |kind, id: &str| Some(IdentityKey::new(kind, id));
    for change in [
        put(key("k", "none")),
        put(grant("sa:none", "f", Role::Viewer)),
        put(grant("token:none", "", Role::Viewer)),
        IdentityChange::Issue(Box::new(token(
            "i",
            None,
            parent(IdentityKind::Token, "none"),
        ))),
        IdentityChange::Issue(Box::new(token(
            "i",
            None,
            parent(IdentityKind::Token, "old"),
        ))),
    ] {
        let refused = fixture.change_identity(change).await.unwrap_err();
        let is_missing = matches!(refused, Error::Refused(Refusal::IdentityNotFound { .. }));
        assert!(is_missing, "{refused}");
    }
    assert_eq!(fixture.identities().await, ["old"]);
}

pub(super) async fn what_has_expired_is_forgotten(backend: Backend) {
    let fixture = Fixture::new(backend).await;
    for (id, expires_at) in [
        ("a", Some(START.after(Duration::from_secs(1)))),
        ("b", Some(START.after(Duration::from_secs(2)))),
        ("c", Some(START.after(Duration::from_secs(100)))),
        ("d", None),
    ] {
        let row = token(id, expires_at, None);
        fixture.change_identity(put(row)).await.unwrap();
        let row = grant(&format!("token:{id}"), "", Role::Viewer);
        fixture.change_identity(put(row)).await.unwrap();
    }
    fixture.pass(Duration::from_secs(10));
    let store = &fixture.store;
    let forget = |limit| store.forget_expired_identities(Duration::ZERO, limit);
    assert_eq!(forget(1).await.unwrap(), 1);
    assert_eq!(forget(10).await.unwrap(), 1);
    assert_eq!(forget(10).await.unwrap(), 0);
    let left = ["c", "d", "token:c@", "token:d@"];
    assert_eq!(fixture.identities().await, left);
}
