//! Arguments and messages of the command line: wrong values are told, right ones in all their forms are taken.

use std::process::Stdio;

use serde_json::{Value, json};
use test_support::{Disk, Fill, Method, Program, TestServer, audit_events, response, text, within};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

#[tokio::test]
async fn values_that_would_be_misunderstood_are_wrong_usage() {
    let server = TestServer::start().await;
    for (arguments, words) in [
        ("serve --log-level loud", "\"loud\" is neither a level"),
        (
            "serve --log-level info,hyper",
            "\"hyper\" is neither a level",
        ),
        ("serve --listen nowhere", "localhost:8080"),
        ("serve --drain-timeout 5", "500ms"),
        ("serve --idle-timeout 0s", "longer than 0s"),
        (
            "quota set --name vdi.desktopImages.count --limit 10GiB",
            "a number without a unit",
        ),
        (
            "quota set --name compute.images.count --limit 1K --folder-id f",
            "a number without a unit",
        ),
    ] {
        let run = Program::run(server.address, arguments).await;
        assert_eq!(run.exit_code, Some(2), "{arguments}: {}", run.errors);
        assert!(run.errors.contains(words), "{arguments}: {}", run.errors);
    }
    let page = server.ask(Method::QuotaList, json!({})).await;
    assert_eq!(page["quotas"], json!([]));
    let mut command = Program::command(server.address, "serve --ephemeral --listen 0");
    let run = command.env("RUST_LOG", "inof").output();
    let run = within("it ends", run).await.unwrap();
    let errors = String::from_utf8_lossy(&run.stderr);
    assert_eq!(run.status.code(), Some(2), "{errors}");
    assert!(
        errors.contains("RUST_LOG") && errors.contains("inof"),
        "{errors}"
    );
}

#[tokio::test]
async fn usage_errors_name_what_is_missing_and_nothing_that_has_a_default() {
    let server = TestServer::start().await;
    for arguments in [
        "image copy --compute-image-id fd8",
        "image list",
        "quota set --limit 5",
        "--format json image get",
        "operation wait",
        "compute-image import --folder-id f",
        "image update --id e3v",
    ] {
        let run = Program::run(server.address, arguments).await;
        assert_eq!(run.exit_code, Some(2), "{arguments}: {}", run.errors);
        assert!(run.errors.contains("Usage:"), "{arguments}: {}", run.errors);
        assert!(
            !run.errors.contains("--endpoint"),
            "{arguments}: {}",
            run.errors
        );
    }
}

#[tokio::test]
async fn a_server_listens_where_it_is_told_and_warns_where_all_can_reach_it() {
    for (listen, address, warns) in [
        ("0", "127.0.0.1", false),
        ("localhost:0", "127.0.0.1", false),
        (":0", "127.0.0.1", true),
        (":0", "[::1]", true),
        ("0.0.0.0:0", "127.0.0.1", true),
    ] {
        let mut child = Command::new(Program::path())
            .args(["serve", "--ephemeral", "--listen", listen])
            .args(["--insecure-plaintext", "--insecure-allow-anonymous"])
            .args(["--allow-host", "127.0.0.1", "--allow-host", "::1"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = within("it listens", lines.next_line()).await.unwrap();
        let line = line.expect("a line");
        let (_, port) = line.rsplit_once(':').expect("a port");
        let url = format!("http://{address}:{port}/desktop-images/v1/quotas");
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let reply = within("a reply", client.get(url).send()).await;
        // A machine may have no IPv6.
        if address != "[::1]" || reply.is_ok() {
            assert_eq!(reply.unwrap().status(), 200, "{listen}");
        }
        test_support::run(
            std::path::Path::new("/"),
            "kill",
            &["-TERM", &child.id().expect("it runs").to_string()],
        );
        let ended = within("it ends", child.wait_with_output()).await.unwrap();
        let log = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(log.contains("no tokens"), warns, "{listen}: {log}");
    }
}

#[tokio::test]
async fn audit_is_printed_in_the_format_that_is_asked_for() {
    let server = TestServer::start().await;
    let disk = Disk::mbr(1, Fill::Sparse(1));
    let source = server.compute_image("f", "source", &disk).await;
    let copy = server.copied("f", "before", &source).await;
    let request = json!({"imageId": copy, "updateMask": "name", "name": "after"});
    response(&server.ask(Method::DesktopUpdate, request).await);
    let events = audit_events(&server, "", 0).await;
    let printed = async |format: &'static str| {
        let arguments = format!("audit --format {format}");
        Program::run(server.address, &arguments).await.succeeded()
    };
    let json = printed("json").await;
    let parsed: Vec<Value> = json
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(parsed, events);
    let yaml = printed("yaml").await;
    let documents: Vec<Value> = serde_norway::Deserializer::from_str(&yaml)
        .map(|document| serde::Deserialize::deserialize(document).unwrap())
        .collect();
    assert_eq!(documents, events);
    let lines = printed("text").await;
    assert_eq!(lines.lines().count(), events.len());
    let last = lines.lines().last().unwrap();
    for words in [
        "DONE clouddesktop.UpdateDesktopImage",
        &copy,
        "name: \"before\" -> \"after\"",
        text(events.last().unwrap(), "requestId"),
    ] {
        assert!(last.contains(words), "{last}");
    }
}

#[tokio::test]
async fn labels_are_printed_in_one_order_everywhere() {
    let server = TestServer::start().await;
    let disk = Disk::mbr(1, Fill::Sparse(1));
    let names: Vec<String> = (b'a'..=b'z')
        .rev()
        .map(|it| char::from(it).to_string())
        .collect();
    let query: Vec<String> = names
        .iter()
        .map(|name| format!("labels%5B{name}%5D=v"))
        .collect();
    let path = format!(
        "/compute/v1/images:upload?folderId=f&name=n&{}",
        query.join("&")
    );
    let request = server.http.post(server.url(&path)).body(disk);
    let upload = request.send().await.unwrap().text().await.unwrap();
    let image = test_support::image_id(&serde_json::from_str(&upload).unwrap());
    let url = server.url(&format!("/compute/v1/images/{image}"));
    let get = server
        .http
        .get(url)
        .send()
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    let mut texts = vec![upload, get];
    for format in ["text", "json", "yaml"] {
        for command in [
            format!("compute-image get {image} --format {format}"),
            format!("compute-image list-operations {image} --format {format}"),
        ] {
            texts.push(Program::run(server.address, &command).await.succeeded());
        }
    }
    for text in texts {
        let keys: Vec<char> = text
            .split(['\n', ',', '{', '}'])
            .filter_map(|part| {
                let (key, value) = part.trim().split_once(':')?;
                let is_label = value.trim().trim_matches('"') == "v";
                is_label.then(|| key.trim_matches(['"', '\'']).chars().next())?
            })
            .collect();
        assert!(keys.is_sorted(), "{text}");
        assert!(keys.is_empty() || keys.len() == 26, "{text}");
    }
}

#[tokio::test]
async fn a_digest_that_is_another_one_is_told_with_both() {
    use sha2::Digest;
    let server = TestServer::start().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("disk.img");
    let disk = Disk::mbr(1, Fill::Random(1));
    std::fs::write(&file, &disk).unwrap();
    let said = "00".repeat(32);
    let command = format!(
        "compute-image import {} --folder-id f --sha256 {said}",
        file.display()
    );
    let run = Program::run(server.address, &command).await;
    assert_eq!(run.exit_code, Some(3), "{}", run.errors);
    let digest = sha2::Sha256::digest(&disk);
    let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    for part in [&said, &digest] {
        assert!(run.errors.contains(part.as_str()), "{}", run.errors);
    }
}
