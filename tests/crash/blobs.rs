//! The blobs of replicas from outside: the files of a folder that all share, or the objects of a bucket.

use std::collections::BTreeSet;
use std::path::PathBuf;

use sha2::{Digest, Sha256};
use test_support::blob_files;
use test_support::seaweedfs::ObjectPlace;

use crate::disks::Facts;
use crate::object_proxy::ObjectProxy;
use crate::proxy::Proxy;

/// The place of the blobs.
pub enum Blobs {
    Folder(PathBuf),
    Bucket(Box<Bucket>),
}

/// A place in an object storage, and the way to it.
pub struct Bucket {
    pub place: ObjectPlace,
    /// The way of the replicas.
    pub proxy: ObjectProxy,
    /// The way from there to the storage, which can be cut.
    pub way: Proxy,
}

impl Blobs {
    /// The names of the blobs that are begun and not removed, as they are at any time. Those of a bucket are told by the
    /// requests that pass, which is quick.
    pub fn at_once(&self) -> BTreeSet<String> {
        match self {
            Self::Folder(data) => blob_files(data).into_iter().collect(),
            Self::Bucket(bucket) => bucket.proxy.blobs(),
        }
    }

    /// The names of the blobs that have bytes.
    pub async fn names(&self) -> BTreeSet<String> {
        match self {
            Self::Folder(data) => blob_files(data).into_iter().collect(),
            Self::Bucket(bucket) => bucket.place.objects("blobs").await.into_iter().collect(),
        }
    }

    /// Uploads in parts that are left, but for notes beside the blobs in `live`, which go with them. An upload of which
    /// no server was to note the id is left to a rule of the bucket, as docs/object-storage.md says: its server died, or
    /// did not get the id.
    pub async fn left_over(&self, live: &BTreeSet<String>) -> Vec<String> {
        let Self::Bucket(bucket) = self else {
            return Vec::new();
        };
        let mut left = bucket.place.uploads_in_parts().await;
        left.retain(|upload| bucket.proxy.is_noted(upload));
        let notes = bucket.place.objects("uploads").await;
        left.extend(notes.into_iter().filter(|name| !live.contains(name)));
        left
    }

    /// Checks that the bytes of a blob are those of which facts are known.
    pub async fn check(&self, id: &str, facts: &Facts) {
        let (found, expected) = match self {
            Self::Folder(data) => {
                let path = data.join("contents").join(id);
                let digest = tokio::task::spawn_blocking(move || {
                    let mut digest = Sha256::new();
                    let mut file = std::fs::File::open(path).expect("the file of a live blob");
                    std::io::copy(&mut file, &mut digest).expect("readable");
                    digest.finalize()
                });
                (digest.await.expect("no panic"), facts.sha256)
            }
            // An object has the units that are not zeros, and behind them a map.
            Self::Bucket(bucket) => {
                let object = bucket.place.object(&format!("blobs/{id}")).await;
                let object = object.expect("the object of a live blob");
                let units = object.get(..facts.stored_size as usize);
                let units = units.expect("an object with all units");
                (Sha256::digest(units), facts.units_sha256)
            }
        };
        assert!(found[..] == expected, "other bytes: blob {id}");
    }
}
