//! Servers of one version and of the next on one PostgreSQL database: the migration of the next one comes while servers
//! work, and they go on. `scripts/check-upgrade` does the same with two programs.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use desktop_images::app::{PostgresSettings, Server, StoreSettings};
use futures_util::future::join_all;
use serde_json::json;
use test_support::{
    Clients, Disk, Fill, Method, TestServer, Transport, eventually, image_id, postgres_server,
};

use crate::replicas::{beside, on_postgres};

/// Callers at a time, of each server.
const CALLERS: usize = 4;
/// Locks that a migration does not get in this time it gives up, and tries again.
const NEXT: [&str; 5] = [
    "SET lock_timeout = 1000",
    "ALTER TABLE desktop_images ADD COLUMN of_next text NOT NULL DEFAULT 'next'",
    "ALTER TABLE operations ADD COLUMN of_next bigint",
    "CREATE TABLE next (one boolean PRIMARY KEY REFERENCES schema_version)",
    "UPDATE schema_version SET version = version + 1",
];

/// Copies that callers make at some servers until they are told to stop: their images, none of which may fail.
struct Load {
    source: String,
    is_over: AtomicBool,
}

impl Load {
    async fn on(&self, servers: &[&Clients], name: &str) -> Vec<String> {
        let callers = (0..CALLERS * servers.len()).map(|number| async move {
            let server = servers[number % servers.len()];
            let mut made = Vec::new();
            while !self.is_over.load(Ordering::Relaxed) {
                let name = format!("{name}-{number}-{}", made.len());
                let request = json!({"folderId": "f", "name": name, "imageId": self.source});
                let caller = server.caller(Transport::Grpc);
                let operation = caller.call(Method::Copy, request).await;
                made.push(image_id(&operation.expect("no call fails")));
            }
            made
        });
        join_all(callers).await.into_iter().flatten().collect()
    }

    /// Does something while callers make images.
    async fn during<T>(
        &self,
        servers: &[&Clients],
        name: &str,
        done: impl Future<Output = T>,
    ) -> (Vec<String>, T) {
        self.is_over.store(false, Ordering::Relaxed);
        let ending = async {
            let done = done.await;
            self.is_over.store(true, Ordering::Relaxed);
            done
        };
        futures_util::future::join(self.on(servers, name), ending).await
    }
}

/// Applies the migration of a later version, as its server does at its start.
async fn migrate(url: &str) {
    let client = postgres_server::connect(url).await.unwrap();
    let sql = format!("BEGIN; {}; COMMIT", NEXT.join("; "));
    eventually("the migration gets its locks", || async {
        match client.batch_execute(&sql).await {
            Ok(()) => Some(()),
            Err(_) => {
                client.batch_execute("ROLLBACK").await.unwrap();
                None
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_go_on_and_start_on_a_database_that_the_next_version_has_migrated() {
    let Some(mut first) = on_postgres("a migration of the next version", |_| {}).await else {
        return;
    };
    let StoreSettings::Postgres(PostgresSettings { url, .. }) = first.config().store else {
        panic!("another store");
    };
    let mut second = beside(&first).await;
    let disk = Disk::mbr(1, Fill::Random(1));
    let load = Load {
        source: first.compute_image("f", "source", &disk).await,
        is_over: AtomicBool::new(false),
    };
    let both = [&*first, &*second];
    let (mut made, ()) = load.during(&both, "both", migrate(&url)).await;
    // A server of this version starts on what the next one has left, while another works.
    let (more, ()) = load.during(&[&second], "second", first.restart()).await;
    made.extend(more);
    let (more, ()) = load.during(&[&first], "first", second.restart()).await;
    made.extend(more);
    assert!(!made.is_empty());
    for server in [&first, &second] {
        assert_eq!(desktop_images(server).await, sorted(made.clone()));
    }
    assert!(second.downloaded(&made[0]).await == disk);

    // A schema that takes away columns of this version is not for it.
    let set = async |readable_from: &str| {
        let sql = format!("UPDATE schema_version SET readable_from = {readable_from}");
        postgres_server::run(&url, &sql).await;
    };
    set("version").await;
    for server in [&first, &second] {
        ready(server, 503).await;
        let image = server.ask(Method::DesktopGet, json!({"imageId": made[0]}));
        image.await;
    }
    let refused = match Server::start(first.config()).await {
        Ok(_) => panic!("it started"),
        Err(error) => error.to_string(),
    };
    assert!(
        refused.contains("has schema version") && refused.contains("this program knows versions"),
        "{refused}"
    );
    set("version - 1").await;
    for server in [&first, &second] {
        ready(server, 200).await;
    }
}

/// Waits until the readiness of a server is told so.
async fn ready(server: &TestServer, status: u16) {
    let url = server.url("/readyz");
    eventually("readiness changes", || async {
        let told = server
            .http
            .get(&url)
            .timeout(Duration::from_secs(10))
            .send();
        (told.await.ok()?.status().as_u16() == status).then_some(())
    })
    .await;
}

/// The ids of all desktop images of the folder, sorted.
async fn desktop_images(server: &Clients) -> Vec<String> {
    let (mut ids, mut token) = (Vec::new(), String::new());
    loop {
        let request = json!({"folderId": "f", "pageSize": 1000, "pageToken": token});
        let page = server.ask(Method::DesktopList, request).await;
        let images = page["desktopImages"].as_array().into_iter().flatten();
        ids.extend(images.map(|image| test_support::text(image, "id").to_owned()));
        token = page["nextPageToken"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        if token.is_empty() {
            return sorted(ids);
        }
    }
}

fn sorted(mut ids: Vec<String>) -> Vec<String> {
    ids.sort();
    ids
}
