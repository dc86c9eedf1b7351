//! Compute images, and what changes them.

use rusqlite::types::ValueRef;
use rusqlite::{OptionalExtension, Row, named_params, params};
use serde::de::DeserializeOwned;

use super::super::{ContentFacts, Error, Result};
use super::accept::{self, Applied};
use super::columns::Columns;
use super::quotas::{self, Usage};
use super::{Store, Transaction, contents, differences, folders, from_json, listing, unreadable};
use crate::model::{
    COMPUTE_IMAGE_PREFIX, ComputeImage, ComputeImageChanges, ComputeImageStatus as Status, Id,
    Lease, ListQuery, NewComputeImage, Origin, Page, Position, name_hash,
};

const TABLE: listing::Table<ComputeImage> = listing::Table {
    name: "compute_images",
    prefix: COMPUTE_IMAGE_PREFIX,
    statuses: &[
        Status::Creating as i64,
        Status::Ready as i64,
        Status::Error as i64,
        Status::Deleting as i64,
    ],
    common_status: Status::Ready as i64,
    select: SELECT,
    from_row: image,
    position: |image| Position {
        id: image.id.clone(),
        created_at: image.created_at,
        status: image.status as u8,
        name_hash: name_hash(&image.name),
    },
};

/// In the order of [`image`], then what else the store needs.
const SELECT: &str = "SELECT image.key, id_rest, folder.id, status, name, description, labels, family,
    coalesce(content.size, 0), coalesce(content.stored_size, 0), min_disk_size, product_ids, os, pooled,
    hardware_generation, folder_key, content_key,
    coalesce(content.virtual_size, 0) AS virtual_size,
    coalesce(content.damaged, 0) AS damaged
    FROM compute_images AS image LEFT JOIN contents AS content ON content.key = image.content_key
    JOIN folders AS folder ON folder.key = folder_key";

/// A compute image with what only the store needs of it.
pub(super) struct Found {
    pub id: Id,
    image: ComputeImage,
    folder_key: i64,
    /// Bytes of the disk inside; zero while the image is being created.
    virtual_size: i64,
    content_key: Option<i64>,
    damaged: bool,
}

impl Found {
    fn usage(&self) -> Usage {
        Usage::compute_images(1, Some(self.image.storage_size))
    }

    fn applied(self, response: bool) -> Result<Applied> {
        Ok(Applied {
            folder_key: self.folder_key,
            image: self.id,
            response: response
                .then(|| serde_json::to_string(&self.image))
                .transpose()?,
            folder_id: self.image.folder_id,
            changes: Vec::new(),
        })
    }
}

impl Store {
    /// The compute image with this id.
    pub async fn compute_image(&self, id: &str) -> Result<ComputeImage> {
        let id = id.to_owned();
        self.read(move |transaction| Ok(find(transaction, &id)?.image))
            .await
    }

    /// The newest READY image of a family in a folder.
    pub async fn latest_compute_image_of_family(
        &self,
        folder_id: &str,
        family: &str,
    ) -> Result<Option<ComputeImage>> {
        let (folder_id, family) = (folder_id.to_owned(), family.to_owned());
        self.read(move |transaction| {
            Ok(transaction
                .prepare_cached(&format!(
                    "{SELECT} WHERE folder_key = (SELECT key FROM folders WHERE id = ?1)
                     AND family = ?2 AND family <> '' AND status = ?3
                     ORDER BY image.key DESC LIMIT 1"
                ))?
                .query_row(params![folder_id, family, Status::Ready as i64], image)
                .optional()?)
        })
        .await
    }

    /// One page of the compute images of a folder.
    pub async fn compute_images(&self, query: ListQuery) -> Result<Page<ComputeImage>> {
        self.read(move |transaction| listing::page(transaction, &TABLE, &query))
            .await
    }
}

/// Adds an image: of another one's content, or of none yet.
pub(super) fn insert(
    transaction: &Transaction<'_>,
    store: &Store,
    new: &NewComputeImage,
    origin: &Origin,
    ready: bool,
) -> Result<Applied> {
    let source = accept::source(origin)
        .map(|id| find_sound(transaction, id))
        .transpose()?;
    let stored_size = source.as_ref().map(|(it, _)| it.image.storage_size);
    let smallest = match (&source, new.min_disk_size) {
        (None, size) => size,
        (Some((source, _)), 0) => source.image.min_disk_size,
        (Some((source, _)), size) => min_disk_size(size, source.virtual_size)?,
    };
    let folder_key = folders::find_once(transaction, &new.folder_id)?;
    // A folder that nobody has used has no names and no limits of its own.
    let known = folder_key.unwrap_or(folders::TOTAL);
    check_name_is_free(transaction, &new.folder_id, known, &new.name, None)?;
    let usage = Usage::compute_images(1, stored_size);
    let reservation = quotas::check(transaction, store, &new.folder_id, known, usage)?;

    let folder_key = match folder_key {
        Some(key) => key,
        None => folders::intern(transaction, &new.folder_id)?,
    };
    reservation.take(transaction)?;
    let inherited = source.as_ref().map(|(source, _)| &source.image);
    let os = new.os.as_ref().or(inherited.and_then(|it| it.os.as_ref()));
    let hardware_generation = new
        .hardware_generation
        .as_ref()
        .or(inherited.and_then(|it| it.hardware_generation.as_ref()));
    let id = store.new_id();
    let status = if ready {
        Status::Ready
    } else {
        Status::Creating
    };
    transaction
        .prepare_cached(
            "INSERT INTO compute_images (key, id_rest, folder_key, status, name, description,
                 labels, family, min_disk_size, product_ids, os, pooled, hardware_generation,
                 content_key)
             VALUES (:key, :id_rest, :folder_key, :status, :name, :description, :labels, :family,
                 :min_disk_size, :product_ids, :os, :pooled, :hardware_generation, :content_key)",
        )?
        .execute(named_params! {
            ":key": id.key,
            ":id_rest": id.rest,
            ":folder_key": folder_key,
            ":status": status as i64,
            ":name": new.name,
            ":description": new.description,
            ":labels": serde_json::to_string(&new.labels)?,
            ":family": new.family,
            ":min_disk_size": smallest,
            ":product_ids": serde_json::to_string(&new.product_ids)?,
            ":os": os.map(serde_json::to_string).transpose()?,
            ":pooled": new.pooled,
            ":hardware_generation":
                hardware_generation.map(serde_json::to_string).transpose()?,
            ":content_key": source.as_ref().map(|(_, content_key)| content_key),
        })?;
    get(transaction, id)?.applied(ready)
}

/// Ends the creation of an image that has its content.
pub(super) fn activate(transaction: &Transaction<'_>, id: &str) -> Result<Applied> {
    let mut found = find(transaction, id)?;
    set_status(transaction, &mut found, Status::Ready)?;
    found.applied(true)
}

/// Ends the creation of an image whose content has been written.
pub(super) fn publish(
    transaction: &Transaction<'_>,
    store: &Store,
    lease: &Lease,
    facts: &ContentFacts,
    checksums: &[u8],
) -> Result<Applied> {
    let found = find(transaction, &lease.image_id)?;
    let smallest = min_disk_size(found.image.min_disk_size, facts.virtual_size)?;
    // The image itself is counted since it was accepted.
    let usage = Usage::compute_images(0, Some(facts.stored_size));
    let folder_id = &found.image.folder_id;
    let reservation = quotas::check(transaction, store, folder_id, found.folder_key, usage)?;
    let pending = contents::find_pending(
        transaction,
        &lease.operation_id,
        lease.key,
        &lease.content_id,
        facts,
    )?;

    reservation.take(transaction)?;
    let content_key = contents::publish(transaction, store, pending, facts, checksums)?;
    transaction
        .prepare_cached(
            "UPDATE compute_images SET status = ?2, content_key = ?3, min_disk_size = ?4
             WHERE key = ?1",
        )?
        .execute([found.id.key, Status::Ready as i64, content_key, smallest])?;
    get(transaction, found.id)?.applied(true)
}

/// Refuses what `update` would refuse.
pub(super) fn check_update(
    transaction: &Transaction<'_>,
    id: &str,
    changes: &ComputeImageChanges,
) -> Result<Applied> {
    let found = updatable(transaction, id, changes)?;
    let changes = differences::of_compute_image(&found.image, found.virtual_size, changes)?;
    Ok(Applied {
        changes,
        ..found.applied(false)?
    })
}

/// An image for which the changes are in order.
fn updatable(
    transaction: &Transaction<'_>,
    id: &str,
    changes: &ComputeImageChanges,
) -> Result<Found> {
    let (found, _) = find_ready(transaction, id)?;
    if let Some(name) = &changes.name {
        let folder_id = &found.image.folder_id;
        check_name_is_free(
            transaction,
            folder_id,
            found.folder_key,
            name,
            Some(found.id),
        )?;
    }
    if let Some(size) = changes.min_disk_size {
        min_disk_size(size, found.virtual_size)?;
    }
    Ok(found)
}

/// Changes a READY image.
pub(super) fn update(
    transaction: &Transaction<'_>,
    store: &Store,
    id: &str,
    changes: &ComputeImageChanges,
) -> Result<Applied> {
    let found = updatable(transaction, id, changes)?;
    let differences = differences::of_compute_image(&found.image, found.virtual_size, changes)?;
    let image = found.image;
    let name = changes.name.as_ref().unwrap_or(&image.name);
    let smallest = match changes.min_disk_size {
        Some(size) => min_disk_size(size, found.virtual_size)?,
        None => image.min_disk_size,
    };
    if *name != image.name {
        listing::note_former_name(transaction, id, &image.name, store.now())?;
    }
    transaction
        .prepare_cached(
            "UPDATE compute_images
             SET name = ?2, description = ?3, min_disk_size = ?4, labels = ?5 WHERE key = ?1",
        )?
        .execute(params![
            found.id.key,
            name,
            changes.description.as_ref().unwrap_or(&image.description),
            smallest,
            serde_json::to_string(changes.labels.as_ref().unwrap_or(&image.labels))?
        ])?;
    Ok(Applied {
        changes: differences,
        ..get(transaction, found.id)?.applied(true)?
    })
}

/// Removes an image at once, unless it is being made or deleted.
pub(super) fn delete_now(
    transaction: &Transaction<'_>,
    store: &Store,
    id: &str,
) -> Result<Applied> {
    remove(transaction, store, find_ready(transaction, id)?.0)
}

pub(super) fn mark_deleting(transaction: &Transaction<'_>, id: &str) -> Result<Applied> {
    let (mut found, _) = find_ready(transaction, id)?;
    set_status(transaction, &mut found, Status::Deleting)?;
    found.applied(false)
}

pub(super) fn unmark_deleting(transaction: &Transaction<'_>, id: &str) -> Result<()> {
    let mut found = find(transaction, id)?;
    set_status(transaction, &mut found, Status::Ready)
}

/// Removes an image in whatever state it is.
pub(super) fn delete(transaction: &Transaction<'_>, store: &Store, id: &str) -> Result<Applied> {
    remove(transaction, store, find(transaction, id)?)
}

/// Removes an image; desktop images copied from it keep the content.
fn remove(transaction: &Transaction<'_>, store: &Store, found: Found) -> Result<Applied> {
    listing::note_former_name(transaction, &found.image.id, &found.image.name, store.now())?;
    transaction
        .prepare_cached("DELETE FROM compute_images WHERE key = ?1")?
        .execute([found.id.key])?;
    quotas::release(transaction, store, found.folder_key, found.usage())?;
    if let Some(content_key) = found.content_key {
        contents::note_candidate(transaction, store, content_key)?;
    }
    found.applied(false)
}

/// What a copy takes from a compute image.
#[derive(Clone, Copy)]
pub(super) struct Source {
    pub content_key: i64,
    pub stored_size: i64,
    pub min_disk_size: i64,
}

/// A READY image, as far as a copy needs it.
pub(super) fn source(transaction: &Transaction<'_>, id: &str) -> Result<Source> {
    let found = parse(id)?;
    if let Some(source) = transaction.sources.borrow().get(&found) {
        return Ok(*source);
    }
    let ready = transaction
        .prepare_cached(
            "SELECT content_key, stored_size, min_disk_size FROM compute_images AS image
             JOIN contents AS content ON content.key = image.content_key
             WHERE image.key = ?1 AND id_rest = ?2 AND status = ?3 AND damaged = 0",
        )?
        .query_row([found.key, found.rest, Status::Ready as i64], |row| {
            Ok(Source {
                content_key: row.get(0)?,
                stored_size: row.get(1)?,
                min_disk_size: row.get(2)?,
            })
        })
        .optional()?;
    match ready {
        Some(source) => {
            transaction.sources.borrow_mut().insert(found, source);
            Ok(source)
        }
        // Says why.
        None => find_sound(transaction, id).and(Err(Error::ImageNotFound { id: id.to_owned() })),
    }
}

pub(super) fn find(transaction: &Transaction<'_>, id: &str) -> Result<Found> {
    get(transaction, parse(id)?)
}

fn parse(id: &str) -> Result<Id> {
    Id::parse(COMPUTE_IMAGE_PREFIX, id).ok_or_else(|| Error::ImageNotFound { id: id.to_owned() })
}

fn get(transaction: &Transaction<'_>, id: Id) -> Result<Found> {
    transaction
        .prepare_cached(&format!("{SELECT} WHERE image.key = ?1 AND id_rest = ?2"))?
        .query_row([id.key, id.rest], |row| {
            Ok(Found {
                id,
                image: image(row)?,
                folder_key: row.get("folder_key")?,
                virtual_size: row.get("virtual_size")?,
                content_key: row.get("content_key")?,
                damaged: row.get("damaged")?,
            })
        })
        .optional()?
        .ok_or_else(|| Error::ImageNotFound {
            id: id.text(COMPUTE_IMAGE_PREFIX),
        })
}

/// A READY image and the key of its content.
fn find_ready(transaction: &Transaction<'_>, id: &str) -> Result<(Found, i64)> {
    let found = find(transaction, id)?;
    match (found.image.status, found.content_key) {
        (Status::Ready, Some(content_key)) => Ok((found, content_key)),
        (Status::Deleting, _) => Err(Error::ImageBeingDeleted { id: id.to_owned() }),
        _ => Err(Error::ImageNotReady { id: id.to_owned() }),
    }
}

/// A READY image that can be copied, and the key of its content.
fn find_sound(transaction: &Transaction<'_>, id: &str) -> Result<(Found, i64)> {
    match find_ready(transaction, id)? {
        (found, _) if found.damaged => Err(Error::ContentDamaged { id: id.to_owned() }),
        sound => Ok(sound),
    }
}

fn set_status(transaction: &Transaction<'_>, found: &mut Found, status: Status) -> Result<()> {
    transaction
        .prepare_cached("UPDATE compute_images SET status = ?2 WHERE key = ?1")?
        .execute([found.id.key, status as i64])?;
    found.image.status = status;
    Ok(())
}

/// The size asked for, or the size of the disk inside where none was.
pub(super) fn min_disk_size(requested: i64, virtual_size: i64) -> Result<i64> {
    match requested {
        0 => Ok(virtual_size),
        size if size < virtual_size => Err(Error::MinDiskSizeTooSmall {
            requested,
            virtual_size,
        }),
        size => Ok(size),
    }
}

/// Names are unique in a folder; any number of images have none.
fn check_name_is_free(
    transaction: &Transaction<'_>,
    folder_id: &str,
    folder_key: i64,
    name: &str,
    except: Option<Id>,
) -> Result<()> {
    if name.is_empty() {
        return Ok(());
    }
    let holder: Option<i64> = transaction
        .prepare_cached("SELECT key FROM compute_images WHERE folder_key = ?1 AND name = ?2")?
        .query_row(params![folder_key, name], |row| row.get(0))
        .optional()?;
    match holder {
        Some(key) if except.is_none_or(|id| id.key != key) => Err(Error::NameTaken {
            folder_id: folder_id.to_owned(),
            name: name.to_owned(),
        }),
        _ => Ok(()),
    }
}

fn image(row: &Row<'_>) -> rusqlite::Result<ComputeImage> {
    let mut columns = Columns::of(row);
    let id = Id {
        key: columns.take()?,
        rest: columns.take()?,
    };
    Ok(ComputeImage {
        id: id.text(COMPUTE_IMAGE_PREFIX),
        created_at: id.created_at(),
        folder_id: columns.take()?,
        status: status(columns.take()?)?,
        name: columns.take()?,
        description: columns.take()?,
        labels: from_json(columns.take_ref()?.as_str()?)?,
        family: columns.take()?,
        size: columns.take()?,
        storage_size: columns.take()?,
        min_disk_size: columns.take()?,
        product_ids: from_json(columns.take_ref()?.as_str()?)?,
        os: optional_json(columns.take_ref()?)?,
        pooled: columns.take()?,
        hardware_generation: optional_json(columns.take_ref()?)?,
    })
}

fn status(number: i64) -> rusqlite::Result<Status> {
    Status::from_number(number).ok_or_else(|| unreadable(format!("status {number}")))
}

fn optional_json<T: DeserializeOwned>(value: ValueRef<'_>) -> rusqlite::Result<Option<T>> {
    value.as_str_or_null()?.map(from_json).transpose()
}
