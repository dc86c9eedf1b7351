//! A PostgreSQL server for tests, in a folder of its own: one for the process, with a schema for each store.
//! `DESKTOP_IMAGES_POSTGRES` names the folder of its programs, where it is not Debian's.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tokio_postgres::NoTls;

/// Starts the server, and stops and removes it when the test process has ended, however it ended: then its end of the
/// pipe is closed.
const SERVE: &str = r#"
    as_nobody=
    if [ "$(id -u)" = 0 ]; then
        chown nobody "$2"
        as_nobody="setpriv --reuid=nobody --regid=nogroup --clear-groups"
    fi
    cd "$2" && $as_nobody "$1/initdb" -D "$2/data" -U images --auth=trust --no-sync \
        --encoding=UTF8 --locale=C.UTF-8 >"$2.log" 2>&1
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
fn programs() -> Option<PathBuf> {
    if let Some(folder) = std::env::var_os("DESKTOP_IMAGES_POSTGRES") {
        return Some(folder.into());
    }
    let versions = std::fs::read_dir("/usr/lib/postgresql").ok()?;
    let folders = versions.filter_map(|version| Some(version.ok()?.path().join("bin")));
    folders.filter(|it| it.join("initdb").exists()).max()
}

/// Whether there is a server; says aloud that a test is left out where not, which CI forbids.
pub(super) fn is_installed(test: &str) -> bool {
    let is_installed = programs().is_some();
    if !is_installed {
        test_support::left_out(test, "PostgreSQL is not installed");
    }
    is_installed
}

fn start(programs: &Path) -> Server {
    let folder = std::env::temp_dir().join(format!("desktop-images-pg-{}", std::process::id()));
    std::fs::create_dir(&folder).unwrap();
    let process = Command::new("sh")
        .args(["-c", SERVE, "sh"])
        .args([programs, &folder])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    Server {
        folder,
        _process: process,
    }
}

/// The URL of an empty database, as far as a store can see.
pub(super) async fn database() -> String {
    let server = SERVER.get_or_init(|| programs().map(|programs| start(&programs)));
    let server = server.as_ref().expect("asked only where it is installed");
    let folder = server.folder.display();
    let url = format!("postgres://images@/postgres?host={folder}");
    let begun = Instant::now();
    let client = loop {
        match tokio_postgres::connect(&url, NoTls).await {
            Ok((client, connection)) => {
                tokio::spawn(connection);
                break client;
            }
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
    client.batch_execute(&sql).await.unwrap();
    format!("{url}&options=-c%20search_path%3D{schema}")
}
