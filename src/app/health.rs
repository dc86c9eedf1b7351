//! Health: the server does not serve while its database or its blobs are not where they were.

use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::data_folder::Place;
use crate::grpc::Health;

const INTERVAL: Duration = Duration::from_secs(1);
/// A disk that takes longer to tell of a folder is as good as lost.
const PATIENCE: Duration = Duration::from_secs(5);

/// Checks, until the server stops, that the data are where they were, and sets the health of the server.
pub(crate) async fn watch(place: Place, health: Health, stop: CancellationToken) {
    let mut interval = tokio::time::interval(INTERVAL);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut serving = true;
    let mut checking = None;
    loop {
        tokio::select! {
            _ = interval.tick() => {}
            () = stop.cancelled() => return,
        }
        let found = check(&place, &mut checking).await;
        if found.is_ok() != serving {
            serving = found.is_ok();
            match found {
                Ok(()) => tracing::info!("the data folder is as it was: serving again"),
                Err(reason) => tracing::error!(reason, "the data folder is lost: not serving"),
            }
            health.set(serving).await;
        }
    }
}

/// A check that does not end is waited for again the next time, and not begun once more.
async fn check(
    place: &Place,
    checking: &mut Option<JoinHandle<Result<(), String>>>,
) -> Result<(), String> {
    let running = checking.get_or_insert_with(|| {
        let place = place.clone();
        tokio::task::spawn_blocking(move || place.check())
    });
    match tokio::time::timeout(PATIENCE, running).await {
        Ok(checked) => {
            *checking = None;
            checked.unwrap_or_else(|stopped| Err(stopped.to_string()))
        }
        Err(_) => Err(format!("the disk did not answer within {PATIENCE:?}")),
    }
}
