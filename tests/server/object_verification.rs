//! `verify` of installations whose blobs are in an object storage, or whose records are in PostgreSQL.

use desktop_images::app::{
    BlobLayout, BlobSettings, ObjectSettings, PostgresSettings, StoreSettings,
};
use serde_json::{Value, json};
use test_support::seaweedfs::{self, ObjectPlace};
use test_support::{Disk, Fill, Program, TestServer, postgres_server, within};

use crate::object_storage::{on_objects, settings};

/// The findings of `verify` on a server, which runs meanwhile.
async fn verified(
    arguments: &str,
    server: &TestServer,
    place: Option<&ObjectPlace>,
) -> (i32, Value) {
    let folder = server.data();
    let words = format!(
        "verify --format json --data-dir {}{arguments}",
        folder.display()
    );
    let mut command = Program::command(server.address, &words);
    if let Some(place) = place {
        command.arg(format!("--blobs={}", place.url));
        command.arg(format!("--blobs-endpoint={}", place.endpoint));
        command.envs(place.environment.iter().cloned());
    }
    let ended = within("it ends", command.output()).await.unwrap();
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    let told = serde_json::from_slice(&ended.stdout).unwrap_or(Value::String(said));
    (ended.status.code().unwrap(), told)
}

#[tokio::test]
async fn damaged_missing_and_unknown_objects_are_told_and_noted() {
    if !seaweedfs::is_installed("verify with an object storage") {
        return;
    }
    let place = seaweedfs::place().await;
    for (store, layout) in [
        (None, BlobLayout::Packed),
        (
            Some(postgres_server::is_installed("verify with PostgreSQL")),
            BlobLayout::Whole,
        ),
    ] {
        let place = match store {
            None => place.clone(),
            Some(true) => seaweedfs::place().await,
            Some(false) => continue,
        };
        let database = match store {
            None => None,
            Some(_) => Some(postgres_server::database().await),
        };
        let arguments = match &database {
            None => String::new(),
            Some(url) => format!(" --store {url}"),
        };
        let server = on_objects(&place, |config| {
            if let Some(url) = &database {
                config.store = StoreSettings::Postgres(PostgresSettings::new(url.clone()));
            }
            config.blobs = BlobSettings::Object(ObjectSettings {
                layout,
                ..settings(&place)
            });
        })
        .await;
        let mut sparse = Disk::mbr(1, Fill::Random(1));
        sparse.resize(20 << 20, 0);
        let mut objects = Vec::new();
        let mut images = Vec::new();
        for (name, disk) in [
            ("sparse", &sparse),
            ("flipped", &Disk::mbr(9, Fill::Random(2))),
            ("missing", &Disk::mbr(2, Fill::Random(3))),
        ] {
            let before = place.objects("blobs").await;
            let image = server.compute_image("f", name, disk).await;
            let now = place.objects("blobs").await.into_iter();
            objects.extend(now.filter(|it| !before.contains(it)));
            images.push((server.copied("f", name, &image).await, image));
        }
        let (exit_code, found) = verified(&arguments, &server, Some(&place)).await;
        let expected =
            json!({"contents": 3, "bytes": 31 << 20, "checksumsMade": 0, "problems": []});
        assert_eq!((exit_code, &found), (0, &expected));

        let name = |number: usize| format!("blobs/{}", objects[number]);
        let mut stored = place.object(&name(1)).await.unwrap();
        stored[5 << 20] ^= 1;
        place.put(&name(1), stored.clone()).await;
        place.delete(&name(2)).await;
        place.put("blobs/stray", b"stray".to_vec()).await;
        let (exit_code, found) = verified(&arguments, &server, Some(&place)).await;
        assert_eq!(exit_code, 1, "{found}");
        let problems = found["problems"].as_array().unwrap();
        let told = |number: usize, words: &str| {
            let id = Value::from(&*objects[number]);
            let problem = problems.iter().find(|it| it["contentId"] == id).unwrap();
            let (copy, image) = &images[number];
            assert_eq!(problem["kind"], "content");
            assert_eq!(problem["imageIds"], json!([copy, image]));
            assert!(problem["message"].to_string().contains(words), "{problem}");
        };
        told(1, "blocks of 4 MiB at 4194304");
        told(2, "missing");
        let stray = problems.iter().find(|it| it["kind"] == "unknown_file");
        assert!(stray.unwrap()["message"].to_string().contains("stray"));
        assert_eq!(problems.len(), 3, "{found}");
        let url = server.url(&format!(
            "/cloud-desktop/v1/images/{}:download",
            images[1].0
        ));
        let reply = server.http.get(&url).send().await.unwrap();
        assert!(reply.bytes().await.is_err());

        // A blob that is whole again is sound again.
        stored[5 << 20] ^= 1;
        place.put(&name(1), stored).await;
        place.delete("blobs/stray").await;
        let (_, found) = verified(&arguments, &server, Some(&place)).await;
        assert_eq!(found["problems"].as_array().unwrap().len(), 1, "{found}");
        let reply = server.http.get(&url).send().await.unwrap();
        assert_eq!(reply.bytes().await.unwrap().len(), 9 << 20);

        // Nothing is taken for damaged because the place is another one.
        let stranger = seaweedfs::place().await;
        let (exit_code, told) = verified(&arguments, &server, Some(&stranger)).await;
        assert_eq!(exit_code, 1);
        assert!(told.to_string().contains("of this installation"), "{told}");
        stranger.put("owner", b"another".to_vec()).await;
        let (exit_code, told) = verified(&arguments, &server, Some(&stranger)).await;
        assert_eq!(exit_code, 1);
        assert!(told.to_string().contains("installation another"), "{told}");
    }
}

#[tokio::test]
async fn records_in_postgresql_are_verified_beside_a_folder_of_blobs() {
    if !postgres_server::is_installed("verify with PostgreSQL and a folder") {
        return;
    }
    let database = postgres_server::database().await;
    let server = TestServer::start_with(|config| {
        config.store = StoreSettings::Postgres(PostgresSettings::new(database.clone()));
    })
    .await;
    let disk = Disk::mbr(3, Fill::Random(1));
    let source = server.compute_image("f", "source", &disk).await;
    let arguments = format!(" --store {database}");
    let (exit_code, found) = verified(&arguments, &server, None).await;
    let expected = json!({"contents": 1, "bytes": 3 << 20, "checksumsMade": 0, "problems": []});
    assert_eq!((exit_code, &found), (0, &expected));
    let contents = server.data().join("contents");
    for file in test_support::blob_files(&server.data()) {
        std::fs::remove_file(contents.join(file)).unwrap();
    }
    let (exit_code, found) = verified(&arguments, &server, None).await;
    assert_eq!(exit_code, 1);
    assert_eq!(found["problems"][0]["imageIds"], json!([source]), "{found}");

    let other = format!(" --store {}", postgres_server::database().await);
    let (exit_code, told) = verified(&other, &server, None).await;
    assert_eq!(exit_code, 1, "{told}");
}
