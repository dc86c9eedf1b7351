//! Accepting a change: idempotency key, quotas, images and operation in one transaction.

use std::future::ready;

use futures_util::future::Either;

use super::super::{Error, Result};
use super::operations::{self, New};
use super::{Store, Transaction, claims, compute_images, desktop_images};
use crate::model::{Accept, Accepted, Change, FieldChange, Id, Kind, Origin, Start};

/// What a change has done to the rows of images so far.
pub(super) struct Applied {
    pub folder_key: i64,
    pub folder_id: String,
    pub image: Id,
    /// The resource in JSON, if the change is done and leaves one.
    pub response: Option<String>,
    /// The fields that an update sets to another value.
    pub changes: Vec<FieldChange>,
}

impl Store {
    /// Accepts a change that makes room, also where the disk is full.
    pub async fn accept_in_any_case(
        &self,
        accept: Accept,
        change: Change,
        start: Start,
    ) -> Result<Accepted> {
        match self.accept(accept.clone(), change.clone(), start).await {
            Err(Error::Full) => {
                self.make_room().await;
                self.accept(accept, change, start).await
            }
            ended => ended,
        }
    }

    /// Accepts a change, unless a request under the same idempotency key was accepted before.
    pub fn accept(
        &self,
        accept: Accept,
        change: Change,
        start: Start,
    ) -> impl Future<Output = Result<Accepted>> + Send + use<> {
        if self.is_short_of_room() && !change.makes_room() {
            return Either::Left(ready(Err(Error::Full)));
        }
        Either::Right(self.write(move |transaction, store| {
            if let Some(operation) = operations::repeated(transaction, &accept)? {
                return Ok(Accepted {
                    operation,
                    repeated: true,
                    lease: None,
                });
            }
            let at_once = start == Start::Now && !change.brings_content();
            let (applied, new) = if at_once {
                let mut applied = apply(transaction, store, &change)?;
                let response = applied.response.take();
                (applied, New::Done(response))
            } else {
                let at = match start {
                    Start::After(delay) => store.now().after(delay),
                    Start::Now | Start::Here(_) => store.now(),
                };
                let new = New::Queued {
                    change: &change,
                    at,
                };
                (prepare(transaction, store, &change)?, new)
            };
            let operation = operations::insert(
                transaction,
                store,
                &accept,
                change.kind(),
                (applied.folder_key, &applied.folder_id),
                (applied.image, &applied.changes),
                new,
            )?;
            let lease = match start {
                Start::Here(lease) => {
                    let key = operations::parse_id(&operation.id)?.key;
                    claims::claim(transaction, store, key, lease)?
                }
                Start::Now | Start::After(_) => None,
            };
            Ok(Accepted {
                operation,
                repeated: false,
                lease,
            })
        }))
    }
}

/// Does a change of rows, all at once.
fn apply(transaction: &Transaction<'_>, store: &Store, change: &Change) -> Result<Applied> {
    match change {
        Change::CopyDesktopImage(new) => desktop_images::insert(transaction, store, new, true),
        Change::UpdateDesktopImage { id, changes } => {
            desktop_images::update(transaction, store, id, changes)
        }
        Change::DeleteDesktopImage { id } => desktop_images::delete_now(transaction, store, id),
        Change::CreateComputeImage { new, origin } => {
            compute_images::insert(transaction, store, new, origin, true)
        }
        Change::UpdateComputeImage { id, changes } => {
            compute_images::update(transaction, store, id, changes)
        }
        Change::DeleteComputeImage { id } => compute_images::delete_now(transaction, store, id),
    }
}

/// Does what shows that a change is on its way, and keeps its place. Refuses what `complete`
/// would refuse, as things stand.
fn prepare(transaction: &Transaction<'_>, store: &Store, change: &Change) -> Result<Applied> {
    match change {
        Change::CopyDesktopImage(new) => desktop_images::insert(transaction, store, new, false),
        Change::UpdateDesktopImage { id, changes } => {
            desktop_images::check_update(transaction, id, changes)
        }
        Change::DeleteDesktopImage { id } => desktop_images::mark_deleting(transaction, id),
        Change::CreateComputeImage { new, origin } => {
            compute_images::insert(transaction, store, new, origin, false)
        }
        Change::UpdateComputeImage { id, changes } => {
            compute_images::check_update(transaction, id, changes)
        }
        Change::DeleteComputeImage { id } => compute_images::mark_deleting(transaction, id),
    }
}

/// Does the rest of a prepared change of rows.
pub(super) fn complete(
    transaction: &Transaction<'_>,
    store: &Store,
    change: &Change,
    image_id: &str,
) -> Result<Applied> {
    match change {
        Change::CopyDesktopImage(_) => desktop_images::activate(transaction, image_id),
        Change::UpdateDesktopImage { id, changes } => {
            desktop_images::update(transaction, store, id, changes)
        }
        Change::DeleteDesktopImage { id } => desktop_images::delete(transaction, store, id),
        Change::CreateComputeImage { .. } => compute_images::activate(transaction, image_id),
        Change::UpdateComputeImage { id, changes } => {
            compute_images::update(transaction, store, id, changes)
        }
        Change::DeleteComputeImage { id } => compute_images::delete(transaction, store, id),
    }
}

/// Takes back what was prepared, as far as it is still there.
pub(super) fn revert(
    transaction: &Transaction<'_>,
    store: &Store,
    kind: Kind,
    image_id: &str,
) -> Result<()> {
    let reverted = match kind {
        Kind::CopyDesktopImage => desktop_images::delete(transaction, store, image_id).map(|_| ()),
        Kind::CreateComputeImage => {
            compute_images::delete(transaction, store, image_id).map(|_| ())
        }
        Kind::DeleteDesktopImage => desktop_images::unmark_deleting(transaction, image_id),
        Kind::DeleteComputeImage => compute_images::unmark_deleting(transaction, image_id),
        Kind::UpdateDesktopImage | Kind::UpdateComputeImage => Ok(()),
    };
    match reverted {
        Err(Error::ImageNotFound { .. }) => Ok(()),
        reverted => reverted,
    }
}

/// Where the content of a new image that needs no worker comes from.
pub(super) fn source(origin: &Origin) -> Option<&str> {
    match origin {
        Origin::ComputeImage(id) => Some(id),
        Origin::Uri(_) | Origin::Upload => None,
    }
}
