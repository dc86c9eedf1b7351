//! Whole servers whose blobs are in an object storage: a real SeaweedFS.

use std::time::Duration;

use desktop_images::app::{BlobSettings, Config, ObjectSettings, PostgresSettings, StoreSettings};
use futures_util::future::join_all;
use serde_json::json;
use test_support::seaweedfs::{self, ObjectPlace};
use test_support::{
    Disk, Fill, Method, SlowUpload, TestServer, eventually, postgres_server, response, text,
};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

/// The time for which a storage is away that work waits for.
const OUTAGE: Duration = Duration::from_secs(8);

/// The time for which a client reads nothing: longer than a request to a storage may take.
const PAUSE: Duration = Duration::from_secs(40);

/// Settings for a place, with credentials that are good there.
pub(crate) fn settings(place: &ObjectPlace) -> ObjectSettings {
    ObjectSettings {
        endpoint: Some(place.endpoint.clone()),
        environment: place.environment.clone(),
        ..ObjectSettings::new(&*place.url)
    }
}

pub(crate) async fn on_objects(
    place: &ObjectPlace,
    configure: impl FnOnce(&mut Config),
) -> TestServer {
    let settings = settings(place);
    TestServer::start_with(|config| {
        config.blobs = BlobSettings::Object(settings);
        configure(config);
    })
    .await
}

/// A download of which a client has taken the first bytes.
struct SlowDownload {
    reply: reqwest::Response,
    received: Vec<u8>,
}

impl SlowDownload {
    async fn begin(server: &TestServer, image: &str) -> Self {
        let url = server.url(&format!("/cloud-desktop/v1/images/{image}:download"));
        let mut reply = server.http.get(url).send().await.unwrap();
        let received = reply.chunk().await.unwrap().unwrap().to_vec();
        Self { reply, received }
    }

    async fn finish(mut self) -> Vec<u8> {
        while let Some(chunk) = self.reply.chunk().await.unwrap() {
            self.received.extend_from_slice(&chunk);
        }
        self.received
    }
}

/// Has bytes go with the last image of them.
fn keeping_nothing(config: &mut Config) {
    config.retention.blobs = Some(Duration::ZERO);
}

async fn part(server: &TestServer, image: &str, range: &str) -> Vec<u8> {
    let url = server.url(&format!("/cloud-desktop/v1/images/{image}:download"));
    let request = server.http.get(url).header("Range", range);
    let reply = request.send().await.unwrap();
    assert_eq!(reply.status(), 206, "{range}");
    reply.bytes().await.unwrap().to_vec()
}

#[tokio::test]
async fn images_are_uploaded_imported_copied_downloaded_and_removed() {
    if !seaweedfs::is_installed("images in an object storage") {
        return;
    }
    let place = seaweedfs::place().await;
    let mut server = on_objects(&place, keeping_nothing).await;
    // Larger than a part, and with holes of many blocks.
    let whole = Disk::mbr(20, Fill::Random(1));
    let mut sparse = Disk::mbr(1, Fill::Random(2));
    sparse.resize(40 << 20, 0);
    sparse.extend_from_slice(&whole[whole.len() - 70_144..]);
    let mut copies = Vec::new();
    for (name, disk) in [("whole", &whole), ("sparse", &sparse)] {
        let uploaded = server.compute_image("f", name, disk).await;
        let uri = server.importable(name, disk);
        let request = json!({"folderId": "f", "name": format!("i-{name}"), "uri": uri});
        let operation = server.ask(Method::Create, request).await;
        response(&server.wait(text(&operation, "id")).await);
        let copy = server.copied("f", name, &uploaded).await;
        copies.push((copy, uploaded, disk));
    }
    // Equal blobs are kept once.
    eventually("one object for each disk", || async {
        (place.objects("blobs").await.len() == 2).then_some(())
    })
    .await;
    for _ in 0..2 {
        for (copy, _, disk) in &copies {
            assert!(server.downloaded(copy).await == **disk);
            for (range, expected) in [
                ("bytes=0-0", &disk[..1]),
                ("bytes=4194303-4194310", &disk[4_194_303..=4_194_310]),
                ("bytes=8000000-18000000", &disk[8_000_000..=18_000_000]),
                ("bytes=-70001", &disk[disk.len() - 70_001..]),
            ] {
                assert!(part(&server, copy, range).await == expected, "{range}");
            }
        }
        server.restart().await;
    }
    let mut stored = 0;
    for name in place.objects("blobs").await {
        stored += place.object(&format!("blobs/{name}")).await.unwrap().len();
    }
    assert!(
        stored < whole.len() + (2 << 20),
        "zeros are not stored: {stored}"
    );
    assert!(!server.data().join("contents").exists());

    for (copy, _, _) in &copies {
        let request = json!({"imageId": copy});
        response(&server.ask(Method::DesktopDelete, request).await);
    }
    let page = server.ask(Method::ComputeList, json!({"folderId": "f"}));
    for image in page.await["images"].as_array().unwrap() {
        let request = json!({"imageId": text(image, "id")});
        response(&server.ask(Method::ComputeDelete, request).await);
    }
    eventually("all objects are removed", || async {
        place.objects("blobs").await.is_empty().then_some(())
    })
    .await;
    assert!(place.objects("uploads").await.is_empty());
    assert_eq!(place.objects("probe").await, [""; 0]);
}

#[tokio::test]
async fn a_download_comes_to_its_end_though_its_bytes_are_replaced_or_deleted() {
    if !seaweedfs::is_installed("downloads of images that are deleted") {
        return;
    }
    let place = seaweedfs::place().await;
    let server = on_objects(&place, |_| {}).await;
    // More than what is under way between the storage and a client that does not read.
    let disk = Disk::mbr(48, Fill::Random(8));
    let source = server.compute_image("f", "source", &disk).await;
    let copy = server.copied("f", "copy", &source).await;
    let before = SlowDownload::begin(&server, &copy).await;
    // Equal bytes take the place of these.
    let again = server.compute_image("f", "again", &disk).await;
    let after = SlowDownload::begin(&server, &copy).await;
    response(
        &server
            .ask(Method::DesktopDelete, json!({"imageId": copy}))
            .await,
    );
    for source in [source, again] {
        response(
            &server
                .ask(Method::ComputeDelete, json!({"imageId": source}))
                .await,
        );
    }
    for download in [before, after] {
        assert!(download.finish().await == *disk);
    }
    assert_eq!(place.objects("blobs").await.len(), 2);
}

#[tokio::test]
async fn a_client_that_pauses_gets_the_rest_of_a_download() {
    if !seaweedfs::is_installed("a pause of a client") {
        return;
    }
    let place = seaweedfs::place().await;
    let server = on_objects(&place, |_| {}).await;
    let disk = Disk::mbr(48, Fill::Random(9));
    let source = server.compute_image("f", "source", &disk).await;
    let copy = server.copied("f", "copy", &source).await;
    let download = SlowDownload::begin(&server, &copy).await;
    // The pause is the fault itself: nothing becomes true at its end.
    tokio::time::sleep(PAUSE).await;
    assert!(download.finish().await == *disk);
}

#[tokio::test]
async fn an_upload_in_parts_that_is_given_up_leaves_nothing() {
    if !seaweedfs::is_installed("uploads in parts that are given up") {
        return;
    }
    let place = seaweedfs::place().await;
    let server = on_objects(&place, |_| {}).await;
    let disk = Disk::mbr(20, Fill::Random(3));
    for hangs_up in [true, false] {
        let name = format!("given-up-{hangs_up}");
        let upload = SlowUpload::start(&server, "f", &name, &disk).await;
        let operation = upload.operation_id.clone();
        let note = eventually("an upload in parts is noted", || async {
            let notes = place.objects("uploads").await;
            place.object(&format!("uploads/{}", notes.first()?)).await
        })
        .await;
        let id = String::from_utf8(note).unwrap();
        assert!(place.uploads_in_parts().await.contains(&id));
        let kept = match hangs_up {
            true => {
                upload.hang_up();
                None
            }
            false => {
                let request = json!({"operationId": operation});
                server.ask(Method::OperationCancel, request).await;
                Some(upload)
            }
        };
        let ended = server.wait(&operation).await;
        assert!(ended["error"].is_object(), "{ended}");
        eventually("nothing is left of it", || async {
            let is_left = place.uploads_in_parts().await.contains(&id)
                || !place.objects("uploads").await.is_empty()
                || !place.objects("blobs").await.is_empty();
            (!is_left).then_some(())
        })
        .await;
        drop(kept);
    }
}

#[tokio::test]
async fn damage_of_an_object_is_noticed_before_a_byte_of_it_leaves() {
    if !seaweedfs::is_installed("damaged objects") {
        return;
    }
    let place = seaweedfs::place().await;
    let server = on_objects(&place, |_| {}).await;
    let disk = Disk::mbr(3, Fill::Random(4));
    let source = server.compute_image("f", "source", &disk).await;
    let copy = server.copied("f", "copy", &source).await;
    let name = format!("blobs/{}", place.objects("blobs").await[0]);
    let mut stored = place.object(&name).await.unwrap();
    stored[2_000_000] ^= 1;
    place.put(&name, stored).await;
    let url = server.url(&format!("/cloud-desktop/v1/images/{copy}:download"));
    let reply = server.http.get(&url).send().await.unwrap();
    let received = match reply.status().as_u16() {
        200 => reply.bytes().await.map_or(0, |bytes| bytes.len()),
        _ => 0,
    };
    assert_eq!(received, 0);
}

#[tokio::test]
async fn many_uploads_share_little_memory() {
    if !seaweedfs::is_installed("uploads that share the memory for parts") {
        return;
    }
    let place = seaweedfs::place().await;
    let small = ObjectSettings {
        upload_memory: 16 << 20,
        ..settings(&place)
    };
    let configure = |config: &mut Config| config.blobs = BlobSettings::Object(small);
    let server = on_objects(&place, configure).await;
    let uploads = (0..6).map(|number| {
        let server = &server;
        async move {
            let disk = Disk::mbr(20, Fill::Random(10 + number));
            let name = format!("n{number}");
            let image = server.compute_image("f", &name, &disk).await;
            (server.copied("f", &name, &image).await, disk)
        }
    });
    for (copy, disk) in join_all(uploads).await {
        assert!(server.downloaded(&copy).await == disk);
    }
}

#[tokio::test]
async fn servers_of_one_database_share_a_bucket_and_no_folder() {
    let test = "servers that share a bucket";
    if !seaweedfs::is_installed(test) || !postgres_server::is_installed(test) {
        return;
    }
    let place = seaweedfs::place().await;
    let store = StoreSettings::Postgres(PostgresSettings::new(postgres_server::database().await));
    let configure = |config: &mut Config| {
        config.store = store.clone();
        keeping_nothing(config);
    };
    let first = on_objects(&place, configure).await;
    let second = on_objects(&place, configure).await;
    assert_ne!(first.data(), second.data());
    let disk = Disk::mbr(3, Fill::Random(6));
    let source = first.compute_image("f", "source", &disk).await;
    let copy = second.copied("f", "copy", &source).await;
    for server in [&first, &second] {
        assert!(server.downloaded(&copy).await == disk);
    }
    for (method, image) in [
        (Method::DesktopDelete, copy),
        (Method::ComputeDelete, source),
    ] {
        response(&second.ask(method, json!({"imageId": image})).await);
    }
    eventually("the object is removed", || async {
        place.objects("blobs").await.is_empty().then_some(())
    })
    .await;
}

/// Passes connections on to a storage, until it is dropped.
struct Relay {
    port: u16,
    task: JoinHandle<()>,
}

impl Relay {
    async fn start(port: u16, target: String) -> Self {
        // The port of a relay before is free again once its connections are closed.
        let listener = eventually("the port is free", || async {
            TcpListener::bind(("127.0.0.1", port)).await.ok()
        })
        .await;
        let port = listener.local_addr().unwrap().port();
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((mut client, _)) = listener.accept().await {
                let target = target.clone();
                connections.spawn(async move {
                    let mut server = TcpStream::connect(target).await?;
                    tokio::io::copy_bidirectional(&mut client, &mut server).await
                });
            }
        });
        Self { port, task }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[tokio::test]
async fn a_storage_that_is_away_fails_readiness_until_it_is_back() {
    if !seaweedfs::is_installed("an object storage that is away") {
        return;
    }
    let mut place = seaweedfs::place().await;
    let target = place.endpoint.trim_start_matches("http://").to_owned();
    let relay = Relay::start(0, target.clone()).await;
    let port = relay.port;
    place.endpoint = format!("http://127.0.0.1:{port}");
    let server = on_objects(&place, |_| {}).await;
    let disk = Disk::mbr(3, Fill::Random(5));
    let source = server.compute_image("f", "source", &disk).await;
    let readiness = || async {
        let reply = server.http.get(server.url("/readyz")).send().await.unwrap();
        (reply.status().as_u16(), reply.text().await.unwrap())
    };
    assert_eq!(readiness().await.0, 200);
    drop(relay);
    let told = eventually("readiness fails", || async {
        let (status, told) = readiness().await;
        (status == 503).then_some(told)
    })
    .await;
    assert!(told.contains("blobs"), "{told}");
    // Copies need no bytes.
    let copy = server.copied("f", "copy", &source).await;
    let other = Disk::mbr(3, Fill::Random(6));
    // A download and an upload need bytes: they wait, longer than the library would, and less than half a minute.
    let comes_back = async {
        let refusing = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        let refuse = async {
            loop {
                drop(refusing.accept().await.unwrap());
            }
        };
        let ended: Result<(), _> = tokio::time::timeout(OUTAGE, refuse).await;
        assert!(ended.is_err(), "it refuses to the end of the outage");
        drop(refusing);
        Relay::start(port, target).await
    };
    let (_relay, downloaded, _) = tokio::join!(
        comes_back,
        server.downloaded(&copy),
        // Other bytes: equal ones would take the place of those that are read.
        server.compute_image("f", "uploaded", &other)
    );
    assert!(downloaded == disk);
    eventually("readiness is back", || async {
        (readiness().await.0 == 200).then_some(())
    })
    .await;
}
