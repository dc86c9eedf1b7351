//! `serve --store`: what is wrong with the database is told at the start, and no password with it.

use desktop_images::app::{Config, Data, PostgresSettings, Server, StoreSettings};
use test_support::{Program, postgres_server};
use tokio::process::Command;

/// The error of a start on a database.
async fn refusal(settings: PostgresSettings) -> String {
    let config = Config {
        store: StoreSettings::Postgres(settings),
        ..Config::new(Data::Ephemeral)
    };
    assert!(!format!("{config:?}").contains("hidden"));
    match Server::start(config).await {
        Ok(_) => panic!("it started"),
        Err(error) => error.to_string(),
    }
}

#[tokio::test]
async fn a_url_that_leads_to_no_database_is_told() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    for (url, told) in [
        ("mysql://me:hidden@db/d", "must begin with postgres://"),
        ("hidden", "must begin with postgres://"),
        ("postgres://me:hidden@/d", "names no host"),
        ("postgres://me:hidden@db/d?colour=1", "colour"),
        (
            "postgres://me:hidden@db/d?sslmode=prefer",
            "use verify-full",
        ),
        (
            &format!("postgres://me:hidden@127.0.0.1:{port}/d"),
            &format!(
                "postgres://127.0.0.1:{port}/d: the database cannot be reached: error connecting to server: Connection refused"
            ),
        ),
    ] {
        let error = refusal(PostgresSettings::new(url)).await;
        assert!(error.contains(told), "{url}: {error}");
        assert!(!error.contains("hidden"), "{error}");
    }
}

#[tokio::test]
async fn a_database_that_does_not_let_the_server_in_is_told() {
    if !postgres_server::is_installed("databases that refuse") {
        return;
    }
    let url = postgres_server::database().await;
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        Some(path)
    };
    let as_user = |user: &str| url.replace("images@", &format!("{user}@"));
    postgres_server::run(
        &url,
        "DO $$ BEGIN
             CREATE ROLE locked LOGIN PASSWORD 'right'; CREATE ROLE crowded LOGIN CONNECTION LIMIT 3;
         EXCEPTION WHEN duplicate_object THEN NULL; END $$",
    )
    .await;
    for (settings, told) in [
        (
            PostgresSettings::new(url.replace("/postgres?", "/missing?")),
            "database \"missing\" does not exist; make it with createdb",
        ),
        (
            PostgresSettings::new(as_user("locked:hidden")),
            "password authentication failed for user \"locked\"; the password comes from",
        ),
        (
            PostgresSettings {
                password_file: file("wrong", "hidden\n"),
                ..PostgresSettings::new(as_user("locked"))
            },
            "password authentication failed",
        ),
        (
            PostgresSettings {
                password_file: file("empty", "\n"),
                ..PostgresSettings::new(as_user("locked"))
            },
            "the file of the password is empty",
        ),
        // Let in, it may make no tables.
        (
            PostgresSettings {
                password_file: file("right", "right\n"),
                ..PostgresSettings::new(as_user("locked"))
            },
            "no schema of the search_path can be used; the user must own",
        ),
        (
            PostgresSettings::new(as_user("crowded")),
            "too few connections",
        ),
    ] {
        let error = refusal(settings).await;
        assert!(error.contains(told), "{error}");
        assert!(!error.contains("hidden"), "{error}");
    }
}

#[tokio::test]
async fn the_program_tells_no_password() {
    let folder = tempfile::tempdir().unwrap();
    for (argument, variable) in [
        ("--store=mysql://me:hidden@db/d", ""),
        ("--log-level=trace", "x://me:hidden@d"),
    ] {
        let mut command = Command::new(Program::path());
        command
            .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
            .arg(folder.path())
            .arg(argument);
        if !variable.is_empty() {
            command.env("DESKTOP_IMAGES_STORE", variable);
        }
        let ended = command.output().await.unwrap();
        let told = String::from_utf8(ended.stderr).unwrap();
        assert_eq!(ended.status.code(), Some(1), "{told}");
        assert!(told.contains("must begin with postgres://"), "{told}");
        assert!(!told.contains("hidden"), "{told}");
    }
    let help = Command::new(Program::path())
        .args(["serve", "--help"])
        .env("DESKTOP_IMAGES_STORE", "postgres://me:hidden@db/d")
        .output();
    let help = String::from_utf8(help.await.unwrap().stdout).unwrap();
    assert!(help.contains("--store-password-file") && !help.contains("hidden"));
}
