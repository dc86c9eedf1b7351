//! Desktop images, and what changes them.

use rusqlite::{OptionalExtension, Row, params};

use super::super::{Error, LiveContent, Result};
use super::accept::Applied;
use super::columns::Columns;
use super::quotas::{self, Usage};
use super::{
    Store, Transaction, compute_images, contents, differences, folders, from_json, listing,
    unreadable,
};
use crate::model::{
    DESKTOP_IMAGE_PREFIX, DesktopImage, DesktopImageChanges, DesktopImageStatus as Status, Id,
    ListQuery, NewDesktopImage, Page, Position, name_hash,
};

/// In the order of [`image`], then what else the store needs.
const SELECT: &str = "SELECT image.key, id_rest, folder.id, status, name, description, labels,
    content.stored_size, min_disk_size, folder_key, content_key
    FROM desktop_images AS image JOIN contents AS content ON content.key = image.content_key
    JOIN folders AS folder ON folder.key = folder_key";

const TABLE: listing::Table<DesktopImage> = listing::Table {
    name: "desktop_images",
    prefix: DESKTOP_IMAGE_PREFIX,
    statuses: &[
        Status::Creating as i64,
        Status::Active as i64,
        Status::Deleting as i64,
    ],
    common_status: Status::Active as i64,
    select: SELECT,
    from_row: image,
    position: |image| Position {
        id: image.id.clone(),
        created_at: image.created_at,
        status: image.status as u8,
        name_hash: name_hash(&image.name),
    },
};

struct Found {
    id: Id,
    image: DesktopImage,
    folder_key: i64,
    content_key: i64,
}

impl Found {
    fn usage(&self) -> Usage {
        Usage::desktop_images(1, Some(self.image.storage_size))
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
    /// The desktop image with this id.
    pub async fn desktop_image(&self, id: &str) -> Result<DesktopImage> {
        let id = id.to_owned();
        self.read(move |transaction| Ok(find(transaction, &id)?.image))
            .await
    }

    /// The desktop image with this id, and the content that it refers to. One that is being
    /// created cannot be read yet.
    pub async fn desktop_image_content(&self, id: &str) -> Result<(DesktopImage, LiveContent)> {
        let id = id.to_owned();
        self.read(move |transaction| {
            let found = find(transaction, &id)?;
            if found.image.status == Status::Creating {
                return Err(Error::ImageNotReady { id });
            }
            let content = contents::live(transaction, found.content_key)?;
            Ok((found.image, content))
        })
        .await
    }

    /// One page of the desktop images of a folder.
    pub async fn desktop_images(&self, query: ListQuery) -> Result<Page<DesktopImage>> {
        self.read(move |transaction| listing::page(transaction, &TABLE, &query))
            .await
    }
}

/// Copies a READY compute image: the new image refers to the same content, so that no bytes move.
pub(super) fn insert(
    transaction: &Transaction<'_>,
    store: &Store,
    new: &NewDesktopImage,
    active: bool,
) -> Result<Applied> {
    let source = compute_images::source(transaction, &new.compute_image_id)?;
    let folder_key = folders::find_once(transaction, &new.folder_id)?;
    let usage = Usage::desktop_images(1, Some(source.stored_size));
    // A folder that nobody has used has no limits of its own.
    let known = folder_key.unwrap_or(folders::TOTAL);
    let reservation = quotas::check(transaction, store, &new.folder_id, known, usage)?;
    let folder_key = match folder_key {
        Some(key) => key,
        None => folders::intern(transaction, &new.folder_id)?,
    };
    let id = store.new_id();
    let image = DesktopImage {
        id: id.text(DESKTOP_IMAGE_PREFIX),
        folder_id: new.folder_id.clone(),
        created_at: id.created_at(),
        status: if active {
            Status::Active
        } else {
            Status::Creating
        },
        name: new.name.clone(),
        description: new.description.clone(),
        labels: new.labels.clone(),
        storage_size: source.stored_size,
        min_disk_size: source.min_disk_size,
    };
    // The index says whether the name is free: a search of it beforehand would be a second one.
    let inserted = transaction
        .prepare_cached(
            "INSERT INTO desktop_images (key, id_rest, folder_key, status, name, description,
                 labels, min_disk_size, content_key)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
             ON CONFLICT (folder_key, name) DO NOTHING",
        )?
        .execute(params![
            id.key,
            id.rest,
            folder_key,
            image.status as i64,
            image.name,
            image.description,
            serde_json::to_string(&image.labels)?,
            image.min_disk_size,
            source.content_key,
        ])?;
    if inserted == 0 {
        return Err(name_taken(&new.folder_id, &new.name));
    }
    reservation.take(transaction)?;
    Found {
        id,
        image,
        folder_key,
        content_key: source.content_key,
    }
    .applied(active)
}

/// Ends the creation of an image.
pub(super) fn activate(transaction: &Transaction<'_>, id: &str) -> Result<Applied> {
    let mut found = find(transaction, id)?;
    set_status(transaction, &mut found, Status::Active)?;
    found.applied(true)
}

/// Refuses what `update` would refuse.
pub(super) fn check_update(
    transaction: &Transaction<'_>,
    id: &str,
    changes: &DesktopImageChanges,
) -> Result<Applied> {
    let found = updatable(transaction, id, changes)?;
    let changes = differences::of_desktop_image(&found.image, changes);
    Ok(Applied {
        changes,
        ..found.applied(false)?
    })
}

/// An image for which the changes are in order.
fn updatable(
    transaction: &Transaction<'_>,
    id: &str,
    changes: &DesktopImageChanges,
) -> Result<Found> {
    let found = find_active(transaction, id)?;
    if let Some(name) = &changes.name {
        let folder_id = &found.image.folder_id;
        check_name_is_free(transaction, folder_id, found.folder_key, name, found.id)?;
    }
    Ok(found)
}

/// Changes an image.
pub(super) fn update(
    transaction: &Transaction<'_>,
    store: &Store,
    id: &str,
    changes: &DesktopImageChanges,
) -> Result<Applied> {
    let mut found = updatable(transaction, id, changes)?;
    let differences = differences::of_desktop_image(&found.image, changes);
    let image = &mut found.image;
    if let Some(name) = changes.name.as_ref().filter(|name| **name != image.name) {
        listing::note_former_name(transaction, id, &image.name, store.now())?;
        image.name.clone_from(name);
    }
    if let Some(description) = &changes.description {
        image.description.clone_from(description);
    }
    if let Some(labels) = &changes.labels {
        image.labels.clone_from(labels);
    }
    transaction
        .prepare_cached(
            "UPDATE desktop_images SET name = ?2, description = ?3, labels = ?4 WHERE key = ?1",
        )?
        .execute(params![
            found.id.key,
            image.name,
            image.description,
            serde_json::to_string(&image.labels)?
        ])?;
    Ok(Applied {
        changes: differences,
        ..found.applied(true)?
    })
}

/// Removes an image at once, unless it is being made or deleted.
pub(super) fn delete_now(
    transaction: &Transaction<'_>,
    store: &Store,
    id: &str,
) -> Result<Applied> {
    remove(transaction, store, find_active(transaction, id)?)
}

pub(super) fn mark_deleting(transaction: &Transaction<'_>, id: &str) -> Result<Applied> {
    let mut found = find_active(transaction, id)?;
    set_status(transaction, &mut found, Status::Deleting)?;
    found.applied(false)
}

pub(super) fn unmark_deleting(transaction: &Transaction<'_>, id: &str) -> Result<()> {
    let mut found = find(transaction, id)?;
    set_status(transaction, &mut found, Status::Active)
}

/// Removes an image in whatever state it is.
pub(super) fn delete(transaction: &Transaction<'_>, store: &Store, id: &str) -> Result<Applied> {
    remove(transaction, store, find(transaction, id)?)
}

/// Removes an image. Its content is looked at later.
fn remove(transaction: &Transaction<'_>, store: &Store, found: Found) -> Result<Applied> {
    listing::note_former_name(transaction, &found.image.id, &found.image.name, store.now())?;
    transaction
        .prepare_cached("DELETE FROM desktop_images WHERE key = ?1")?
        .execute([found.id.key])?;
    quotas::release(transaction, store, found.folder_key, found.usage())?;
    contents::note_candidate(transaction, store, found.content_key)?;
    found.applied(false)
}

fn set_status(transaction: &Transaction<'_>, found: &mut Found, status: Status) -> Result<()> {
    transaction
        .prepare_cached("UPDATE desktop_images SET status = ?2 WHERE key = ?1")?
        .execute([found.id.key, status as i64])?;
    found.image.status = status;
    Ok(())
}

fn check_name_is_free(
    transaction: &Transaction<'_>,
    folder_id: &str,
    folder_key: i64,
    name: &str,
    except: Id,
) -> Result<()> {
    let holder: Option<i64> = transaction
        .prepare_cached("SELECT key FROM desktop_images WHERE folder_key = ?1 AND name = ?2")?
        .query_row(params![folder_key, name], |row| row.get(0))
        .optional()?;
    match holder {
        Some(key) if key != except.key => Err(name_taken(folder_id, name)),
        _ => Ok(()),
    }
}

fn name_taken(folder_id: &str, name: &str) -> Error {
    Error::NameTaken {
        folder_id: folder_id.to_owned(),
        name: name.to_owned(),
    }
}

fn find_active(transaction: &Transaction<'_>, id: &str) -> Result<Found> {
    let found = find(transaction, id)?;
    match found.image.status {
        Status::Active => Ok(found),
        Status::Creating => Err(Error::ImageNotReady { id: id.to_owned() }),
        Status::Deleting => Err(Error::ImageBeingDeleted { id: id.to_owned() }),
    }
}

fn find(transaction: &Transaction<'_>, id: &str) -> Result<Found> {
    let not_found = || Error::ImageNotFound { id: id.to_owned() };
    let parsed = Id::parse(DESKTOP_IMAGE_PREFIX, id).ok_or_else(not_found)?;
    transaction
        .prepare_cached(&format!("{SELECT} WHERE image.key = ?1 AND id_rest = ?2"))?
        .query_row([parsed.key, parsed.rest], |row| {
            Ok(Found {
                id: parsed,
                image: image(row)?,
                folder_key: row.get("folder_key")?,
                content_key: row.get("content_key")?,
            })
        })
        .optional()?
        .ok_or_else(not_found)
}

fn image(row: &Row<'_>) -> rusqlite::Result<DesktopImage> {
    let mut columns = Columns::of(row);
    let id = Id {
        key: columns.take()?,
        rest: columns.take()?,
    };
    Ok(DesktopImage {
        id: id.text(DESKTOP_IMAGE_PREFIX),
        created_at: id.created_at(),
        folder_id: columns.take()?,
        status: status(columns.take()?)?,
        name: columns.take()?,
        description: columns.take()?,
        labels: from_json(columns.take_ref()?.as_str()?)?,
        storage_size: columns.take()?,
        min_disk_size: columns.take()?,
    })
}

fn status(number: i64) -> rusqlite::Result<Status> {
    Status::from_number(number).ok_or_else(|| unreadable(format!("status {number}")))
}
