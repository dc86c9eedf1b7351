//! DesktopImageService over both transports, but for its lists.

use serde_json::{Value, json};
use test_support::{
    Disk, Fill, Method, SlowUpload, TestServer, Transport, image_id, response, text,
};
use tonic::Code;

const EMPTY: &str = "type.googleapis.com/google.protobuf.Empty";
const API: &str = "type.googleapis.com/yandex.cloud.clouddesktop.v1.api";

fn is_id(id: &str, prefix: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    id.len() == 20 && id.starts_with(prefix) && id.bytes().all(plain)
}

#[tokio::test]
async fn the_first_reply_of_a_copy_is_done_and_has_the_image() {
    let server = TestServer::start().await;
    let disk = Disk::mbr(2, Fill::Sparse(1));
    let source = server.compute_image("f", "source", &disk).await;
    for (number, caller) in server.callers().iter().enumerate() {
        let name = format!("образ {number}");
        let request = json!({
            "folderId": "folder", "name": name, "imageId": source,
            "labels": {"env": "test", "empty": ""}, "description": "Ein Bild",
        });
        let operation = caller.call(Method::Copy, request).await.unwrap();
        let image = response(&operation).clone();
        let id = image_id(&operation);
        assert!(is_id(&id, "e3v"), "{id}");
        assert!(is_id(text(&operation, "id"), "e3v"), "{operation}");
        assert_eq!(
            operation["metadata"]["@type"],
            format!("{API}.CopyDesktopImageMetadata")
        );
        assert_eq!(
            image,
            json!({
                "@type": format!("{API}.DesktopImage"), "id": id, "folderId": "folder",
                "createdAt": image["createdAt"], "status": "ACTIVE", "name": name,
                "labels": {"env": "test", "empty": ""}, "description": "Ein Bild",
                "storageSize": Disk::stored_size(&disk).to_string(),
                "minDiskSize": disk.len().to_string(),
            })
        );
        assert!(operation["createdAt"].is_string() && operation["modifiedAt"].is_string());

        let mut plain = image;
        plain.as_object_mut().unwrap().remove("@type");
        for reader in server.callers() {
            let found = reader
                .call(Method::DesktopGet, json!({"imageId": id}))
                .await;
            assert_eq!(found.as_ref(), Ok(&plain));
            let again = json!({"operationId": operation["id"]});
            let again = reader.call(Method::OperationGet, again).await;
            assert_eq!(again.as_ref(), Ok(&operation));
        }
    }
}

#[tokio::test]
async fn names_are_unique_in_a_folder_and_free_again_after_deletion() {
    let server = TestServer::start().await;
    let source = server
        .compute_image("f", "", &Disk::mbr(1, Fill::Sparse(1)))
        .await;
    for (number, caller) in server.callers().iter().enumerate() {
        let folder = format!("folder{number}");
        let copy = |folder: &str, name: &str| {
            let request = json!({"folderId": folder, "name": name, "imageId": source});
            caller.call(Method::Copy, request)
        };
        let first = image_id(&copy(&folder, "a").await.unwrap());
        let second = image_id(&copy(&folder, "b").await.unwrap());
        let taken = copy(&folder, "a").await.unwrap_err();
        assert_eq!(taken.code, Code::AlreadyExists);
        assert!(taken.message.contains("\"a\""), "{}", taken.message);
        // Names are compared as they are written, and folders are worlds of their own.
        copy(&folder, "A").await.unwrap();
        copy(&format!("{folder}x"), "a").await.unwrap();

        let rename = json!({"imageId": second, "updateMask": "name", "name": "a"});
        let taken = caller
            .call(Method::DesktopUpdate, rename.clone())
            .await
            .unwrap_err();
        assert_eq!(taken.code, Code::AlreadyExists);
        let delete = json!({"imageId": first});
        caller.call(Method::DesktopDelete, delete).await.unwrap();
        caller.call(Method::DesktopUpdate, rename).await.unwrap();
        copy(&folder, "b").await.unwrap();
    }
}

#[tokio::test]
async fn an_update_changes_the_fields_of_its_mask_and_without_one_all() {
    let server = TestServer::start().await;
    let source = server
        .compute_image("f", "", &Disk::mbr(1, Fill::Sparse(1)))
        .await;
    for caller in server.callers() {
        let folder = format!("{:?}", caller.transport);
        // Fields sent, and name, labels and description afterwards.
        let cases = [
            (
                json!({"updateMask": "name", "name": "n", "description": "x"}),
                "n",
                json!({"a": "b"}),
                "old",
            ),
            (
                json!({"updateMask": "labels", "labels": {"c": "d"}}),
                "",
                json!({"c": "d"}),
                "old",
            ),
            (json!({"updateMask": "labels"}), "", json!({}), "old"),
            (
                json!({"updateMask": "description", "description": "new", "name": "x"}),
                "",
                json!({"a": "b"}),
                "new",
            ),
            (
                json!({"updateMask": "description"}),
                "",
                json!({"a": "b"}),
                "",
            ),
            (
                json!({"updateMask": "name,labels,description", "name": "m"}),
                "m",
                json!({}),
                "",
            ),
            (json!({"name": "o"}), "o", json!({}), ""),
            (
                json!({"updateMask": "", "name": "p", "labels": {"e": ""}}),
                "p",
                json!({"e": ""}),
                "",
            ),
        ];
        for (number, (fields, name, labels, description)) in cases.into_iter().enumerate() {
            let old = format!("old{number}");
            let request = json!({
                "folderId": folder, "name": old, "imageId": source,
                "labels": {"a": "b"}, "description": "old",
            });
            let copied = server.ask(Method::Copy, request).await;
            let id = image_id(&copied);
            let mut request = fields.clone();
            request["imageId"] = json!(id);
            let operation = caller.call(Method::DesktopUpdate, request).await.unwrap();
            let metadata = format!("{API}.UpdateDesktopImageMetadata");
            assert_eq!(
                operation["metadata"],
                json!({"@type": metadata, "imageId": id})
            );

            let mut expected = response(&copied).clone();
            expected["name"] = json!(if name.is_empty() { &old } else { name });
            expected["labels"] = labels;
            expected["description"] = json!(description);
            assert_eq!(response(&operation), &expected, "{fields}");
            let found = caller
                .call(Method::DesktopGet, json!({"imageId": id}))
                .await
                .unwrap();
            expected.as_object_mut().unwrap().remove("@type");
            assert_eq!(found, expected, "{fields}");
        }
    }
}

#[tokio::test]
async fn an_update_that_cannot_be_changes_nothing() {
    let server = TestServer::start().await;
    let source = server
        .compute_image("f", "", &Disk::mbr(1, Fill::Sparse(1)))
        .await;
    let id = server.copied("folder", "name", &source).await;
    let before = server.ask(Method::DesktopGet, json!({"imageId": id})).await;
    for caller in server.callers() {
        for (fields, field) in [
            (json!({"updateMask": "name", "name": ""}), "name"),
            (json!({"updateMask": "name"}), "name"),
            (
                json!({"updateMask": "description,name", "description": "x"}),
                "name",
            ),
            (json!({"description": "x"}), "name"),
            (json!({}), "name"),
            (json!({"updateMask": "size", "name": "x"}), "update_mask"),
            (
                json!({"updateMask": "name,folderId", "name": "x"}),
                "update_mask",
            ),
            (json!({"updateMask": "imageId", "name": "x"}), "update_mask"),
            (
                json!({"updateMask": "labels.a", "labels": {"a": "b"}}),
                "update_mask",
            ),
        ] {
            let mut request = fields.clone();
            request["imageId"] = json!(id);
            let refusal = caller
                .call(Method::DesktopUpdate, request)
                .await
                .unwrap_err();
            assert_eq!(refusal.code, Code::InvalidArgument, "{fields}");
            assert_eq!(refusal.fields, [field], "{fields}");
            let message = &refusal.message;
            assert!(
                message.starts_with(&format!("Validation failed:\n  - {field}: ")),
                "{message}"
            );
        }
        let after = caller
            .call(Method::DesktopGet, json!({"imageId": id}))
            .await
            .unwrap();
        assert_eq!(after, before);
    }
}

#[tokio::test]
async fn a_deleted_image_is_gone_and_others_stay() {
    let server = TestServer::start().await;
    let disk = Disk::mbr(1, Fill::Sparse(1));
    let source = server.compute_image("f", "", &disk).await;
    let other = server.copied("folder", "other", &source).await;
    for caller in server.callers() {
        let id = server.copied("folder", "gone", &source).await;
        let request = json!({"imageId": id});
        let operation = caller
            .call(Method::DesktopDelete, request.clone())
            .await
            .unwrap();
        let metadata = format!("{API}.DeleteDesktopImageMetadata");
        assert_eq!(
            operation["metadata"],
            json!({"@type": metadata, "imageId": id})
        );
        let empty = response(&operation);
        assert_eq!(empty["@type"], EMPTY);
        for method in [Method::DesktopGet, Method::DesktopDelete] {
            let refusal = caller.call(method, request.clone()).await.unwrap_err();
            assert_eq!(refusal.code, Code::NotFound);
            assert_eq!(refusal.message, format!("Image \"{id}\" not found"));
        }
        assert_eq!(server.downloaded(&other).await, disk);
    }
}

#[tokio::test]
async fn a_copy_needs_a_ready_image() {
    let server = TestServer::start().await;
    let disk = Disk::mbr(1, Fill::Random(1));
    let upload = SlowUpload::start(&server, "f", "slow", &disk[..1000]).await;
    let request = json!({"folderId": "folder", "name": "n", "imageId": upload.image_id});
    for caller in server.callers() {
        let refusal = caller
            .call(Method::Copy, request.clone())
            .await
            .unwrap_err();
        assert_eq!(
            refusal.code,
            Code::FailedPrecondition,
            "{}",
            refusal.message
        );
    }
    upload.send(&disk[1000..]).await;
    response(&upload.finish().await);
    response(&server.ask(Method::Copy, request).await);
}

#[tokio::test]
async fn unknown_ids_are_named() {
    let server = TestServer::start().await;
    for caller in server.callers() {
        for id in [
            "x",
            "fd8aaaaaaaaaaaaaaaaa",
            "e3vaaaaaaaaaaaaaaaaa",
            "Ж ? #/%41",
        ] {
            let copy = json!({"folderId": "f", "name": "n", "imageId": id});
            let create = json!({"folderId": "f", "imageId": id});
            let rename = json!({"imageId": id, "updateMask": "name", "name": "n"});
            let image = json!({"imageId": id});
            for (method, request) in [
                (Method::Copy, &copy),
                (Method::Create, &create),
                (Method::DesktopGet, &image),
                (Method::DesktopUpdate, &rename),
                (Method::DesktopDelete, &image),
                (Method::ComputeGet, &image),
                (Method::ComputeUpdate, &rename),
                (Method::ComputeDelete, &image),
                (Method::ListOperations, &image),
            ] {
                // Create reads image_id as its source in the body.
                let refusal = caller.call(method, request.clone()).await.unwrap_err();
                assert_eq!(refusal.code, Code::NotFound, "{method:?}");
                assert_eq!(
                    refusal.message,
                    format!("Image \"{id}\" not found"),
                    "{method:?}"
                );
            }
            for method in [
                Method::OperationGet,
                Method::OperationCancel,
                Method::OperationCancelByPost,
            ] {
                let refusal = caller
                    .call(method, json!({"operationId": id}))
                    .await
                    .unwrap_err();
                assert_eq!(refusal.code, Code::NotFound, "{method:?}");
                assert_eq!(refusal.message, format!("Operation \"{id}\" not found"));
            }
        }
    }
}

#[tokio::test]
async fn copying_from_a_desktop_is_not_served_yet_but_its_request_is_checked() {
    let server = TestServer::start().await;
    for caller in server.callers() {
        let call = |request: Value| caller.call(Method::CopyFromDesktop, request);
        let refusal = call(json!({"desktopId": "d"})).await.unwrap_err();
        assert_eq!(refusal.code, Code::Unimplemented);
        let refusal = call(json!({"folderId": "f"})).await.unwrap_err();
        assert_eq!(
            (refusal.code, refusal.fields),
            (Code::InvalidArgument, vec!["desktop_id".to_owned()])
        );
    }
}

#[tokio::test]
async fn a_typed_client_reads_the_resource_from_the_operation() {
    use desktop_images::contract::yandex::cloud::clouddesktop::v1::api::{
        CopyDesktopImageMetadata, CopyDesktopImageRequest, DesktopImage, desktop_image::Status,
    };
    use desktop_images::contract::yandex::cloud::operation::operation::Result as Ended;

    let server = TestServer::start().await;
    let source = server
        .compute_image("f", "", &Disk::gpt(2, Fill::Sparse(1)))
        .await;
    let request = CopyDesktopImageRequest {
        folder_id: "folder".to_owned(),
        name: "typed".to_owned(),
        image_id: source,
        ..Default::default()
    };
    let operation = server.desktop().copy(request).await.unwrap().into_inner();
    let metadata: CopyDesktopImageMetadata = operation.metadata.unwrap().to_msg().unwrap();
    let Some(Ended::Response(image)) = operation.result else {
        panic!("no response");
    };
    let image: DesktopImage = image.to_msg().unwrap();
    assert_eq!(image.id, metadata.image_id);
    assert_eq!(
        (image.name.as_str(), image.status()),
        ("typed", Status::Active)
    );
    let rest = server.caller(Transport::Rest);
    let found = rest
        .call(Method::DesktopGet, json!({"imageId": image.id}))
        .await
        .unwrap();
    assert_eq!(found["name"], "typed");
}
