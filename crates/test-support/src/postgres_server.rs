//! A PostgreSQL server for tests, in a folder of its own: one for the process, with a schema for each store.
//! `DESKTOP_IMAGES_POSTGRES` names the folder of its programs, where it is not Debian's.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tokio_postgres::{Client, NoTls};

use crate::within;

/// Starts the server, which wants a password of the user `locked` alone, and stops and removes it when the test process has ended, however it ended: then its end of the
/// pipe is closed.
const SERVE: &str = r#"
    as_nobody=
    if [ "$(id -u)" = 0 ]; then
        chown nobody "$2"
        as_nobody="setpriv --reuid=nobody --regid=nogroup --clear-groups"
    fi
    cd "$2" && $as_nobody "$1/initdb" -D "$2/data" -U images --auth=trust --no-sync \
        --encoding=UTF8 --locale=C.UTF-8 >"$2.log" 2>&1
    sed -i '1i local all locked scram-sha-256' "$2/data/pg_hba.conf"
    $as_nobody "$1/postgres" -D "$2/data" -k "$2" -c listen_addresses= -c fsync=off \
        -c max_connections=200 -c shared_buffers=64MB >>"$2.log" 2>&1 &
    cat >/dev/null
    kill -INT $! && wait $!
    rm -rf "$2" "$2.log"
"#;

struct Server {
    folder: PathBuf,
    /// Holds the pipe.
    _process: Child,
}

static SERVER: OnceLock<Option<Server>> = OnceLock::new();
static SCHEMAS: AtomicU32 = AtomicU32::new(0);

/// The folder of the programs of the newest version.
pub(crate) fn programs() -> Option<PathBuf> {
    if let Some(folder) = std::env::var_os("DESKTOP_IMAGES_POSTGRES") {
        return Some(folder.into());
    }
    let versions = std::fs::read_dir("/usr/lib/postgresql").ok()?;
    let folders = versions.filter_map(|version| Some(version.ok()?.path().join("bin")));
    folders.filter(|it| it.join("initdb").exists()).max()
}

/// Whether there is a server; says aloud that a test is left out where not, which CI forbids.
pub fn is_installed(test: &str) -> bool {
    let is_installed = programs().is_some();
    if !is_installed {
        crate::left_out(test, "PostgreSQL is not installed");
    }
    is_installed
}

fn start(programs: &Path) -> Server {
    let folder = std::env::temp_dir().join(format!("desktop-images-pg-{}", std::process::id()));
    std::fs::create_dir(&folder).expect("a folder for PostgreSQL");
    let process = Command::new("sh")
        .args(["-c", SERVE, "sh"])
        .args([programs, &folder])
        .stdin(Stdio::piped())
        .spawn()
        .expect("a shell");
    Server {
        folder,
        _process: process,
    }
}

/// The variable that has whole servers run on another store than usual, as in `DESKTOP_IMAGES_TEST_STORE=postgres`.
const STORE: &str = "DESKTOP_IMAGES_TEST_STORE";
/// The file in the folder of a server that has the URL of its database.
const URL: &str = "store-url";

/// The URL of the database of a server whose data are below a folder, where whole servers are to run on PostgreSQL: a
/// new database the first time. Blocks for a while.
pub fn store_of(folder: &Path) -> Option<String> {
    match std::env::var(STORE).as_deref() {
        Err(_) | Ok("" | "sqlite") => return None,
        Ok("postgres") => {}
        Ok(other) => panic!("{STORE}={other}: not sqlite or postgres"),
    }
    let file = folder.join(URL);
    if let Ok(url) = std::fs::read_to_string(&file) {
        return Some(url);
    }
    // The caller may be in a runtime, whose threads must not begin another.
    let made = std::thread::spawn(|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.expect("a runtime").block_on(database())
    });
    let url = made.join().expect("a database");
    std::fs::write(&file, &url).expect("a file for the URL");
    Some(url)
}

/// The URL of an empty database, as far as a store can see.
pub async fn database() -> String {
    let server = SERVER.get_or_init(|| programs().map(|programs| start(&programs)));
    let server = server.as_ref().expect("asked only where it is installed");
    let folder = server.folder.display();
    let url = format!("postgres://images@/postgres?host={folder}");
    let begun = Instant::now();
    let client = loop {
        match connect(&url).await {
            Ok(client) => break client,
            Err(error) => {
                let log = std::fs::read_to_string(format!("{folder}.log"));
                assert!(
                    begun.elapsed() < Duration::from_secs(60),
                    "{error}: {log:?}"
                );
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    };
    let schema = format!("t{}", SCHEMAS.fetch_add(1, Ordering::Relaxed));
    let sql = format!("CREATE SCHEMA {schema}");
    client.batch_execute(&sql).await.expect("a schema");
    format!("{url}&options=-c%20search_path%3D{schema}")
}

/// The URL of a database that shares nothing with others, and its name. It can be dropped and made anew.
pub async fn whole_database() -> (String, String) {
    let url = database().await;
    let name = format!("d{}", SCHEMAS.fetch_add(1, Ordering::Relaxed));
    run(&url, &format!("CREATE DATABASE {name}")).await;
    let (server, _) = url.split_once("&options=").expect("a schema");
    (server.replace("/postgres?", &format!("/{name}?")), name)
}

/// Runs one of the programs of PostgreSQL, and returns what it prints.
pub async fn tool(name: &str, arguments: &[&str]) -> String {
    let program = programs().expect("asked only where it is installed");
    let mut command = tokio::process::Command::new(program.join(name));
    let ended = command.args(arguments).kill_on_drop(true).output();
    let ended = within(name, ended).await.expect("it runs");
    let errors = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success(), "{name} {arguments:?}: {errors}");
    String::from_utf8(ended.stdout).expect("UTF-8")
}

/// Runs statements on a database.
pub async fn run(url: &str, sql: &str) {
    let client = connect(url).await.expect("a connection");
    client.batch_execute(sql).await.expect("statements");
}

/// A connection of its own to a database.
pub async fn connect(url: &str) -> Result<Client, tokio_postgres::Error> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}
