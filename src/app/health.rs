//! Health: checks, once a second, that the store answers, that its schema is one this program works with, and that
//! database and blobs are where they were. gRPC health and `/readyz` tell the result.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::data_folder::Place;
use crate::grpc;
use crate::server::{Check, Readiness};
use crate::store::{self, Store};

const INTERVAL: Duration = Duration::from_secs(1);
/// A disk that takes longer to tell of a folder, or a database that takes longer to answer, is as good as lost.
const PATIENCE: Duration = Duration::from_secs(5);

/// The places where health is told.
#[derive(Clone)]
pub(super) struct Health {
    grpc: grpc::Health,
    readiness: Readiness,
    /// Readiness as gRPC health has it: whoever watches that is sent every value that is set, also one that it had.
    told: Arc<Mutex<bool>>,
}

impl Health {
    /// Passes on the readiness of a server that gRPC health calls ready.
    pub(super) fn new(grpc: grpc::Health, readiness: Readiness) -> Self {
        Self {
            grpc,
            readiness,
            told: Arc::new(Mutex::new(true)),
        }
    }

    /// Fails the readiness of a server that goes on answering.
    pub(super) async fn announce_drain(&self) {
        self.readiness.announce_drain();
        self.tell().await;
    }

    /// Has new requests refused.
    pub(super) fn begin_drain(&self) {
        self.readiness.begin_drain();
    }

    /// Tells gRPC health what readiness is now, whoever else has changed it meanwhile.
    async fn tell(&self) {
        let mut told = self.told.lock().await;
        let is_ready = self.readiness.is_ready();
        if is_ready != *told {
            self.grpc.set(is_ready).await;
            *told = is_ready;
        }
    }
}

/// Checks until the server stops.
pub(super) async fn watch(
    place: Place,
    store: Arc<dyn Store>,
    health: Health,
    stop: CancellationToken,
) {
    let mut interval = tokio::time::interval(INTERVAL);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut looks = Looks::default();
    let mut before = Vec::new();
    loop {
        tokio::select! {
            _ = interval.tick() => {}
            () = stop.cancelled() => return,
        }
        let found = tokio::select! {
            found = look(&place, &*store, &mut looks) => found,
            () = stop.cancelled() => return,
        };
        log_changes(&before, &found);
        health
            .readiness
            .set(found.iter().map(Found::check).collect());
        health.tell().await;
        before = found;
    }
}

/// A check with its result.
struct Found {
    name: &'static str,
    /// Words for everybody, and for the log.
    fault: Option<(&'static str, String)>,
}

impl Found {
    fn new(name: &'static str, words: &'static str, checked: Result<(), String>) -> Self {
        Self {
            name,
            fault: checked.err().map(|reason| (words, reason)),
        }
    }

    fn check(&self) -> Check {
        Check {
            name: self.name,
            fault: self.fault.as_ref().map(|(words, _)| (*words).to_owned()),
        }
    }
}

async fn look(place: &Place, store: &dyn Store, looks: &mut Looks) -> Vec<Found> {
    let (database, blobs, answered) = tokio::join!(
        looks.database.take(place, Place::check_database),
        looks.blobs.take(place, Place::check_blobs),
        tokio::time::timeout(PATIENCE, store.check()),
    );
    let (store, schema) = match answered {
        Err(_) => (Err(late("database")), Ok(())),
        Ok(Ok(())) => (Ok(()), Ok(())),
        Ok(Err(error)) => match is_of_schema(&error) {
            true => (Ok(()), Err(error.to_string())),
            false => (Err(error.to_string()), Ok(())),
        },
    };
    let (store, words) = match store {
        Ok(()) => (database, "the database is not where it was"),
        failed => (failed, "the database does not answer"),
    };
    vec![
        Found::new("store", words, store),
        Found::new(
            "schema",
            "the database has a schema that this version does not work with",
            schema,
        ),
        Found::new("blobs", "the images are not where they were", blobs),
    ]
}

fn is_of_schema(error: &store::Error) -> bool {
    use store::Error::{Foreign, NewerSchema, OlderSchema};
    matches!(
        error,
        NewerSchema { .. } | OlderSchema { .. } | Foreign { .. }
    )
}

fn log_changes(before: &[Found], found: &[Found]) {
    for now in found {
        let before = before.iter().find(|before| before.name == now.name);
        let was_sound = before.is_none_or(|before| before.fault.is_none());
        match &now.fault {
            None if !was_sound => {
                tracing::info!(
                    check = now.name,
                    "a check of readiness passes: serving again"
                );
            }
            Some((_, reason)) if was_sound => {
                tracing::error!(
                    check = now.name,
                    reason,
                    "a check of readiness failed: not serving"
                );
            }
            _ => {}
        }
    }
}

/// Looks at disks. A look that does not end is waited for again the next time, and not begun once more.
#[derive(Default)]
struct Looks {
    database: Look,
    blobs: Look,
}

#[derive(Default)]
struct Look(Option<JoinHandle<Result<(), String>>>);

impl Look {
    async fn take(
        &mut self,
        place: &Place,
        check: fn(&Place) -> Result<(), String>,
    ) -> Result<(), String> {
        let running = self.0.get_or_insert_with(|| {
            let place = place.clone();
            tokio::task::spawn_blocking(move || check(&place))
        });
        match tokio::time::timeout(PATIENCE, running).await {
            Ok(checked) => {
                self.0 = None;
                checked.unwrap_or_else(|stopped| Err(stopped.to_string()))
            }
            Err(_) => Err(late("disk")),
        }
    }
}

fn late(what: &str) -> String {
    format!("the {what} did not answer within {PATIENCE:?}")
}
