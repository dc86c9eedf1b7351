//! The working set: the rows that decisions are made on, with those that are known to be absent. A store loads
//! what a command looks up, lets the rules decide, writes the effects and applies them here; the next command of the
//! same transaction decides on what this one left. The store in memory is a working set that knows all rows.
//!
//! A working set that is loaded forgets the rows that an effect changes, but for quotas, which most commands of a
//! transaction share: the rows are written by then, and are loaded again if another command looks them up. One that
//! keeps them ([`WorkingSet::keeping`]) is for stores that write the effects of all commands at the end.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::Hash;

use super::{
    BlobRow, BlobState, ComputeImageRow, DesktopImageRow, Effect, Id, IdentityKey, IdentityRow,
    OperationRow, Quota, QuotaScope,
};

/// A question that a command must have answered before it is decided.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Lookup {
    /// The operation under an idempotency key of a subject.
    IdempotencyKey(KeyOf),
    Operation(Id),
    /// A desktop image, with the blob that it refers to.
    DesktopImage(Id),
    /// A compute image, with the blob that it refers to.
    ComputeImage(Id),
    /// The same, where it is only read: others may read it at once.
    SourceImage(Id),
    /// The desktop image of a name.
    DesktopImageName(NameIn),
    /// The compute image of a name, which is not empty.
    ComputeImageName(NameIn),
    /// The limits that stand for a scope, by metric.
    Quotas(QuotaScope),
    /// The live blob with a SHA-256.
    Digest([u8; 32]),
    /// The blobs that an operation writes.
    PendingBlobs(Id),
    Identity(IdentityKey),
    /// The identity rows that are removed with another.
    IdentityChildren(IdentityKey),
}

/// An idempotency key, which is the subject's own.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct KeyOf {
    pub key: [u8; 16],
    pub subject: String,
}

/// A name in a folder.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct NameIn {
    pub folder_id: String,
    pub name: String,
}

impl NameIn {
    pub(crate) fn new(folder_id: &str, name: &str) -> Self {
        Self {
            folder_id: folder_id.to_owned(),
            name: name.to_owned(),
        }
    }
}

/// Rows, sorted by their ids, and indexes of them. None is a known absence.
#[derive(Debug, Default)]
pub(crate) struct WorkingSet {
    /// Whether what is not here is nowhere.
    is_complete: bool,
    /// Whether the rows that an effect changes stay, as the effect leaves them.
    keeps: bool,
    desktop_images: BTreeMap<Id, Option<DesktopImageRow>>,
    compute_images: BTreeMap<Id, Option<ComputeImageRow>>,
    desktop_image_names: HashMap<NameIn, Option<Id>>,
    compute_image_names: HashMap<NameIn, Option<Id>>,
    operations: BTreeMap<Id, Option<OperationRow>>,
    keys: HashMap<KeyOf, Option<Id>>,
    blobs: BTreeMap<Id, Option<BlobRow>>,
    digests: HashMap<[u8; 32], Option<Id>>,
    pending: HashMap<Id, BTreeSet<Id>>,
    quotas: BTreeMap<QuotaScope, Vec<Quota>>,
    identities: BTreeMap<IdentityKey, Option<IdentityRow>>,
    /// Of loaded rows: those whose children are all known.
    parents: BTreeSet<IdentityKey>,
}

/// The idempotency key that is tied to an operation, or may be.
fn key_of(row: &OperationRow) -> Option<KeyOf> {
    let idempotency = row.idempotency.as_ref()?;
    Some(KeyOf {
        key: idempotency.key,
        subject: row.subject.clone(),
    })
}

fn row<V>(rows: &BTreeMap<Id, Option<V>>, id: Id) -> Option<&V> {
    rows.get(&id)?.as_ref()
}

fn indexed<K: Eq + Hash>(index: &HashMap<K, Option<Id>>, key: &K) -> Option<Id> {
    *index.get(key)?
}

impl WorkingSet {
    /// A working set that has all rows there are: none.
    pub(crate) fn complete() -> Self {
        Self {
            is_complete: true,
            ..Self::default()
        }
    }

    /// A working set that keeps what effects leave. All that an effect touches is looked up before it is decided, or
    /// is new, so that what is loaded later was not touched.
    pub(crate) fn keeping() -> Self {
        Self {
            keeps: true,
            ..Self::default()
        }
    }

    /// Whether the answer of a lookup is here.
    pub(crate) fn knows(&self, lookup: &Lookup) -> bool {
        self.is_complete
            || match lookup {
                Lookup::IdempotencyKey(key) => self.keys.contains_key(key),
                Lookup::Operation(id) => self.operations.contains_key(id),
                Lookup::DesktopImage(id) => self.desktop_images.contains_key(id),
                Lookup::ComputeImage(id) | Lookup::SourceImage(id) => {
                    self.compute_images.contains_key(id)
                }
                Lookup::DesktopImageName(name) => self.desktop_image_names.contains_key(name),
                Lookup::ComputeImageName(name) => self.compute_image_names.contains_key(name),
                Lookup::Quotas(scope) => self.quotas.contains_key(scope),
                Lookup::Digest(sha256) => self.digests.contains_key(sha256),
                Lookup::PendingBlobs(operation) => self.pending.contains_key(operation),
                Lookup::Identity(key) => self.identities.contains_key(key),
                Lookup::IdentityChildren(key) => self.parents.contains(key),
            }
    }

    pub(crate) fn desktop_image(&self, id: Id) -> Option<&DesktopImageRow> {
        row(&self.desktop_images, id)
    }

    pub(crate) fn compute_image(&self, id: Id) -> Option<&ComputeImageRow> {
        row(&self.compute_images, id)
    }

    /// The desktop image of a name.
    pub(crate) fn desktop_image_named(&self, name: &NameIn) -> Option<Id> {
        indexed(&self.desktop_image_names, name)
    }

    /// The compute image of a name.
    pub(crate) fn compute_image_named(&self, name: &NameIn) -> Option<Id> {
        indexed(&self.compute_image_names, name)
    }

    pub(crate) fn operation(&self, id: Id) -> Option<&OperationRow> {
        row(&self.operations, id)
    }

    /// The operation under an idempotency key.
    pub(crate) fn operation_of_key(&self, key: &KeyOf) -> Option<&OperationRow> {
        self.operation(indexed(&self.keys, key)?)
    }

    pub(crate) fn blob(&self, id: Id) -> Option<&BlobRow> {
        row(&self.blobs, id)
    }

    /// The live blob with a SHA-256.
    pub(crate) fn blob_of_digest(&self, sha256: &[u8; 32]) -> Option<&BlobRow> {
        self.blob(indexed(&self.digests, sha256)?)
    }

    /// The blobs that an operation writes.
    pub(crate) fn pending_blobs(&self, operation: Id) -> impl Iterator<Item = &BlobRow> {
        let ids = self.pending.get(&operation);
        ids.into_iter().flatten().filter_map(|id| self.blob(*id))
    }

    /// The limits that stand for a scope, by metric.
    pub(crate) fn quotas(&self, scope: &QuotaScope) -> &[Quota] {
        self.quotas.get(scope).map_or(&[], Vec::as_slice)
    }

    pub(crate) fn identity(&self, key: &IdentityKey) -> Option<&IdentityRow> {
        self.identities.get(key)?.as_ref()
    }

    /// The identity rows that are removed with another, by kind and id.
    pub(crate) fn identity_children(&self, key: &IdentityKey) -> Vec<&IdentityRow> {
        let children = self.all_identities();
        children
            .filter(|row| row.parent().as_ref() == Some(key))
            .collect()
    }

    /// All identity rows, by kind and id.
    pub(crate) fn all_identities(&self) -> impl Iterator<Item = &IdentityRow> {
        self.identities.values().flatten()
    }

    /// All desktop images, by id.
    pub(crate) fn all_desktop_images(&self) -> impl Iterator<Item = &DesktopImageRow> {
        self.desktop_images.values().flatten()
    }

    /// All compute images, by id.
    pub(crate) fn all_compute_images(&self) -> impl Iterator<Item = &ComputeImageRow> {
        self.compute_images.values().flatten()
    }

    /// All operations, by id.
    pub(crate) fn all_operations(&self) -> impl DoubleEndedIterator<Item = &OperationRow> {
        self.operations.values().flatten()
    }

    /// All blobs, by id.
    pub(crate) fn all_blobs(&self) -> impl Iterator<Item = &BlobRow> {
        self.blobs.values().flatten()
    }

    /// All limits, by scope and metric.
    pub(crate) fn all_quotas(&self) -> impl Iterator<Item = &Quota> {
        self.quotas.values().flatten()
    }

    /// Sets the limits of a scope, by metric.
    pub(crate) fn put_quotas(&mut self, scope: QuotaScope, quotas: Vec<Quota>) {
        self.quotas.insert(scope, quotas);
    }

    /// Forgets an operation with its idempotency key.
    pub(crate) fn forget_operation(&mut self, id: Id) {
        if let Some(row) = self.operations.remove(&id).flatten()
            && let Some(key) = key_of(&row)
        {
            self.keys.remove(&key);
        }
        self.pending.remove(&id);
    }

    pub(crate) fn learn_desktop_image(&mut self, id: Id, row: Option<DesktopImageRow>) {
        self.desktop_images.entry(id).or_insert(row);
    }

    pub(crate) fn learn_compute_image(&mut self, id: Id, row: Option<ComputeImageRow>) {
        self.compute_images.entry(id).or_insert(row);
    }

    pub(crate) fn learn_desktop_image_name(&mut self, name: NameIn, id: Option<Id>) {
        self.desktop_image_names.entry(name).or_insert(id);
    }

    pub(crate) fn learn_compute_image_name(&mut self, name: NameIn, id: Option<Id>) {
        self.compute_image_names.entry(name).or_insert(id);
    }

    pub(crate) fn learn_operation(&mut self, id: Id, row: Option<OperationRow>) {
        self.operations.entry(id).or_insert(row);
    }

    pub(crate) fn learn_key(&mut self, key: KeyOf, operation: Option<Id>) {
        self.keys.entry(key).or_insert(operation);
    }

    pub(crate) fn learn_blob(&mut self, row: BlobRow) {
        self.blobs.entry(row.id).or_insert(Some(row));
    }

    pub(crate) fn learn_digest(&mut self, sha256: [u8; 32], blob: Option<Id>) {
        self.digests.entry(sha256).or_insert(blob);
    }

    pub(crate) fn learn_pending(&mut self, operation: Id, blobs: BTreeSet<Id>) {
        self.pending.entry(operation).or_insert(blobs);
    }

    pub(crate) fn learn_identity(&mut self, key: IdentityKey, row: Option<IdentityRow>) {
        self.identities.entry(key).or_insert(row);
    }

    pub(crate) fn learn_identity_children(&mut self, key: IdentityKey, rows: Vec<IdentityRow>) {
        for row in rows {
            self.learn_identity(row.key(), Some(row));
        }
        self.parents.insert(key);
    }

    pub(crate) fn learn_quotas(&mut self, scope: QuotaScope, quotas: Vec<Quota>) {
        self.quotas.entry(scope).or_insert(quotas);
    }

    /// Does what an effect says. The store has written it. Rows that no decision looks up (checksums, tombstones,
    /// former names, audit events) are not kept here.
    pub(crate) fn apply(&mut self, effect: Effect) {
        let keeps = self.is_complete || self.keeps;
        if !keeps && !matches!(effect, Effect::UpdateQuota(_)) {
            return self.forget(&effect);
        }
        match effect {
            Effect::InsertDesktopImage(row) | Effect::UpdateDesktopImage(row) => {
                self.put_desktop_image(row.id, Some(row));
            }
            Effect::DeleteDesktopImage(id) => self.put_desktop_image(id, None),
            Effect::InsertComputeImage(row) | Effect::UpdateComputeImage(row) => {
                self.put_compute_image(row.id, Some(row));
            }
            Effect::DeleteComputeImage(id) => self.put_compute_image(id, None),
            Effect::InsertOperation(row) => {
                self.pending.entry(row.id).or_default();
                self.put_operation(*row);
            }
            Effect::UpdateOperation(row) => self.put_operation(*row),
            Effect::InsertBlob(row) | Effect::UpdateBlob(row) => self.put_blob(row),
            Effect::DeleteBlob(id) => {
                if let Some(Some(row)) = self.blobs.insert(id, None) {
                    self.unindex_blob(&row);
                }
            }
            Effect::UpdateQuota(quota) => {
                let quotas = self.quotas.entry(quota.scope.clone()).or_default();
                match quotas.iter_mut().find(|it| it.metric == quota.metric) {
                    Some(known) => *known = quota,
                    None => quotas.push(quota),
                }
            }
            Effect::PutIdentity(row) => {
                self.identities.insert(row.key(), Some(*row));
            }
            Effect::DeleteIdentity(key) if self.is_complete => {
                self.identities.remove(&key);
            }
            Effect::DeleteIdentity(key) => {
                self.identities.insert(key, None);
            }
            Effect::PutChecksums { .. }
            | Effect::InsertTombstone(_)
            | Effect::NoteGarbage(_)
            | Effect::NoteFormerName { .. }
            | Effect::InsertAuditEvent(_) => {}
        }
    }

    /// Forgets the rows that an effect changes, and the indexes that lead to rows of their kind.
    fn forget(&mut self, effect: &Effect) {
        match effect {
            Effect::InsertDesktopImage(DesktopImageRow { id, .. })
            | Effect::UpdateDesktopImage(DesktopImageRow { id, .. })
            | Effect::DeleteDesktopImage(id) => {
                self.desktop_images.remove(id);
                self.desktop_image_names.clear();
            }
            Effect::InsertComputeImage(ComputeImageRow { id, .. })
            | Effect::UpdateComputeImage(ComputeImageRow { id, .. })
            | Effect::DeleteComputeImage(id) => {
                self.compute_images.remove(id);
                self.compute_image_names.clear();
            }
            Effect::InsertOperation(row) | Effect::UpdateOperation(row) => {
                self.operations.remove(&row.id);
                self.keys.clear();
            }
            Effect::InsertBlob(BlobRow { id, .. })
            | Effect::UpdateBlob(BlobRow { id, .. })
            | Effect::DeleteBlob(id) => {
                self.blobs.remove(id);
                self.digests.clear();
                self.pending.clear();
                // A compute image is loaded with its blob.
                self.compute_images.clear();
                self.desktop_images.clear();
            }
            Effect::PutIdentity(_) | Effect::DeleteIdentity(_) => {
                self.identities.clear();
                self.parents.clear();
            }
            Effect::UpdateQuota(_)
            | Effect::PutChecksums { .. }
            | Effect::InsertTombstone(_)
            | Effect::NoteGarbage(_)
            | Effect::NoteFormerName { .. }
            | Effect::InsertAuditEvent(_) => {}
        }
    }

    fn put_desktop_image(&mut self, id: Id, row: Option<DesktopImageRow>) {
        let name = |row: &DesktopImageRow| NameIn::new(&row.image.folder_id, &row.image.name);
        let new = row.as_ref().map(name);
        let old = self.desktop_images.insert(id, row).flatten();
        if let Some(old) = old.as_ref().map(name) {
            self.desktop_image_names.insert(old, None);
        }
        if let Some(new) = new {
            self.desktop_image_names.insert(new, Some(id));
        }
    }

    fn put_compute_image(&mut self, id: Id, row: Option<ComputeImageRow>) {
        let name = |row: &ComputeImageRow| {
            let image = &row.image;
            (!image.name.is_empty()).then(|| NameIn::new(&image.folder_id, &image.name))
        };
        let new = row.as_ref().and_then(name);
        let old = self.compute_images.insert(id, row).flatten();
        if let Some(old) = old.as_ref().and_then(name) {
            self.compute_image_names.insert(old, None);
        }
        if let Some(new) = new {
            self.compute_image_names.insert(new, Some(id));
        }
    }

    fn put_operation(&mut self, row: OperationRow) {
        let (id, new) = (row.id, key_of(&row));
        let old = self.operations.insert(id, Some(row)).flatten();
        if let Some(old) = old.as_ref().and_then(key_of) {
            self.keys.insert(old, None);
        }
        if let Some(new) = new {
            self.keys.insert(new, Some(id));
        }
    }

    fn put_blob(&mut self, row: BlobRow) {
        if let Some(Some(old)) = self.blobs.insert(row.id, Some(row.clone())) {
            self.unindex_blob(&old);
        }
        match &row.state {
            BlobState::Pending { operation } => {
                self.pending.entry(*operation).or_default().insert(row.id);
            }
            BlobState::Live(facts) => {
                self.digests.insert(facts.sha256, Some(row.id));
            }
        }
    }

    fn unindex_blob(&mut self, row: &BlobRow) {
        match &row.state {
            BlobState::Pending { operation } => {
                if let Some(pending) = self.pending.get_mut(operation) {
                    pending.remove(&row.id);
                }
            }
            BlobState::Live(facts) => {
                self.digests.insert(facts.sha256, None);
            }
        }
    }
}
