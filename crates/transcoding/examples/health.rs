//! The health service of tonic over REST, on the same port as over gRPC: `cargo run --example health`.
//!
//! ```text
//! curl http://127.0.0.1:50051/health/greeter
//! ```

use std::{error::Error, path::Path};

use prost_reflect::DescriptorPool;
use tonic::{service::Routes, transport::Server};
use tonic_health::ServingStatus;
use transcoding::{Deadlines, Settings, Transcoder};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // The service itself, as tonic generated it.
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter
        .set_service_status("greeter", ServingStatus::Serving)
        .await;

    // Its descriptors, whose HTTP rules are in `health.proto`. A program with a build script compiles
    // them there, with protox or protoc, and includes the bytes.
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut compiler = protox::Compiler::new([root.join("examples/proto"), root.join("proto")])?;
    compiler.include_imports(true).open_file("health.proto")?;
    let descriptors = compiler.encode_file_descriptor_set();
    let pool = DescriptorPool::decode(&descriptors[..])?;

    let grpc = Deadlines::new(Routes::new(health));
    let service = Transcoder::new(&pool, ["grpc.health.v1.Health"], grpc, Settings::default())?;
    let address = "127.0.0.1:50051".parse()?;
    println!("listening on http://{address}");
    Server::builder()
        .accept_http1(true)
        .serve(address, service)
        .await?;
    Ok(())
}
