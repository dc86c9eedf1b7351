//! `desktopimages.v1.ServiceAccountService`.

use tonic::{Request, Response, Status};

use super::convert::timestamp;
use super::{Service, request, status};
use crate::contract::desktopimages::v1::{
    CreateServiceAccountKeyRequest, CreateServiceAccountKeyResponse, CreateServiceAccountRequest,
    DeleteServiceAccountKeyRequest, DeleteServiceAccountRequest, ListServiceAccountKeysRequest,
    ListServiceAccountKeysResponse, ListServiceAccountsRequest, ListServiceAccountsResponse,
    ServiceAccount, ServiceAccountKey, service_account_service_server::ServiceAccountService,
};
use crate::model;

#[tonic::async_trait]
impl ServiceAccountService for Service {
    async fn create(
        &self,
        request: Request<CreateServiceAccountRequest>,
    ) -> Result<Response<ServiceAccount>, Status> {
        let (context, request) = request::read(request)?;
        let identity = &self.identity;
        let created = identity.create_service_account(context, request.name, request.description);
        let account = created.await.map_err(status::from_store)?;
        Ok(Response::new(message(account)))
    }

    async fn list(
        &self,
        request: Request<ListServiceAccountsRequest>,
    ) -> Result<Response<ListServiceAccountsResponse>, Status> {
        let (context, _) = request::read(request)?;
        let accounts = self.identity.service_accounts(&context).await;
        let accounts = accounts.map_err(status::from_store)?;
        Ok(Response::new(ListServiceAccountsResponse {
            service_accounts: accounts.into_iter().map(message).collect(),
        }))
    }

    async fn delete(
        &self,
        request: Request<DeleteServiceAccountRequest>,
    ) -> Result<Response<()>, Status> {
        let (context, request) = request::read(request)?;
        let identity = &self.identity;
        let deleted = identity.delete_service_account(context, &request.service_account_id);
        Ok(Response::new(deleted.await.map_err(status::from_store)?))
    }

    async fn create_key(
        &self,
        request: Request<CreateServiceAccountKeyRequest>,
    ) -> Result<Response<CreateServiceAccountKeyResponse>, Status> {
        let (context, request) = request::read(request)?;
        let account_id = &request.service_account_id;
        let identity = &self.identity;
        let created = identity.create_service_account_key(context, account_id, request.description);
        let (key, private_key) = created.await.map_err(status::from_store)?;
        Ok(request::secret(CreateServiceAccountKeyResponse {
            key: Some(key_message(key)),
            private_key,
        }))
    }

    async fn list_keys(
        &self,
        request: Request<ListServiceAccountKeysRequest>,
    ) -> Result<Response<ListServiceAccountKeysResponse>, Status> {
        let (context, request) = request::read(request)?;
        let account_id = &request.service_account_id;
        let keys = self.identity.service_account_keys(&context, account_id);
        let keys = keys.await.map_err(status::from_store)?;
        Ok(Response::new(ListServiceAccountKeysResponse {
            keys: keys.into_iter().map(key_message).collect(),
        }))
    }

    async fn delete_key(
        &self,
        request: Request<DeleteServiceAccountKeyRequest>,
    ) -> Result<Response<()>, Status> {
        let (context, request) = request::read(request)?;
        let identity = &self.identity;
        let deleted = identity.delete_service_account_key(context, &request.key_id);
        Ok(Response::new(deleted.await.map_err(status::from_store)?))
    }
}

fn message(account: model::ServiceAccount) -> ServiceAccount {
    ServiceAccount {
        id: account.id,
        name: account.name,
        description: account.description,
        created_at: Some(timestamp(account.created_at)),
        created_by: account.created_by,
    }
}

fn key_message(key: model::ServiceAccountKey) -> ServiceAccountKey {
    ServiceAccountKey {
        id: key.id,
        service_account_id: key.service_account_id,
        description: key.description,
        created_at: Some(timestamp(key.created_at)),
        key_algorithm: "RSA_2048".to_owned(),
        public_key: key.public_key,
        created_by: key.created_by,
    }
}
