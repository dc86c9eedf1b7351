//! Effects: gathered over all commands of a transaction, each row as it is left at the end, and written by few
//! statements of many rows, in the order of tables and keys.

use std::collections::{BTreeMap, BTreeSet};

use super::super::Result;
use super::columns::columns_of;
use super::connection::{Connection, Mark, Pipeline, value};
use super::facts::Facts;
use super::{effect_rows, folders};
use crate::model::{
    AuditRow, BlobRow, ComputeImageRow, DesktopImageRow, Effect, Id, IdentityKey, IdentityRow,
    OperationRow, Quota, QuotaScope, Timestamp, name_hash,
};

/// A row that was there, or that is new: as it is left.
enum Left<R> {
    Inserted(R),
    Updated(R),
}

/// Rows of one table, by id.
struct Rows<R>(BTreeMap<Id, Left<R>>);

impl<R> Default for Rows<R> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<R> Rows<R> {
    fn insert(&mut self, id: Id, row: R) {
        self.0.insert(id, Left::Inserted(row));
    }

    fn update(&mut self, id: Id, row: R) {
        let left = match self.0.remove(&id) {
            Some(Left::Inserted(_)) => Left::Inserted(row),
            _ => Left::Updated(row),
        };
        self.0.insert(id, left);
    }

    /// Whether the row is to be deleted: one that was there.
    fn delete(&mut self, id: Id) -> bool {
        !matches!(self.0.remove(&id), Some(Left::Inserted(_)))
    }

    fn inserted(&self) -> Vec<&R> {
        let rows = self.0.values().filter_map(|left| match left {
            Left::Inserted(row) => Some(row),
            Left::Updated(_) => None,
        });
        rows.collect()
    }

    fn updated(&self) -> Vec<&R> {
        let rows = self.0.values().filter_map(|left| match left {
            Left::Updated(row) => Some(row),
            Left::Inserted(_) => None,
        });
        rows.collect()
    }
}

/// The rows that a transaction leaves.
#[derive(Default)]
pub(super) struct Effects {
    desktop_images: Rows<DesktopImageRow>,
    compute_images: Rows<ComputeImageRow>,
    operations: Rows<OperationRow>,
    blobs: Rows<BlobRow>,
    deleted_desktop_images: BTreeSet<Id>,
    deleted_compute_images: BTreeSet<Id>,
    deleted_blobs: BTreeSet<Id>,
    checksums: BTreeMap<Id, Vec<u8>>,
    tombstones: BTreeMap<String, Timestamp>,
    garbage: BTreeSet<Id>,
    former_names: BTreeMap<(String, i64), (String, Timestamp)>,
    quotas: BTreeMap<(QuotaScope, i64), i64>,
    /// Each with whether there was one of its key.
    identities: BTreeMap<IdentityKey, (bool, Option<IdentityRow>)>,
    audit_events: Vec<AuditRow>,
}

impl Effects {
    /// Adds an effect that was decided on `facts`, before it is applied to them.
    pub(super) fn add(&mut self, effect: &Effect, facts: &Facts) {
        match effect.clone() {
            Effect::InsertDesktopImage(row) => self.desktop_images.insert(row.id, row),
            Effect::UpdateDesktopImage(row) => self.desktop_images.update(row.id, row),
            Effect::DeleteDesktopImage(id) => {
                if self.desktop_images.delete(id) {
                    self.deleted_desktop_images.insert(id);
                }
            }
            Effect::InsertComputeImage(row) => self.compute_images.insert(row.id, row),
            Effect::UpdateComputeImage(row) => self.compute_images.update(row.id, row),
            Effect::DeleteComputeImage(id) => {
                if self.compute_images.delete(id) {
                    self.deleted_compute_images.insert(id);
                }
            }
            Effect::InsertOperation(row) => self.operations.insert(row.id, *row),
            Effect::UpdateOperation(row) => self.operations.update(row.id, *row),
            Effect::InsertBlob(row) => self.blobs.insert(row.id, row),
            Effect::UpdateBlob(row) => self.blobs.update(row.id, row),
            Effect::DeleteBlob(id) => {
                self.checksums.remove(&id);
                if self.blobs.delete(id) {
                    self.deleted_blobs.insert(id);
                }
            }
            Effect::PutChecksums { blob, checksums } => {
                self.checksums.insert(blob, checksums);
            }
            Effect::InsertTombstone(tombstone) => {
                self.tombstones
                    .insert(tombstone.file, tombstone.forget_after);
            }
            Effect::NoteGarbage(blob) => drop(self.garbage.insert(blob)),
            Effect::NoteFormerName { image_id, name, at } => {
                if !name.is_empty() {
                    let key = (image_id, name_hash(&name));
                    self.former_names.insert(key, (name, at));
                }
            }
            Effect::UpdateQuota(Quota {
                scope,
                metric,
                used,
                ..
            }) => {
                self.quotas.insert((scope, metric as i64), used);
            }
            Effect::PutIdentity(row) => {
                let key = row.key();
                self.put_identity(key, Some(*row), facts);
            }
            Effect::DeleteIdentity(key) => self.put_identity(key, None, facts),
            Effect::InsertAuditEvent(row) => self.audit_events.push(row),
        }
    }

    fn put_identity(&mut self, key: IdentityKey, row: Option<IdentityRow>, facts: &Facts) {
        let was_there = facts.rows.identity(&key).is_some();
        let left = self.identities.entry(key).or_insert((was_there, None));
        left.1 = row;
    }

    /// Whether something is to be removed that was not.
    pub(super) fn has_removals(&self) -> bool {
        !self.tombstones.is_empty() || !self.garbage.is_empty()
    }

    /// Whether an operation is left that a worker may claim now.
    pub(super) fn leave_work(&self, now: Timestamp) -> bool {
        let operations = self.operations.0.values().map(|left| match left {
            Left::Inserted(row) | Left::Updated(row) => row,
        });
        operations
            .filter_map(|row| row.claimable_at)
            .any(|at| at <= now)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.desktop_images.0.is_empty()
            && self.compute_images.0.is_empty()
            && self.operations.0.is_empty()
            && self.blobs.0.is_empty()
            && self.deleted_desktop_images.is_empty()
            && self.deleted_compute_images.is_empty()
            && self.deleted_blobs.is_empty()
            && self.identities.is_empty()
            && self.quotas.is_empty()
            && self.audit_events.is_empty()
            && self.checksums.is_empty()
            && self.former_names.is_empty()
            && !self.has_removals()
    }

    /// Writes all, and returns the mark of the transaction.
    pub(super) async fn write(&self, connection: &Connection, facts: &mut Facts) -> Result<Mark> {
        let mut used = BTreeSet::new();
        let images = self.desktop_images.inserted().into_iter();
        used.extend(images.map(|row| row.image.folder_id.clone()));
        let images = self.compute_images.inserted().into_iter();
        used.extend(images.map(|row| row.image.folder_id.clone()));
        let operations = self.operations.inserted().into_iter();
        used.extend(operations.map(|row| row.folder_id.clone()));
        used.extend(self.audit_events.iter().map(|row| row.folder_id.clone()));
        folders::intern(connection, &mut facts.folders, &used, &facts.counted).await?;
        let mut pipeline = Pipeline::default();
        self.add_statements(&mut pipeline, &facts.folders)?;
        let mark = connection.add_mark(&mut pipeline);
        connection.send(pipeline).await?;
        Ok(mark)
    }

    /// Statements in an order in which names, keys and blobs are free before they are taken, and there before they
    /// are referred to.
    fn add_statements(
        &self,
        pipeline: &mut Pipeline,
        folders: &BTreeMap<String, i64>,
    ) -> Result<()> {
        for (sql, ids) in [
            (
                "DELETE FROM desktop_images AS image
                 USING unnest($1::bigint[], $2::bigint[]) AS gone (key, rest)
                 WHERE image.key = gone.key AND image.id_rest = gone.rest",
                &self.deleted_desktop_images,
            ),
            (
                "DELETE FROM compute_images AS image
                 USING unnest($1::bigint[], $2::bigint[]) AS gone (key, rest)
                 WHERE image.key = gone.key AND image.id_rest = gone.rest",
                &self.deleted_compute_images,
            ),
            (
                "DELETE FROM blobs AS blob
                 USING unnest($1::bigint[], $2::bigint[]) AS gone (key, rest)
                 WHERE blob.key = gone.key AND blob.id_rest = gone.rest",
                &self.deleted_blobs,
            ),
            (
                "INSERT INTO blob_candidates (key, id_rest)
                 SELECT * FROM unnest($1::bigint[], $2::bigint[]) ON CONFLICT DO NOTHING",
                &self.garbage,
            ),
        ] {
            if !ids.is_empty() {
                let (keys, rests) = columns_of(ids);
                pipeline.add(sql, vec![value(keys), value(rests)]);
            }
        }
        effect_rows::update_blobs(pipeline, &self.blobs.updated());
        effect_rows::insert_blobs(pipeline, &self.blobs.inserted());
        effect_rows::update_compute_images(pipeline, &self.compute_images.updated())?;
        effect_rows::update_desktop_images(pipeline, &self.desktop_images.updated())?;
        effect_rows::update_operations(pipeline, &self.operations.updated())?;
        effect_rows::insert_operations(pipeline, &self.operations.inserted(), folders)?;
        effect_rows::insert_compute_images(pipeline, &self.compute_images.inserted(), folders)?;
        effect_rows::insert_desktop_images(pipeline, &self.desktop_images.inserted(), folders)?;
        self.add_small(pipeline, folders)?;
        super::audit::insert(pipeline, &self.audit_events, folders)
    }

    fn add_small(&self, pipeline: &mut Pipeline, folders: &BTreeMap<String, i64>) -> Result<()> {
        if !self.quotas.is_empty() {
            let mut columns: [Vec<i64>; 3] = Default::default();
            for ((scope, metric), used) in &self.quotas {
                columns[0].push(folders::key_of(folders, &folders::id_of(scope))?);
                columns[1].push(*metric);
                columns[2].push(*used);
            }
            pipeline.add(
                "UPDATE quotas SET used = new.used
                 FROM unnest($1::bigint[], $2::bigint[], $3::bigint[])
                     AS new (folder_key, metric, used)
                 WHERE quotas.folder_key = new.folder_key AND quotas.metric = new.metric",
                columns.into_iter().map(value).collect(),
            );
        }
        for (id, checksums) in &self.checksums {
            pipeline.add(
                "INSERT INTO blob_checksums (key, id_rest, checksums) VALUES ($1, $2, $3)
                 ON CONFLICT (key, id_rest) DO UPDATE SET checksums = excluded.checksums",
                vec![value(id.key), value(id.rest), value(checksums.clone())],
            );
        }
        if !self.tombstones.is_empty() {
            let rows = self
                .tombstones
                .iter()
                .map(|(file, at)| (file.clone(), at.0));
            let (files, times): (Vec<_>, Vec<_>) = rows.unzip();
            pipeline.add(
                "INSERT INTO tombstones (file, forget_after)
                 SELECT * FROM unnest($1::text[], $2::bigint[])",
                vec![value(files), value(times)],
            );
        }
        if !self.former_names.is_empty() {
            let keys = self.former_names.keys().cloned();
            let (ids, hashes): (Vec<_>, Vec<_>) = keys.unzip();
            let names = self.former_names.values();
            let (names, times): (Vec<_>, Vec<_>) =
                names.map(|(name, at)| (name.clone(), at.0)).unzip();
            pipeline.add(
                "INSERT INTO former_names (image_id, name_hash, name, given_up_at)
                 SELECT * FROM unnest($1::text[], $2::bigint[], $3::text[], $4::bigint[])
                 ON CONFLICT (image_id, name_hash)
                 DO UPDATE SET name = excluded.name, given_up_at = excluded.given_up_at",
                vec![value(ids), value(hashes), value(names), value(times)],
            );
        }
        for (key, (was_there, row)) in &self.identities {
            super::identity::write(pipeline, key, *was_there, row.as_ref())?;
        }
        Ok(())
    }
}
