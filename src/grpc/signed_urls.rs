//! `desktopimages.v1.SignedUrlService`.

use std::time::Duration;

use tonic::{Request, Response, Status};

use super::convert::{lifetime, timestamp};
use super::{Service, request, status};
use crate::auth::{LONGEST_LIFETIME, USUAL_LIFETIME, escaped};
use crate::contract::desktopimages::v1::{
    CreateSignedUrlRequest, ListUrlKeysRequest, ListUrlKeysResponse, RevokeUrlKeyRequest,
    RotateUrlKeyRequest, SignedUrl, UrlKey, create_signed_url_request::Target,
    signed_url_service_server::SignedUrlService,
};
use crate::model::{self, RequestContext, Role};

/// The lifetime of the URL of a stream, which a page opens at once.
const USUAL_WATCH: Duration = Duration::from_secs(5 * 60);
const LONGEST_WATCH: Duration = Duration::from_secs(15 * 60);

#[tonic::async_trait]
impl SignedUrlService for Service {
    async fn create(
        &self,
        request: Request<CreateSignedUrlRequest>,
    ) -> Result<Response<SignedUrl>, Status> {
        let (context, request) = request::read(request)?;
        let (usual, longest) = match request.target {
            Some(Target::OperationId(_) | Target::AuditEvents(_)) => (USUAL_WATCH, LONGEST_WATCH),
            _ => (USUAL_LIFETIME, LONGEST_LIFETIME),
        };
        let range = Duration::from_secs(1)..=longest;
        let lifetime = lifetime("expires_in", request.expires_in, range)?.unwrap_or(usual);
        let (path, query) = self.path_of(&context, request.target).await?;
        let signed = self.identity.sign(&context, &path, &query, lifetime).await;
        let (path, expires_at) = signed.map_err(status::from_store)?;
        Ok(request::secret(SignedUrl {
            url: self.identity.url(&path).unwrap_or_default(),
            path,
            expires_at: Some(timestamp(expires_at)),
        }))
    }

    async fn rotate_key(
        &self,
        request: Request<RotateUrlKeyRequest>,
    ) -> Result<Response<UrlKey>, Status> {
        let (context, _) = request::read(request)?;
        let made = self.identity.make_url_key(context).await;
        Ok(Response::new(message(made.map_err(status::from_store)?)))
    }

    async fn list_keys(
        &self,
        request: Request<ListUrlKeysRequest>,
    ) -> Result<Response<ListUrlKeysResponse>, Status> {
        let (context, _) = request::read(request)?;
        let keys = self.identity.url_keys(&context).await;
        let keys = keys.map_err(status::from_store)?;
        Ok(Response::new(ListUrlKeysResponse {
            keys: keys.into_iter().map(message).collect(),
        }))
    }

    async fn revoke_key(
        &self,
        request: Request<RevokeUrlKeyRequest>,
    ) -> Result<Response<()>, Status> {
        let (context, request) = request::read(request)?;
        let revoked = self.identity.revoke_url_key(context, &request.key_id).await;
        Ok(Response::new(revoked.map_err(status::from_store)?))
    }
}

impl Service {
    /// The path and the query of what is to be read, which the caller may read now.
    async fn path_of(
        &self,
        context: &RequestContext,
        target: Option<Target>,
    ) -> Result<(String, String), Status> {
        match target {
            Some(Target::ImageId(id)) => {
                let image = self.images.desktop_image(context, &id).await;
                image.map_err(status::from_error)?;
                let id = escaped(&id);
                Ok((
                    format!("/cloud-desktop/v1/images/{id}:download"),
                    String::new(),
                ))
            }
            Some(Target::OperationId(id)) => {
                let operation = self.images.operation(context, &id).await;
                operation.map_err(status::from_error)?;
                Ok((format!("/operations/{}:watch", escaped(&id)), String::new()))
            }
            Some(Target::AuditEvents(events)) => {
                let demanded = context.rights.demand_in(Role::Admin, &events.folder_id);
                demanded.map_err(|refusal| status::from_store(refusal.into()))?;
                let mut query = Vec::new();
                if !events.folder_id.is_empty() {
                    query.push(format!("folderId={}", escaped(&events.folder_id)));
                }
                if events.follow {
                    query.push("follow=true".to_owned());
                }
                Ok(("/desktop-images/v1/auditEvents".to_owned(), query.join("&")))
            }
            // The rules of the contract demand one.
            None => Err(status::invalid_field("target", "Field is required")),
        }
    }
}

fn message(key: model::UrlKey) -> UrlKey {
    UrlKey {
        id: key.id,
        created_at: Some(timestamp(key.created_at)),
        created_by: key.created_by,
    }
}
