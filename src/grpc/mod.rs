//! The gRPC services. Knows how a request is unpacked and checked, which use case it calls, and how the result becomes
//! a reply or a status. Never mentions SQL, files, URLs or JSON.

mod access;
mod audit;
mod compute_images;
mod convert;
mod desktop_images;
mod endpoints;
mod field_mask;
mod iam_tokens;
mod idempotency_key;
mod images;
mod operation_watch;
mod operations;
mod progress;
mod quotas;
mod reflection;
mod request;
mod service_accounts;
mod signed_urls;
mod status;
mod tokens;

use prost_reflect::DescriptorPool;
use tonic::service::Routes;
use tonic_reflection::pb::{v1, v1alpha};

use crate::auth::Identity;
use crate::contract::{self, Framed, desktopimages, yandex::cloud};
use crate::images::Images;
use reflection::Reflection;

pub(crate) use compute_images::new_compute_image;
pub(crate) use endpoints::{AskedHost, Endpoints};
pub(crate) use request::{context, idempotent};
pub(crate) use status::{
    busy, from_error, internal, invalid, may_be_sent_again, not_authenticated, stopping,
    too_many_requests,
};

/// Turn an operation of the domain into the contract's message, and its failure into a status.
pub(crate) use operations::{failure as operation_failure, of_request as operation_of_request};

/// The implementation of every service, one file for each.
#[derive(Clone)]
struct Service {
    images: Images,
    identity: Identity,
}

/// The services by which every gRPC server describes itself.
const COMMON_SERVICES: [&str; 3] = [
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
];

/// The descriptors of the common services, by file set.
const COMMON_FILE_DESCRIPTOR_SETS: [&[u8]; 3] = [
    tonic_health::pb::FILE_DESCRIPTOR_SET,
    tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
    tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
];

/// The full names of all services of this server, those of the contract and the common ones.
pub(crate) fn services() -> impl Iterator<Item = &'static str> + Clone {
    contract::services().chain(COMMON_SERVICES)
}

/// The descriptors of all services of this server, and of the messages of the contract.
#[expect(
    clippy::expect_used,
    reason = "the sets are constants: were one invalid, no test could start a server"
)]
pub(crate) fn descriptor_pool() -> DescriptorPool {
    let mut pool = contract::descriptor_pool().clone();
    for set in COMMON_FILE_DESCRIPTOR_SETS {
        pool.decode_file_descriptor_set(set)
            .expect("the embedded descriptors are valid");
    }
    pool
}

/// All gRPC services of this server, with reflection and health.
pub(crate) async fn routes(
    images: &Images,
    identity: &Identity,
    endpoints: Endpoints,
) -> (Routes, Health) {
    let service = Service {
        images: images.clone(),
        identity: identity.clone(),
    };
    let (health, health_service) = tonic_health::server::health_reporter();
    let health = Health(health);
    health.set(true).await;
    let pool = descriptor_pool();
    // It tells of what is served, not of all that is described.
    let reflection = Reflection::new(pool.clone(), services());
    let routes = Routes::new(Framed::new(health_service, &pool))
        .add_service(Framed::new(
            v1::server_reflection_server::ServerReflectionServer::new(reflection.clone()),
            &pool,
        ))
        .add_service(Framed::new(
            v1alpha::server_reflection_server::ServerReflectionServer::new(reflection),
            &pool,
        ))
        .add_service(
            cloud::clouddesktop::v1::api::desktop_image_service_server::DesktopImageServiceServer::new(
                service.clone(),
            ),
        )
        .add_service(
            cloud::compute::v1::image_service_server::ImageServiceServer::new(
                service.clone(),
            ),
        )
        .add_service(
            cloud::operation::operation_service_server::OperationServiceServer::new(
                service.clone(),
            ),
        )
        .add_service(
            cloud::endpoint::api_endpoint_service_server::ApiEndpointServiceServer::new(endpoints),
        )
        .add_service(
            desktopimages::v1::operation_watch_service_server::OperationWatchServiceServer::new(
                service.clone(),
            ),
        )
        .add_service(desktopimages::v1::quota_service_server::QuotaServiceServer::new(
            service.clone(),
        ))
        .add_service(desktopimages::v1::audit_service_server::AuditServiceServer::new(
            service.clone(),
        ))
        .add_service(desktopimages::v1::token_service_server::TokenServiceServer::new(
            service.clone(),
        ))
        .add_service(desktopimages::v1::access_service_server::AccessServiceServer::new(
            service.clone(),
        ))
        .add_service(
            desktopimages::v1::service_account_service_server::ServiceAccountServiceServer::new(
                service.clone(),
            ),
        )
        .add_service(
            desktopimages::v1::signed_url_service_server::SignedUrlServiceServer::new(
                service.clone(),
            ),
        )
        .add_service(cloud::iam::v1::iam_token_service_server::IamTokenServiceServer::new(
            service,
        ));
    (routes, health)
}

/// Sets the health of all services, and of the server as a whole.
#[derive(Clone)]
pub(crate) struct Health(tonic_health::server::HealthReporter);

impl Health {
    pub(crate) async fn set(&self, serving: bool) {
        let status = match serving {
            true => tonic_health::ServingStatus::Serving,
            false => tonic_health::ServingStatus::NotServing,
        };
        for service in services().chain([""]) {
            self.0.set_service_status(service, status).await;
        }
    }
}
