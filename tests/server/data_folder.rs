//! The data folder: one server at a time, no newer schema, room that runs out, and all of it there
//! after a restart.

use desktop_images::app::{Error, Listen, Server};
use serde_json::json;
use test_support::{
    Disk, Fill, Method, SmallDisk, TestServer, blob_files, failure, left_out, response, text,
};
use tonic::Code;

#[tokio::test]
async fn a_data_folder_belongs_to_one_server_at_a_time() {
    let mut server = TestServer::start().await;
    let id = server
        .compute_image("f", "n", &Disk::mbr(1, Fill::Sparse(1)))
        .await;
    let second = Server::start(server.config())
        .await
        .err()
        .expect("a refusal");
    assert!(matches!(&second, Error::Locked(_)), "{second}");
    assert!(second.to_string().contains("data"), "{second}");
    // The first one goes on, and the next may take its place.
    server.ask(Method::ComputeGet, json!({"imageId": id})).await;
    server.restart().await;
    server.ask(Method::ComputeGet, json!({"imageId": id})).await;
}

#[tokio::test]
async fn a_database_of_a_newer_version_is_left_alone() {
    let mut server = TestServer::start().await;
    server
        .compute_image("f", "n", &Disk::mbr(1, Fill::Sparse(1)))
        .await;
    server.stop().await;
    let path = server.data().join("metadata.sqlite");
    let version = |change: i64| {
        let database = rusqlite::Connection::open(&path).unwrap();
        let version: i64 = database
            .pragma_query_value(None, "user_version", |row| row.get(0))
            .unwrap();
        database
            .pragma_update(None, "user_version", version + change)
            .unwrap();
        version
    };
    let known = version(1);
    let refusal = server.start_again().await.unwrap_err();
    let newer = format!(
        "{} has schema version {}; this program knows versions up to {known}",
        path.display(),
        known + 1
    );
    assert_eq!(refusal.to_string(), newer);
    assert_eq!(blob_files(&server.data()).len(), 1);
    version(-1);
    server.start_again().await.unwrap();
    assert_eq!(server.compute_images("f").await, 1);
}

#[tokio::test]
async fn a_taken_port_is_told_and_touches_no_data() {
    let server = TestServer::start().await;
    let folder = tempfile::tempdir().unwrap();
    let mut config = server.config();
    config.listen = vec![Listen::Tcp(server.address)];
    config.data = desktop_images::app::Data::Folder(folder.path().join("data"));
    let refusal = Server::start(config).await.err().expect("a refusal");
    assert!(matches!(refusal, Error::Listen { .. }), "{refusal}");
    assert!(!folder.path().join("data").exists());
}

#[tokio::test]
async fn an_ephemeral_server_works_and_leaves_nothing() {
    let server = TestServer::start().await;
    let mut config = server.config();
    config.data = desktop_images::app::Data::Ephemeral;
    let ephemeral = Server::start(config).await.unwrap();
    let clients = test_support::Clients::new(ephemeral.address());
    let disk = Disk::mbr(1, Fill::Random(1));
    let id = clients.compute_image("f", "n", &disk).await;
    let copy = clients.copied("f", "n", &id).await;
    assert!(clients.downloaded(&copy).await == disk);
    assert_eq!(server.compute_images("f").await, 0);
    ephemeral.stop().await.unwrap();
}

#[tokio::test]
async fn all_is_there_after_a_restart() {
    let mut server = TestServer::start().await;
    let disk = Disk::mbr(3, Fill::Random(1));
    let id = server.compute_image("f", "n", &disk).await;
    let copy = server.copied("f", "c", &id).await;
    let operation = server
        .ask(Method::DesktopUpdate, json!({"imageId": copy, "name": "d"}))
        .await;
    let questions = [
        (Method::ComputeGet, json!({"imageId": id})),
        (Method::ComputeList, json!({"folderId": "f"})),
        (Method::DesktopGet, json!({"imageId": copy})),
        (Method::DesktopList, json!({"folderId": "f"})),
        (Method::ListOperations, json!({"imageId": id})),
        (
            Method::OperationGet,
            json!({"operationId": operation["id"]}),
        ),
    ];
    let mut answers = Vec::new();
    for (method, request) in &questions {
        answers.push(server.ask(*method, request.clone()).await);
    }
    server.restart().await;
    for ((method, request), before) in questions.iter().zip(&answers) {
        assert_eq!(
            &server.ask(*method, request.clone()).await,
            before,
            "{method:?}"
        );
    }
    assert!(server.downloaded(&copy).await == disk);
}

#[tokio::test]
async fn a_full_disk_is_told_and_what_did_not_fit_gives_its_room_back() {
    let mut server = TestServer::start().await;
    server.stop().await;
    std::fs::remove_dir_all(server.data()).unwrap();
    let Some(_disk) = SmallDisk::mount(server.data(), 24) else {
        let test = "a_full_disk_is_told_and_what_did_not_fit_gives_its_room_back";
        return left_out(test, "a file system can be mounted by root only");
    };
    server.start_again().await.unwrap();
    let small = Disk::mbr(8, Fill::Random(1));
    let large = Disk::mbr(40, Fill::Random(2));
    let uri = server.importable("large.img", &large);
    let kept = server.compute_image("kept", "", &small).await;
    for round in 0..3 {
        let uploaded = server.uploaded("f", "large", &large).await;
        let request = json!({"folderId": "f", "name": "large", "uri": uri});
        let accepted = server.ask(Method::Create, request).await;
        let imported = server.wait(text(&accepted, "id")).await;
        for operation in [uploaded, imported] {
            let (code, message) = failure(&operation);
            assert_eq!(code, Code::ResourceExhausted, "{round}: {message}");
        }
        assert_eq!(server.compute_images("f").await, 0);
        server.has_blobs(1).await;
        // A sparse one of any size fits.
        let sparse = server
            .uploaded("f", "sparse", &Disk::mbr(40, Fill::Sparse(3)))
            .await;
        let image = response(&sparse);
        server
            .ask(Method::ComputeDelete, json!({"imageId": image["id"]}))
            .await;
        // So does what is as large as the room that was released.
        let fits = server
            .compute_image("f", "large", &Disk::mbr(8, Fill::Random(4)))
            .await;
        server
            .ask(Method::ComputeDelete, json!({"imageId": fits}))
            .await;
        server.has_blobs(1).await;
    }
    let copy = server.copied("f", "copy", &kept).await;
    assert!(server.downloaded(&copy).await == small);
    server.stop().await;
}
