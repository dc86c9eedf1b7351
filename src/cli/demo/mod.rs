//! The command `demo`, which starts a server and shows all of the service to a person who sees it for the first time.

mod disk;
mod next_steps;

use std::fs::File;
use std::io::Read;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest, Sha256};
use tempfile::TempDir;

use super::client::{Client, Http};
use super::connection::Connection;
use super::endpoint::Endpoint;
use super::errors::{Error, Result};
use super::output::{self, Format};
use super::serve;
use super::signals::Stop;
use super::transfer::{self, Sink, Upload};
use super::{operations, values};
use crate::app::{self, Config, Data, Listen, Server};
use crate::contract::texts;
use crate::contract::yandex::cloud::clouddesktop::v1::api::{
    CopyDesktopImageRequest, DesktopImage, GetDesktopImageRequest,
};
use crate::contract::yandex::cloud::compute::v1::{CreateImageRequest, Image};
use crate::contract::yandex::cloud::operation::Operation;
use crate::telemetry::chain;

const FOLDER: &str = "demo-folder";
const COPY_PATH: &str = "/cloud-desktop/v1/images:copy";
/// The port of a server unless told otherwise; taken if it is free.
const PREFERRED_PORT: u16 = 8080;
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
const PIECE: usize = 1 << 20;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The disk image to show it with, qcow2 or raw; a small disk is made when left out
    #[arg(long, value_name = "FILE")]
    image: Option<PathBuf>,
    /// End after the comparison, instead of serving until Ctrl-C
    #[arg(long)]
    once: bool,
}

pub(crate) async fn run(arguments: Arguments) -> Result<()> {
    let mut stop = Stop::of_a_server()?;
    // Dropped at the end, whatever the end: the files of the demo go with it.
    let folder = TempDir::with_prefix("desktop-images-demo-")
        .map_err(|error| Error::failed("cannot make a temporary folder", &error))?;
    let server = start().await?;
    let shown = tokio::select! {
        shown = show(&arguments, folder.path(), &server) => shown,
        () = stop.ordered() => Err(Error::Interrupted),
    };
    let served = match shown {
        Ok(()) if !arguments.once => {
            stop.ordered().await;
            Ok(())
        }
        shown => shown,
    };
    let stopped = serve::finish(server, &mut stop).await;
    served.and(stopped)
}

/// A server that keeps nothing, on the usual port if that is free.
async fn start() -> Result<Server> {
    let config = |port| Config {
        listen: vec![Listen::Tcp((Ipv4Addr::LOCALHOST, port).into())],
        drain_timeout: DRAIN_TIMEOUT,
        ..Config::new(Data::Ephemeral)
    };
    match Server::start(config(PREFERRED_PORT)).await {
        Ok(server) => Ok(server),
        Err(app::Error::Listen { .. }) => serve::start(config(0)).await,
        Err(error) => Err(Error::Failed(chain(&error))),
    }
}

async fn show(arguments: &Arguments, folder: &Path, server: &Server) -> Result<()> {
    let endpoint = Endpoint::of(server.address())?;
    let connection = Connection::to(endpoint.clone());
    let client = Client::connect(&connection).await?;
    let http = Http::new(&connection)?;

    say(&format!(
        "1. A server runs at {endpoint}\n   All it keeps is in a temporary folder, and goes with it.\n\n"
    ))?;

    let file = disk_image(arguments, folder).await?;
    let sha256 = sha256_of_file(&file).await?;
    say(&format!("   SHA-256 {}\n\n", values::hex(&sha256)))?;

    let compute_image = import(&http, &client, &file).await?;
    say(&format!(
        "3. It is imported: compute image {}, {} to store, for disks of {} and more\n\n",
        compute_image.id,
        texts::bytes(compute_image.storage_size),
        texts::bytes(compute_image.min_disk_size),
    ))?;

    let (operation, over_grpc) = copy_over_grpc(&client, &compute_image.id).await?;
    say(&format!(
        "4. It is copied over gRPC: desktop image {}\n   The operation:\n{}   The image:\n{}\n",
        over_grpc.id,
        json(&operation)?,
        json(&over_grpc)?,
    ))?;

    let over_rest = copy_over_rest(&http, &client, &compute_image.id).await?;
    say(&format!(
        "5. It is copied over REST, POST {COPY_PATH}: desktop image {}\n\n",
        over_rest.id
    ))?;

    say("6. Both are downloaded:\n")?;
    for image in [&over_grpc, &over_rest] {
        compare(&http, image, &sha256).await?;
    }
    say("   The digests are equal: each copy has the bytes of the disk image.\n")?;

    if arguments.once {
        return Ok(());
    }
    say(&next_steps::text(&next_steps::Ids {
        program: &std::env::args().next().unwrap_or_default(),
        endpoint: &endpoint,
        folder: FOLDER,
        compute_image: &compute_image.id,
        desktop_image: &over_grpc.id,
        operation: &operation.id,
    }))
}

/// The image file of the demo: the one given, or a disk made here.
async fn disk_image(arguments: &Arguments, folder: &Path) -> Result<PathBuf> {
    if let Some(path) = &arguments.image {
        say(&format!("2. A disk image: {}\n", path.display()))?;
        return Ok(path.clone());
    }
    let path = folder.join("demo-disk.img");
    let target = path.clone();
    blocking(move || disk::make(&target))
        .await?
        .map_err(|error| Error::failed("cannot make a disk image", &error))?;
    say(&format!(
        "2. A disk is made: {}, a partition table (GPT) and a file system (FAT) with {} files\n",
        texts::bytes(disk::SIZE),
        disk::FILES.len()
    ))?;
    Ok(path)
}

async fn import(http: &Http, client: &Client, file: &Path) -> Result<Image> {
    let upload = Upload {
        file,
        image: CreateImageRequest {
            folder_id: FOLDER.to_owned(),
            name: "demo-disk".to_owned(),
            ..CreateImageRequest::default()
        },
        sha256: None,
    };
    let operation = transfer::upload(http, upload).await?;
    resource(&operations::wait(client, operation, None).await?)
}

async fn copy_over_grpc(client: &Client, image_id: &str) -> Result<(Operation, DesktopImage)> {
    let request = CopyDesktopImageRequest {
        folder_id: FOLDER.to_owned(),
        name: "copied-over-grpc".to_owned(),
        image_id: image_id.to_owned(),
        description: "Made by the demo".to_owned(),
        ..CopyDesktopImageRequest::default()
    };
    let operation = client.desktop_images().copy(request).await?.into_inner();
    let operation = operations::wait(client, operation, None).await?;
    let copied: DesktopImage = resource(&operation)?;
    let request = GetDesktopImageRequest {
        image_id: copied.id,
    };
    let image = client.desktop_images().get(request).await?.into_inner();
    Ok((operation, image))
}

async fn copy_over_rest(http: &Http, client: &Client, image_id: &str) -> Result<DesktopImage> {
    let body = serde_json::json!({
        "folderId": FOLDER,
        "name": "copied-over-rest",
        "imageId": image_id,
        "labels": {"made-by": "demo"},
    });
    let request = http
        .post(COPY_PATH)
        .header("content-type", "application/json")
        .body(body.to_string());
    let response = http.send(request).await?;
    let reply = response.bytes().await.map_err(|error| http.broken(error))?;
    let operation = transfer::operation(&reply)?;
    resource(&operations::wait(client, operation, None).await?)
}

/// Downloads an image and compares its digest, verified on the way, with that of the file.
async fn compare(http: &Http, image: &DesktopImage, sha256: &[u8; 32]) -> Result<()> {
    let response = transfer::request(http, &image.id).await?;
    let received = transfer::fetch(http, response, Box::new(Nowhere)).await?;
    let digest = values::hex(&received.sha256);
    say(&format!("   {} SHA-256 {digest}\n", image.id))?;
    if received.sha256 == *sha256 {
        return Ok(());
    }
    Err(Error::Failed(format!(
        "desktop image {} has the SHA-256 {digest}, the disk image {}",
        image.id,
        values::hex(sha256)
    )))
}

/// Takes bytes only for their digest.
struct Nowhere;

impl Sink for Nowhere {
    fn write(&mut self, _data: &[u8]) -> Result<()> {
        Ok(())
    }

    fn finish(&mut self) -> Result<()> {
        Ok(())
    }
}

/// The resource that an operation made.
fn resource<M: prost::Message + prost::Name + Default>(operation: &Operation) -> Result<M> {
    operations::result(operation)?
        .to_msg()
        .map_err(|error| Error::failed("the server sent something else", &error))
}

async fn sha256_of_file(path: &Path) -> Result<[u8; 32]> {
    let target = path.to_owned();
    let hashed = blocking(move || {
        let mut file = File::open(target)?;
        let mut hash = Sha256::new();
        let mut buffer = vec![0; PIECE];
        loop {
            match file.read(&mut buffer)? {
                0 => return Ok::<[u8; 32], std::io::Error>(hash.finalize().into()),
                read => hash.update(&buffer[..read]),
            }
        }
    });
    hashed
        .await?
        .map_err(|error| Error::failed(format!("cannot read {}", path.display()), &error))
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Error::failed("the demo stopped", &error))
}

/// A message as JSON, set in below a heading.
fn json<M: prost::Message + prost::Name>(message: &M) -> Result<String> {
    let text = output::render(Format::Json, &output::dynamic(message)?)?;
    Ok(text.lines().map(|line| format!("   {line}\n")).collect())
}

fn say(text: &str) -> Result<()> {
    output::print(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn once(image: Option<PathBuf>) -> Arguments {
        Arguments { image, once: true }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_demo_ends_well() {
        run(once(None)).await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_demo_refuses_what_is_no_disk_image() {
        let folder = tempfile::tempdir().unwrap();
        let text = folder.path().join("text");
        std::fs::write(&text, "no disk image").unwrap();
        assert_eq!(run(once(Some(text))).await.unwrap_err().exit_code(), 3);
        let missing = folder.path().join("missing");
        assert_eq!(run(once(Some(missing))).await.unwrap_err().exit_code(), 1);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn another_digest_is_a_failure() {
        let folder = tempfile::tempdir().unwrap();
        let server = start().await.unwrap();
        let endpoint = Endpoint::of(server.address()).unwrap();
        let connection = Connection::to(endpoint);
        let client = Client::connect(&connection).await.unwrap();
        let http = Http::new(&connection).unwrap();
        let file = disk_image(&once(None), folder.path()).await.unwrap();
        let compute_image = import(&http, &client, &file).await.unwrap();
        let (_, image) = copy_over_grpc(&client, &compute_image.id).await.unwrap();
        let mut sha256 = sha256_of_file(&file).await.unwrap();
        compare(&http, &image, &sha256).await.unwrap();
        sha256[31] ^= 1;
        let error = compare(&http, &image, &sha256).await.unwrap_err();
        assert_eq!(error.exit_code(), 1);
        drop((client, http));
        server.stop().await.unwrap();
    }
}
