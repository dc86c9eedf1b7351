//! Desktop images, and what changes them. All changes are done in the accepting transaction.

use rusqlite::{OptionalExtension, Row, Transaction, named_params, params};

use super::super::{
    Accept, Error, ListQuery, LiveContent, Page, Position, Result, Timestamp, name_hash,
};
use super::operations::{self, Start};
use super::{Store, compute_images, contents, from_json, listing, unreadable};
use crate::images::{DesktopImage, DesktopImageStatus, Labels};
use crate::operations::{Kind, Operation};

const TABLE_NAME: &str = "desktop_images";

/// A desktop image to be copied from a compute image.
#[derive(Debug, Clone)]
pub struct NewDesktopImage {
    pub folder_id: String,
    /// Unique in the folder.
    pub name: String,
    pub description: String,
    pub labels: Labels,
    pub compute_image_id: String,
}

/// The fields of a desktop image to be changed; none stay as they are.
#[derive(Debug, Clone, Default)]
pub struct DesktopImageChanges {
    pub name: Option<String>,
    pub description: Option<String>,
    pub labels: Option<Labels>,
}

const SELECT: &str = "SELECT image.id, folder_id, image.created_at, status, name, description,
    labels, min_disk_size, content_key, content.stored_size
    FROM desktop_images AS image JOIN contents AS content ON content.key = image.content_key";

const TABLE: listing::Table<DesktopImage> = listing::Table {
    name: TABLE_NAME,
    select: SELECT,
    from_row,
    position: |image| Position {
        id: image.id.clone(),
        created_at: image.created_at,
        status: image.status as u8,
        name_hash: name_hash(&image.name),
    },
};

impl Store {
    /// Copies a READY compute image: the new image refers to the same content, so that nothing
    /// is left to do.
    pub async fn copy_desktop_image(
        &self,
        accept: Accept,
        new: NewDesktopImage,
    ) -> Result<Operation> {
        self.write(move |transaction, store| {
            if let Some(first) = operations::repeated(transaction, &accept)? {
                return Ok(first.operation);
            }
            let source = compute_images::find_ready(transaction, &new.compute_image_id)?;
            listing::check_name_is_free(transaction, TABLE_NAME, &new.folder_id, &new.name, "")?;
            let image = DesktopImage {
                id: store.ids().generate("e3v"),
                folder_id: new.folder_id.clone(),
                created_at: store.now(),
                status: DesktopImageStatus::Active,
                name: new.name.clone(),
                description: new.description.clone(),
                labels: new.labels.clone(),
                storage_size: source.image.storage_size,
                min_disk_size: source.image.min_disk_size,
            };
            transaction
                .prepare_cached(
                    "INSERT INTO desktop_images (id, folder_id, created_at, status, name,
                         description, labels, min_disk_size, content_key)
                     VALUES (:id, :folder_id, :created_at, :status, :name, :description, :labels,
                         :min_disk_size, :content_key)",
                )?
                .execute(named_params! {
                    ":id": image.id,
                    ":folder_id": image.folder_id,
                    ":created_at": image.created_at.0,
                    ":status": image.status as i64,
                    ":name": image.name,
                    ":description": image.description,
                    ":labels": serde_json::to_string(&image.labels)?,
                    ":min_disk_size": image.min_disk_size,
                    ":content_key": source.content_key,
                })?;
            let kind = Kind::CopyDesktopImage;
            let done = Start::Done(Some(serde_json::to_string(&image)?));
            let folder_id = &image.folder_id;
            operations::insert(
                transaction,
                store,
                &accept,
                kind,
                folder_id,
                &image.id,
                done,
            )
            .map(|settled| settled.operation)
        })
        .await
    }

    /// The desktop image with this id.
    pub async fn desktop_image(&self, id: &str) -> Result<DesktopImage> {
        let id = id.to_owned();
        self.read(move |transaction| Ok(find(transaction, &id)?.0))
            .await
    }

    /// The desktop image with this id, and the content that it refers to.
    pub async fn desktop_image_content(&self, id: &str) -> Result<(DesktopImage, LiveContent)> {
        let id = id.to_owned();
        self.read(move |transaction| {
            let (image, content_key) = find(transaction, &id)?;
            Ok((image, contents::live(transaction, content_key)?))
        })
        .await
    }

    /// One page of the desktop images of a folder.
    pub async fn desktop_images(&self, query: ListQuery) -> Result<Page<DesktopImage>> {
        self.read(move |transaction| listing::page(transaction, &TABLE, &query))
            .await
    }

    /// Changes a desktop image.
    pub async fn update_desktop_image(
        &self,
        accept: Accept,
        id: &str,
        changes: DesktopImageChanges,
    ) -> Result<Operation> {
        let id = id.to_owned();
        self.write(move |transaction, store| {
            if let Some(first) = operations::repeated(transaction, &accept)? {
                return Ok(first.operation);
            }
            let (mut image, _) = find(transaction, &id)?;
            if let Some(name) = changes.name.as_ref().filter(|name| **name != image.name) {
                let folder_id = &image.folder_id;
                listing::check_name_is_free(transaction, TABLE_NAME, folder_id, name, &id)?;
                listing::retire_name(transaction, &id, &image.name, store.now())?;
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
                    "UPDATE desktop_images SET name = ?2, description = ?3, labels = ?4
                     WHERE id = ?1",
                )?
                .execute(params![
                    id,
                    image.name,
                    image.description,
                    serde_json::to_string(&image.labels)?
                ])?;
            let done = Start::Done(Some(serde_json::to_string(&image)?));
            let kind = Kind::UpdateDesktopImage;
            let folder_id = &image.folder_id;
            operations::insert(transaction, store, &accept, kind, folder_id, &id, done)
                .map(|settled| settled.operation)
        })
        .await
    }

    /// Removes a desktop image, and its content where nothing else refers to it.
    pub async fn delete_desktop_image(&self, accept: Accept, id: &str) -> Result<Operation> {
        let id = id.to_owned();
        self.write(move |transaction, store| {
            if let Some(first) = operations::repeated(transaction, &accept)? {
                return Ok(first.operation);
            }
            let (image, content_key) = find(transaction, &id)?;
            listing::retire_name(transaction, &id, &image.name, store.now())?;
            transaction
                .prepare_cached("DELETE FROM desktop_images WHERE id = ?1")?
                .execute([&id])?;
            contents::discard_unreferenced(transaction, store, content_key)?;
            let kind = Kind::DeleteDesktopImage;
            let folder_id = &image.folder_id;
            let done = Start::Done(None);
            operations::insert(transaction, store, &accept, kind, folder_id, &id, done)
                .map(|settled| settled.operation)
        })
        .await
    }
}

fn find(transaction: &Transaction<'_>, id: &str) -> Result<(DesktopImage, i64)> {
    transaction
        .prepare_cached(&format!("{SELECT} WHERE image.id = ?1"))?
        .query_row([id], |row| Ok((from_row(row)?, row.get("content_key")?)))
        .optional()?
        .ok_or_else(|| Error::ImageNotFound { id: id.to_owned() })
}

fn from_row(row: &Row<'_>) -> rusqlite::Result<DesktopImage> {
    let status: i64 = row.get("status")?;
    Ok(DesktopImage {
        id: row.get("id")?,
        folder_id: row.get("folder_id")?,
        created_at: Timestamp(row.get("created_at")?),
        status: DesktopImageStatus::from_number(status)
            .ok_or_else(|| unreadable(format!("status {status}")))?,
        name: row.get("name")?,
        description: row.get("description")?,
        labels: from_json(row.get_ref("labels")?.as_str()?)?,
        storage_size: row.get("stored_size")?,
        min_disk_size: row.get("min_disk_size")?,
    })
}
