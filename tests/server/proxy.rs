//! The proxy that the README sets up passes on what this server needs.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;

use desktop_images::app::Listen;
use serde_json::json;
use test_support::{Clients, Disk, Fill, Method, TestServer, eventually, has_tool, within};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};

/// nginx with the README's lines, but for one of them, in front of a server.
async fn nginx(folder: &Path, server: SocketAddr, without: &str) -> (Child, SocketAddr) {
    let readme = std::fs::read_to_string("README.md").expect("README.md");
    let (_, block) = readme
        .split_once("```nginx\n")
        .expect("its lines for nginx");
    let (block, _) = block.split_once("```").expect("their end");
    let named = "http://10.0.0.2:8080";
    assert!(block.contains(named), "{block}");
    let block = block.replace(named, &format!("http://127.0.0.1:{}", server.port()));
    let block = block.replace(without, "");
    // Free as it is asked for.
    let free = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = free.local_addr().expect("an address");
    drop(free);
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|name| format!("{name}_temp_path {name};\n"))
        .collect();
    let configuration = format!(
        "daemon off; master_process off; pid nginx.pid; events {{}}\n\
         http {{ access_log off; {temporary} server {{ listen {address};\n{block} }} }}"
    );
    let file = folder.join("nginx.conf");
    std::fs::write(&file, configuration).expect("a configuration");
    let nginx = Command::new("nginx")
        .arg("-p")
        .arg(folder)
        .arg("-c")
        .arg(&file)
        .args(["-e", "stderr"])
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("nginx");
    eventually("nginx listens", || async {
        TcpStream::connect(address).await.ok().map(drop)
    })
    .await;
    (nginx, address)
}

#[tokio::test]
async fn the_readmes_proxy_passes_on_hosts_uploads_and_streams() {
    let test = "the_readmes_proxy_passes_on_hosts_uploads_and_streams";
    if !has_tool(test, "nginx") {
        return;
    }
    let server = behind_a_proxy().await;
    let folder = tempfile::tempdir().unwrap();
    let (_nginx, address) = nginx(folder.path(), server.address, "").await;
    let proxied = Clients::new(address);

    // Larger than nginx takes unasked.
    let disk = Disk::mbr(3, Fill::Random(1));
    let source = proxied.uploaded("f", "n", &disk).await;
    let id = server
        .copied("f", "copy", &test_support::image_id(&source))
        .await;
    assert!(proxied.downloaded(&id).await == disk);

    answers_its_own_pages(&proxied).await;

    // Each event as it happens, and the headers before any does.
    let path = "/desktop-images/v1/auditEvents?folderId=g&follow=true";
    for accept in [
        "text/event-stream",
        "application/json",
        "application/x-ndjson",
    ] {
        let request = proxied.http.get(proxied.url(path)).header("accept", accept);
        let mut reply = within("an answer", request.send()).await.unwrap();
        assert_eq!(reply.status(), 200, "{accept}");
        let name = accept.replace(['/', '+', '.'], "-");
        let request =
            json!({"folderId": "g", "uri": server.importable("disk.img", &disk), "name": name});
        server.ask(Method::Create, request).await;
        let piece = within("an event", reply.chunk()).await.unwrap();
        let piece = String::from_utf8(piece.expect("no end").to_vec()).unwrap();
        assert!(piece.contains("STARTED"), "{piece}");
    }
}

/// A server that other machines may reach, through a proxy.
async fn behind_a_proxy() -> TestServer {
    TestServer::start_with(|config| {
        config.listen = vec![Listen::Tcp(([0, 0, 0, 0], 0).into())];
        config.trusted_proxies = vec!["127.0.0.1".parse().unwrap()];
        let hosts = ["images.example", "127.0.0.1", "0.0.0.0"];
        config.allow_hosts = hosts.map(|host| host.parse().unwrap()).to_vec();
        config.insecure_allow_anonymous = true;
    })
    .await
}

/// Asks through a proxy as pages of the server's own and of other origins do.
async fn answers_its_own_pages(proxied: &Clients) {
    let list = proxied.url("/compute/v1/images?folderId=f");
    for (host, origin, status) in [
        ("images.example", "https://images.example", 200),
        ("images.example:8443", "https://images.example:8443", 200),
        ("images.example", "https://evil.example", 403),
        ("images.example", "null", 403),
        ("evil.example", "https://evil.example", 403),
    ] {
        let request = proxied.http.get(&list);
        let request = request.header("host", host).header("origin", origin);
        let reply = request.send().await.unwrap();
        assert_eq!(reply.status(), status, "{host} {origin}");
    }
}

#[tokio::test]
async fn a_proxy_may_rewrite_the_host_where_it_tells_of_it() {
    if !has_tool("a_proxy_may_rewrite_the_host_where_it_tells_of_it", "nginx") {
        return;
    }
    let server = behind_a_proxy().await;
    for without in [
        "proxy_set_header Host $http_host;",
        "proxy_set_header X-Forwarded-Host $http_host;",
    ] {
        let folder = tempfile::tempdir().unwrap();
        let (_nginx, address) = nginx(folder.path(), server.address, without).await;
        answers_its_own_pages(&Clients::new(address)).await;
    }
}
