//! s3s-fs, a server that speaks S3 strictly and keeps objects as files, for tests: one for the process.
//! `DESKTOP_IMAGES_S3S_FS` names its program, and has all tests of object storages run on it instead of SeaweedFS.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

/// Starts the server, and stops and removes it when the test process has ended, however it ended: then its end of the
/// pipe is closed.
const SERVE: &str = r#"
    program=$1 folder=$2
    shift 2
    "$program" --host 127.0.0.1 "$@" "$folder" >"$folder.log" 2>&1 &
    cat >/dev/null
    { kill $! && wait $!; } 2>/dev/null
    rm -rf "$folder" "$folder.log"
"#;

/// A running server.
pub(crate) struct S3sFs {
    /// Each bucket is a folder in it, and each object a file.
    pub(crate) folder: PathBuf,
    pub(crate) port: u16,
    /// Holds the pipe.
    _process: Child,
}

static SERVER: OnceLock<S3sFs> = OnceLock::new();

pub(crate) fn program() -> Option<PathBuf> {
    std::env::var_os("DESKTOP_IMAGES_S3S_FS").map(PathBuf::from)
}

/// The server, with one bucket and one who may do all there.
pub(crate) fn server(bucket: &str, key: &str, secret: &str) -> &'static S3sFs {
    SERVER.get_or_init(|| {
        let folder =
            std::env::temp_dir().join(format!("desktop-images-s3s-{}", std::process::id()));
        std::fs::create_dir_all(folder.join(bucket)).expect("a folder for s3s-fs");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        drop(listener);
        let process = Command::new("sh")
            .args(["-c", SERVE, "sh"])
            .args([
                program().expect("asked only where it is named"),
                folder.clone(),
            ])
            .args([
                "--port",
                &port.to_string(),
                "--access-key",
                key,
                "--secret-key",
                secret,
            ])
            .stdin(Stdio::piped())
            .spawn()
            .expect("a shell");
        S3sFs {
            folder,
            port,
            _process: process,
        }
    })
}
