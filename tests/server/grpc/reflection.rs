//! Reflection: the server's description of itself, over both versions.

use std::collections::BTreeSet;

use prost::Message;
use test_support::TestServer;
use tonic::Code;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_reflection::pb::v1::{
    ExtensionRequest, ServerReflectionRequest, ServerReflectionResponse,
};

use super::{call, frame};

const VERSIONS: [&str; 2] = [
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
];

/// The replies to requests in one stream. Both versions have the same bytes.
async fn ask(
    server: &TestServer,
    path: &str,
    asked: &[Option<MessageRequest>],
) -> Vec<MessageResponse> {
    let requests = asked.iter().map(|message_request| ServerReflectionRequest {
        host: "a.host".to_owned(),
        message_request: message_request.clone(),
    });
    let requests: Vec<_> = requests.collect();
    let frames = requests
        .iter()
        .map(|request| frame(0, &request.encode_to_vec()));
    let reply = call(server.address, path, &[], frames.collect()).await;
    assert_eq!(reply.code(), Code::Ok, "{path}: {}", reply.message());
    let replies = reply
        .messages()
        .into_iter()
        .zip(&requests)
        .map(|((_, bytes), request)| {
            let reply = ServerReflectionResponse::decode(bytes.as_slice()).expect("a reply");
            assert_eq!(reply.original_request.as_ref(), Some(request));
            assert_eq!(reply.valid_host, "a.host");
            reply.message_response.expect("a response")
        });
    let replies: Vec<_> = replies.collect();
    assert_eq!(
        replies.len(),
        asked.len(),
        "{path}: each request has its reply"
    );
    replies
}

fn symbol(name: &str) -> Option<MessageRequest> {
    Some(MessageRequest::FileContainingSymbol(name.to_owned()))
}

fn extension(of: &str, number: i32) -> Option<MessageRequest> {
    Some(MessageRequest::FileContainingExtension(ExtensionRequest {
        containing_type: of.to_owned(),
        extension_number: number,
    }))
}

fn numbers(of: &str) -> Option<MessageRequest> {
    Some(MessageRequest::AllExtensionNumbersOfType(of.to_owned()))
}

/// The name of the file in a reply.
fn file(response: &MessageResponse) -> String {
    match response {
        MessageResponse::FileDescriptorResponse(files) => {
            let file =
                prost_types::FileDescriptorProto::decode(files.file_descriptor_proto[0].as_slice());
            file.expect("a file").name().to_owned()
        }
        other => panic!("no file: {other:?}"),
    }
}

#[tokio::test]
async fn every_symbol_is_found_whatever_it_names() {
    let server = TestServer::start().await;
    let desktop = "yandex/cloud/clouddesktop/v1/desktop_image.proto";
    let service = "yandex/cloud/clouddesktop/v1/desktop_image_service.proto";
    let api = "yandex.cloud.clouddesktop.v1.api";
    let operation = "yandex/cloud/operation/operation.proto";
    for (name, expected) in [
        (format!("{api}.DesktopImageService"), service),
        (format!("{api}.DesktopImageService.Copy"), service),
        (format!("{api}.CopyDesktopImageRequest"), service),
        (format!("{api}.CopyDesktopImageRequest.image_id"), service),
        (
            format!("{api}.CopyDesktopImageRequest.LabelsEntry"),
            service,
        ),
        (format!("{api}.DesktopImage.Status"), desktop),
        // A value of an enum is named beside the enum; within it is how some look for it.
        (format!("{api}.DesktopImage.ACTIVE"), desktop),
        (format!("{api}.DesktopImage.Status.ACTIVE"), desktop),
        (
            "yandex.cloud.operation.Operation.result".to_owned(),
            operation,
        ),
        (
            "yandex.cloud.operation.Operation.error".to_owned(),
            operation,
        ),
        // Extensions.
        ("google.api.http".to_owned(), "google/api/annotations.proto"),
        (
            "yandex.cloud.required".to_owned(),
            "yandex/cloud/validation.proto",
        ),
        (
            "yandex.cloud.api.operation".to_owned(),
            "yandex/cloud/api/operation.proto",
        ),
        (
            "google.protobuf.FieldOptions".to_owned(),
            "google/protobuf/descriptor.proto",
        ),
        ("grpc.health.v1.Health.Check".to_owned(), "health.proto"),
        (
            "grpc.health.v1.HealthCheckResponse.SERVING".to_owned(),
            "health.proto",
        ),
    ] {
        for path in VERSIONS {
            let replies = ask(&server, path, &[symbol(&name)]).await;
            let found = file(&replies[0]);
            assert!(found.ends_with(expected), "{name} {path}: {found}");
        }
    }
}

#[tokio::test]
async fn extensions_are_found_by_number_and_listed_by_type() {
    let server = TestServer::start().await;
    let method_options = "google.protobuf.MethodOptions";
    let field_options = "google.protobuf.FieldOptions";
    for path in VERSIONS {
        let replies = ask(
            &server,
            path,
            &[
                extension(method_options, 72295728),
                extension(method_options, 87334),
                extension(field_options, 101501),
                extension("google.protobuf.OneofOptions", 101400),
                numbers(method_options),
                numbers(field_options),
                numbers("yandex.cloud.operation.Operation"),
            ],
        )
        .await;
        assert_eq!(file(&replies[0]), "google/api/annotations.proto");
        assert_eq!(file(&replies[1]), "yandex/cloud/api/operation.proto");
        assert_eq!(file(&replies[2]), "yandex/cloud/validation.proto");
        assert_eq!(file(&replies[3]), "yandex/cloud/validation.proto");
        let listed = |response: &MessageResponse| match response {
            MessageResponse::AllExtensionNumbersResponse(found) => (
                found.base_type_name.clone(),
                found
                    .extension_number
                    .iter()
                    .copied()
                    .collect::<BTreeSet<_>>(),
            ),
            other => panic!("no numbers: {other:?}"),
        };
        let (name, found) = listed(&replies[4]);
        assert_eq!(name, method_options);
        assert_eq!(found, [87334, 72295728].into());
        let (_, found) = listed(&replies[5]);
        assert!(
            found.is_superset(&[101501, 101502, 101503, 101504, 101505].into()),
            "{found:?}"
        );
        let (_, found) = listed(&replies[6]);
        assert!(found.is_empty(), "a message without extensions has none");
    }
}

#[tokio::test]
async fn what_is_unknown_is_told_and_the_stream_goes_on() {
    let server = TestServer::start().await;
    let unknown = [
        symbol("no.such.Symbol"),
        symbol(""),
        symbol("yandex.cloud.operation"),
        Some(MessageRequest::FileByFilename("no/such.proto".to_owned())),
        extension("google.protobuf.MethodOptions", 5),
        extension("google.protobuf.MethodOptions", -5),
        extension("no.such.Type", 72295728),
        numbers("no.such.Type"),
    ];
    for path in VERSIONS {
        let mut asked = Vec::new();
        for request in &unknown {
            asked.push(request.clone());
            asked.push(symbol("yandex.cloud.operation.Operation"));
        }
        asked.push(None);
        asked.push(Some(MessageRequest::ListServices(String::new())));
        let replies = ask(&server, path, &asked).await;
        for (request, pair) in unknown.iter().zip(replies.chunks(2)) {
            match &pair[0] {
                MessageResponse::ErrorResponse(error) => {
                    assert_eq!(error.error_code, Code::NotFound as i32, "{request:?}");
                    assert!(
                        error.error_message.contains("not found"),
                        "{request:?}: {error:?}"
                    );
                }
                other => panic!("{request:?}: {other:?}"),
            }
            assert_eq!(file(&pair[1]), "yandex/cloud/operation/operation.proto");
        }
        let [.., nothing, services] = &replies[..] else {
            panic!("too few replies");
        };
        match nothing {
            MessageResponse::ErrorResponse(error) => {
                assert_eq!(error.error_code, Code::InvalidArgument as i32);
            }
            other => panic!("{other:?}"),
        }
        match services {
            MessageResponse::ListServicesResponse(services) => {
                let names: Vec<_> = services.service.iter().map(|it| it.name.as_str()).collect();
                assert!(names.contains(&"grpc.health.v1.Health"), "{names:?}");
                assert!(
                    names.contains(&"desktopimages.v1.QuotaService"),
                    "{names:?}"
                );
                assert!(
                    names.contains(&"yandex.cloud.iam.v1.IamTokenService"),
                    "{names:?}"
                );
            }
            other => panic!("{other:?}"),
        }
    }
}

/// A client that loads all that it is told of finds all that this refers to.
#[tokio::test]
async fn every_file_and_its_imports_can_be_loaded() {
    let server = TestServer::start().await;
    for path in VERSIONS {
        let mut pool = prost_reflect::DescriptorPool::new();
        let mut missing = vec!["yandex/cloud/compute/v1/image_service.proto".to_owned()];
        let mut files = Vec::new();
        let mut seen = BTreeSet::new();
        while let Some(name) = missing.pop() {
            if !seen.insert(name.clone()) {
                continue;
            }
            let asked = [Some(MessageRequest::FileByFilename(name))];
            let replies = ask(&server, path, &asked).await;
            let MessageResponse::FileDescriptorResponse(found) = &replies[0] else {
                panic!("no file: {replies:?}");
            };
            let bytes = &found.file_descriptor_proto[0];
            let file = prost_types::FileDescriptorProto::decode(bytes.as_slice()).expect("a file");
            missing.extend(file.dependency.clone());
            // Encoded again it would lack its options.
            files.push(bytes.clone());
        }
        let set = files.iter().flat_map(|bytes| {
            let mut field = vec![0x0a];
            prost::encoding::encode_varint(bytes.len() as u64, &mut field);
            field.extend_from_slice(bytes);
            field
        });
        let set: Vec<u8> = set.collect();
        pool.decode_file_descriptor_set(set.as_slice())
            .expect("whole");
        let method = pool
            .get_service_by_name("yandex.cloud.compute.v1.ImageService")
            .and_then(|service| service.methods().find(|method| method.name() == "Get"))
            .expect("the method");
        let http = pool
            .get_extension_by_name("google.api.http")
            .expect("the option");
        assert!(
            method.options().has_extension(&http),
            "{path}: options stay"
        );
    }
}
