//! A Copy that stores nothing. Only in builds for benches/operations.

use std::pin::Pin;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::Either;
use tokio::sync::oneshot;

use crate::model::{
    Accept, DESKTOP_IMAGE_PREFIX, DesktopImage, DesktopImageStatus, IdGenerator, Kind,
    NewDesktopImage, OPERATION_PREFIX, Operation, Outcome, Progress, SystemClock,
};
use crate::store::Baseline;

/// A Copy that is answered without the store.
pub type MadeUp = Pin<Box<dyn Future<Output = super::Result<Operation>> + Send>>;

/// What the chosen baseline does instead of a Copy, if it stores nothing.
pub fn copy_desktop_image<F>(
    accept: Accept,
    new: NewDesktopImage,
    stored: impl FnOnce(Accept, NewDesktopImage) -> F,
) -> Either<MadeUp, F> {
    Either::Left(match Baseline::chosen() {
        Some(Baseline::StoresNothing) => Box::pin(async move { Ok(made_up(accept, new)) }),
        Some(Baseline::WaitsForNothing) => Box::pin(async move {
            wait().await;
            Ok(made_up(accept, new))
        }),
        Some(Baseline::CommitEach) | None => return Either::Right(stored(accept, new)),
    })
}

/// The operation that a Copy would have ended with.
fn made_up(accept: Accept, new: NewDesktopImage) -> Operation {
    static IDS: LazyLock<IdGenerator> =
        LazyLock::new(|| IdGenerator::new(Arc::new(SystemClock), 0));
    let (image_id, operation_id) = (IDS.generate(), IDS.generate());
    let image = DesktopImage {
        id: image_id.text(DESKTOP_IMAGE_PREFIX),
        folder_id: new.folder_id,
        created_at: image_id.created_at(),
        status: DesktopImageStatus::Active,
        name: new.name,
        description: new.description,
        labels: new.labels,
        storage_size: 1 << 30,
        min_disk_size: 1 << 30,
    };
    Operation {
        id: operation_id.text(OPERATION_PREFIX),
        kind: Kind::CopyDesktopImage,
        folder_id: image.folder_id.clone(),
        image_id: image.id.clone(),
        created_at: image.created_at,
        created_by: accept.subject,
        modified_at: image.created_at,
        transfer: None,
        attempt: 0,
        progress: Progress::default(),
        outcome: Some(Outcome::Succeeded(serde_json::to_string(&image).ok())),
    }
}

/// Waits as one does for a commit, in the time of which nothing is done: what is left is what it
/// costs that many requests are under way.
async fn wait() {
    /// About as long as a commit on a fast disk.
    const GROUP: Duration = Duration::from_millis(5);
    static WAITING: Mutex<Vec<oneshot::Sender<()>>> = Mutex::new(Vec::new());
    static ANSWERS: LazyLock<()> = LazyLock::new(|| {
        let runtime = tokio::runtime::Handle::current();
        std::thread::spawn(move || {
            loop {
                std::thread::sleep(GROUP);
                let group = std::mem::take(&mut *lock());
                runtime.spawn(async move {
                    for caller in group {
                        let _ = caller.send(());
                    }
                });
            }
        });
    });
    fn lock() -> std::sync::MutexGuard<'static, Vec<oneshot::Sender<()>>> {
        WAITING.lock().unwrap_or_else(PoisonError::into_inner)
    }
    LazyLock::force(&ANSWERS);
    let (caller, answer) = oneshot::channel();
    lock().push(caller);
    let _ = answer.await;
}
