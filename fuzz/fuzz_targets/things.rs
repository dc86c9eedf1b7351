//! The descriptors of `tests/data`, and the codec of `transcoding.test.Thing`, which has a
//! field of every kind. Each target uses a part.
#![allow(dead_code)]

use std::{
    path::{Path, PathBuf},
    sync::LazyLock,
};

use prost_reflect::{DescriptorPool, MessageDescriptor};
use transcoding::codec::{Codec, MessageType, Settings};

pub struct Things {
    pub pool: DescriptorPool,
    pub codec: Codec,
    pub message_type: MessageType,
    pub descriptor: MessageDescriptor,
}

pub static THINGS: LazyLock<Things> = LazyLock::new(|| {
    let folders = ["tests/data", "proto"].map(|folder| root().join(folder));
    let mut compiler = protox::Compiler::new(folders).expect("the folders are there");
    compiler.include_imports(true);
    compiler
        .open_files(["things.proto", "corners.proto"])
        .expect("they compile");
    let set = compiler.encode_file_descriptor_set();
    let pool = DescriptorPool::decode(&set[..]).expect("it was just made");
    let descriptor = pool
        .get_message_by_name("transcoding.test.Thing")
        .expect("it is there");
    let codec = Codec::new(&pool, Settings::default());
    Things {
        message_type: codec.find(&descriptor).expect("it is there"),
        pool,
        codec,
        descriptor,
    }
});

/// The folder of the crate under test.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/transcoding")
}
