//! `desktopimages.v1.QuotaService`.

use tonic::{Request, Response, Status};

use super::{Service, request, status};
use crate::contract::desktopimages::v1::{
    ListQuotasRequest, ListQuotasResponse, Quota, SetQuotaRequest,
    quota_service_server::QuotaService,
};
use crate::model;
use crate::model::QuotaScope;

#[tonic::async_trait]
impl QuotaService for Service {
    async fn list(
        &self,
        request: Request<ListQuotasRequest>,
    ) -> Result<Response<ListQuotasResponse>, Status> {
        let (context, request) = request::read(request)?;
        let folder_id = Some(request.folder_id).filter(|id| !id.is_empty());
        let quotas = self
            .images
            .quotas(&context, folder_id)
            .await
            .map_err(status::from_error)?;
        Ok(Response::new(ListQuotasResponse {
            quotas: quotas.into_iter().map(message).collect(),
        }))
    }

    async fn set(&self, request: Request<SetQuotaRequest>) -> Result<Response<Quota>, Status> {
        let (context, request) = request::change(request, "QuotaService/Set")?;
        let scope = match request.folder_id.as_str() {
            "" => QuotaScope::Total,
            id => QuotaScope::Folder(id.to_owned()),
        };
        let used = self
            .images
            .set_quota(context, scope, &request.name, request.limit)
            .await
            .map_err(status::from_error)?;
        Ok(Response::new(Quota {
            folder_id: request.folder_id,
            name: request.name,
            limit: request.limit,
            used,
        }))
    }
}

fn message(quota: model::Quota) -> Quota {
    Quota {
        folder_id: match quota.scope {
            QuotaScope::Folder(id) => id,
            QuotaScope::Total => String::new(),
        },
        name: quota.metric.name().to_owned(),
        limit: Some(quota.limit),
        used: quota.used,
    }
}
