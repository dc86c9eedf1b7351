//! Downloads: whole, in ranges, under conditions (RFC 9110), by name (RFC 6266).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use test_support::{Disk, Fill, Method, Refusal, TestServer};

struct Reply {
    status: u16,
    headers: HeaderMap,
    body: Vec<u8>,
}

struct Image {
    server: TestServer,
    disk: Vec<u8>,
    id: String,
    etag: String,
}

impl Image {
    async fn new(disk: Vec<u8>) -> Self {
        let server = TestServer::start().await;
        let source = server.compute_image("f", "", &disk).await;
        let id = server.copied("f", "image", &source).await;
        let hex: String = Sha256::digest(&disk)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        Self {
            server,
            disk,
            id,
            etag: format!("\"{hex}\""),
        }
    }

    fn url(&self) -> String {
        self.server
            .url(&format!("/cloud-desktop/v1/images/{}:download", self.id))
    }

    async fn ask(&self, method: &str, headers: &[(&str, &str)]) -> Reply {
        let method: http::Method = method.parse().unwrap();
        let mut request = self.server.http.request(method, self.url());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let reply = request.send().await.unwrap();
        Reply {
            status: reply.status().as_u16(),
            headers: reply.headers().clone(),
            body: reply.bytes().await.unwrap().to_vec(),
        }
    }
}

#[tokio::test]
async fn a_download_is_the_source_to_the_byte_and_says_how_to_check_it() {
    let mut image = Image::new(Disk::gpt(9, Fill::Random(1))).await;
    for round in 0..2 {
        for method in ["GET", "HEAD"] {
            let reply = image.ask(method, &[]).await;
            assert_eq!(reply.status, 200);
            let expected = if method == "GET" {
                &image.disk[..]
            } else {
                &[]
            };
            assert!(reply.body == expected, "{method}");
            let digest = STANDARD.encode(Sha256::digest(&image.disk));
            for (name, value) in [
                ("content-length", image.disk.len().to_string()),
                ("content-type", "application/octet-stream".to_owned()),
                ("accept-ranges", "bytes".to_owned()),
                ("etag", image.etag.clone()),
                ("repr-digest", format!("sha-256=:{digest}:")),
            ] {
                assert_eq!(reply.headers[name], value, "{method} {name}");
            }
        }
        if round == 0 {
            image.server.restart().await;
        }
    }
}

#[tokio::test]
async fn holes_come_back_as_zeros() {
    let image = Image::new(Disk::mbr(40, Fill::Sparse(1))).await;
    assert!(image.ask("GET", &[]).await.body == image.disk);
}

#[tokio::test]
async fn ranges() {
    let image = Image::new(Disk::mbr(2, Fill::Random(1))).await;
    let size = image.disk.len();
    let (last, beyond) = (size - 1, size + 1);
    for (range, expected) in [
        ("bytes=0-0".to_owned(), Some(0..1)),
        ("bytes=0-511".to_owned(), Some(0..512)),
        ("bytes=65535-65536".to_owned(), Some(65535..65537)),
        ("bytes=100000-1500000".to_owned(), Some(100_000..1_500_001)),
        (format!("bytes={last}-{last}"), Some(last..size)),
        ("bytes=0-".to_owned(), Some(0..size)),
        ("bytes=2000000-".to_owned(), Some(2_000_000..size)),
        (format!("bytes=5-{beyond}"), Some(5..size)),
        (
            "bytes=5-99999999999999999999999999".to_owned(),
            Some(5..size),
        ),
        ("bytes=-1".to_owned(), Some(last..size)),
        ("bytes=-1000".to_owned(), Some(size - 1000..size)),
        (format!("bytes=-{beyond}"), Some(0..size)),
        ("BYTES=1-2".to_owned(), Some(1..3)),
        // Ignored, as the standard lets servers do with what they do not know.
        ("bytes=0-0,5-5".to_owned(), None),
        ("bytes=5-1".to_owned(), None),
        ("bytes=".to_owned(), None),
        ("bytes=-".to_owned(), None),
        ("bytes=a-b".to_owned(), None),
        ("lines=0-1".to_owned(), None),
        ("0-1".to_owned(), None),
    ] {
        let reply = image.ask("GET", &[("range", &range)]).await;
        let (status, part) = match &expected {
            Some(part) => (206, part.clone()),
            None => (200, 0..size),
        };
        assert_eq!(reply.status, status, "{range}");
        assert!(reply.body == image.disk[part.clone()], "{range}");
        assert_eq!(reply.headers["etag"], image.etag, "{range}");
        let shown = reply
            .headers
            .get("content-range")
            .map(|value| value.to_str().unwrap());
        let content_range =
            expected.map(|part| format!("bytes {}-{}/{size}", part.start, part.end - 1));
        assert_eq!(shown, content_range.as_deref(), "{range}");
        // A range is a matter of GET.
        let head = image.ask("HEAD", &[("range", &range)]).await;
        assert_eq!((head.status, head.body.len()), (200, 0), "{range}");
    }
    for range in [
        format!("bytes={size}-"),
        format!("bytes={size}-{beyond}"),
        "bytes=-0".to_owned(),
    ] {
        let reply = image.ask("GET", &[("range", &range)]).await;
        assert_eq!(reply.status, 416, "{range}");
        assert_eq!(
            reply.headers["content-range"],
            format!("bytes */{size}"),
            "{range}"
        );
        let body: Value = serde_json::from_slice(&reply.body).unwrap();
        assert_eq!(Refusal::from_json(&body).code, tonic::Code::OutOfRange);
    }
}

#[tokio::test]
async fn conditions() {
    let image = Image::new(Disk::mbr(1, Fill::Random(1))).await;
    let tag = image.etag.as_str();
    let weak = format!("W/{tag}");
    let list = format!("\"other\", {tag}");
    let other = "\"other\"";
    let range = ("range", "bytes=0-9");
    for (headers, status, length) in [
        (vec![("if-none-match", tag)], 304, 0),
        (vec![("if-none-match", &weak)], 304, 0),
        (vec![("if-none-match", &list)], 304, 0),
        (vec![("if-none-match", "*")], 304, 0),
        (vec![("if-none-match", other)], 200, image.disk.len()),
        (vec![("if-none-match", tag), range], 304, 0),
        (vec![("if-match", tag)], 200, image.disk.len()),
        (vec![("if-match", &list)], 200, image.disk.len()),
        (vec![("if-match", "*")], 200, image.disk.len()),
        (vec![("if-match", other)], 412, 0),
        (vec![("if-match", &weak)], 412, 0),
        (vec![("if-match", tag), range], 206, 10),
        (vec![("if-range", tag), range], 206, 10),
        (vec![("if-range", other), range], 200, image.disk.len()),
        (vec![("if-range", &weak), range], 200, image.disk.len()),
        (
            vec![("if-range", "Wed, 21 Oct 2015 07:28:00 GMT"), range],
            200,
            image.disk.len(),
        ),
        (vec![("if-range", tag)], 200, image.disk.len()),
    ] {
        let reply = image.ask("GET", &headers).await;
        assert_eq!(
            (reply.status, reply.body.len()),
            (status, length),
            "{headers:?}"
        );
        if status != 412 {
            assert_eq!(reply.headers["etag"], tag, "{headers:?}");
        }
        let head = image.ask("HEAD", &headers).await;
        let expected = if status == 206 { 200 } else { status };
        assert_eq!((head.status, head.body.len()), (expected, 0), "{headers:?}");
    }
}

#[tokio::test]
async fn the_file_name_is_that_of_the_image_whatever_is_in_it() {
    let image = Image::new(Disk::mbr(1, Fill::Random(1))).await;
    for (name, plain, true_name) in [
        ("debian-12", "debian-12.img", "debian-12.img"),
        ("disk.img", "disk.img", "disk.img"),
        ("a b", "a b.img", "a%20b.img"),
        ("say \"x\"", "say _x_.img", "say%20%22x%22.img"),
        ("back\\slash", "back_slash.img", "back_slash.img"),
        (
            "../../etc/passwd",
            ".._.._etc_passwd.img",
            ".._.._etc_passwd.img",
        ),
        (
            "line\r\nSet-Cookie: a=b",
            "line__Set-Cookie_ a_b.img",
            "line__Set-Cookie_%20a%3Db.img",
        ),
        ("Ж", "_.img", "%D0%96.img"),
        ("😀%41", "__41.img", "%F0%9F%98%80%2541.img"),
        // QEMU takes a file of that name for a DMG image.
        ("disk.dmg", "disk.dmg.img", "disk.dmg.img"),
        ("disk.qcow2", "disk.qcow2.img", "disk.qcow2.img"),
        // QEMU reads such names as options and as the address of a server.
        ("json:{}", "json___.img", "json_%7B%7D.img"),
        ("nbd:host:10809", "nbd_host_10809.img", "nbd_host_10809.img"),
        ("tab\t;", "tab__.img", "tab_%3B.img"),
    ] {
        let rename = json!({"imageId": image.id, "updateMask": "name", "name": name});
        image.server.ask(Method::DesktopUpdate, rename).await;
        let reply = image.ask("HEAD", &[]).await;
        let expected = format!("attachment; filename=\"{plain}\"; filename*=UTF-8''{true_name}");
        assert_eq!(reply.headers["content-disposition"], expected, "{name}");
        assert!(!reply.headers.contains_key("set-cookie"));
    }
}

#[tokio::test]
async fn a_download_goes_on_to_its_end_when_the_image_is_deleted() {
    let image = Image::new(Disk::mbr(48, Fill::Random(1))).await;
    let mut reply = image.server.http.get(image.url()).send().await.unwrap();
    let mut body = reply.chunk().await.unwrap().unwrap().to_vec();
    let sources = image
        .server
        .ask(Method::ComputeList, json!({"folderId": "f"}))
        .await;
    image
        .server
        .ask(
            Method::ComputeDelete,
            json!({"imageId": sources["images"][0]["id"]}),
        )
        .await;
    image
        .server
        .ask(Method::DesktopDelete, json!({"imageId": image.id}))
        .await;
    image.server.has_blobs(0).await;
    while let Some(chunk) = reply.chunk().await.unwrap() {
        body.extend(chunk);
    }
    assert!(body == image.disk);
    let gone = image.ask("GET", &[]).await;
    assert_eq!(gone.status, 404);
    let refusal = Refusal::from_json(&serde_json::from_slice(&gone.body).unwrap());
    assert_eq!(refusal.message, format!("Image \"{}\" not found", image.id));
}

#[tokio::test]
async fn a_compute_image_is_not_downloaded() {
    let image = Image::new(Disk::mbr(1, Fill::Random(1))).await;
    let sources = image
        .server
        .ask(Method::ComputeList, json!({"folderId": "f"}))
        .await;
    for id in [
        sources["images"][0]["id"].as_str().unwrap(),
        "x",
        "%2e%2e",
        "a%00b",
    ] {
        let url = image
            .server
            .url(&format!("/cloud-desktop/v1/images/{id}:download"));
        let reply = image.server.http.get(url).send().await.unwrap();
        assert_eq!(reply.status(), 404, "{id}");
    }
}

/// A client that asks for another format must not take what comes for that.
#[tokio::test]
async fn an_unknown_parameter_of_a_download_is_refused_by_its_name() {
    let image = Image::new(Disk::mbr(1, Fill::Random(1))).await;
    for (query, field) in [
        ("format=raw", "format"),
        ("format=qcow2&x=y", "format"),
        ("imageId=x", "imageId"),
        ("f%6Frmat", "format"),
        ("&&%ff=", "\u{fffd}"),
    ] {
        for method in [http::Method::GET, http::Method::HEAD] {
            let url = format!("{}?{query}", image.url());
            let request = image.server.http.request(method.clone(), url);
            let reply = request.send().await.expect("a reply");
            assert_eq!(reply.status(), 400, "{method} {query}");
            if method == http::Method::GET {
                let body = reply.bytes().await.expect("a body");
                let body: Value = serde_json::from_slice(&body).expect("JSON");
                assert_eq!(Refusal::from_json(&body).fields, [field], "{query}");
            }
        }
    }
    // An empty query asks for nothing.
    let request = image.server.http.get(format!("{}?", image.url()));
    assert_eq!(request.send().await.expect("a reply").status(), 200);
}
