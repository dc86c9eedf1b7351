//! Facts: the rows that commands look up, locked and loaded into the working set by few statements. Locks are taken in
//! the order of tables and keys, so that transactions of other processes wait rather than stand in each other's way.
//!
//! A row that is waited for is read as it then is, but rows that are joined to it are read as they were: so images,
//! which take sizes from their blobs, are locked by one statement and read by a later one.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use tokio_postgres::Row;

use super::super::Result;
use super::columns::{Columns, columns_of, ids};
use super::connection::{Connection, Pipeline, value};
use super::error::{from_json, overtaken};
use super::image_rows::{
    blob, compute_image, desktop_image, select_blob, select_compute_image, select_desktop_image,
};
use super::operation_rows::{self, select_operation};
use super::{folders, quotas};
use crate::model::{
    BlobState, Id, IdentityKey, IdentityRow, KeyOf, Lookup, NameIn, Quota, QuotaScope, WorkingSet,
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

/// The lookups of a transaction, sorted.
#[derive(Default)]
struct Wanted {
    scopes: BTreeSet<QuotaScope>,
    identities: BTreeSet<IdentityKey>,
    parents: BTreeSet<IdentityKey>,
    operations: BTreeSet<Id>,
    keys: BTreeSet<([u8; 16], String)>,
    digests: BTreeSet<[u8; 32]>,
    /// Operations whose pending blobs are looked up.
    writers: BTreeSet<Id>,
    compute_images: BTreeSet<Id>,
    source_images: BTreeSet<Id>,
    desktop_images: BTreeSet<Id>,
    desktop_image_names: BTreeSet<(String, String)>,
    compute_image_names: BTreeSet<(String, String)>,
}

/// The places of the answers.
#[derive(Default)]
struct Asked {
    folders: Option<usize>,
    quotas: Option<usize>,
    identities: Option<usize>,
    children: Option<usize>,
    operations: Option<usize>,
    keys: Option<usize>,
    digests: Option<usize>,
    pending: Option<usize>,
    locked_compute_images: Option<usize>,
    shared_compute_images: Option<usize>,
    locked_desktop_images: Option<usize>,
    blobs_of_compute_images: Option<usize>,
    blobs_of_desktop_images: Option<usize>,
    compute_images: Option<usize>,
    desktop_images: Option<usize>,
    compute_names: Option<usize>,
    desktop_names: Option<usize>,
}

impl Wanted {
    fn add(&mut self, lookup: Lookup) {
        match lookup {
            Lookup::IdempotencyKey(key) => drop(self.keys.insert((key.key, key.subject))),
            Lookup::Operation(id) => drop(self.operations.insert(id)),
            Lookup::DesktopImage(id) => drop(self.desktop_images.insert(id)),
            Lookup::ComputeImage(id) => drop(self.compute_images.insert(id)),
            Lookup::SourceImage(id) => drop(self.source_images.insert(id)),
            Lookup::DesktopImageName(name) => {
                self.desktop_image_names.insert((name.folder_id, name.name));
            }
            Lookup::ComputeImageName(name) => {
                self.compute_image_names.insert((name.folder_id, name.name));
            }
            Lookup::Quotas(scope) => drop(self.scopes.insert(scope)),
            Lookup::Digest(sha256) => drop(self.digests.insert(sha256)),
            Lookup::PendingBlobs(operation) => drop(self.writers.insert(operation)),
            Lookup::Identity(key) => drop(self.identities.insert(key)),
            Lookup::IdentityChildren(key) => drop(self.parents.insert(key)),
        }
    }

    fn is_empty(&self) -> bool {
        self.scopes.is_empty()
            && self.identities.is_empty()
            && self.parents.is_empty()
            && self.operations.is_empty()
            && self.keys.is_empty()
            && self.digests.is_empty()
            && self.writers.is_empty()
            && self.compute_images.is_empty()
            && self.source_images.is_empty()
            && self.desktop_images.is_empty()
            && self.desktop_image_names.is_empty()
            && self.compute_image_names.is_empty()
    }

    fn statements(&self) -> (Pipeline, Asked) {
        let (mut pipeline, mut asked) = (Pipeline::default(), Asked::default());
        if !self.scopes.is_empty() {
            let scopes: Vec<String> = self.scopes.iter().map(folders::id_of).collect();
            asked.folders = Some(pipeline.add(folders::LOCK, vec![value(scopes.clone())]));
            asked.quotas = Some(pipeline.add(quotas::LOCK, vec![value(scopes)]));
        }
        for (keys, place, sql) in [
            (
                &self.identities,
                &mut asked.identities,
                "SELECT identity.row FROM identity
                 JOIN unnest($1::bigint[], $2::text[]) AS wanted (kind, id)
                   ON identity.kind = wanted.kind AND identity.id = wanted.id
                 ORDER BY identity.kind, identity.id FOR UPDATE OF identity",
            ),
            (
                &self.parents,
                &mut asked.children,
                "SELECT identity.row FROM identity
                 JOIN unnest($1::bigint[], $2::text[]) AS wanted (kind, id)
                   ON identity.parent_kind <> 0 AND identity.parent_kind = wanted.kind
                  AND identity.parent_id = wanted.id
                 ORDER BY identity.kind, identity.id FOR UPDATE OF identity",
            ),
        ] {
            if !keys.is_empty() {
                let parts = keys.iter().map(|key| (key.kind as i64, key.id.clone()));
                let (kinds, ids): (Vec<_>, Vec<_>) = parts.unzip();
                *place = Some(pipeline.add(sql, vec![value(kinds), value(ids)]));
            }
        }
        self.add_operations_and_blobs(&mut pipeline, &mut asked);
        self.add_images(&mut pipeline, &mut asked);
        (pipeline, asked)
    }

    fn add_operations_and_blobs(&self, pipeline: &mut Pipeline, asked: &mut Asked) {
        asked.operations = add_ids(
            pipeline,
            select_operation!(
                "JOIN unnest($1::bigint[], $2::bigint[]) AS wanted (key, rest)
                   ON operation.key = wanted.key AND id_rest = wanted.rest
                 ORDER BY operation.key, id_rest FOR UPDATE OF operation"
            ),
            &self.operations,
        );
        if !self.keys.is_empty() {
            let keys = self.keys.iter();
            let keys = keys.map(|(key, subject)| (key.to_vec(), subject.clone()));
            let (keys, subjects): (Vec<_>, Vec<_>) = keys.unzip();
            let sql = select_operation!(
                "JOIN unnest($1::bytea[], $2::text[]) AS wanted (key_of, of_subject)
                   ON idempotency_key = wanted.key_of AND subject = wanted.of_subject
                 ORDER BY operation.key, id_rest FOR UPDATE OF operation"
            );
            asked.keys = Some(pipeline.add(sql, vec![value(keys), value(subjects)]));
        }
        if !self.digests.is_empty() {
            let digests: Vec<Vec<u8>> = self.digests.iter().map(|it| it.to_vec()).collect();
            let sql = concat!(
                select_blob!(),
                " WHERE state = 1 AND sha256 = ANY($1) ORDER BY key, id_rest FOR UPDATE"
            );
            asked.digests = Some(pipeline.add(sql, vec![value(digests)]));
        }
        asked.pending = add_ids(
            pipeline,
            concat!(
                select_blob!(),
                " JOIN unnest($1::bigint[], $2::bigint[]) AS wanted (key, rest)
                    ON state = 0 AND operation_key = wanted.key AND operation_rest = wanted.rest
                  ORDER BY blob.key, blob.id_rest FOR UPDATE OF blob"
            ),
            &self.writers,
        );
    }

    fn add_images(&self, pipeline: &mut Pipeline, asked: &mut Asked) {
        // One row at the most for each name: as a join, PostgreSQL read all images of a folder for each name as long
        // as it had no statistics of the table.
        macro_rules! of_names {
            ($table:literal) => {
                concat!(
                    "SELECT folder.id, wanted.name, image.key, image.id_rest
                     FROM unnest($1::text[], $2::text[]) AS wanted (folder_id, name)
                     JOIN folders AS folder ON folder.id = wanted.folder_id
                     CROSS JOIN LATERAL (
                         SELECT key, id_rest FROM ",
                    $table,
                    " WHERE folder_key = folder.key AND name = wanted.name LIMIT 1) AS image"
                )
            };
        }
        // Statements that are alike for both kinds of images.
        macro_rules! of_images {
            ($table:literal, $lock:literal) => {
                concat!(
                    "SELECT image.key, image.id_rest FROM ",
                    $table,
                    " AS image JOIN unnest($1::bigint[], $2::bigint[]) AS wanted (key, rest)
                        ON image.key = wanted.key AND image.id_rest = wanted.rest
                      ORDER BY image.key, image.id_rest ",
                    $lock,
                    " OF image"
                )
            };
            (blobs $table:literal) => {
                concat!(
                    select_blob!(),
                    " WHERE (blob.key, blob.id_rest) IN (
                          SELECT blob_key, blob_rest FROM ",
                    $table,
                    " AS image JOIN unnest($1::bigint[], $2::bigint[]) AS wanted (key, rest)
                            ON image.key = wanted.key AND image.id_rest = wanted.rest)
                      ORDER BY blob.key, blob.id_rest FOR KEY SHARE OF blob"
                )
            };
        }
        let changed = &self.compute_images;
        asked.locked_compute_images = add_ids(
            pipeline,
            of_images!("compute_images", "FOR UPDATE"),
            changed,
        );
        let sources = &self.source_images;
        asked.shared_compute_images =
            add_ids(pipeline, of_images!("compute_images", "FOR SHARE"), sources);
        let desktop = &self.desktop_images;
        asked.locked_desktop_images = add_ids(
            pipeline,
            of_images!("desktop_images", "FOR UPDATE"),
            desktop,
        );
        let all: BTreeSet<Id> = changed.union(sources).copied().collect();
        asked.blobs_of_compute_images = add_ids(pipeline, of_images!(blobs "compute_images"), &all);
        asked.blobs_of_desktop_images =
            add_ids(pipeline, of_images!(blobs "desktop_images"), desktop);
        asked.compute_images = add_ids(
            pipeline,
            concat!(
                select_compute_image!(),
                " JOIN unnest($1::bigint[], $2::bigint[]) AS wanted (key, rest)
               ON image.key = wanted.key AND image.id_rest = wanted.rest"
            ),
            &all,
        );
        asked.desktop_images = add_ids(
            pipeline,
            concat!(
                select_desktop_image!(),
                " JOIN unnest($1::bigint[], $2::bigint[]) AS wanted (key, rest)
               ON image.key = wanted.key AND image.id_rest = wanted.rest"
            ),
            desktop,
        );
        for (names, place, sql) in [
            (
                &self.compute_image_names,
                &mut asked.compute_names,
                of_names!("compute_images"),
            ),
            (
                &self.desktop_image_names,
                &mut asked.desktop_names,
                of_names!("desktop_images"),
            ),
        ] {
            if !names.is_empty() {
                let (folders, names): (Vec<_>, Vec<_>) = names.iter().cloned().unzip();
                *place = Some(pipeline.add(sql, vec![value(folders), value(names)]));
            }
        }
    }
}

/// Adds a statement about ids, if there are any.
fn add_ids(pipeline: &mut Pipeline, sql: &'static str, ids: &BTreeSet<Id>) -> Option<usize> {
    if ids.is_empty() {
        return None;
    }
    let (keys, rests) = columns_of(ids);
    Some(pipeline.add(sql, vec![value(keys), value(rests)]))
}
