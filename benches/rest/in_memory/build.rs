//! Generates messages, serde for them, the gRPC service, and its REST side by `rest_over_grpc`.

#[path = "../../../build/services.rs"]
mod services;

const PROTO_ROOT: &str = "../../../proto";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed={PROTO_ROOT}");
    let mut compiler = protox::Compiler::new([PROTO_ROOT])?;
    compiler
        .include_imports(true)
        .include_source_info(true)
        .open_file("yandex/cloud/clouddesktop/v1/desktop_image_service.proto")?;
    let descriptors = compiler.encode_file_descriptor_set();
    let out = std::env::var("OUT_DIR")?;
    let no_clients = tonic_prost_build::configure().build_client(false);
    let mut config = prost_build::Config::new();
    config
        .enable_type_names()
        .btree_map(["."])
        .compile_well_known_types()
        .extern_path(".google.protobuf", "::pbjson_types")
        .service_generator(services::Services::new(
            no_clients,
            "desktop_images::contract",
        ))
        .compile_fds(compiler.file_descriptor_set())?;
    pbjson_build::Builder::new()
        .register_descriptors(&descriptors)?
        .btree_map(["."])
        // Default values are written, as this API writes them.
        .emit_fields()
        .build(&[".yandex.cloud", ".google.rpc"])?;
    rest_over_grpc::build::compile_fds(&descriptors, out)?;
    Ok(())
}
