//! Downloads that the server has its object storage answer: which ones, and how clients take it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use desktop_images::app::{BlobLayout, BlobSettings, ObjectSettings, RedirectSettings};
use reqwest::redirect::Policy;
use reqwest::{Method, Response, StatusCode};
use serde_json::json;
use test_support::seaweedfs::{self, ObjectPlace};
use test_support::{Disk, Fill, Program, TestServer, has_tool, image_id, left_out, text, within};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;

use crate::identity::Guarded;
use crate::object_storage::{on_objects, settings};

/// The address of a storage under another name: the name of the host is signed.
fn public_endpoint(place: &ObjectPlace) -> String {
    place.endpoint.replace("127.0.0.1", "localhost")
}

fn redirecting(place: &ObjectPlace, layout: BlobLayout, endpoint: &str) -> BlobSettings {
    BlobSettings::Object(ObjectSettings {
        layout,
        redirect: Some(RedirectSettings {
            endpoint: endpoint.to_owned(),
            lifetime: Duration::from_secs(300),
        }),
        ..settings(place)
    })
}

/// A client that follows no redirect.
fn unmoved() -> reqwest::Client {
    let client = reqwest::Client::builder().redirect(Policy::none());
    client.no_proxy().build().unwrap()
}

async fn ask(server: &TestServer, method: &str, id: &str, fields: &[(&str, &str)]) -> Response {
    let url = server.url(&format!("/cloud-desktop/v1/images/{id}:download"));
    let mut request = unmoved().request(method.parse().unwrap(), url);
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    request.send().await.unwrap()
}

async fn status(server: &TestServer, id: &str) -> u16 {
    ask(server, "GET", id, &[]).await.status().as_u16()
}

fn sparse_disk(seed: u64) -> Vec<u8> {
    let mut disk = Disk::mbr(1, Fill::Random(seed));
    disk.resize(12 << 20, 0);
    disk.extend_from_slice(&[7; 512]);
    disk
}

#[tokio::test]
async fn plain_downloads_are_redirected_and_all_others_are_answered_by_the_server() {
    if !seaweedfs::is_installed("downloads that are redirected") {
        return;
    }
    let place = seaweedfs::place().await;
    let public = public_endpoint(&place);
    let server = on_objects(&place, |config| {
        config.blobs = redirecting(&place, BlobLayout::Whole, &public);
    })
    .await;
    let disk = sparse_disk(1);
    let source = server.compute_image("f", "source", &disk).await;
    let id = server.copied("f", "a-name", &source).await;

    let head = ask(&server, "HEAD", &id, &[]).await;
    assert_eq!(head.status(), 200);
    assert_eq!(head.headers()["content-length"], disk.len().to_string());
    let etag = head.headers()["etag"].to_str().unwrap().to_owned();
    for (fields, expected) in [
        (&[][..], 302),
        (&[("range", "bytes=5-")], 302),
        (&[("range", "bytes=-5")], 302),
        (&[("authorization", "Bearer of-nobody")], 302),
        (&[("sec-fetch-mode", "navigate")], 302),
        (&[("range", "bytes=99999999999-")], 416),
        (&[("range", "bytes=0-1,5-9")], 200),
        (&[("if-none-match", &*etag)], 304),
        (&[("if-none-match", "\"other\"")], 200),
        (&[("if-match", &*etag)], 200),
        (&[("if-match", "\"other\"")], 412),
        (&[("range", "bytes=5-9"), ("if-range", &*etag)], 206),
        (&[("range", "bytes=5-9"), ("if-range", "\"other\"")], 200),
        (&[("origin", &*server.url(""))], 200),
        (&[("sec-fetch-mode", "cors")], 200),
    ] {
        let reply = ask(&server, "GET", &id, fields).await;
        assert_eq!(reply.status(), expected, "{fields:?}");
        for name in ["etag", "repr-digest", "content-disposition"] {
            if reply.status() != StatusCode::RANGE_NOT_SATISFIABLE {
                assert_eq!(reply.headers()[name], head.headers()[name], "{fields:?}");
            }
        }
        let location = reply.headers().get("location");
        assert_eq!(location.is_some(), expected == 302, "{fields:?}");
        let Some(location) = location.map(|it| it.to_str().unwrap().to_owned()) else {
            continue;
        };
        assert_eq!(reply.headers()["cache-control"], "no-store");
        assert!(location.starts_with(&format!("{public}/")), "{location}");
        assert_eq!(reply.bytes().await.unwrap().len(), 0);
        // The client sends its range there too.
        let mut followed = unmoved().get(&location);
        if let [("range", range)] = fields {
            followed = followed.header("range", *range);
        }
        let followed = followed.send().await.unwrap();
        let (wanted, bytes) = match fields {
            [("range", "bytes=5-")] => (206, &disk[5..]),
            [("range", "bytes=-5")] => (206, &disk[disk.len() - 5..]),
            _ => (200, &disk[..]),
        };
        assert_eq!(followed.status(), wanted, "{fields:?}");
        for (name, value) in [
            (
                "content-disposition",
                &head.headers()["content-disposition"],
            ),
            ("content-type", &head.headers()["content-type"]),
        ] {
            assert_eq!(followed.headers()[name], value);
        }
        assert!(followed.bytes().await.unwrap() == bytes, "{fields:?}");
        // No other host, and nothing else there.
        for forged in [
            location.replace("localhost", "127.0.0.1"),
            location.replace("/blobs/", "/blobs/0"),
            location.replace("a-name", "b-name"),
        ] {
            assert_ne!(forged, location);
            assert_eq!(unmoved().get(forged).send().await.unwrap().status(), 403);
        }
    }
    assert_eq!(status(&server, "of-nobody").await, 404);
}

#[tokio::test]
async fn blobs_of_both_layouts_are_read_and_only_whole_ones_are_redirected() {
    if !seaweedfs::is_installed("blobs of both layouts") {
        return;
    }
    let place = seaweedfs::place().await;
    let mut server = on_objects(&place, |_| {}).await;
    let (sparse, dense) = (sparse_disk(2), dense_disk(3));
    let mut copies = Vec::new();
    for (name, disk) in [("sparse", &sparse), ("dense", &dense)] {
        let source = server.compute_image("f", name, disk).await;
        copies.push(server.copied("f", name, &source).await);
    }
    let stored = async |name: &str| place.object(&format!("blobs/{name}")).await.unwrap().len();
    let public = public_endpoint(&place);
    for (layout, redirect, expected) in [
        (BlobLayout::Packed, false, [200, 200]),
        (BlobLayout::Packed, true, [200, 302]),
        (BlobLayout::Whole, true, [200, 302]),
        (BlobLayout::Whole, false, [200, 200]),
    ] {
        server.config.blobs = match redirect {
            true => redirecting(&place, layout, &public),
            false => BlobSettings::Object(ObjectSettings {
                layout,
                ..settings(&place)
            }),
        };
        server.restart().await;
        for ((copy, disk), expected) in copies.iter().zip([&sparse, &dense]).zip(expected) {
            assert_eq!(status(&server, copy).await, expected, "{layout:?}");
            assert!(server.downloaded(copy).await == *disk);
        }
    }
    // Equal bytes take the place of those that are there, in the layout of now.
    server.config.blobs = redirecting(&place, BlobLayout::Whole, &public);
    server.restart().await;
    let mut lengths = Vec::new();
    for name in place.objects("blobs").await {
        lengths.push(stored(&name).await);
    }
    assert!(lengths.iter().all(|length| *length < sparse.len()));
    server.compute_image("f", "again", &sparse).await;
    for copy in &copies {
        assert_eq!(status(&server, copy).await, 302);
    }
    assert!(server.downloaded(&copies[0]).await == sparse);
    server.config.blobs = BlobSettings::Object(settings(&place));
    server.restart().await;
    assert!(server.downloaded(&copies[0]).await == sparse);
}

/// A disk without a unit of zeros.
fn dense_disk(seed: u64) -> Vec<u8> {
    let mut disk = Disk::mbr(3, Fill::Random(seed));
    for unit in disk.chunks_mut(64 << 10) {
        let last = unit.len() - 1;
        unit[last / 2] |= 1;
    }
    disk
}

#[tokio::test]
async fn damaged_bytes_are_not_redirected_once_that_is_known() {
    if !seaweedfs::is_installed("redirects of damaged objects") {
        return;
    }
    let place = seaweedfs::place().await;
    let public = public_endpoint(&place);
    let server = on_objects(&place, |config| {
        config.blobs = redirecting(&place, BlobLayout::Whole, &public);
    })
    .await;
    let disk = dense_disk(4);
    let source = server.compute_image("f", "source", &disk).await;
    let copy = server.copied("f", "copy", &source).await;
    assert_eq!(status(&server, &copy).await, 302);
    let name = format!("blobs/{}", place.objects("blobs").await[0]);
    let mut stored = place.object(&name).await.unwrap();
    stored[2_000_000] ^= 1;
    place.put(&name, stored).await;
    // This one is answered by the server, which looks.
    let reply = ask(&server, "GET", &copy, &[("if-match", "*")]).await;
    assert!(reply.bytes().await.is_err());
    assert_eq!(status(&server, &copy).await, 200);
}

/// Passes connections on, and keeps what clients send.
async fn recorder(place: &ObjectPlace) -> (String, Arc<Mutex<Vec<u8>>>) {
    let target = place.endpoint.trim_start_matches("http://").to_owned();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let sent: Arc<Mutex<Vec<u8>>> = Arc::default();
    let kept = sent.clone();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let (target, kept) = (target.clone(), kept.clone());
            tokio::spawn(async move {
                let server = TcpStream::connect(target).await.unwrap();
                let (mut from_client, mut to_client) = client.into_split();
                let (mut from_server, mut to_server) = server.into_split();
                tokio::spawn(
                    async move { tokio::io::copy(&mut from_server, &mut to_client).await },
                );
                let mut buffer = [0; 4096];
                while let Ok(count @ 1..) = from_client.read(&mut buffer).await {
                    kept.lock().unwrap().extend_from_slice(&buffer[..count]);
                    if to_server.write_all(&buffer[..count]).await.is_err() {
                        break;
                    }
                }
            });
        }
    });
    (endpoint, sent)
}

#[tokio::test]
async fn the_command_line_and_signed_urls_are_redirected_and_no_token_is_passed_on() {
    if !seaweedfs::is_installed("redirects of the command line") {
        return;
    }
    let place = seaweedfs::place().await;
    let (public, sent) = recorder(&place).await;
    let guarded = Guarded::start_with(|config| {
        config.blobs = redirecting(&place, BlobLayout::Whole, &public);
    })
    .await;
    let base = guarded.compute_image("f", "base").await;
    let copy = json!({"folderId": "f", "name": "a", "imageId": base});
    let path = "/cloud-desktop/v1/images:copy";
    let made = guarded.ask(Method::POST, path, copy).await;
    let id = image_id(&made);
    let server = &guarded.server;
    assert_eq!(status(server, &id).await, 401);

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("got");
    let download = format!("image download {id} --output {}", file.display());
    let mut command = Program::command(server.address, &download);
    command.env("DESKTOP_IMAGES_TOKEN", &guarded.admin);
    let ended = within("it ends", command.output()).await.unwrap();
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(ended.status.success(), "{said}");
    assert!(said.contains("SHA-256"), "{said}");
    let asked = String::from_utf8_lossy(&sent.lock().unwrap()).into_owned();
    assert!(asked.contains("X-Amz-Signature"), "{asked}");
    assert!(!asked.contains(guarded.admin.trim()), "{asked}");

    let path = "/desktop-images/v1/signedUrls";
    let signed = guarded
        .ask(Method::POST, path, json!({"imageId": id}))
        .await;
    let url = server.url(text(&signed, "path"));
    let reply = unmoved().get(&url).send().await.unwrap();
    assert_eq!(reply.status(), 302);
    assert_eq!(reply.headers()["cache-control"], "no-store");
    assert_eq!(reply.headers()["referrer-policy"], "no-referrer");
    let location = reply.headers()["location"].to_str().unwrap().to_owned();
    let bytes = unmoved().get(location).send().await.unwrap().bytes().await;
    assert!(bytes.unwrap() == std::fs::read(&file).unwrap());
}

/// Runs a tool, which must succeed.
async fn run(folder: &std::path::Path, words: &[&str]) -> String {
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).current_dir(folder);
    command.env("NO_PROXY", "*").env("no_proxy", "*");
    let ended = within(words[0], command.kill_on_drop(true).output())
        .await
        .unwrap();
    let said = format!("{ended:?}");
    assert!(ended.status.success(), "{words:?}: {said}");
    said
}

/// Words, with a URL that stands for `URL`.
fn with_url<'a>(words: &'a str, url: &'a str) -> Vec<&'a str> {
    let words = words.split(' ');
    words
        .map(|word| if word == "URL" { url } else { word })
        .collect()
}

#[tokio::test]
async fn tools_follow_redirects_and_go_on_behind_a_part() {
    let test = "tools that follow redirects";
    if !seaweedfs::is_installed(test) || !has_tool(test, "qemu-img") {
        return;
    }
    let place = seaweedfs::place().await;
    let (public, sent) = recorder(&place).await;
    let server = on_objects(&place, |config| {
        config.blobs = redirecting(&place, BlobLayout::Whole, &public);
    })
    .await;
    let Some(disk) = Disk::qcow2(test, &Disk::mbr(12, Fill::Random(5)), &[]) else {
        return;
    };
    let source = server.compute_image("f", "source", &disk).await;
    let copy = server.copied("f", "copy", &source).await;
    let url = server.url(&format!("/cloud-desktop/v1/images/{copy}:download"));
    let folder = tempfile::tempdir().unwrap();
    let (folder, got) = (folder.path(), folder.path().join("got"));
    let requests = || {
        String::from_utf8_lossy(&sent.lock().unwrap())
            .matches("GET /")
            .count()
    };

    let curl = ["curl", "-sS", "--fail", "-L", "-C", "-", "-o", "got", &url];
    let wget = ["wget", "-q", "--no-proxy", "-c", "-O", "got", &url];
    let aria2c = "aria2c -q -c -x 4 -s 4 -k 1M --allow-overwrite=true -o got URL";
    let aria2c = with_url(aria2c, &url);
    for words in [&curl[..], &wget[..], &aria2c[..]] {
        if !has_tool(test, words[0]) {
            continue;
        }
        // Others call it a failure, or read it all anew, if nothing is missing.
        let most = disk.len() - usize::from(words[0] != "wget");
        for part in [0, disk.len() / 3, disk.len() - 1, most] {
            std::fs::write(&got, &disk[..part]).unwrap();
            if part == 0 {
                std::fs::remove_file(&got).unwrap();
            }
            let before = requests();
            run(folder, words).await;
            assert!(std::fs::read(&got).unwrap() == disk[..], "{words:?} {part}");
            // A file that is whole already lacks nothing that could be elsewhere.
            assert_eq!(requests() > before, part < disk.len(), "{words:?} {part}");
        }
    }
    std::fs::remove_file(&got).unwrap();
    let named = ["curl", "-sS", "--fail", "-LOJ", &url];
    run(folder, &named).await;
    assert!(std::fs::read(folder.join("copy.qcow2")).unwrap() == disk[..]);

    let info = Command::new("qemu-img").args(["info", &url]).output().await;
    if String::from_utf8_lossy(&info.unwrap().stderr).contains("Unknown protocol") {
        left_out(test, "QEMU has no driver for HTTP");
        return;
    }
    let before = requests();
    std::fs::write(&got, &disk[..]).unwrap();
    // Without -m 1, QEMU 7.2 hangs over HTTP, with any server.
    let read = "qemu-img convert -m 1 -f qcow2 -O raw URL raw";
    let read = with_url(read, &url);
    run(folder, &read).await;
    run(folder, &["qemu-img", "compare", "got", "raw"]).await;
    assert!(requests() > before);
}
