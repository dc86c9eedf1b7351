//! ImageService over both transports, but for its lists.

use serde_json::{Value, json};
use test_support::{
    Disk, Fill, Method, SlowUpload, TestServer, failure, image_id, number, response, text,
};
use tonic::Code;

const V1: &str = "type.googleapis.com/yandex.cloud.compute.v1";

#[tokio::test]
async fn a_file_becomes_a_ready_image_with_true_sizes() {
    let server = TestServer::start().await;
    let sparse = Disk::gpt(24, Fill::Sparse(1));
    let mut disks = vec![
        ("mbr", Disk::mbr(1, Fill::Sparse(2)), Some(1 << 20)),
        ("random", Disk::mbr(3, Fill::Random(3)), None),
        ("gpt", sparse.clone(), None),
    ];
    let test = "a_file_becomes_a_ready_image_with_true_sizes";
    for (name, arguments) in [("qcow2", &[][..]), ("compressed", &["-c"][..])] {
        if let Some(qcow2) = Disk::qcow2(test, &sparse, arguments) {
            disks.push((name, qcow2, Some(sparse.len())));
        }
    }
    for caller in server.callers() {
        for (name, disk, virtual_size) in &disks {
            let uri = server.importable(name, disk);
            let request = json!({
                "folderId": "f", "uri": uri, "description": "d", "labels": {"a/b": "c@d"},
                "family": "linux", "productIds": ["p1", "p2"], "pooled": true,
                "os": {"type": "LINUX", "nvidia": {"driver": "550"}},
                "hardwareGeneration": {"legacyFeatures": {"pciTopology": "PCI_TOPOLOGY_V2"}},
            });
            let accepted = caller.call(Method::Create, request.clone()).await.unwrap();
            let id = image_id(&accepted);
            assert!(id.len() == 20 && id.starts_with("fd8"), "{id}");
            let metadata = format!("{V1}.CreateImageMetadata");
            assert_eq!(
                accepted["metadata"],
                json!({"@type": metadata, "imageId": id})
            );

            let operation = server.wait(text(&accepted, "id")).await;
            let image = response(&operation);
            assert_eq!(image["@type"], format!("{V1}.Image"));
            assert_eq!(image["status"], "READY");
            let virtual_size = virtual_size.unwrap_or(disk.len());
            assert_eq!(number(image, "minDiskSize"), virtual_size as i64, "{name}");
            assert_eq!(
                number(image, "storageSize"),
                Disk::stored_size(disk),
                "{name}"
            );
            assert_eq!(number(image, "size"), disk.len() as i64, "{name}");
            for field in [
                "folderId",
                "description",
                "labels",
                "family",
                "productIds",
                "pooled",
                "os",
                "hardwareGeneration",
            ] {
                assert_eq!(image[field], request[field], "{field}");
            }
            let found = caller
                .call(Method::ComputeGet, json!({"imageId": id}))
                .await
                .unwrap();
            let mut plain = image.clone();
            plain.as_object_mut().unwrap().remove("@type");
            assert_eq!(found, plain);
            let copy = server.copied("copies", &id, &id).await;
            assert!(server.downloaded(&copy).await == *disk, "{name}");
        }
    }
    // Each blob is kept once, however often it came.
    server.has_blobs(disks.len()).await;
}

#[tokio::test]
async fn an_image_from_another_one_is_done_at_once_and_shares_its_bytes() {
    let mut server = TestServer::start().await;
    let disk = Disk::mbr(8, Fill::Sparse(1));
    let source = server.compute_image("f", "source", &disk).await;
    let original = server
        .ask(Method::ComputeGet, json!({"imageId": source}))
        .await;
    let mut copies = Vec::new();
    for caller in server.callers() {
        let request = json!({
            "folderId": "other", "imageId": source, "minDiskSize": "4398046511104",
        });
        let operation = caller.call(Method::Create, request).await.unwrap();
        let image = response(&operation);
        assert_eq!(image["status"], "READY");
        assert_eq!(image["minDiskSize"], "4398046511104");
        for field in ["size", "storageSize"] {
            assert_eq!(image[field], original[field], "{field}");
        }
        copies.push(image_id(&operation));
    }
    server.has_blobs(1).await;
    server
        .ask(Method::ComputeDelete, json!({"imageId": source}))
        .await;
    server.restart().await;
    let desktop = server.copied("f", "desktop", &copies[0]).await;
    for copy in copies {
        server
            .ask(Method::ComputeDelete, json!({"imageId": copy}))
            .await;
    }
    assert!(server.downloaded(&desktop).await == disk);
    server
        .ask(Method::DesktopDelete, json!({"imageId": desktop}))
        .await;
    server.has_blobs(0).await;
}

#[tokio::test]
async fn disks_and_snapshots_are_no_sources_here() {
    let server = TestServer::start().await;
    for caller in server.callers() {
        for source in ["diskId", "snapshotId"] {
            let request = json!({"folderId": "f", source: "x"});
            let refusal = caller.call(Method::Create, request).await.unwrap_err();
            assert_eq!(refusal.code, Code::Unimplemented, "{source}");
        }
        let refusal = caller
            .call(Method::Create, json!({"folderId": "f"}))
            .await
            .unwrap_err();
        assert_eq!(refusal.fields, ["source"]);
    }
    assert_eq!(server.compute_images("f").await, 0);
}

#[tokio::test]
async fn min_disk_size_is_never_less_than_the_disk_inside() {
    let server = TestServer::start().await;
    let disk = Disk::mbr(8, Fill::Sparse(1));
    let uri = server.importable("disk.img", &disk);
    let source = server.compute_image("f", "source", &disk).await;
    for caller in server.callers() {
        let from_file = json!({"folderId": "f", "name": "n", "uri": uri, "minDiskSize": "4194304"});
        let accepted = caller.call(Method::Create, from_file).await.unwrap();
        let operation = server.wait(text(&accepted, "id")).await;
        let (code, message) = failure(&operation);
        assert_eq!(code, Code::InvalidArgument);
        assert!(message.contains("min_disk_size"), "{message}");
        let gone = caller
            .call(Method::ComputeGet, json!({"imageId": image_id(&accepted)}))
            .await;
        assert_eq!(gone.unwrap_err().code, Code::NotFound);

        let from_image = json!({"folderId": "f", "imageId": source, "minDiskSize": "4194304"});
        let update =
            json!({"imageId": source, "updateMask": "minDiskSize", "minDiskSize": "4194304"});
        for (method, request) in [
            (Method::Create, from_image),
            (Method::ComputeUpdate, update),
        ] {
            let refusal = caller.call(method, request).await.unwrap_err();
            assert_eq!(refusal.code, Code::InvalidArgument);
            assert_eq!(refusal.fields, ["min_disk_size"]);
        }
    }
    assert_eq!(server.compute_images("f").await, 1);
    server.has_blobs(1).await;
}

#[tokio::test]
async fn an_update_changes_the_fields_of_its_mask_and_without_one_all() {
    let server = TestServer::start().await;
    let disk = Disk::mbr(8, Fill::Sparse(1));
    let source = server.compute_image("f", "", &disk).await;
    let size = disk.len().to_string();
    for caller in server.callers() {
        for (fields, changed) in [
            (
                json!({"updateMask": "name", "name": "a", "description": "x"}),
                json!({"name": "a"}),
            ),
            (json!({"updateMask": "name"}), json!({"name": ""})),
            (
                json!({"updateMask": "description", "description": "x"}),
                json!({"description": "x"}),
            ),
            (json!({"updateMask": "labels"}), json!({"labels": {}})),
            (
                json!({"updateMask": "minDiskSize", "minDiskSize": "9000000"}),
                json!({"minDiskSize": "9000000"}),
            ),
            (
                json!({"updateMask": "minDiskSize"}),
                json!({"minDiskSize": size}),
            ),
            (
                json!({}),
                json!({"name": "", "description": "", "labels": {}, "minDiskSize": size}),
            ),
            (
                json!({"name": "b", "labels": {"c": "d"}}),
                json!({"name": "b", "description": "", "labels": {"c": "d"}, "minDiskSize": size}),
            ),
        ] {
            let request = json!({
                "folderId": "g", "name": "old", "description": "old", "labels": {"a": "b"},
                "imageId": source, "minDiskSize": "10000000",
            });
            let created = server.ask(Method::Create, request).await;
            let id = image_id(&created);
            let mut request = fields.clone();
            request["imageId"] = json!(id);
            let operation = caller.call(Method::ComputeUpdate, request).await.unwrap();
            let mut expected = response(&created).clone();
            for (name, value) in changed.as_object().unwrap() {
                expected[name] = value.clone();
            }
            assert_eq!(response(&operation), &expected, "{fields}");
            let metadata = format!("{V1}.UpdateImageMetadata");
            assert_eq!(operation["metadata"]["@type"], metadata);
            let deleted = caller
                .call(Method::ComputeDelete, json!({"imageId": id}))
                .await
                .unwrap();
            let metadata = format!("{V1}.DeleteImageMetadata");
            assert_eq!(
                deleted["metadata"],
                json!({"@type": metadata, "imageId": id})
            );
            assert_eq!(
                response(&deleted)["@type"],
                "type.googleapis.com/google.protobuf.Empty"
            );
        }
        for mask in ["family", "os", "name,size"] {
            let request = json!({"imageId": source, "updateMask": mask, "name": "x"});
            let refusal = caller
                .call(Method::ComputeUpdate, request)
                .await
                .unwrap_err();
            assert_eq!(refusal.fields, ["update_mask"], "{mask}");
        }
    }
}

#[tokio::test]
async fn names_are_unique_in_a_folder_but_any_number_may_have_none() {
    let server = TestServer::start().await;
    let source = server
        .compute_image("f", "taken", &Disk::mbr(1, Fill::Sparse(1)))
        .await;
    for caller in server.callers() {
        let create = |folder: &str, name: &str| {
            let request = json!({"folderId": folder, "name": name, "imageId": source});
            caller.call(Method::Create, request)
        };
        let unnamed = image_id(&create("f", "").await.unwrap());
        create("f", "").await.unwrap();
        let folder = format!("{:?}", caller.transport);
        create(&folder, "taken").await.unwrap();
        assert_eq!(
            create("f", "taken").await.unwrap_err().code,
            Code::AlreadyExists
        );
        let rename = json!({"imageId": unnamed, "updateMask": "name", "name": "taken"});
        let refusal = caller
            .call(Method::ComputeUpdate, rename)
            .await
            .unwrap_err();
        assert_eq!(refusal.code, Code::AlreadyExists);
    }
}

#[tokio::test]
async fn the_latest_ready_image_of_a_family_is_found() {
    let server = TestServer::start().await;
    let disk = Disk::mbr(1, Fill::Sparse(1));
    let source = server.compute_image("f", "", &disk).await;
    let create = |folder: &str, family: &str| {
        server.ask(
            Method::Create,
            json!({"folderId": folder, "family": family, "imageId": source}),
        )
    };
    create("f", "debian").await;
    let latest = image_id(&create("f", "debian").await);
    create("f", "debian-sid").await;
    create("other", "debian").await;
    // One that is not ready does not count.
    let query = "/compute/v1/images:upload?folderId=f&family=debian&name=slow";
    let missing = server
        .http
        .post(server.url(query))
        .body("no disk")
        .send()
        .await
        .unwrap();
    assert_eq!(missing.status(), 200);
    for caller in server.callers() {
        let find = |request: Value| caller.call(Method::LatestByFamily, request);
        let found = find(json!({"folderId": "f", "family": "debian"}))
            .await
            .unwrap();
        assert_eq!(text(&found, "id"), latest);
        for (folder, family) in [("f", "missing"), ("empty", "debian"), ("f", "")] {
            let request = json!({"folderId": folder, "family": family});
            let refusal = find(request).await.unwrap_err();
            assert_eq!(refusal.code, Code::NotFound, "{folder:?} {family:?}");
        }
    }
    server
        .ask(Method::ComputeDelete, json!({"imageId": latest}))
        .await;
    let request = json!({"folderId": "f", "family": "debian"});
    let before = server.ask(Method::LatestByFamily, request).await;
    assert_ne!(text(&before, "id"), latest);
}

#[tokio::test]
async fn operations_of_an_image_are_listed_newest_first_in_pages() {
    let server = TestServer::start().await;
    let id = server
        .compute_image("f", "", &Disk::mbr(1, Fill::Sparse(1)))
        .await;
    for number in 0..4 {
        let description = number.to_string();
        let request =
            json!({"imageId": id, "updateMask": "description", "description": description});
        server.ask(Method::ComputeUpdate, request).await;
    }
    for caller in server.callers() {
        let list = |size: i64, token: &str| {
            let request = json!({"imageId": id, "pageSize": size, "pageToken": token});
            caller.call(Method::ListOperations, request)
        };
        let all = list(0, "").await.unwrap();
        let all = all["operations"].as_array().unwrap().clone();
        assert_eq!(all.len(), 5);
        for (number, operation) in all.iter().enumerate() {
            let kind = if number == 4 {
                "CreateImageMetadata"
            } else {
                "UpdateImageMetadata"
            };
            assert_eq!(operation["metadata"]["@type"], format!("{V1}.{kind}"));
            assert_eq!(operation["metadata"]["imageId"], id.as_str());
            if number < 4 {
                assert_eq!(
                    operation["response"]["description"],
                    (3 - number).to_string()
                );
            }
        }
        for size in 1..=6 {
            let (mut found, mut token) = (Vec::new(), String::new());
            loop {
                let page = list(size, &token).await.unwrap();
                let operations = page["operations"].as_array().unwrap();
                assert!(operations.len() <= size as usize);
                found.extend(operations.iter().cloned());
                token = text(&page, "nextPageToken").to_owned();
                assert!(token.len() <= 100, "{token}");
                if token.is_empty() {
                    break;
                }
            }
            assert_eq!(found, all, "{size}");
        }
        let other = server
            .compute_image("f", "", &Disk::mbr(1, Fill::Sparse(2)))
            .await;
        let token = text(&list(1, "").await.unwrap(), "nextPageToken").to_owned();
        for (id, token) in [
            (&other, token.as_str()),
            (&id, "x"),
            (&id, "!"),
            (&id, &token[1..]),
        ] {
            let request = json!({"imageId": id, "pageToken": token});
            let refusal = caller
                .call(Method::ListOperations, request)
                .await
                .unwrap_err();
            assert_eq!(refusal.fields, ["page_token"], "{token}");
        }
    }
}

#[tokio::test]
async fn an_image_that_is_being_made_is_seen_and_left_alone() {
    let server = TestServer::start().await;
    let disk = Disk::mbr(1, Fill::Random(1));
    let upload = SlowUpload::start(&server, "f", "slow", &disk[..100_000]).await;
    let id = upload.image_id.clone();
    for caller in server.callers() {
        let image = caller
            .call(Method::ComputeGet, json!({"imageId": id}))
            .await
            .unwrap();
        assert_eq!(
            (&image["status"], &image["size"]),
            (&json!("CREATING"), &json!("0"))
        );
        let rename = json!({"imageId": id, "updateMask": "name", "name": "x"});
        let create = json!({"folderId": "f", "imageId": id});
        for (method, request) in [
            (Method::ComputeUpdate, rename),
            (Method::ComputeDelete, json!({"imageId": id})),
            (Method::Create, create),
        ] {
            let refusal = caller.call(method, request).await.unwrap_err();
            assert_eq!(refusal.code, Code::FailedPrecondition, "{method:?}");
        }
    }
    upload.send(&disk[100_000..]).await;
    let operation = upload.finish().await;
    assert_eq!(response(&operation)["status"], "READY");
}
