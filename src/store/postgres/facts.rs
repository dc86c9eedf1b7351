//! Facts: the rows that commands look up, locked and loaded into the working set by few statements. Locks are taken in
//! the order of tables and keys, so that transactions of other processes wait rather than stand in each other's way.
//!
//! A row that is waited for is read as it then is, but rows that are joined to it are read as they were: so images,
//! which take sizes from their blobs, are locked by one statement and read by a later one.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use tokio_postgres::Row;

use super::super::Result;
use super::columns::{Columns, ids};
use super::connection::Connection;
use super::error::{from_json, overtaken};
use super::image_rows::{blob, compute_image, desktop_image};
use super::lookups::{Asked, Wanted};
use super::{folders, operation_rows, quotas};
use crate::model::{
    BlobState, Id, IdentityRow, KeyOf, Lookup, NameIn, Quota, QuotaScope, WorkingSet,
};

/// The facts of a transaction so far.
pub(super) struct Facts {
    pub rows: WorkingSet,
    /// Folders that are locked, with their keys.
    pub folders: BTreeMap<String, i64>,
    /// Folders whose limits were looked up, also those that are not there.
    pub counted: BTreeSet<String>,
    /// Compute images that are locked for reading only.
    shared: HashSet<Id>,
}

impl Facts {
    pub(super) fn new() -> Self {
        Self {
            rows: WorkingSet::keeping(),
            folders: BTreeMap::new(),
            counted: BTreeSet::new(),
            shared: HashSet::new(),
        }
    }

    /// Whether the answer of a lookup is here, locked as it has to be.
    fn knows(&self, lookup: &Lookup) -> bool {
        self.rows.knows(lookup)
            && !matches!(lookup, Lookup::ComputeImage(id) if self.shared.contains(id))
    }

    /// Loads what is not known yet.
    pub(super) async fn load(
        &mut self,
        connection: &Connection,
        lookups: impl IntoIterator<Item = Lookup>,
    ) -> Result<()> {
        let mut wanted = Wanted::default();
        for lookup in lookups {
            if !self.knows(&lookup) {
                wanted.add(lookup);
            }
        }
        if wanted.is_empty() {
            return Ok(());
        }
        // An image that is changed is not to be locked for reading first.
        let changed = &wanted.compute_images;
        wanted.source_images.retain(|id| !changed.contains(id));
        let (pipeline, asked) = wanted.statements();
        let mut answers = connection.send(pipeline).await?;
        self.learn(&wanted, &asked, &mut answers)
    }

    fn learn(&mut self, wanted: &Wanted, asked: &Asked, answers: &mut [Vec<Row>]) -> Result<()> {
        let mut answer = |place: Option<usize>| {
            let rows = place.and_then(|place| answers.get_mut(place));
            rows.map(std::mem::take).unwrap_or_default()
        };
        for row in answer(asked.folders) {
            let mut columns = Columns::of(&row);
            self.folders.insert(columns.take()?, columns.take()?);
        }
        self.learn_quotas(wanted, &answer(asked.quotas))?;
        self.learn_identities(wanted, answer(asked.identities), answer(asked.children))?;
        self.learn_operations(wanted, answer(asked.operations), answer(asked.keys))?;
        self.learn_blobs(wanted, answer(asked.digests), answer(asked.pending))?;
        for place in [asked.blobs_of_compute_images, asked.blobs_of_desktop_images] {
            for row in answer(place) {
                self.rows.learn_blob(blob(&row)?);
            }
        }
        let locked = ids(&answer(asked.locked_compute_images))?;
        let shared = ids(&answer(asked.shared_compute_images))?;
        let compute_images = answer(asked.compute_images);
        let mut found = BTreeMap::new();
        for row in &compute_images {
            let row = compute_image(row)?;
            if !locked.contains(&row.id) && !shared.contains(&row.id) {
                return Err(overtaken());
            }
            found.insert(row.id, row);
        }
        for id in wanted.compute_images.iter().chain(&wanted.source_images) {
            self.rows.learn_compute_image(*id, found.remove(id));
        }
        self.shared.extend(shared);
        self.shared.retain(|id| !locked.contains(id));
        let locked = ids(&answer(asked.locked_desktop_images))?;
        let mut found = BTreeMap::new();
        for row in answer(asked.desktop_images) {
            let row = desktop_image(&row)?;
            if !locked.contains(&row.id) {
                return Err(overtaken());
            }
            found.insert(row.id, row);
        }
        for id in &wanted.desktop_images {
            self.rows.learn_desktop_image(*id, found.remove(id));
        }
        for (name, id) in names(&wanted.desktop_image_names, &answer(asked.desktop_names))? {
            self.rows.learn_desktop_image_name(name, id);
        }
        for (name, id) in names(&wanted.compute_image_names, &answer(asked.compute_names))? {
            self.rows.learn_compute_image_name(name, id);
        }
        Ok(())
    }

    fn learn_quotas(&mut self, wanted: &Wanted, rows: &[Row]) -> Result<()> {
        let mut found: BTreeMap<QuotaScope, Vec<Quota>> = BTreeMap::new();
        for row in rows {
            let quota = quotas::from_row(row)?;
            found.entry(quota.scope.clone()).or_default().push(quota);
        }
        for scope in &wanted.scopes {
            self.counted.insert(folders::id_of(scope));
            let quotas = found.remove(scope).unwrap_or_default();
            self.rows.learn_quotas(scope.clone(), quotas);
        }
        Ok(())
    }

    fn learn_identities(
        &mut self,
        wanted: &Wanted,
        rows: Vec<Row>,
        children: Vec<Row>,
    ) -> Result<()> {
        let parsed = |row: &Row| from_json::<IdentityRow>(row.try_get(0)?);
        for row in &rows {
            let row = parsed(row)?;
            self.rows.learn_identity(row.key(), Some(row));
        }
        for key in &wanted.identities {
            self.rows.learn_identity(key.clone(), None);
        }
        let children: Vec<IdentityRow> = children.iter().map(parsed).collect::<Result<_>>()?;
        for parent in &wanted.parents {
            let of_it = children.iter();
            let of_it = of_it.filter(|row| row.parent().as_ref() == Some(parent));
            self.rows
                .learn_identity_children(parent.clone(), of_it.cloned().collect());
        }
        Ok(())
    }

    fn learn_operations(
        &mut self,
        wanted: &Wanted,
        by_id: Vec<Row>,
        by_key: Vec<Row>,
    ) -> Result<()> {
        for row in by_id.iter().chain(&by_key) {
            let row = operation_rows::from_row(row)?;
            if let Some(idempotency) = &row.idempotency {
                let key = KeyOf {
                    key: idempotency.key,
                    subject: row.subject.clone(),
                };
                if wanted.keys.contains(&(key.key, key.subject.clone())) {
                    self.rows.learn_key(key, Some(row.id));
                }
            }
            self.rows.learn_operation(row.id, Some(row));
        }
        for id in &wanted.operations {
            self.rows.learn_operation(*id, None);
        }
        for (key, subject) in &wanted.keys {
            let (key, subject) = (*key, subject.clone());
            self.rows.learn_key(KeyOf { key, subject }, None);
        }
        Ok(())
    }

    fn learn_blobs(
        &mut self,
        wanted: &Wanted,
        by_digest: Vec<Row>,
        pending: Vec<Row>,
    ) -> Result<()> {
        for row in &by_digest {
            let row = blob(row)?;
            if let Some(facts) = row.facts() {
                self.rows.learn_digest(facts.sha256, Some(row.id));
            }
            self.rows.learn_blob(row);
        }
        for sha256 in &wanted.digests {
            self.rows.learn_digest(*sha256, None);
        }
        let mut of: BTreeMap<Id, BTreeSet<Id>> = BTreeMap::new();
        for row in &pending {
            let row = blob(row)?;
            if let BlobState::Pending { operation } = &row.state {
                of.entry(*operation).or_default().insert(row.id);
            }
            self.rows.learn_blob(row);
        }
        for operation in &wanted.writers {
            let ids = of.remove(operation).unwrap_or_default();
            self.rows.learn_pending(*operation, ids);
        }
        Ok(())
    }
}

/// Each name, with the image that has it.
fn names(
    wanted: &BTreeSet<(String, String)>,
    rows: &[Row],
) -> Result<impl Iterator<Item = (NameIn, Option<Id>)>> {
    let mut found = BTreeMap::new();
    for row in rows {
        let mut columns = Columns::of(row);
        let name: (String, String) = (columns.take()?, columns.take()?);
        found.insert(name, columns.take_id()?);
    }
    Ok(wanted.iter().map(move |name| {
        let holder = found.get(name).copied();
        (NameIn::new(&name.0, &name.1), holder)
    }))
}
