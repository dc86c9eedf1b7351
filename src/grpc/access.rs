//! `desktopimages.v1.AccessService`.

use tonic::{Request, Response, Status};

use super::convert::timestamp;
use super::{Service, request, status};
use crate::auth::{NewGrant, check_holder, check_import_uris};
use crate::contract::desktopimages::v1::{
    AccessGrant, GrantAccessRequest, ListAccessRequest, ListAccessResponse, RevokeAccessRequest,
    access_service_server::AccessService,
};
use crate::model::{Grant, Role};

#[tonic::async_trait]
impl AccessService for Service {
    async fn grant(
        &self,
        request: Request<GrantAccessRequest>,
    ) -> Result<Response<AccessGrant>, Status> {
        let (context, request) = request::read(request)?;
        check_holder(&request.subject).map_err(|why| status::invalid_field("subject", why))?;
        let role = Role::from_name(&request.role)
            .ok_or_else(|| status::invalid_field("role", "Must be viewer, editor or admin"))?;
        check_import_uris(role, &request.import_uri_prefixes)
            .map_err(|why| status::invalid_field("import_uri_prefixes", why))?;
        let new = NewGrant {
            holder: request.subject,
            folder_id: request.folder_id,
            role,
            import_uris: request.import_uri_prefixes,
        };
        let granted = self.identity.grant(context, new).await;
        Ok(Response::new(message(granted.map_err(status::from_store)?)))
    }

    async fn revoke(&self, request: Request<RevokeAccessRequest>) -> Result<Response<()>, Status> {
        let (context, request) = request::read(request)?;
        let identity = &self.identity;
        let revoked = identity.revoke_grant(context, &request.subject, &request.folder_id);
        Ok(Response::new(revoked.await.map_err(status::from_store)?))
    }

    async fn list(
        &self,
        request: Request<ListAccessRequest>,
    ) -> Result<Response<ListAccessResponse>, Status> {
        let (context, request) = request::read(request)?;
        let grants = self.identity.grants(&context, &request.folder_id).await;
        let grants = grants.map_err(status::from_store)?;
        Ok(Response::new(ListAccessResponse {
            grants: grants.into_iter().map(message).collect(),
        }))
    }
}

fn message(grant: Grant) -> AccessGrant {
    AccessGrant {
        subject: grant.holder,
        folder_id: grant.folder_id,
        role: grant.role.name().to_owned(),
        import_uri_prefixes: grant.import_uris,
        created_at: grant.created_at.map(timestamp),
        created_by: grant.created_by,
    }
}
