//! Permissions of reads. Those of changes are demanded by the rules, with the rows that they decide on.

use std::time::Duration;

use tokio::time::Instant;

use super::{Error, Result};
use crate::model::{Operation, Refusal, RequestContext, Role};

/// The interval at which the caller of a request that takes long is looked at again.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// Demands that the caller may know an image that was named by its id.
///
/// # Errors
/// `Refusal::ImageNotFound`, as if the image were missing.
pub(super) fn of_image(request: &RequestContext, id: &str, folder_id: &str) -> Result<()> {
    let missing = || Refusal::ImageNotFound { id: id.to_owned() };
    Ok(request.rights.demand_of(Role::Viewer, folder_id, missing)?)
}

/// Demands that the caller may know an operation, whose folder is that of its image.
///
/// # Errors
/// `Refusal::OperationNotFound`, as if the operation were missing.
pub(super) fn of_operation(request: &RequestContext, operation: &Operation) -> Result<()> {
    let id = &operation.id;
    let missing = || Refusal::OperationNotFound { id: id.clone() };
    let rights = &request.rights;
    Ok(rights.demand_of(Role::Viewer, &operation.folder_id, missing)?)
}

/// A look at the caller of a request that takes long: now and then, since tokens are revoked and permissions change.
pub(super) struct Watchman {
    request: RequestContext,
    role: Role,
    /// Empty: all folders.
    folder_id: String,
    next: Instant,
}

impl Watchman {
    /// The look at a caller who was found to have the role in the folder.
    pub(super) fn new(request: &RequestContext, role: Role, folder_id: &str) -> Self {
        Self {
            request: request.clone(),
            role,
            folder_id: folder_id.to_owned(),
            next: Instant::now() + LOOK_AGAIN,
        }
    }

    /// Looks at the caller, if it is time.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`] where the credentials are good no more; `Refusal::FolderDenied` or `Denied` where
    /// the role is gone.
    pub(super) async fn look(&mut self) -> Result<()> {
        if Instant::now() < self.next {
            return Ok(());
        }
        self.next = Instant::now() + LOOK_AGAIN;
        let request = &self.request;
        let rights = request.standing.rights(&request.rights).await;
        let rights = rights.ok_or(Error::Unauthenticated)?;
        Ok(rights.demand_in(self.role, &self.folder_id)?)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::model::{Grant, Permissions, Rights, Standing};
    use crate::store;

    fn rights(role: Role) -> Rights {
        let grant = Grant {
            holder: "token:a".to_owned(),
            folder_id: "f".to_owned(),
            role,
            import_uris: Vec::new(),
            created_at: None,
            created_by: "token:admin".to_owned(),
        };
        Rights::Granted {
            holders: ["token:a".to_owned()].into(),
            permissions: Arc::new(Permissions::new([grant])),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_is_looked_at_again_every_half_a_minute() {
        let now = Arc::new(Mutex::new(Some(rights(Role::Editor))));
        let told = now.clone();
        let request = RequestContext {
            rights: rights(Role::Editor),
            standing: Standing::new(move || {
                let rights = told.lock().unwrap().clone();
                Box::pin(std::future::ready(rights))
            }),
            ..RequestContext::internal("token:a")
        };
        let mut watchman = Watchman::new(&request, Role::Editor, "f");
        let half = Duration::from_secs(30);
        tokio::time::advance(half).await;
        assert!(watchman.look().await.is_ok());
        *now.lock().unwrap() = Some(rights(Role::Viewer));
        assert!(watchman.look().await.is_ok(), "it is not time");
        tokio::time::advance(half).await;
        let denied = watchman.look().await.unwrap_err();
        let refusal = Refusal::FolderDenied {
            folder_id: "f".to_owned(),
        };
        let Error::Store(store::Error::Refused(told)) = denied else {
            panic!("{denied}");
        };
        assert_eq!(told, refusal);
        *now.lock().unwrap() = None;
        tokio::time::advance(half).await;
        let ended = watchman.look().await.unwrap_err();
        assert!(matches!(ended, Error::Unauthenticated), "{ended}");
    }
}
