//! `DesktopImageService` with a hundred images in memory, over REST: by this project's transcoder, or
//! by the crate `rest_over_grpc`. Messages and service are the same. So is the HTTP server, hyper's as its
//! examples have it, unless the transcoder is asked for behind this project's own listener.

use std::convert::Infallible;
use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use desktop_images::{Times, TransferSettings};
use http::{Request, Response};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tower::Service;
use transcoding::{BuildError, Transcoder};

#[allow(clippy::all)]
#[allow(dead_code, unused_mut)] // Most of what is generated is not called here.
mod generated;

use generated::yandex::cloud::clouddesktop::v1::api::{
    __rest_over_grpc_bridge_DesktopImageService::DesktopImageServiceRestBridge,
    CopyDesktopImageRequest, CopyFromDesktopRequest, DeleteDesktopImageRequest, DesktopImage,
    GetDesktopImageRequest, ListDesktopImagesRequest, ListDesktopImagesResponse,
    UpdateDesktopImageRequest,
    desktop_image::Status as ImageStatus,
    desktop_image_service_server::{DesktopImageService, DesktopImageServiceServer},
};
use generated::yandex::cloud::operation::Operation;

const SERVICE: &str = "yandex.cloud.clouddesktop.v1.api.DesktopImageService";
const IMAGES: usize = 100;

#[derive(Clone)]
struct InMemory {
    images: Arc<[DesktopImage]>,
}

impl InMemory {
    fn new() -> Self {
        let label = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
        let image = |number| DesktopImage {
            id: format!("e3v{number:017}"),
            folder_id: "b1gabcdefghijklmnopq".to_owned(),
            created_at: Some(pbjson_types::Timestamp {
                seconds: 1_790_000_000,
                nanos: 123_000_000,
            }),
            status: ImageStatus::Active.into(),
            name: format!("office-desktop-{number:03}"),
            labels: [("team", "office"), ("release", "2026-09")]
                .map(label)
                .into(),
            storage_size: 65_536,
            min_disk_size: 2_097_152,
            description: "Windows 11 with the office applications, patched monthly".to_owned(),
        };
        Self {
            images: (0..IMAGES).map(image).collect(),
        }
    }
}

type Reply<T> = Result<tonic::Response<T>, Status>;

#[tonic::async_trait]
impl DesktopImageService for InMemory {
    async fn list(
        &self,
        _: tonic::Request<ListDesktopImagesRequest>,
    ) -> Reply<ListDesktopImagesResponse> {
        Ok(tonic::Response::new(ListDesktopImagesResponse {
            desktop_images: self.images.to_vec(),
            next_page_token: String::new(),
        }))
    }

    async fn get(&self, request: tonic::Request<GetDesktopImageRequest>) -> Reply<DesktopImage> {
        let id = &request.get_ref().image_id;
        let found = self.images.iter().find(|image| image.id == *id);
        let image = found.ok_or_else(|| Status::not_found("no such image"))?;
        Ok(tonic::Response::new(image.clone()))
    }

    async fn copy(&self, _: tonic::Request<CopyDesktopImageRequest>) -> Reply<Operation> {
        Err(read_only())
    }

    async fn copy_from_desktop(
        &self,
        _: tonic::Request<CopyFromDesktopRequest>,
    ) -> Reply<Operation> {
        Err(read_only())
    }

    async fn update(&self, _: tonic::Request<UpdateDesktopImageRequest>) -> Reply<Operation> {
        Err(read_only())
    }

    async fn delete(&self, _: tonic::Request<DeleteDesktopImageRequest>) -> Reply<Operation> {
        Err(read_only())
    }
}

fn read_only() -> Status {
    Status::unimplemented("this server is there to be read")
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let by = std::env::args().nth(1).unwrap_or_default();
    let address: SocketAddr = std::env::args().nth(2).unwrap_or_default().parse()?;
    match by.as_str() {
        "listener-and-transcoder" => {
            let transcoder = transcoder()?;
            let answer = move |request| transcoder.clone().call(request);
            let (listener, stop) = (TcpListener::bind(address).await?, CancellationToken::new());
            let times = Times {
                drain: Duration::ZERO,
                idle: Duration::from_secs(180),
            };
            let listeners = vec![desktop_images::Listener::tcp(listener)?];
            desktop_images::serve(listeners, answer, stop, times, TransferSettings::default()).await;
            Ok(())
        }
        "transcoder" => serve(address, transcoder()?).await,
        "rest-over-grpc" => {
            let bridge = DesktopImageServiceRestBridge::externally_authenticated(InMemory::new());
            let transcoder = generated::rest::Transcoder::new(bridge);
            serve(
                address,
                rest_over_grpc::serving::RestService::new(transcoder),
            )
            .await
        }
        _ => Err("by what: listener-and-transcoder, transcoder or rest-over-grpc?".into()),
    }
}

fn transcoder() -> Result<Transcoder<DesktopImageServiceServer<InMemory>>, BuildError> {
    Transcoder::new(
        desktop_images::contract::descriptor_pool(),
        [SERVICE],
        DesktopImageServiceServer::new(InMemory::new()),
        transcoding::Settings::default(),
    )
}

async fn serve<S, B>(address: SocketAddr, service: S) -> Result<(), Box<dyn Error>>
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send + 'static,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let listener = TcpListener::bind(address).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let service = TowerToHyperService::new(service.clone());
        tokio::spawn(async move {
            // The benchmark sees to it that every reply arrives.
            let _ = Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}
