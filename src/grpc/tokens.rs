//! `desktopimages.v1.TokenService`.

use std::time::Duration;

use tonic::{Request, Response, Status};

use super::convert::{lifetime, timestamp};
use super::{Service, request, status};
use crate::auth::NewToken;
use crate::contract::desktopimages::v1::{
    CreateTokenRequest, CreateTokenResponse, ListTokensRequest, ListTokensResponse,
    RevokeTokenRequest, Token, token_service_server::TokenService,
};
use crate::model;

/// The longest lifetime of a token: a hundred years.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

#[tonic::async_trait]
impl TokenService for Service {
    async fn create(
        &self,
        request: Request<CreateTokenRequest>,
    ) -> Result<Response<CreateTokenResponse>, Status> {
        let (context, request) = request::read(request)?;
        let new = NewToken {
            description: request.description,
            lifetime: lifetime(
                "expires_in",
                request.expires_in,
                Duration::from_secs(1)..=LONGEST,
            )?,
        };
        let created = self.identity.create_token(context, new).await;
        let (token, secret) = created.map_err(status::from_store)?;
        Ok(request::secret(CreateTokenResponse {
            token: Some(message(token)),
            secret,
        }))
    }

    async fn list(
        &self,
        request: Request<ListTokensRequest>,
    ) -> Result<Response<ListTokensResponse>, Status> {
        let (context, _) = request::read(request)?;
        let tokens = self.identity.tokens(&context).await;
        let tokens = tokens.map_err(status::from_store)?;
        Ok(Response::new(ListTokensResponse {
            tokens: tokens.into_iter().map(message).collect(),
        }))
    }

    async fn revoke(&self, request: Request<RevokeTokenRequest>) -> Result<Response<()>, Status> {
        let (context, request) = request::read(request)?;
        let revoked = self.identity.revoke_token(context, &request.token_id).await;
        Ok(Response::new(revoked.map_err(status::from_store)?))
    }
}

fn message(token: model::Token) -> Token {
    Token {
        id: token.id,
        subject: token.subject,
        description: token.description,
        created_at: Some(timestamp(token.created_at)),
        created_by: token.created_by,
        expires_at: token.expires_at.map(timestamp),
    }
}
