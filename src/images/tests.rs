//! Imports that fail, hang or lose their process at every step. Each process has a runtime of its
//! own; one that is killed loses all of its tasks at once and says good-bye to nobody.

use std::num::NonZeroUsize;
use std::path::Path;
use std::time::{Duration, Instant};

use futures_util::{Stream, stream};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::faults::{Fault, Place, Step};
use super::*;
use crate::blobs::LocalBlobs;
use crate::model::rules::{Accept, SetQuota};
use crate::model::*;
use crate::operations::Settings;
use crate::store::sqlite::SqliteStore;

const STEPS: [Step; 5] = [
    Step::Create,
    Step::Write,
    Step::Seal,
    Step::Inspect,
    Step::Complete,
];

fn caller() -> RequestContext {
    RequestContext {
        subject: "somebody".to_owned(),
        request_id: "a request".to_owned(),
        idempotency: None,
        ..RequestContext::internal("")
    }
}

fn places() -> impl Iterator<Item = Place> {
    STEPS
        .into_iter()
        .flat_map(|step| [Place::Before(step), Place::After(step)])
        // What is looked at is looked at once it is written.
        .filter(|place| *place != Place::Before(Step::Inspect))
}

struct Process {
    runtime: Runtime,
    images: Images,
    store: Arc<dyn Store>,
}

impl Process {
    fn start(folder: &Path, faults: Faults) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let _entered = runtime.enter();
        let path = folder.join("metadata.sqlite");
        let store = SqliteStore::open(&path, Arc::new(SystemClock)).unwrap();
        let store: Arc<dyn Store> = Arc::new(store);
        let settings = Settings {
            lease: Duration::from_millis(600),
            ..Settings::default()
        };
        let engine = Engine::new(store.clone(), settings);
        let blobs = LocalBlobs::open(&folder.join("contents")).unwrap();
        let imports = ImportFolder::open(&folder.join("imports")).unwrap();
        let mut images = Images::new(store.clone(), Arc::new(blobs), engine, Some(imports));
        images.faults = faults;
        runtime.block_on(images.serve(false)).unwrap();
        drop(_entered);
        Self {
            runtime,
            images,
            store,
        }
    }

    /// All at once, as by SIGKILL.
    fn kill(self) {
        self.runtime.shutdown_background();
    }

    fn import(&self, folder: &Path) -> Operation {
        let uri = format!("file://{}/imports/disk.img", folder.display());
        let request = RequestContext {
            subject: "somebody".to_owned(),
            request_id: "a request".to_owned(),
            idempotency: None,
            ..RequestContext::internal("")
        };
        let source = NewComputeImageSource::Uri(uri);
        let created = self.images.create_compute_image(request, new(), source);
        self.runtime.block_on(created).unwrap()
    }

    fn ended(&self, id: &str) -> Operation {
        let begun = Instant::now();
        loop {
            let operation = self
                .runtime
                .block_on(self.images.operation(&caller(), id))
                .unwrap();
            if operation.is_done() {
                return operation;
            }
            assert!(begun.elapsed() < Duration::from_secs(60), "{operation:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Returns once every fault has been met: one after the last step comes behind the commit, which
    /// may be seen before it.
    fn meets_all(&self, faults: &Faults, place: Place) {
        let begun = Instant::now();
        while !faults.are_over() {
            assert!(begun.elapsed() < Duration::from_secs(60), "{place:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Checks that an operation has left nothing but the result that it names.
    fn check(&self, folder: &Path, operation: &Operation) {
        let succeeded = matches!(operation.outcome, Some(Outcome::Succeeded(_)));
        self.runtime.block_on(async {
            let image = self
                .images
                .compute_image(&caller(), &operation.image_id)
                .await;
            assert_eq!(image.is_ok(), succeeded);
            if let Ok(image) = &image {
                assert_eq!(image.status, ComputeImageStatus::Ready);
            }
            let query = AuditQuery {
                after: 0,
                folder_id: None,
                limit: NonZeroUsize::MAX,
            };
            let (events, _) = self.store.audit_events(query).await.unwrap();
            // A cancel has an event of its own.
            let of_it = events.iter().filter(|event| {
                event.operation_id == operation.id && matches!(event.kind, AuditKind::Operation(_))
            });
            let statuses: Vec<AuditStatus> = of_it.map(|event| event.status).collect();
            let end = match &operation.outcome {
                Some(Outcome::Succeeded(_)) => AuditStatus::Done,
                Some(Outcome::Failed(failure)) if failure.reason == Reason::Cancelled => {
                    AuditStatus::Cancelled
                }
                _ => AuditStatus::Error,
            };
            assert_eq!(statuses, [AuditStatus::Started, end]);
            let used: Vec<i64> = self
                .store
                .quotas()
                .await
                .unwrap()
                .iter()
                .map(used)
                .collect();
            assert_eq!(used[0], i64::from(succeeded));
            assert_eq!(used[1] > 0, succeeded);
            self.images.collect_garbage().await.unwrap();
        });
        let files: Vec<_> = std::fs::read_dir(folder.join("contents"))
            .unwrap()
            .map(|file| file.unwrap().path())
            .collect();
        assert_eq!(files.len(), usize::from(succeeded), "{files:?}");
        for file in files {
            let disk = std::fs::read(folder.join("imports/disk.img")).unwrap();
            assert!(std::fs::read(file).unwrap() == disk);
        }
    }
}

pub(super) fn new() -> NewComputeImage {
    NewComputeImage {
        folder_id: "f".to_owned(),
        name: "n".to_owned(),
        description: String::new(),
        labels: Labels::new(),
        family: String::new(),
        min_disk_size: 0,
        product_ids: Vec::new(),
        os: None,
        pooled: false,
        hardware_generation: None,
    }
}

fn used(quota: &Quota) -> i64 {
    quota.used
}

/// A raw disk of 1 MiB with one partition.
pub(super) fn disk() -> Vec<u8> {
    let mut disk: Vec<u8> = (0..1 << 20).map(|_| rand::random()).collect();
    disk[..512].fill(0);
    let (partition, kind, start, sectors) = (446, 0x83, 1u32, 2047u32);
    disk[partition + 4] = kind;
    disk[partition + 8..partition + 12].copy_from_slice(&start.to_le_bytes());
    disk[partition + 12..partition + 16].copy_from_slice(&sectors.to_le_bytes());
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    disk
}

/// A folder with something to import, and limits that count it.
fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let imports = folder.path().join("imports");
    std::fs::create_dir(&imports).unwrap();
    std::fs::write(imports.join("disk.img"), disk()).unwrap();
    let runtime = Runtime::new().unwrap();
    runtime.block_on(async {
        let path = folder.path().join("metadata.sqlite");
        let store = SqliteStore::open(&path, Arc::new(SystemClock)).unwrap();
        let request = RequestContext {
            subject: "somebody".to_owned(),
            request_id: "a request".to_owned(),
            idempotency: None,
            ..RequestContext::internal("")
        };
        for metric in [Metric::ComputeImagesCount, Metric::ComputeImagesSize] {
            let limit = Some(1 << 40);
            store
                .set_quota(SetQuota {
                    request: request.clone(),
                    scope: QuotaScope::Total,
                    metric,
                    limit,
                })
                .await
                .unwrap();
        }
        store.close().await;
    });
    folder
}

/// Runs a case for each place, some at a time.
fn at_every_place(case: impl Fn(Place) + Sync) {
    let places: Vec<Place> = places().collect();
    std::thread::scope(|scope| {
        for place in places {
            let case = &case;
            scope.spawn(move || case(place));
        }
    });
}

fn is_after_the_end(place: Place) -> bool {
    place == Place::After(Step::Complete)
}

#[test]
fn what_may_pass_is_tried_again_wherever_it_comes() {
    at_every_place(|place| {
        let folder = folder();
        let faults = Faults::default();
        let failure = Failure::new(Reason::Internal, "passes").transient();
        faults.plan(place, Fault::Fail(failure.clone()));
        faults.plan(place, Fault::Fail(failure));
        let process = Process::start(folder.path(), faults.clone());
        let operation = process.ended(&process.import(folder.path()).id);
        assert!(
            matches!(operation.outcome, Some(Outcome::Succeeded(_))),
            "{place:?}"
        );
        // Once it has succeeded there is no other attempt.
        let attempts = if is_after_the_end(place) { 1 } else { 3 };
        assert_eq!(operation.attempt, attempts, "{place:?}");
        process.check(folder.path(), &operation);
    });
}

#[test]
fn what_does_not_pass_is_rolled_back_wherever_it_comes() {
    at_every_place(|place| {
        let folder = folder();
        let faults = Faults::default();
        let failure = Failure::new(Reason::Invalid, "the last word");
        faults.plan(place, Fault::Fail(failure.clone()));
        let process = Process::start(folder.path(), faults.clone());
        let operation = process.ended(&process.import(folder.path()).id);
        process.meets_all(&faults, place);
        match &operation.outcome {
            Some(Outcome::Failed(told)) => assert_eq!(told, &failure),
            Some(Outcome::Succeeded(_)) => assert!(is_after_the_end(place), "{place:?}"),
            None => unreachable!("it has ended"),
        }
        process.check(folder.path(), &operation);
    });
}

#[test]
fn a_kill_at_any_step_is_made_good_by_the_next_process() {
    at_every_place(|place| {
        let folder = folder();
        let faults = Faults::default();
        faults.plan(place, Fault::Hang);
        let process = Process::start(folder.path(), faults.clone());
        let operation = process.import(folder.path());
        process.runtime.block_on(faults.hanging());
        process.kill();
        let process = Process::start(folder.path(), Faults::default());
        let operation = process.ended(&operation.id);
        assert!(
            matches!(operation.outcome, Some(Outcome::Succeeded(_))),
            "{place:?}"
        );
        process.check(folder.path(), &operation);
    });
}

#[test]
fn a_kill_between_two_halves_of_a_rollback_leaves_the_other_half_to_the_next_process() {
    at_every_place(|place| {
        if is_after_the_end(place) {
            return;
        }
        let folder = folder();
        let faults = Faults::default();
        let failure = Failure::new(Reason::Invalid, "the last word");
        faults.plan(place, Fault::Fail(failure.clone()));
        faults.plan(Place::RolledBack, Fault::Hang);
        let process = Process::start(folder.path(), faults.clone());
        let operation = process.import(folder.path());
        process.runtime.block_on(faults.hanging());
        let seen = process
            .runtime
            .block_on(process.images.operation(&caller(), &operation.id));
        assert_eq!(seen.unwrap().outcome, None, "no error before the end");
        process.kill();
        let process = Process::start(folder.path(), Faults::default());
        let operation = process.ended(&operation.id);
        assert_eq!(
            operation.outcome,
            Some(Outcome::Failed(failure)),
            "{place:?}"
        );
        process.check(folder.path(), &operation);
    });
}

#[test]
fn a_cancel_reaches_an_import_at_any_step() {
    at_every_place(|place| {
        let folder = folder();
        let faults = Faults::default();
        faults.plan(place, Fault::Hang);
        let process = Process::start(folder.path(), faults.clone());
        let operation = process.import(folder.path());
        process.runtime.block_on(faults.hanging());
        let id = &operation.id;
        let cancelled = process
            .runtime
            .block_on(process.images.cancel_operation(caller(), id));
        assert_eq!(cancelled.unwrap().is_done(), is_after_the_end(place));
        // It hangs, so that the next process has to hear of it.
        process.kill();
        let process = Process::start(folder.path(), Faults::default());
        let operation = process.ended(id);
        match &operation.outcome {
            Some(Outcome::Failed(failure)) => assert_eq!(failure.reason, Reason::Cancelled),
            Some(Outcome::Succeeded(_)) => assert!(is_after_the_end(place), "{place:?}"),
            None => unreachable!("it has ended"),
        }
        process.check(folder.path(), &operation);
    });
}

#[test]
fn a_change_of_rows_is_done_once_however_its_process_ends() {
    for place in [Place::Before(Step::Complete), Place::After(Step::Complete)] {
        let folder = folder();
        let process = Process::start(folder.path(), Faults::default());
        let source = process.ended(&process.import(folder.path()).id).image_id;
        process.runtime.block_on(process.store.close());
        process.kill();
        let faults = Faults::default();
        faults.plan(place, Fault::Hang);
        let process = Process::start(folder.path(), faults.clone());
        let deletion = Change::DeleteComputeImage { id: source };
        let request = RequestContext {
            subject: "somebody".to_owned(),
            request_id: "another".to_owned(),
            idempotency: None,
            ..RequestContext::internal("")
        };
        let accept = Accept {
            request,
            change: deletion,
            start: Start::After(Duration::ZERO),
        };
        let accepted = process.runtime.block_on(process.store.execute(accept));
        let operation = accepted.unwrap().operation;
        process.runtime.block_on(faults.hanging());
        process.kill();
        let process = Process::start(folder.path(), Faults::default());
        let operation = process.ended(&operation.id);
        assert_eq!(
            operation.outcome,
            Some(Outcome::Succeeded(None)),
            "{place:?}"
        );
        let used: Vec<i64> = process
            .runtime
            .block_on(process.store.quotas())
            .unwrap()
            .iter()
            .map(used)
            .collect();
        assert_eq!(used, [0, 0]);
    }
}

/// An upload under a key, of a disk that is there already.
fn upload(
    disk: Vec<u8>,
) -> (
    RequestContext,
    Upload<impl Stream<Item = std::result::Result<Piece, UploadError>> + Send + 'static>,
) {
    let request = RequestContext {
        subject: "somebody".to_owned(),
        request_id: "a request".to_owned(),
        idempotency: Some(Idempotency {
            key: [7; 16],
            request_hash: [1; 32],
        }),
        ..RequestContext::internal("")
    };
    let upload = Upload {
        new: new(),
        sha256: None,
        length: None,
        body: stream::iter([Ok(Piece::Data(disk.into()))]),
    };
    (request, upload)
}

#[test]
fn a_retry_of_an_upload_whose_process_is_gone_makes_the_image_wherever_that_was() {
    for place in places().filter(|place| {
        !matches!(
            place,
            Place::Before(Step::Write) | Place::After(Step::Write | Step::Complete)
        )
    }) {
        let folder = folder();
        let faults = Faults::none();
        faults.plan(place, Fault::Hang);
        let process = Process::start(folder.path(), faults.clone());
        let (request, body) = upload(disk());
        let images = process.images.clone();
        process
            .runtime
            .spawn(async move { images.upload_compute_image(request, body).await });
        process.runtime.block_on(faults.hanging());
        let operations = process.runtime.block_on(async {
            let (request, _) = upload(Vec::new());
            process.store.repeated_operation(&request).await.unwrap()
        });
        let first = operations.expect("the first is there").id;
        process.kill();

        let process = Process::start(folder.path(), Faults::none());
        let disk = std::fs::read(folder.path().join("imports/disk.img")).unwrap();
        let (request, body) = upload(disk.clone());
        let uploaded = process.images.upload_compute_image(request, body);
        let second = process.runtime.block_on(uploaded).unwrap();
        assert!(
            matches!(second.outcome, Some(Outcome::Succeeded(_))),
            "{place:?}: {second:?}"
        );
        let first = process.ended(&first);
        let Some(Outcome::Failed(failure)) = &first.outcome else {
            panic!("{place:?}: {first:?}");
        };
        // Its key was tied to it once its digest was known.
        let expected = match place {
            Place::After(Step::Inspect) | Place::Before(Step::Complete) => Reason::Aborted,
            _ => Reason::Superseded,
        };
        assert_eq!(failure.reason, expected, "{place:?}");
        let (request, body) = upload(disk);
        let repeated = process.images.upload_compute_image(request, body);
        let repeated = process.runtime.block_on(repeated).unwrap();
        assert_eq!(repeated, second);
    }
}
