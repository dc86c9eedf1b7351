//! Compiles `proto/` with protox: one descriptor set feeds the generated types and services, the
//! validation code, reflection and the REST routes. Needs nothing but the Rust toolchain.

#![allow(
    unreachable_pub,
    reason = "nothing of a program is reachable from outside"
)]
#![allow(clippy::expect_used, reason = "a build that cannot go on may panic")]

#[path = "build/names.rs"]
mod names;
#[path = "build/rules.rs"]
mod rules;
#[path = "build/services.rs"]
mod services;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::{env, fs};

const PROTO_ROOT: &str = "proto";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed={PROTO_ROOT}");
    println!("cargo:rerun-if-changed=build");
    let out = PathBuf::from(env::var("OUT_DIR")?);

    let mut files = Vec::new();
    proto_files(Path::new(PROTO_ROOT), &mut files)?;
    files.sort();
    let mut compiler = protox::Compiler::new([PROTO_ROOT])?;
    compiler
        .include_imports(true)
        .include_source_info(true)
        .open_files(&files)?
        // No file imports it; operations carry it in an Any.
        .open_file("google/protobuf/empty.proto")?;

    // Encoded by protox rather than by prost-types, which would drop the custom options.
    fs::write(
        out.join("descriptors.bin"),
        compiler.encode_file_descriptor_set(),
    )?;
    let pool = compiler.descriptor_pool();
    fs::write(out.join("rules.rs"), rules::generate(&pool)?)?;
    let clients = tonic_prost_build::configure().codec_path("crate::contract::codec::MessageCodec");
    let mut config = prost_build::Config::new();
    config.enable_type_names();
    config.type_name_domain(["."], "type.googleapis.com");
    config.include_file("packages.rs");
    // Ordered maps make the encoding of equal messages equal.
    config.btree_map(["."]);
    config.service_generator(services::Services::new(clients, "crate::contract"));
    config.compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}

fn proto_files(folder: &Path, found: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            proto_files(&path, found)?;
        } else if path
            .extension()
            .is_some_and(|extension| extension == "proto")
        {
            found.push(path);
        }
    }
    Ok(())
}
