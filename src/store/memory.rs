//! A store in memory: a working set that knows all rows, and what no decision looks up beside it. Nothing is kept
//! over a restart. For tests of use cases, for the properties that every store has, and as what the durable store
//! is measured against. One file, though longer than others: all of a store can be read at once here.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use tokio::sync::Notify;

use super::{CLOCK_SLIP, Call, Error, Result, Store, made_before};
use crate::model::rules::{self, SetQuota};
use crate::model::{
    AuditEvent, AuditQuery, AuditRow, AuditStatus, BlobRow, BlobSize, COMPUTE_IMAGE_PREFIX,
    Candidate, Clock, ComputeImage, ComputeImageRow, ComputeImageStatus, DESKTOP_IMAGE_PREFIX,
    DeletedBlob, DesktopImage, DesktopImageRow, DesktopImageStatus, Effect, Id, IdGenerator,
    IdentityKey, IdentityKind, IdentityRow, KeyOf, Kind, ListQuery, LiveBlob, Metric, NextClaim,
    OPERATION_PREFIX, Occupied, Operation, OperationRow, Page, Phase, Position, Quota, QuotaScope,
    Rank, Refusal, RequestContext, SortKey, Timestamp, WorkingSet, is_due, name_hash, total_order,
};

/// Images, operations and all else, for as long as the process runs.
pub(crate) struct MemoryStore {
    clock: Arc<dyn Clock>,
    ids: IdGenerator,
    removals: Notify,
    rows: Mutex<Rows>,
    installation: OnceLock<String>,
}

#[derive(Default)]
struct Rows {
    facts: WorkingSet,
    /// The folders that anything was ever in.
    folders: BTreeSet<String>,
    checksums: BTreeMap<Id, Vec<u8>>,
    garbage: BTreeSet<Id>,
    /// When each tombstone may be forgotten.
    tombstones: BTreeMap<String, Timestamp>,
    /// When each hold runs out.
    holds: BTreeMap<String, Timestamp>,
    former_names: BTreeMap<(String, i64), (String, Timestamp)>,
    /// By the number of the row, from 1.
    audit_events: BTreeMap<i64, AuditRow>,
}

impl MemoryStore {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Self::with_ids(clock.clone(), IdGenerator::new(clock, 0))
    }

    /// The same with other ids.
    pub(crate) fn with_ids(clock: Arc<dyn Clock>, ids: IdGenerator) -> Self {
        Self {
            clock,
            ids,
            installation: OnceLock::new(),
            removals: Notify::new(),
            rows: Mutex::new(Rows {
                facts: WorkingSet::complete(),
                ..Rows::default()
            }),
        }
    }

    fn rows(&self) -> MutexGuard<'_, Rows> {
        // Nothing panics while it holds this lock.
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Store for MemoryStore {
    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    fn submit(&self, mut call: Box<dyn Call>) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let removals = {
                let mut rows = self.rows();
                let effects = call.decide(&self.ids.fresh(), &rows.facts, self.now());
                let mut removals = false;
                for effect in effects {
                    removals |= rows.apply(effect);
                }
                removals
            };
            if removals {
                self.removals.notify_one();
            }
            call.reply(Ok(()));
        })
    }

    async fn removals(&self) {
        self.removals.notified().await;
    }

    async fn close(&self) {}

    async fn check(&self) -> Result<()> {
        Ok(())
    }

    async fn desktop_image(&self, id: &str) -> Result<DesktopImage> {
        Ok(self.rows().desktop_image(id)?.image.clone())
    }

    async fn desktop_image_blob(&self, id: &str) -> Result<(DesktopImage, LiveBlob)> {
        let rows = self.rows();
        let row = rows.desktop_image(id)?;
        if row.image.status == DesktopImageStatus::Creating {
            return Err(Refusal::ImageNotReady { id: id.to_owned() }.into());
        }
        let blob = rows.facts.blob(row.blob);
        let (blob, facts) = blob
            .and_then(|blob| Some((blob, blob.facts()?)))
            .ok_or_else(|| Error::Failed("an image refers to no blob".into()))?;
        let live = LiveBlob {
            id: blob.file.clone(),
            facts: facts.clone(),
            damaged: blob.damaged,
            checksums: rows.checksums.get(&blob.id).cloned(),
        };
        Ok((row.image.clone(), live))
    }

    async fn desktop_images(&self, query: ListQuery) -> Result<Page<DesktopImage>> {
        let rows = self.rows();
        let images = rows.facts.all_desktop_images().map(|row| &row.image);
        let listed = images.filter(|image| image.folder_id == query.folder_id);
        let listed =
            listed.map(|image| Listed::new(&image.id, &image.name, image.status as u8, image));
        rows.page(DESKTOP_IMAGE_PREFIX, &query, listed.collect())
    }

    async fn compute_image(&self, id: &str) -> Result<ComputeImage> {
        Ok(self.rows().compute_image(id)?.image.clone())
    }

    async fn latest_compute_image_of_family(
        &self,
        folder_id: &str,
        family: &str,
    ) -> Result<Option<ComputeImage>> {
        let rows = self.rows();
        let images = rows.facts.all_compute_images().map(|row| &row.image);
        let of_family = images.filter(|image| {
            image.folder_id == folder_id
                && image.family == family
                && !family.is_empty()
                && image.status == ComputeImageStatus::Ready
        });
        Ok(of_family.last().cloned())
    }

    async fn compute_images(&self, query: ListQuery) -> Result<Page<ComputeImage>> {
        let rows = self.rows();
        let images = rows.facts.all_compute_images().map(|row| &row.image);
        let listed = images.filter(|image| image.folder_id == query.folder_id);
        let listed =
            listed.map(|image| Listed::new(&image.id, &image.name, image.status as u8, image));
        rows.page(COMPUTE_IMAGE_PREFIX, &query, listed.collect())
    }

    async fn operation(&self, id: &str) -> Result<Operation> {
        let rows = self.rows();
        let found = Id::parse(OPERATION_PREFIX, id).and_then(|id| rows.facts.operation(id));
        let found = found.ok_or_else(|| Refusal::OperationNotFound { id: id.to_owned() })?;
        Ok(found.operation())
    }

    async fn repeated_operation(&self, request: &RequestContext) -> Result<Option<Operation>> {
        let rows = self.rows();
        let key = request.idempotency.as_ref().map(|idempotency| KeyOf {
            key: idempotency.key,
            subject: request.subject.clone(),
        });
        match key.and_then(|key| rows.facts.operation_of_key(&key)) {
            Some(first) if first.idempotency != request.idempotency => {
                Err(Refusal::IdempotencyKeyReused.into())
            }
            first => Ok(first.map(OperationRow::operation)),
        }
    }

    async fn operations_of_compute_image(
        &self,
        image_id: &str,
        after: Option<String>,
        limit: usize,
    ) -> Result<Vec<Operation>> {
        let rows = self.rows();
        let image = rows.compute_image(image_id)?.id;
        let before = match after {
            Some(id) => Id::parse(OPERATION_PREFIX, &id).ok_or(Error::PageTokenExpired)?,
            None => Id::GREATEST,
        };
        let operations = rows.facts.all_operations().rev().filter(|row| {
            row.image == image && row.kind.image_prefix() == COMPUTE_IMAGE_PREFIX && row.id < before
        });
        let operations = operations.take(limit).map(OperationRow::operation);
        Ok(operations.collect())
    }

    async fn quotas(&self) -> Result<Vec<Quota>> {
        Ok(self.rows().facts.all_quotas().cloned().collect())
    }

    async fn set_quota(&self, set: SetQuota) -> Result<i64> {
        let now = self.now();
        let mut rows = self.rows();
        if let QuotaScope::Folder(id) = &set.scope
            && set.limit.is_none()
            && !rows.folders.contains(id)
        {
            return Ok(0);
        }
        let used = rows.used(&set.scope, set.metric);
        let mut quotas = rows.facts.quotas(&set.scope).to_vec();
        let standing = quotas.iter().find(|quota| quota.metric == set.metric);
        let (quota, event) = rules::set_quota(&set, standing.map(|it| it.limit), used, now);
        quotas.retain(|quota| quota.metric != set.metric);
        quotas.extend(quota);
        quotas.sort_by_key(|quota| quota.metric as i64);
        rows.facts.put_quotas(set.scope, quotas);
        rows.apply(Effect::InsertAuditEvent(event));
        Ok(used)
    }

    async fn identity(&self, key: IdentityKey) -> Result<Option<IdentityRow>> {
        Ok(self.rows().facts.identity(&key).cloned())
    }

    async fn identities(&self, kind: IdentityKind) -> Result<Vec<IdentityRow>> {
        let rows = self.rows();
        let identities = rows.facts.all_identities();
        let of_kind = identities.filter(|row| row.key().kind == kind);
        Ok(of_kind.cloned().collect())
    }

    async fn forget_expired_identities(&self, age: Duration, limit: usize) -> Result<usize> {
        let before = self.now().before(age);
        let mut rows = self.rows();
        let identities = rows.facts.all_identities();
        let expired = identities.filter(|row| row.expires_at().is_some_and(|at| at < before));
        let expired: Vec<_> = expired.take(limit).map(IdentityRow::key).collect();
        for key in &expired {
            let children = rows.facts.identity_children(key).into_iter();
            let children: Vec<_> = children.map(IdentityRow::key).collect();
            for gone in children.iter().chain([key]) {
                rows.apply(Effect::DeleteIdentity(gone.clone()));
            }
        }
        Ok(expired.len())
    }

    async fn audit_events(&self, query: AuditQuery) -> Result<(Vec<AuditEvent>, i64)> {
        let rows = self.rows();
        let limit = query.limit.get();
        let events = rows.audit_events.range(query.after / 2 + 1..);
        let of_folder = events.filter(|(_, row)| {
            let folder_id = query.folder_id.as_ref();
            folder_id.is_none_or(|folder_id| row.folder_id == *folder_id)
        });
        let read: Vec<_> = of_folder.take(limit).collect();
        let events = read
            .iter()
            .flat_map(|(number, row)| started(**number, row).of_step(row.step));
        let events: Vec<_> = events
            .filter(|event| event.sequence > query.after)
            .collect();
        let seen = match rows.audit_events.last_key_value() {
            Some((last, _)) if read.len() < limit => (2 * last).max(query.after),
            None if read.len() < limit => query.after,
            _ => events.last().map_or(query.after, |event| event.sequence),
        };
        Ok((events, seen))
    }

    async fn next_claim(&self, occupied: Occupied, horizon: Duration) -> Result<NextClaim> {
        let now = self.now();
        let rows = self.rows();
        let mut next = NextClaim::default();
        let mut first: BTreeMap<&str, (Timestamp, Id)> = BTreeMap::new();
        let mut leases: BTreeMap<&str, usize> = BTreeMap::new();
        for row in rows.facts.all_operations() {
            let Some(at) = row.claimable_at else { continue };
            if at > now {
                next.next_at = Some(next.next_at.map_or(at, |least| least.min(at)));
            }
            if row.state.phase != Phase::Queued && !is_due(at, now, horizon) {
                *leases.entry(&row.folder_id).or_default() += 1;
            }
            let candidate = Candidate {
                id: row.id,
                folder_id: row.folder_id.clone(),
            };
            let to_end = row.state.cancel_requested || row.state.phase == Phase::RollingBack;
            let is_full = occupied.in_folder(&row.folder_id) >= occupied.folder_limit;
            if is_due(at, now, horizon)
                && !occupied.held.contains(&candidate)
                && (to_end || !is_full)
            {
                let least = first.entry(&row.folder_id).or_insert((at, row.id));
                *least = (*least).min((at, row.id));
            }
        }
        let best = first.into_iter().min_by_key(|(folder_id, (at, id))| {
            let leases = leases.get(folder_id).copied().unwrap_or(0);
            Rank::new(leases, *at, now, *id)
        });
        next.candidate = best.map(|(folder_id, (_, id))| Candidate {
            id,
            folder_id: folder_id.to_owned(),
        });
        Ok(next)
    }

    async fn forget_operations(&self, age: Duration, limit: usize) -> Result<usize> {
        let before = self.now().before(age);
        let mut rows = self.rows();
        let forgotten = rows.facts.all_operations().filter(|row| {
            row.id.key < Id::first_key(before)
                && row.state.phase.is_done()
                && row.modified_at < before
        });
        let forgotten: Vec<Id> = forgotten.take(limit).map(|row| row.id).collect();
        for id in &forgotten {
            rows.facts.forget_operation(*id);
        }
        Ok(forgotten.len())
    }

    async fn forget_audit_events(&self, age: Duration, limit: usize) -> Result<usize> {
        let now = self.now();
        let mut rows = self.rows();
        let last = rows.audit_events.last_key_value().map(|(last, _)| *last);
        let oldest = rows.audit_events.iter().take(limit);
        let forgotten = oldest.filter(|(number, row)| {
            (row.time < now.before(age) || row.time > now.after(CLOCK_SLIP))
                && Some(**number) != last
        });
        let forgotten: Vec<i64> = forgotten.map(|(number, _)| *number).collect();
        for number in &forgotten {
            rows.audit_events.remove(number);
        }
        Ok(forgotten.len())
    }

    async fn prune_former_names(&self, age: Duration) -> Result<()> {
        let before = self.now().before(age);
        let mut rows = self.rows();
        rows.former_names.retain(|_, (_, at)| *at >= before);
        Ok(())
    }

    async fn remove_unreferenced(&self, limit: usize) -> Result<usize> {
        let now = self.now();
        let mut rows = self.rows();
        let candidates: Vec<Id> = rows.garbage.iter().take(limit).copied().collect();
        for id in &candidates {
            rows.garbage.remove(id);
            let desktop = rows.facts.all_desktop_images().any(|row| row.blob == *id);
            let compute = rows
                .facts
                .all_compute_images()
                .any(|row| row.blob == Some(*id));
            if let Some(blob) = rows.facts.blob(*id).filter(|_| !desktop && !compute) {
                let file = blob.file.clone();
                rows.apply(Effect::DeleteBlob(*id));
                rows.tombstones.insert(file, now);
            }
        }
        Ok(candidates.len())
    }

    async fn place_hold(&self, id: &str, lease: Duration) -> Result<()> {
        let expires_at = self.now().after(lease);
        self.rows().holds.insert(id.to_owned(), expires_at);
        Ok(())
    }

    async fn renew_hold(&self, id: &str, lease: Duration) -> Result<bool> {
        let now = self.now();
        let mut rows = self.rows();
        let hold = rows
            .holds
            .get_mut(id)
            .filter(|expires_at| **expires_at > now);
        Ok(hold
            .map(|expires_at| *expires_at = now.after(lease))
            .is_some())
    }

    async fn end_hold(&self, id: &str) -> Result<()> {
        self.rows().holds.remove(id);
        Ok(())
    }

    async fn blobs_to_delete(
        &self,
        age: Duration,
        after: Option<DeletedBlob>,
        limit: usize,
    ) -> Result<Vec<DeletedBlob>> {
        let now = self.now();
        let before = made_before(now, age);
        let after = after.unwrap_or_else(DeletedBlob::before_all);
        let place = |blob: &DeletedBlob| (blob.forget_after, blob.id.clone());
        let rows = self.rows();
        let is_held = rows.holds.values().any(|expires_at| *expires_at > now);
        let limit = if is_held { 0 } else { limit };
        let deleted = rows
            .tombstones
            .iter()
            .map(|(id, forget_after)| DeletedBlob {
                id: id.clone(),
                forget_after: *forget_after,
            });
        let mut deleted: Vec<DeletedBlob> = deleted
            .filter(|blob| blob.forget_after <= before && place(blob) > place(&after))
            .collect();
        deleted.sort_by_key(place);
        deleted.truncate(limit);
        Ok(deleted)
    }

    async fn renew_tombstone(&self, blob_id: &str) -> Result<()> {
        let now = self.now();
        if let Some(forget_after) = self.rows().tombstones.get_mut(blob_id) {
            *forget_after = now.max(*forget_after);
        }
        Ok(())
    }

    async fn blobs_deleted(&self, ids: Vec<String>) -> Result<()> {
        let now = self.now();
        let mut rows = self.rows();
        rows.tombstones
            .retain(|id, forget_after| *forget_after > now || !ids.contains(id));
        Ok(())
    }

    async fn mark_damaged(&self, blob_ids: Vec<String>) -> Result<()> {
        let mut rows = self.rows();
        let blobs = rows.facts.all_blobs();
        let damaged = blobs.filter(|blob| blob.facts().is_some() && blob_ids.contains(&blob.file));
        let damaged: Vec<BlobRow> = damaged.cloned().collect();
        for blob in damaged {
            rows.apply(Effect::UpdateBlob(BlobRow {
                damaged: true,
                ..blob
            }));
        }
        Ok(())
    }

    async fn known_blobs(&self) -> Result<HashSet<String>> {
        let rows = self.rows();
        let files = rows.facts.all_blobs().map(|blob| &blob.file);
        Ok(files.chain(rows.tombstones.keys()).cloned().collect())
    }

    async fn live_blobs(&self) -> Result<Vec<BlobSize>> {
        let rows = self.rows();
        let live = rows.facts.all_blobs().filter_map(|blob| {
            let facts = blob.facts()?;
            let id = blob.file.clone();
            Some(BlobSize::new(id, facts.size, facts.stored_size))
        });
        Ok(live.collect())
    }

    async fn images_of_blob(&self, blob_id: &str, limit: usize) -> Result<Vec<String>> {
        let rows = self.rows();
        let mut blobs = rows.facts.all_blobs();
        let Some(blob) = blobs.find(|blob| blob.file == blob_id) else {
            return Ok(Vec::new());
        };
        let desktop = rows.facts.all_desktop_images();
        let desktop = desktop.filter(|row| row.blob == blob.id);
        let compute = rows.facts.all_compute_images();
        let compute = compute.filter(|row| row.blob == Some(blob.id));
        let mut desktop: Vec<String> = desktop.map(|row| row.image.id.clone()).collect();
        let mut compute: Vec<String> = compute.map(|row| row.image.id.clone()).collect();
        desktop.sort();
        compute.sort();
        desktop.append(&mut compute);
        desktop.truncate(limit);
        Ok(desktop)
    }

    async fn installation(&self, made: String) -> Result<String> {
        Ok(self.installation.get_or_init(|| made).clone())
    }
}

/// An item of a list with what it is ordered by.
struct Listed<'a, T> {
    name: &'a str,
    status: u8,
    id: &'a str,
    item: &'a T,
}

impl<'a, T> Listed<'a, T> {
    fn new(id: &'a str, name: &'a str, status: u8, item: &'a T) -> Self {
        Self {
            name,
            status,
            id,
            item,
        }
    }

    /// The values that lists are ordered by; `prefix` is that of the ids.
    fn sort_key(&self, prefix: &str) -> SortKey<'a> {
        SortKey {
            id: Id::parse(prefix, self.id).unwrap_or(Id::GREATEST),
            name: self.name,
            status: self.status,
        }
    }
}

impl Rows {
    /// Does what an effect says; whether there is something to remove.
    fn apply(&mut self, effect: Effect) -> bool {
        match &effect {
            Effect::InsertDesktopImage(row) => {
                self.folders.insert(row.image.folder_id.clone());
            }
            Effect::InsertComputeImage(row) => {
                self.folders.insert(row.image.folder_id.clone());
            }
            Effect::DeleteBlob(id) => {
                self.checksums.remove(id);
            }
            Effect::PutChecksums { blob, checksums } => {
                self.checksums.insert(*blob, checksums.clone());
            }
            Effect::InsertTombstone(tombstone) => {
                self.tombstones
                    .insert(tombstone.file.clone(), tombstone.forget_after);
            }
            Effect::NoteGarbage(blob) => {
                self.garbage.insert(*blob);
            }
            Effect::NoteFormerName { image_id, name, at } => {
                let key = (image_id.clone(), name_hash(name));
                self.former_names.insert(key, (name.clone(), *at));
            }
            Effect::InsertAuditEvent(row) => {
                if !row.folder_id.is_empty() {
                    self.folders.insert(row.folder_id.clone());
                }
                let last = self.audit_events.last_key_value();
                let number = last.map_or(1, |(last, _)| last + 1);
                self.audit_events.insert(number, row.clone());
            }
            _ => {}
        }
        let removals = matches!(effect, Effect::InsertTombstone(_) | Effect::NoteGarbage(_));
        self.facts.apply(effect);
        removals
    }

    fn desktop_image(&self, id: &str) -> Result<&DesktopImageRow> {
        let found = Id::parse(DESKTOP_IMAGE_PREFIX, id);
        let found = found.and_then(|id| self.facts.desktop_image(id));
        Ok(found.ok_or_else(|| Refusal::ImageNotFound { id: id.to_owned() })?)
    }

    fn compute_image(&self, id: &str) -> Result<&ComputeImageRow> {
        let found = Id::parse(COMPUTE_IMAGE_PREFIX, id);
        let found = found.and_then(|id| self.facts.compute_image(id));
        Ok(found.ok_or_else(|| Refusal::ImageNotFound { id: id.to_owned() })?)
    }

    fn page<T: Clone>(
        &self,
        prefix: &str,
        query: &ListQuery,
        mut listed: Vec<Listed<'_, T>>,
    ) -> Result<Page<T>> {
        let order = total_order(&query.order);
        listed.retain(|item| query.admits(item.name));
        if let Some(position) = &query.after {
            let current = listed.iter().find(|item| item.id == position.id);
            let name = self.name_at(position, current.map(|item| item.name))?;
            let after = SortKey {
                id: Id::parse(prefix, &position.id).ok_or(Error::PageTokenExpired)?,
                name: &name,
                status: position.status,
            };
            listed.retain(|item| item.sort_key(prefix).compare(&after, &order).is_gt());
        }
        listed.sort_by(|a, b| a.sort_key(prefix).compare(&b.sort_key(prefix), &order));
        let next = (listed.len() > query.page_size).then(|| &listed[query.page_size - 1]);
        let next = next.map(|item| Position {
            id: item.id.to_owned(),
            created_at: item.sort_key(prefix).id.created_at(),
            status: item.status,
            name_hash: name_hash(item.name),
        });
        let items = listed.iter().take(query.page_size);
        Ok(Page {
            items: items.map(|item| item.item.clone()).collect(),
            next,
        })
    }

    /// The name that the last item had when the page ended.
    fn name_at(&self, position: &Position, current: Option<&str>) -> Result<String> {
        let was = |name: &&str| name_hash(name) == position.name_hash;
        if let Some(name) = current.into_iter().chain([""]).find(was) {
            return Ok(name.to_owned());
        }
        let former = (position.id.clone(), position.name_hash);
        let former = self.former_names.get(&former);
        Ok(former.ok_or(Error::PageTokenExpired)?.0.clone())
    }

    /// How much the images of a scope take.
    fn used(&self, scope: &QuotaScope, metric: Metric) -> i64 {
        let counts = |folder_id: &str| match scope {
            QuotaScope::Total => true,
            QuotaScope::Folder(id) => id == folder_id,
        };
        let desktop = self.facts.all_desktop_images().map(|row| &row.image);
        let desktop = desktop.filter(|image| counts(&image.folder_id));
        let compute = self.facts.all_compute_images().map(|row| &row.image);
        let compute = compute.filter(|image| counts(&image.folder_id));
        match metric {
            Metric::DesktopImagesCount => desktop.map(|_| 1).sum(),
            Metric::DesktopImagesSize => desktop.map(|image| image.storage_size).sum(),
            Metric::ComputeImagesCount => compute.map(|_| 1).sum(),
            Metric::ComputeImagesSize => compute.map(|image| image.storage_size).sum(),
        }
    }
}

/// The event of a row as one that has started.
fn started(number: i64, row: &AuditRow) -> AuditEvent {
    let prefix = row.kind.operation().map_or("", Kind::image_prefix);
    let text = |id: Option<Id>, prefix| id.map(|id| id.text(prefix)).unwrap_or_default();
    AuditEvent {
        sequence: 2 * number - 1,
        time: row.time,
        status: AuditStatus::Started,
        kind: row.kind,
        subject: row.subject.clone(),
        request_id: row.request_id.clone(),
        peer: row.peer.clone(),
        folder_id: row.folder_id.clone(),
        operation_id: text(row.operation, OPERATION_PREFIX),
        image_id: text(row.image, prefix),
        message: row.message.clone(),
        changes: row.changes.clone(),
    }
}
