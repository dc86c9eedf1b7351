//! A unit with `Type=notify`: systemd is told when the server listens, and when it stops.

use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use test_support::{Program, ServerProcess};
use tokio::process::Command;

#[tokio::test]
async fn systemd_is_told_when_the_server_listens_and_when_it_stops() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    let told = |socket: &UnixDatagram| {
        let mut message = [0; 4096];
        let length = socket.recv(&mut message).unwrap();
        String::from_utf8_lossy(&message[..length])
            .trim_end()
            .to_owned()
    };
    let mut command = Command::new(Program::path());
    command.env("NOTIFY_SOCKET", &path);
    let command = ServerProcess::serve(command, folder.path());
    let server = ServerProcess::listening(command, folder.path()).await;
    assert_eq!(told(&socket), "READY=1");
    server.compute_images("f").await;
    server.terminate();
    assert_eq!(told(&socket), "STOPPING=1");
    assert_eq!(server.exit_code().await, Some(0));
}
