//! Quotas: what is used of them is what the images take.

use desktop_images::contract::desktopimages::v1::{
    ListQuotasRequest, SetQuotaRequest, quota_service_client::QuotaServiceClient,
};
use test_support::Clients;

use crate::load::Shared;

/// A folder in which requests are refused now and then.
pub const LIMITED: &str = "gamma";

/// The limits of that folder, and of all together, by name: these are never reached.
const LIMITS: [(&str, i64); 4] = [
    (DESKTOP_COUNT, 6),
    (DESKTOP_SIZE, 12 << 20),
    (COMPUTE_COUNT, 6),
    (COMPUTE_SIZE, 8 << 20),
];
const ENOUGH: i64 = 1 << 50;

const DESKTOP_COUNT: &str = "vdi.desktopImages.count";
const DESKTOP_SIZE: &str = "vdi.desktopImages.size";
const COMPUTE_COUNT: &str = "compute.images.count";
const COMPUTE_SIZE: &str = "compute.images.size";

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

/// Compares what is used with the images of the model.
pub async fn agree(clients: &Clients, model: &Shared) {
    let mut client = QuotaServiceClient::new(clients.channel.clone());
    let quotas = client.list(ListQuotasRequest::default()).await;
    let quotas = quotas.expect("quotas").into_inner().quotas;
    assert_eq!(quotas.len(), 2 * LIMITS.len(), "{quotas:?}");
    let model = model.lock();
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
        assert!(Some(quota.used) <= quota.limit, "{quota:?}");
    }
}
