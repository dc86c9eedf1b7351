//! Compute images, and what changes them.

use rusqlite::{OptionalExtension, Row, Transaction, named_params, params};

use super::super::{Accept, ContentFacts, Error, Lease, ListQuery, Page, Result, Timestamp};
use super::operations::{self, Settled, Start};
use super::{Store, contents, from_json, listing, unreadable};
use crate::images::{ComputeImage, ComputeImageStatus, HardwareGeneration, Labels, Os};
use crate::operations::{Kind, Operation};

/// A compute image to be made.
#[derive(Debug, Clone)]
pub struct NewComputeImage {
    pub folder_id: String,
    /// Empty, or unique in the folder.
    pub name: String,
    pub description: String,
    pub labels: Labels,
    pub family: String,
    /// Bytes; zero takes the size of the disk inside.
    pub min_disk_size: i64,
    pub product_ids: Vec<String>,
    pub os: Option<Os>,
    pub pooled: bool,
    pub hardware_generation: Option<HardwareGeneration>,
}

/// Where the content of a new compute image comes from.
#[derive(Debug, Clone)]
pub enum Origin {
    /// Another compute image; done at once.
    ComputeImage(String),
    /// A worker that does this task.
    Task(String),
}

/// The fields of a compute image to be changed; none stay as they are.
#[derive(Debug, Clone, Default)]
pub struct ComputeImageChanges {
    pub name: Option<String>,
    pub description: Option<String>,
    /// Bytes; zero takes the size of the disk inside.
    pub min_disk_size: Option<i64>,
    pub labels: Option<Labels>,
}

pub(super) const TABLE: listing::Table<ComputeImage> = listing::Table {
    name: "compute_images",
    select: SELECT,
    from_row,
    position: |image| super::super::Position {
        id: image.id.clone(),
        created_at: image.created_at,
        status: image.status as u8,
        name_hash: super::super::name_hash(&image.name),
    },
};

const SELECT: &str = "SELECT image.id, folder_id, image.created_at, status, name, description,
    labels, family, min_disk_size, product_ids, os, pooled, hardware_generation, content_key,
    coalesce(content.size, 0) AS size, coalesce(content.stored_size, 0) AS stored_size,
    coalesce(content.virtual_size, 0) AS virtual_size
    FROM compute_images AS image LEFT JOIN contents AS content ON content.key = image.content_key";

impl Store {
    /// Adds a compute image and its operation.
    pub async fn create_compute_image(
        &self,
        accept: Accept,
        new: NewComputeImage,
        origin: Origin,
    ) -> Result<Settled> {
        self.write(move |transaction, store| {
            if let Some(first) = operations::repeated(transaction, &accept)? {
                return Ok(first);
            }
            let (mut new, mut content_key, mut status) =
                (new.clone(), None, ComputeImageStatus::Creating);
            if let Origin::ComputeImage(source_id) = &origin {
                let source = find_ready(transaction, source_id)?;
                new.min_disk_size = match new.min_disk_size {
                    0 => source.image.min_disk_size,
                    size => min_disk_size(size, source.virtual_size)?,
                };
                new.os = new.os.or(source.image.os);
                new.hardware_generation =
                    new.hardware_generation.or(source.image.hardware_generation);
                content_key = Some(source.content_key);
                status = ComputeImageStatus::Ready;
            }
            check_name_is_free(transaction, &new.folder_id, &new.name, "")?;

            let id = store.ids().generate("fd8");
            transaction
                .prepare_cached(
                    "INSERT INTO compute_images (id, folder_id, created_at, status, name,
                         description, labels, family, min_disk_size, product_ids, os, pooled,
                         hardware_generation, content_key)
                     VALUES (:id, :folder_id, :created_at, :status, :name, :description, :labels,
                         :family, :min_disk_size, :product_ids, :os, :pooled,
                         :hardware_generation, :content_key)",
                )?
                .execute(named_params! {
                    ":id": id,
                    ":folder_id": new.folder_id,
                    ":created_at": store.now().0,
                    ":status": status as i64,
                    ":name": new.name,
                    ":description": new.description,
                    ":labels": serde_json::to_string(&new.labels)?,
                    ":family": new.family,
                    ":min_disk_size": new.min_disk_size,
                    ":product_ids": serde_json::to_string(&new.product_ids)?,
                    ":os": new.os.as_ref().map(serde_json::to_string).transpose()?,
                    ":pooled": new.pooled,
                    ":hardware_generation":
                        new.hardware_generation.as_ref().map(serde_json::to_string).transpose()?,
                    ":content_key": content_key,
                })?;
            let start = match &origin {
                Origin::Task(task) => Start::Task(task.clone()),
                Origin::ComputeImage(_) => Start::Done(Some(response(transaction, &id)?)),
            };
            operations::insert(
                transaction,
                store,
                &accept,
                Kind::CreateComputeImage,
                &new.folder_id,
                &id,
                start,
            )
        })
        .await
    }

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
                    "{SELECT} WHERE folder_id = ?1 AND family = ?2 AND family <> '' AND status = ?3
                     ORDER BY image.created_at DESC, image.id DESC LIMIT 1"
                ))?
                .query_row(
                    params![folder_id, family, ComputeImageStatus::Ready as i64],
                    from_row,
                )
                .optional()?)
        })
        .await
    }

    /// One page of the compute images of a folder.
    pub async fn compute_images(&self, query: ListQuery) -> Result<Page<ComputeImage>> {
        self.read(move |transaction| listing::page(transaction, &TABLE, &query))
            .await
    }

    /// Changes a READY compute image.
    pub async fn update_compute_image(
        &self,
        accept: Accept,
        id: &str,
        changes: ComputeImageChanges,
    ) -> Result<Operation> {
        let id = id.to_owned();
        self.write(move |transaction, store| {
            if let Some(first) = operations::repeated(transaction, &accept)? {
                return Ok(first.operation);
            }
            let found = find_ready(transaction, &id)?;
            let image = found.image;
            let name = changes.name.as_ref().unwrap_or(&image.name);
            check_name_is_free(transaction, &image.folder_id, name, &id)?;
            let smallest = match changes.min_disk_size {
                Some(size) => min_disk_size(size, found.virtual_size)?,
                None => image.min_disk_size,
            };
            if *name != image.name {
                listing::retire_name(transaction, &id, &image.name, store.now())?;
            }
            transaction
                .prepare_cached(
                    "UPDATE compute_images
                     SET name = ?2, description = ?3, min_disk_size = ?4, labels = ?5
                     WHERE id = ?1",
                )?
                .execute(params![
                    id,
                    name,
                    changes.description.as_ref().unwrap_or(&image.description),
                    smallest,
                    serde_json::to_string(changes.labels.as_ref().unwrap_or(&image.labels))?
                ])?;
            let done = Start::Done(Some(response(transaction, &id)?));
            let kind = Kind::UpdateComputeImage;
            let folder_id = &image.folder_id;
            operations::insert(transaction, store, &accept, kind, folder_id, &id, done)
                .map(|settled| settled.operation)
        })
        .await
    }

    /// Removes a compute image; desktop images copied from it keep the content.
    pub async fn delete_compute_image(&self, accept: Accept, id: &str) -> Result<Operation> {
        let id = id.to_owned();
        self.write(move |transaction, store| {
            if let Some(first) = operations::repeated(transaction, &accept)? {
                return Ok(first.operation);
            }
            let found = find_ready(transaction, &id)?;
            delete_row(transaction, store, &found.image)?;
            contents::discard_unreferenced(transaction, store, found.content_key)?;
            let kind = Kind::DeleteComputeImage;
            let folder_id = &found.image.folder_id;
            let done = Start::Done(None);
            operations::insert(transaction, store, &accept, kind, folder_id, &id, done)
                .map(|settled| settled.operation)
        })
        .await
    }

    /// Ends an import in success: the content is live, the image READY and the operation done in
    /// one transaction, which checks the lease.
    pub async fn finish_import(&self, lease: &Lease, facts: ContentFacts) -> Result<Operation> {
        let lease = lease.clone();
        self.write(move |transaction, store| {
            operations::check_lease(transaction, &lease)?;
            let found = find(transaction, &lease.image_id)?;
            let smallest = min_disk_size(found.image.min_disk_size, facts.virtual_size)?;
            let operation_id = &lease.operation_id;
            let content_key =
                contents::publish(transaction, store, operation_id, &lease.content_id, &facts)?;
            transaction
                .prepare_cached(
                    "UPDATE compute_images SET status = ?2, content_key = ?3, min_disk_size = ?4
                     WHERE id = ?1",
                )?
                .execute(params![
                    lease.image_id,
                    ComputeImageStatus::Ready as i64,
                    content_key,
                    smallest
                ])?;
            let response = response(transaction, &lease.image_id)?;
            operations::succeed(transaction, store, &lease, &response)
        })
        .await
    }
}

/// A compute image with what only the store needs of it.
pub(super) struct Found {
    pub image: ComputeImage,
    /// Bytes of the disk inside; zero while the image is being created.
    pub virtual_size: i64,
    content_key: Option<i64>,
}

/// A compute image that has content.
pub(super) struct Ready {
    pub image: ComputeImage,
    pub virtual_size: i64,
    pub content_key: i64,
}

pub(super) fn find(transaction: &Transaction<'_>, id: &str) -> Result<Found> {
    transaction
        .prepare_cached(&format!("{SELECT} WHERE image.id = ?1"))?
        .query_row([id], |row| {
            Ok(Found {
                image: from_row(row)?,
                virtual_size: row.get("virtual_size")?,
                content_key: row.get("content_key")?,
            })
        })
        .optional()?
        .ok_or_else(|| Error::ImageNotFound { id: id.to_owned() })
}

pub(super) fn find_ready(transaction: &Transaction<'_>, id: &str) -> Result<Ready> {
    let found = find(transaction, id)?;
    match found.content_key {
        Some(content_key) if found.image.status == ComputeImageStatus::Ready => Ok(Ready {
            image: found.image,
            virtual_size: found.virtual_size,
            content_key,
        }),
        _ => Err(Error::ImageNotReady { id: id.to_owned() }),
    }
}

pub(super) fn delete_row(
    transaction: &Transaction<'_>,
    store: &Store,
    image: &ComputeImage,
) -> Result<()> {
    listing::retire_name(transaction, &image.id, &image.name, store.now())?;
    transaction
        .prepare_cached("DELETE FROM compute_images WHERE id = ?1")?
        .execute([&image.id])?;
    Ok(())
}

/// The size asked for, or the size of the disk inside where none was.
fn min_disk_size(requested: i64, virtual_size: i64) -> Result<i64> {
    match requested {
        0 => Ok(virtual_size),
        size if size < virtual_size => Err(Error::MinDiskSizeTooSmall {
            requested,
            virtual_size,
        }),
        size => Ok(size),
    }
}

fn check_name_is_free(
    transaction: &Transaction<'_>,
    folder_id: &str,
    name: &str,
    except_id: &str,
) -> Result<()> {
    if name.is_empty() {
        return Ok(());
    }
    listing::check_name_is_free(transaction, "compute_images", folder_id, name, except_id)
}

fn response(transaction: &Transaction<'_>, id: &str) -> Result<String> {
    Ok(serde_json::to_string(&find(transaction, id)?.image)?)
}

fn from_row(row: &Row<'_>) -> rusqlite::Result<ComputeImage> {
    let status: i64 = row.get("status")?;
    let os: Option<String> = row.get("os")?;
    let hardware: Option<String> = row.get("hardware_generation")?;
    Ok(ComputeImage {
        id: row.get("id")?,
        folder_id: row.get("folder_id")?,
        created_at: Timestamp(row.get("created_at")?),
        status: ComputeImageStatus::from_number(status)
            .ok_or_else(|| unreadable(format!("status {status}")))?,
        name: row.get("name")?,
        description: row.get("description")?,
        labels: from_json(row.get_ref("labels")?.as_str()?)?,
        family: row.get("family")?,
        size: row.get("size")?,
        storage_size: row.get("stored_size")?,
        min_disk_size: row.get("min_disk_size")?,
        product_ids: from_json(row.get_ref("product_ids")?.as_str()?)?,
        os: os.as_deref().map(from_json).transpose()?,
        pooled: row.get("pooled")?,
        hardware_generation: hardware.as_deref().map(from_json).transpose()?,
    })
}
