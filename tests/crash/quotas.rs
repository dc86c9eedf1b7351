//! Quotas: what is used of them is what the images take.

use std::path::Path;
use std::sync::Arc;

use desktop_images::metadata::{Metric, QuotaScope, Store, SystemClock};
use rusqlite::Connection;

use crate::load::Shared;
use crate::support;

/// A folder in which requests are refused now and then.
pub const LIMITED: &str = "gamma";

/// Sets the limits of a new data folder, which no server may use meanwhile.
pub async fn set(data: &Path) {
    let path = data.join("metadata.sqlite");
    let open = move || Store::open(&path, Arc::new(SystemClock)).expect("the database opens");
    let opened = tokio::task::spawn_blocking(open);
    let store = opened.await.expect("no panic");
    let folder = || QuotaScope::Folder(LIMITED.to_owned());
    let enough = i64::MAX / 2;
    for (scope, metric, limit) in [
        (folder(), Metric::DesktopImagesCount, 6),
        (folder(), Metric::DesktopImagesSize, 12 << 20),
        (folder(), Metric::ComputeImagesCount, 6),
        (folder(), Metric::ComputeImagesSize, 8 << 20),
        (QuotaScope::Total, Metric::DesktopImagesCount, enough),
        (QuotaScope::Total, Metric::DesktopImagesSize, enough),
        (QuotaScope::Total, Metric::ComputeImagesCount, enough),
        (QuotaScope::Total, Metric::ComputeImagesSize, enough),
    ] {
        let set = store.set_quota(scope, metric, Some(limit)).await;
        set.expect("a quota is set");
    }
    store.close().await;
}

/// Compares what is used with the images of the model.
pub fn agree(database: &Connection, model: &Shared) {
    let model = model.lock();
    let mut statement = database
        .prepare_cached(
            "SELECT folder.id, metric, \"limit\", used FROM quotas
             LEFT JOIN folders AS folder ON folder.key = folder_key",
        )
        .expect("quotas");
    let rows = statement
        .query_map([], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
        })
        .expect("rows");
    let rows: Vec<(Option<String>, i64, i64, i64)> = rows.map(|row| row.expect("a row")).collect();
    assert_eq!(rows.len(), 8, "limits of a folder and of all folders");
    for (folder, metric, limit, used) in rows {
        let desktop = metric <= Metric::DesktopImagesSize as i64;
        let counted = [Metric::DesktopImagesCount, Metric::ComputeImagesCount]
            .into_iter()
            .any(|counted| counted as i64 == metric);
        let images = model.living().filter(|(_, image)| {
            image.desktop == desktop && folder.as_deref().is_none_or(|id| id == image.folder)
        });
        let expected: i64 = images
            .map(|(_, image)| match counted {
                true => 1,
                false => support::number(&image.resource, "storageSize"),
            })
            .sum();
        let what = format!(
            "metric {metric} of {}",
            folder.as_deref().unwrap_or("all folders")
        );
        assert_eq!(used, expected, "used of {what}");
        assert!(used <= limit, "{used} of {limit}: {what}");
    }
}
