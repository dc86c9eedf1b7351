//! The contract. Knows everything that is derived from `proto/`: generated types and servers, descriptors, field
//! rules. Never mentions a store, a connection, or what an image is.

pub mod answers;
pub mod codec;
mod compression;
mod framed;
mod framing;
pub mod rules;
pub mod texts;

use std::sync::LazyLock;

use prost_reflect::{DescriptorPool, MessageDescriptor};

pub use framed::Framed;

#[allow(clippy::all, missing_docs, rustdoc::all, unused_mut)]
mod packages {
    include!(concat!(env!("OUT_DIR"), "/packages.rs"));
}
pub use packages::{desktopimages, google, yandex};

/// The encoded `FileDescriptorSet` of all of `proto/`, with its imports, comments and options.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// The full names of the services of the contract.
pub fn services() -> impl Iterator<Item = &'static str> + Clone {
    static NAMES: LazyLock<Vec<String>> = LazyLock::new(|| {
        let described = descriptor_pool().services();
        described
            .map(|service| service.full_name().to_owned())
            .collect()
    });
    NAMES.iter().map(String::as_str)
}

/// The descriptors of all messages and services, options included.
#[expect(
    clippy::expect_used,
    reason = "the build made the embedded bytes from a pool that had resolved"
)]
pub fn descriptor_pool() -> &'static DescriptorPool {
    static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| {
        DescriptorPool::decode(FILE_DESCRIPTOR_SET).expect("the embedded descriptors are valid")
    });
    &POOL
}

/// The descriptor of a generated message.
#[expect(
    clippy::expect_used,
    reason = "the build made types and descriptors of the same files"
)]
pub fn descriptor<M: prost::Name>() -> MessageDescriptor {
    descriptor_pool()
        .get_message_by_name(&M::full_name())
        .expect("every generated message has a descriptor")
}
