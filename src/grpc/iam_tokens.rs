//! `yandex.cloud.iam.v1.IamTokenService`.

use tonic::{Request, Response, Status};

use super::convert::timestamp;
use super::{Service, request, status};
use crate::auth::Credential;
use crate::contract::yandex::cloud::iam::v1::{
    CreateIamTokenRequest, CreateIamTokenResponse, RevokeIamTokenRequest, RevokeIamTokenResponse,
    create_iam_token_request::Identity, iam_token_service_server::IamTokenService,
};

#[tonic::async_trait]
impl IamTokenService for Service {
    async fn create(
        &self,
        request: Request<CreateIamTokenRequest>,
    ) -> Result<Response<CreateIamTokenResponse>, Status> {
        let (context, request) = request::read(request)?;
        let credential = match request.identity {
            Some(Identity::Jwt(jwt)) => Credential::Jwt(jwt),
            Some(Identity::YandexPassportOauthToken(token)) => Credential::Token(token),
            // The rules of the contract demand one.
            None => return Err(status::invalid_field("identity", "Field is required")),
        };
        let exchanged = self.identity.exchange(context, credential).await;
        let exchanged = exchanged.map_err(status::not_authenticated)?;
        let (token, iam_token) = exchanged.map_err(status::from_store)?;
        Ok(request::secret(CreateIamTokenResponse {
            iam_token,
            expires_at: token.expires_at.map(timestamp),
        }))
    }

    async fn revoke(
        &self,
        request: Request<RevokeIamTokenRequest>,
    ) -> Result<Response<RevokeIamTokenResponse>, Status> {
        let (context, request) = request::read(request)?;
        let ended = self.identity.end_token(context, &request.iam_token).await;
        let ended = ended.map_err(status::not_authenticated)?;
        Ok(Response::new(RevokeIamTokenResponse {
            subject_id: ended.map_err(status::from_store)?,
        }))
    }
}
