//! Quotas: limits change at random under load, and what is used of them is what the images take.

use std::time::Duration;

use desktop_images::contract::desktopimages::v1::{
    AuditEvent, ListQuotasRequest, SetQuotaRequest, quota_service_client::QuotaServiceClient,
};
use rand::Rng;
use rand::rngs::StdRng;
use serde_json::json;
use test_support::{Clients, Method, Transport};
use tokio::time::sleep;

use crate::limits::{self, Limits};
use crate::load::Shared;

/// A folder in which requests are refused now and then.
pub const LIMITED: &str = "gamma";

/// The limits of that folder at the most, and of all together, by name: these are never reached.
const LIMITS: [(&str, i64); 4] = [
    (DESKTOP_COUNT, 9),
    (DESKTOP_SIZE, 40 << 20),
    (COMPUTE_COUNT, 9),
    (COMPUTE_SIZE, 30 << 20),
];
const ENOUGH: i64 = 1 << 50;

pub const DESKTOP_COUNT: &str = "vdi.desktopImages.count";
pub const DESKTOP_SIZE: &str = "vdi.desktopImages.size";
pub const COMPUTE_COUNT: &str = "compute.images.count";
pub const COMPUTE_SIZE: &str = "compute.images.size";

/// The longest pause between two changes of limits, in milliseconds.
const PAUSE: u64 = 120;

/// Sets the limits of a new server.
pub async fn set(clients: &Clients) {
    let mut client = QuotaServiceClient::new(clients.channel.clone());
    for (name, limit) in LIMITS {
        for (folder_id, limit) in [(LIMITED, limit), ("", ENOUGH)] {
            let request = SetQuotaRequest {
                folder_id: folder_id.to_owned(),
                name: name.to_owned(),
                limit: Some(limit),
            };
            client.set(request).await.expect("a quota is set");
        }
    }
}

/// Sets limits at random, also below what is used, and takes them away, until the server is gone.
pub async fn change(clients: Clients, model: Shared, mut random: StdRng) {
    loop {
        let (name, most) = LIMITS[random.random_range(0..LIMITS.len())];
        let (folder, limits) = match random.random_bool(0.7) {
            true => (LIMITED, 0..=most),
            false => ("", ENOUGH..=ENOUGH + 9),
        };
        let mut request = json!({"folderId": folder, "name": name});
        if random.random_bool(0.8) {
            request["limit"] = json!(random.random_range(limits).to_string());
        }
        let transport = match random.random_bool(0.5) {
            true => Transport::Grpc,
            false => Transport::Rest,
        };
        let caller = clients.caller(transport);
        let set = caller.attempt(Method::QuotaSet, request, &[]).await;
        if model.lock().killed {
            return;
        }
        match set {
            Ok(Ok(_)) => {}
            other => panic!("a limit was not set: {other:?}"),
        }
        let pause = random.random_range(0..=PAUSE);
        sleep(Duration::from_millis(pause)).await;
    }
}

/// Compares the limits with what the audit log tells of them, and what is used with the images of the model.
pub async fn agree(clients: &Clients, events: &[AuditEvent], model: &Shared) {
    let mut client = QuotaServiceClient::new(clients.channel.clone());
    let quotas = client.list(ListQuotasRequest::default()).await;
    let quotas = quotas.expect("quotas").into_inner().quotas;
    let model = model.lock();
    let set = limits::held(events, &model);
    let stand = quotas.iter().map(|quota| {
        let limit = quota.limit.expect("one that is set");
        ((quota.folder_id.clone(), quota.name.clone()), limit)
    });
    assert_eq!(stand.collect::<Limits>(), set, "other limits than were set");
    for quota in quotas {
        let name = quota.name.as_str();
        let desktop = [DESKTOP_COUNT, DESKTOP_SIZE].contains(&name);
        let images = model.living().filter(|(_, image)| {
            let counted = quota.folder_id.is_empty() || quota.folder_id == image.folder;
            counted && image.desktop == desktop
        });
        let expected: i64 = images
            .map(|(_, image)| match name {
                DESKTOP_COUNT | COMPUTE_COUNT => 1,
                _ => test_support::number(&image.resource, "storageSize"),
            })
            .sum();
        assert_eq!(quota.used, expected, "{quota:?}");
    }
}
