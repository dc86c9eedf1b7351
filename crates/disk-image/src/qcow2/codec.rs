//! The decompression of one compressed cluster, by the method that the header names.

use zstd_safe::DCtx;

use super::deflate::Deflate;
use super::fault::Fault;
use super::header::Header;
use super::zstandard;
use crate::FormatError;

/// How many blocks a stream may have beside one for each [`BLOCK`] bytes of the cluster: more than any compressor
/// makes. Blocks without output cost as much as others, and one sequence of bytes may be the data of many clusters.
const BLOCKS: u64 = 3;
const BLOCK: u64 = 1024;

enum Method {
    Zlib(Box<Deflate>),
    Zstd(DCtx<'static>),
}

/// Buffers and decoder to decompress one cluster after the other.
pub(super) struct Codec {
    method: Method,
    cluster: Vec<u8>,
    most_blocks: u64,
}

impl Codec {
    pub(super) fn new(header: &Header) -> Codec {
        let method = if header.zstd {
            Method::Zstd(DCtx::create())
        } else {
            Method::Zlib(Box::new(Deflate::new()))
        };
        let size = header.cluster_size();
        Codec {
            method,
            cluster: vec![0; usize::try_from(size).unwrap_or_default()],
            most_blocks: BLOCKS + size / BLOCK,
        }
    }

    /// Decompresses the cluster whose data begin there, and returns how many bytes the data have: at most all that
    /// are given, which may be more.
    pub(super) fn decompress(&mut self, data: &[u8]) -> Result<usize, Fault> {
        match &mut self.method {
            Method::Zlib(deflate) => deflate.decompress(data, &mut self.cluster, self.most_blocks),
            Method::Zstd(context) => {
                zstandard::decompress(context, data, &mut self.cluster, self.most_blocks)
            }
        }
    }

    /// The bytes that the guest sees in the cluster that was decompressed last.
    pub(super) fn cluster(&self) -> &[u8] {
        &self.cluster
    }

    /// The refusal of an image with such a cluster.
    pub(super) fn damage(&self, guest_cluster: u64, data: &[u8], fault: Fault) -> FormatError {
        let size = self.cluster.len();
        let (method, other, other_starts) = match self.method {
            Method::Zlib(_) => ("zlib", "zstd", data.starts_with(&[0x28, 0xb5, 0x2f, 0xfd])),
            Method::Zstd(_) => (
                "zstd",
                "zlib",
                Deflate::new()
                    .decompress(data, &mut vec![0; size], self.most_blocks)
                    .is_ok(),
            ),
        };
        let found = match fault {
            _ if other_starts => format!("they are {other} data"),
            Fault::Incomplete { produced } => {
                format!("they end within the stream, after {produced} of these bytes")
            }
            Fault::Short { produced } => format!("they give {produced} bytes"),
            Fault::Long => "they give more".to_owned(),
            Fault::Invalid { produced } => format!("they are invalid after {produced} bytes"),
            Fault::TooManyBlocks { most } => {
                format!("they have more than {most} blocks, of which most must be empty")
            }
        };
        FormatError::DamagedCluster {
            guest_cluster,
            what: format!(
                "expected {method} data, as the header says, that give exactly {size} bytes; {found}"
            ),
        }
    }
}
