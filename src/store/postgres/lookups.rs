//! Lookups of a transaction, and the statements that answer them.

use std::collections::BTreeSet;

use super::columns::columns_of;
use super::connection::{Pipeline, value};
use super::image_rows::{select_blob, select_compute_image, select_desktop_image};
use super::operation_rows::select_operation;
use super::{folders, quotas};
use crate::model::{Id, IdentityKey, Lookup, QuotaScope};

/// The lookups of a transaction, sorted.
#[derive(Default)]
pub(super) struct Wanted {
    pub scopes: BTreeSet<QuotaScope>,
    pub identities: BTreeSet<IdentityKey>,
    pub parents: BTreeSet<IdentityKey>,
    pub operations: BTreeSet<Id>,
    pub keys: BTreeSet<([u8; 16], String)>,
    pub digests: BTreeSet<[u8; 32]>,
    /// Operations whose pending blobs are looked up.
    pub writers: BTreeSet<Id>,
    pub compute_images: BTreeSet<Id>,
    pub source_images: BTreeSet<Id>,
    pub desktop_images: BTreeSet<Id>,
    pub desktop_image_names: BTreeSet<(String, String)>,
    pub compute_image_names: BTreeSet<(String, String)>,
}

/// The places of the answers.
#[derive(Default)]
pub(super) struct Asked {
    pub folders: Option<usize>,
    pub quotas: Option<usize>,
    pub identities: Option<usize>,
    pub children: Option<usize>,
    pub operations: Option<usize>,
    pub keys: Option<usize>,
    pub digests: Option<usize>,
    pub pending: Option<usize>,
    pub locked_compute_images: Option<usize>,
    pub shared_compute_images: Option<usize>,
    pub locked_desktop_images: Option<usize>,
    pub blobs_of_compute_images: Option<usize>,
    pub blobs_of_desktop_images: Option<usize>,
    pub compute_images: Option<usize>,
    pub desktop_images: Option<usize>,
    pub compute_names: Option<usize>,
    pub desktop_names: Option<usize>,
}

impl Wanted {
    pub(super) fn add(&mut self, lookup: Lookup) {
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

    pub(super) fn is_empty(&self) -> bool {
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

    pub(super) fn statements(&self) -> (Pipeline, Asked) {
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
