//! SeaweedFS, an object storage that speaks S3, for tests, in a folder of its own: one server for the process, with a
//! prefix of one bucket for each store. `DESKTOP_IMAGES_SEAWEEDFS` names its program, where scripts/test did not install
//! it. Where `DESKTOP_IMAGES_S3S_FS` names another server, that one takes its place.

mod processes;

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

pub use processes::{ObjectStorage, Part};

use crate::{eventually_within, s3s_fs};

/// Starts the server, and stops and removes it when the test process has ended, however it ended: then its end of the
/// pipe is closed.
const SERVE: &str = r#"
    program=$1 folder=$2
    shift 2
    cd "$folder" && "$program" server -dir "$folder/data" -ip 127.0.0.1 -ip.bind 127.0.0.1 \
        -filer -filer.localSocket "$folder/filer.sock" -s3 -s3.localSocket "$folder/s3.sock" \
        -s3.config "$folder/s3.json" -s3.port.iceberg 0 -s3.port.lance 0 -volume.max 50 \
        -master.volumeSizeLimitMB 1024 "$@" >"$folder.log" 2>&1 &
    cat >/dev/null
    kill $! && wait $!
    rm -rf "$folder" "$folder.log"
"#;
/// The options that take a port each.
const PORTS: [&str; 8] = [
    "-s3.port",
    "-filer.port",
    "-master.port",
    "-volume.port",
    "-s3.port.grpc",
    "-filer.port.grpc",
    "-master.port.grpc",
    "-volume.port.grpc",
];
/// One who may do all, and one who may only read.
const IDENTITIES: &str = r#"{"identities": [
    {"name": "images", "actions": ["Admin", "Read", "Write", "List", "Tagging"],
     "credentials": [{"accessKey": "images", "secretKey": "hidden-secret"}]},
    {"name": "reader", "actions": ["Read", "List"],
     "credentials": [{"accessKey": "reader", "secretKey": "hidden-reader"}]}
]}"#;
const KEY: &str = "images";
const SECRET: &str = "hidden-secret";
const BUCKET: &str = "images";
const PATIENCE: Duration = Duration::from_secs(120);
/// How long a look whether the storage answers may take.
const ONE_TRY: Duration = Duration::from_secs(5);

struct Server {
    folder: PathBuf,
    s3: u16,
    filer: u16,
    /// Holds the pipe.
    _process: Child,
}

static SERVER: OnceLock<Server> = OnceLock::new();
static PREFIXES: AtomicU32 = AtomicU32::new(0);

/// A place for the blobs of one installation.
#[derive(Debug, Clone)]
pub struct ObjectPlace {
    pub url: String,
    pub endpoint: String,
    /// The variables that have the credentials.
    pub environment: Vec<(String, String)>,
    objects: Objects,
    prefix: String,
}

/// The way to the objects of the bucket past S3.
#[derive(Debug, Clone)]
enum Objects {
    /// The URL of their folder in a filer.
    Filer(String),
    /// Their folder.
    Folder(PathBuf),
}

/// Credentials of somebody, as variables.
pub fn credentials(key: &str, secret: &str) -> Vec<(String, String)> {
    [
        ("AWS_ACCESS_KEY_ID", key),
        ("AWS_SECRET_ACCESS_KEY", secret),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .to_vec()
}

fn program() -> Option<PathBuf> {
    if let Some(program) = std::env::var_os("DESKTOP_IMAGES_SEAWEEDFS") {
        return Some(program.into());
    }
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let installed = workspace.join("target/test-tools/seaweedfs/bin/weed");
    installed.canonicalize().ok()
}

/// Whether there is a server; says aloud that a test is left out where not, which CI forbids.
pub fn is_installed(test: &str) -> bool {
    let is_installed = program().is_some() || s3s_fs::program().is_some();
    if !is_installed {
        crate::left_out(test, "SeaweedFS is not installed");
    }
    is_installed
}

fn start() -> Server {
    let folder = std::env::temp_dir().join(format!("desktop-images-s3-{}", std::process::id()));
    fs::create_dir_all(folder.join("data")).expect("a folder for SeaweedFS");
    fs::write(folder.join("s3.json"), IDENTITIES).expect("a file of identities");
    let ports: [u16; PORTS.len()] = free_ports();
    let options = PORTS.iter().zip(ports);
    let process = Command::new("sh")
        .args(["-c", SERVE, "sh"])
        .args([
            program().expect("asked only where it is installed"),
            folder.clone(),
        ])
        .args(options.map(|(option, port)| format!("{option}={port}")))
        .stdin(Stdio::piped())
        .spawn()
        .expect("a shell");
    Server {
        folder,
        s3: ports[0],
        filer: ports[1],
        _process: process,
    }
}

/// Ports that nobody has.
fn free_ports<const N: usize>() -> [u16; N] {
    // All are taken at once, so that they are different.
    let listeners = [(); N].map(|()| TcpListener::bind("127.0.0.1:0").expect("a port"));
    listeners.map(|it| it.local_addr().expect("an address").port())
}

/// An empty place, and the credentials of one who may do all there.
pub async fn place() -> ObjectPlace {
    let prefix = format!("t{}", PREFIXES.fetch_add(1, Ordering::Relaxed));
    let (s3, folder, objects) = match s3s_fs::program() {
        Some(_) => {
            let server = s3s_fs::server(BUCKET, KEY, SECRET);
            let objects = Objects::Folder(server.folder.join(BUCKET));
            (server.port, &server.folder, objects)
        }
        None => {
            let server = SERVER.get_or_init(start);
            let filer = format!("http://127.0.0.1:{}/buckets/{BUCKET}/", server.filer);
            (server.s3, &server.folder, Objects::Filer(filer))
        }
    };
    let place = ObjectPlace {
        url: format!("s3://{BUCKET}/{prefix}"),
        endpoint: format!("http://127.0.0.1:{s3}"),
        environment: credentials(KEY, SECRET),
        objects,
        prefix,
    };
    place.answers(&folder.with_extension("log")).await;
    place
}

impl ObjectPlace {
    /// Waits until the storage takes objects. Its log is named where it does not.
    async fn answers(&self, log: &Path) {
        let is_ready = || async {
            let http = http();
            http.get(&self.endpoint).send().await.ok()?;
            let Objects::Filer(filer) = &self.objects else {
                return Some(());
            };
            // A bucket is a folder of the filer.
            http.post(filer).send().await.ok()?;
            let file = format!("{filer}ready-{}", self.prefix);
            let put = http
                .put(&file)
                .body("ready")
                .timeout(ONE_TRY)
                .send()
                .await
                .ok()?;
            let got = http.get(&file).send().await.ok()?;
            http.delete(&file).send().await.ok()?;
            let both = put.status().is_success() && got.status().is_success();
            both.then_some(())
        };
        let what = format!("the object storage answers ({})", log.display());
        eventually_within(PATIENCE, &what, is_ready).await;
    }

    /// The bytes of an object below the prefix.
    pub async fn object(&self, name: &str) -> Option<Vec<u8>> {
        let filer = match &self.objects {
            Objects::Folder(folder) => return fs::read(self.file(folder, name)).ok(),
            Objects::Filer(filer) => filer,
        };
        let reply = http().get(self.address(filer, name)).send().await;
        let reply = reply.expect("a reply");
        match reply.status().is_success() {
            true => Some(reply.bytes().await.expect("a body").to_vec()),
            false => None,
        }
    }

    /// Puts other bytes in the place of an object.
    pub async fn put(&self, name: &str, bytes: Vec<u8>) {
        let filer = match &self.objects {
            Objects::Folder(folder) => {
                let file = self.file(folder, name);
                fs::create_dir_all(file.parent().expect("a folder")).expect("a folder");
                return fs::write(file, bytes).expect("a file that can be written");
            }
            Objects::Filer(filer) => filer,
        };
        let request = http().put(self.address(filer, name)).body(bytes);
        let reply = request.send().await.expect("a reply");
        assert!(reply.status().is_success(), "{name}: {}", reply.status());
    }

    /// Takes an object away.
    pub async fn delete(&self, name: &str) {
        let filer = match &self.objects {
            Objects::Folder(folder) => {
                return fs::remove_file(self.file(folder, name)).expect("a file");
            }
            Objects::Filer(filer) => filer,
        };
        let reply = http().delete(self.address(filer, name)).send();
        let reply = reply.await.expect("a reply");
        assert!(reply.status().is_success(), "{name}: {}", reply.status());
    }

    /// The names of the objects in a folder below the prefix.
    pub async fn objects(&self, folder: &str) -> Vec<String> {
        match &self.objects {
            Objects::Folder(bucket) => files(&self.file(bucket, folder)),
            Objects::Filer(filer) => names(&self.address(filer, &format!("{folder}/"))).await,
        }
    }

    /// The uploads in parts, of the whole bucket, that are neither complete nor aborted.
    pub async fn uploads_in_parts(&self) -> Vec<String> {
        match &self.objects {
            // A file beside the buckets, as long as the upload is under way.
            Objects::Folder(bucket) => {
                let notes = files(bucket.parent().expect("the folder of all buckets"));
                let ids = notes.iter().filter_map(|it| it.strip_prefix(".upload-"));
                ids.filter_map(|it| Some(it.strip_suffix(".json")?.to_owned()))
                    .collect()
            }
            Objects::Filer(filer) => names(&format!("{filer}.uploads/")).await,
        }
    }

    fn file(&self, bucket: &Path, name: &str) -> PathBuf {
        bucket.join(&self.prefix).join(name)
    }

    fn address(&self, filer: &str, name: &str) -> String {
        format!("{filer}{}/{name}", self.prefix)
    }
}

/// The names of the files in a folder.
fn files(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let files = entries.filter(|entry| entry.path().is_file());
    files
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect()
}

/// The names in a folder of a filer.
async fn names(folder: &str) -> Vec<String> {
    let request = http().get(format!("{folder}?limit=10000"));
    let request = request.header("Accept", "application/json");
    let reply = request.send().await.expect("a reply");
    if !reply.status().is_success() {
        return Vec::new();
    }
    let body = reply.bytes().await.expect("a body");
    let listed: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
    let entries = listed["Entries"].as_array().into_iter().flatten();
    let paths = entries.filter_map(|entry| entry["FullPath"].as_str());
    paths
        .filter_map(|path| Some(path.rsplit_once('/')?.1.to_owned()))
        .collect()
}

/// Made once, which takes a while. It keeps no connections, which would end with the runtime of a test.
fn http() -> &'static reqwest::Client {
    static CLIENT: OnceLock<reqwest::Client> = OnceLock::new();
    CLIENT.get_or_init(|| {
        let client = reqwest::Client::builder().no_proxy();
        let client = client.pool_max_idle_per_host(0).build();
        client.expect("a client")
    })
}
