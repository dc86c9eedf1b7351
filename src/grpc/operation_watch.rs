//! `desktopimages.v1.OperationWatchService`.

use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use tonic::{Request, Response, Status};

use super::{Service, operations, request, status};
use crate::contract::desktopimages::v1::WatchOperationRequest;
use crate::contract::desktopimages::v1::operation_watch_service_server::OperationWatchService;
use crate::contract::yandex::cloud::operation::Operation;

#[tonic::async_trait]
impl OperationWatchService for Service {
    type WatchStream = BoxStream<'static, Result<Operation, Status>>;

    async fn watch(
        &self,
        request: Request<WatchOperationRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let (context, request) = request::read(request)?;
        let watched = self
            .images
            .watch_operation(&context, &request.operation_id)
            .await;
        let states = watched.map_err(status::from_error)?;
        let messages = states.map(|state| operations::message(state.map_err(status::from_error)?));
        Ok(Response::new(messages.boxed()))
    }
}
