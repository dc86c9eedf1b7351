//! A whole server on a free port, with folders of its own.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use desktop_images::app::{Bound, Config, Data, Error, PostgresSettings, Server, StoreSettings};
use desktop_images::contract::desktopimages::v1::{
    audit_service_client::AuditServiceClient,
    operation_watch_service_client::OperationWatchServiceClient,
    quota_service_client::QuotaServiceClient,
};
use desktop_images::contract::yandex::cloud::{
    clouddesktop::v1::api::desktop_image_service_client::DesktopImageServiceClient,
    compute::v1::image_service_client::ImageServiceClient,
    operation::operation_service_client::OperationServiceClient,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tonic::transport::{Channel, Endpoint};

use crate::call::escaped;
use crate::{
    Caller, Disk, Fill, Method, Transport, eventually, image_id, postgres_server, response,
};

/// Typed clients of every service, and a plain one for HTTP.
#[derive(Clone)]
pub struct Clients {
    pub address: SocketAddr,
    pub channel: Channel,
    pub http: reqwest::Client,
}

impl Clients {
    pub fn new(address: SocketAddr) -> Self {
        let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("a uri");
        Self {
            address,
            channel: endpoint.connect_lazy(),
            http: reqwest::Client::builder()
                .no_proxy()
                .build()
                .expect("a client"),
        }
    }

    pub fn desktop(&self) -> DesktopImageServiceClient<Channel> {
        DesktopImageServiceClient::new(self.channel.clone())
    }

    pub fn compute(&self) -> ImageServiceClient<Channel> {
        ImageServiceClient::new(self.channel.clone())
    }

    pub fn operation(&self) -> OperationServiceClient<Channel> {
        OperationServiceClient::new(self.channel.clone())
    }

    pub fn quota(&self) -> QuotaServiceClient<Channel> {
        QuotaServiceClient::new(self.channel.clone())
    }

    pub fn operation_watch(&self) -> OperationWatchServiceClient<Channel> {
        OperationWatchServiceClient::new(self.channel.clone())
    }

    pub fn audit(&self) -> AuditServiceClient<Channel> {
        AuditServiceClient::new(self.channel.clone())
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub fn caller(&self, transport: Transport) -> Caller {
        Caller {
            transport,
            clients: self.clone(),
        }
    }

    /// A call over gRPC that must be granted.
    pub async fn ask(&self, method: Method, request: Value) -> Value {
        let reply = self
            .caller(Transport::Grpc)
            .call(method, request.clone())
            .await;
        reply.unwrap_or_else(|refusal| panic!("{method:?} {request}: {refusal:?}"))
    }

    /// The operation once it is done.
    pub async fn wait(&self, operation_id: &str) -> Value {
        eventually("the operation ends", || async {
            let operation = self.ask(Method::OperationGet, json!({"operationId": operation_id}));
            Some(operation.await).filter(|operation| operation["done"] == true)
        })
        .await
    }

    pub fn upload(&self, folder_id: &str, name: &str) -> reqwest::RequestBuilder {
        let (folder_id, name) = (escaped(folder_id), escaped(name));
        let path = format!("/compute/v1/images:upload?folderId={folder_id}&name={name}");
        self.http.post(self.url(&path))
    }

    /// The operation that answers an upload.
    pub async fn uploaded(&self, folder_id: &str, name: &str, disk: &[u8]) -> Value {
        let request = self.upload(folder_id, name).body(disk.to_vec());
        let reply = request.send().await.expect("a reply");
        let status = reply.status();
        let body = reply.bytes().await.expect("a body");
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
        serde_json::from_slice(&body).expect("JSON")
    }

    /// The id of a new READY compute image.
    pub async fn compute_image(&self, folder_id: &str, name: &str, disk: &[u8]) -> String {
        let operation = self.uploaded(folder_id, name, disk).await;
        response(&operation);
        image_id(&operation)
    }

    /// The id of a new desktop image.
    pub async fn copied(&self, folder_id: &str, name: &str, compute_image_id: &str) -> String {
        let request = json!({"folderId": folder_id, "name": name, "imageId": compute_image_id});
        let operation = self.ask(Method::Copy, request).await;
        response(&operation);
        image_id(&operation)
    }

    /// The bytes of a desktop image.
    pub async fn downloaded(&self, image_id: &str) -> Vec<u8> {
        let url = self.url(&format!("/cloud-desktop/v1/images/{image_id}:download"));
        let reply = self.http.get(url).send().await.expect("a reply");
        assert_eq!(reply.status(), 200);
        reply.bytes().await.expect("a body").to_vec()
    }

    /// How many compute images a folder has.
    pub async fn compute_images(&self, folder_id: &str) -> usize {
        let page = self
            .ask(Method::ComputeList, json!({"folderId": folder_id}))
            .await;
        page["images"].as_array().expect("a list").len()
    }
}

/// A server in this process.
pub struct TestServer {
    server: Option<Server>,
    pub clients: Clients,
    /// The configuration of the next start.
    pub config: Config,
    folder: TempDir,
}

impl std::ops::Deref for TestServer {
    type Target = Clients;

    fn deref(&self) -> &Clients {
        &self.clients
    }
}

impl TestServer {
    pub async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    /// A server of another configuration than most tests have.
    pub async fn start_with(configure: impl FnOnce(&mut Config)) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        std::fs::create_dir(folder.path().join("imports")).expect("a folder for imports");
        let mut config = config(&folder.path().join("data"), folder.path());
        configure(&mut config);
        let server = Server::start(config.clone()).await.expect("a server");
        Self {
            clients: Clients::new(server.address()),
            server: Some(server),
            config,
            folder,
        }
    }

    /// All addresses on which the server listens.
    pub fn bound(&self) -> &[Bound] {
        self.server.as_ref().map_or(&[], Server::bound)
    }

    /// The configuration of another server on the same data.
    pub fn config(&self) -> Config {
        self.config.clone()
    }

    pub async fn stop(&mut self) {
        if let Some(server) = self.server.take() {
            server.stop().await.expect("a clean stop");
        }
    }

    pub async fn start_again(&mut self) -> Result<(), Error> {
        let server = Server::start(self.config()).await?;
        self.clients = Clients::new(server.address());
        self.server = Some(server);
        Ok(())
    }

    /// Stops the server and starts another on the same data.
    pub async fn restart(&mut self) {
        self.stop().await;
        self.start_again().await.expect("a server on the same data");
    }

    /// The same method over both transports.
    pub fn callers(&self) -> [Caller; 2] {
        [Transport::Grpc, Transport::Rest].map(|transport| self.caller(transport))
    }

    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    pub fn imports(&self) -> PathBuf {
        self.folder.path().join("imports")
    }

    /// Puts a file into the import folder; its uri.
    pub fn importable(&self, name: &str, disk: &[u8]) -> String {
        let path = self.imports().join(name);
        std::fs::write(&path, disk).expect("a file in the import folder");
        format!("file://{}", path.display())
    }

    /// Puts a disk of this many bytes into the import folder, almost all of them a hole: it costs
    /// nothing to make, and its digest takes a while. Its uri.
    pub fn importable_hole(&self, name: &str, bytes: u64) -> String {
        let uri = self.importable(name, &Disk::mbr(1, Fill::Sparse(1)));
        let file = std::fs::File::options()
            .write(true)
            .open(self.imports().join(name));
        file.and_then(|file| file.set_len(bytes))
            .expect("a long file");
        uri
    }

    /// Waits until the content folder has this many files.
    pub async fn has_blobs(&self, count: usize) {
        eventually(&format!("{count} files in the content folder"), || async {
            (blob_files(&self.data()).len() == count).then_some(())
        })
        .await;
    }
}

/// The files in the content folder of a data folder.
pub fn blob_files(data: &Path) -> Vec<String> {
    std::fs::read_dir(data.join("contents"))
        .expect("a content folder")
        .map(|entry| {
            entry
                .expect("an entry")
                .file_name()
                .to_string_lossy()
                .into_owned()
        })
        .collect()
}

fn config(data: &Path, folder: &Path) -> Config {
    let store = match postgres_server::store_of(folder) {
        Some(url) => StoreSettings::Postgres(PostgresSettings::new(url)),
        None => StoreSettings::Embedded,
    };
    Config {
        store,
        import_dir: Some(folder.join("imports")),
        cors_allow_origins: vec!["https://app.example".parse().expect("an origin")],
        ..Config::new(Data::Folder(data.to_owned()))
    }
}
