//! The header of a qcow2 image: where everything is, and what must be understood to read it.

use std::fmt::Display;

use super::extensions::{BitmapDirectory, Extensions};
use super::features;
use crate::error::{corrupt_qcow2, require_inside};
use crate::quote::quote;
use crate::read_at::read_up_to;
use crate::{FormatError, ReadAt, bytes};

/// The first bytes of every qcow2 image.
pub(super) const MAGIC: &[u8] = b"QFI\xfb";

/// Limits of QEMU itself: an image beyond them cannot be opened there.
const MAXIMUM_L1_BYTES: u64 = 32 * 1024 * 1024;
const MAXIMUM_REFCOUNT_TABLE_BYTES: u64 = 8 * 1024 * 1024;
const MAXIMUM_SNAPSHOTS: u32 = 65_536;
const MAXIMUM_BACKING_NAME: u32 = 1023;

/// A header whose numbers keep the rules of the format. What it points to is checked elsewhere.
#[derive(Debug)]
pub(super) struct Header {
    pub(super) version: u32,
    pub(super) cluster_bits: u32,
    pub(super) virtual_size: u64,
    pub(super) l1_entries: u32,
    pub(super) l1_offset: u64,
    pub(super) refcount_table_offset: u64,
    pub(super) refcount_table_clusters: u32,
    /// The width of a refcount in bits is 2 to this power.
    pub(super) refcount_order: u32,
    pub(super) snapshots: u32,
    pub(super) snapshots_offset: u64,
    /// L2 entries have 16 bytes, the second 8 of them for the 32 subclusters.
    pub(super) extended_l2: bool,
    /// Compressed clusters are zstd, else deflate.
    pub(super) zstd: bool,
    /// The directory of bitmaps, where it is kept in step with the data.
    pub(super) bitmaps: Option<BitmapDirectory>,
}

impl Header {
    pub(super) fn cluster_size(&self) -> u64 {
        1 << self.cluster_bits
    }

    pub(super) fn l1_bytes(&self) -> u64 {
        u64::from(self.l1_entries) * 8
    }

    pub(super) fn refcount_table_bytes(&self) -> u64 {
        u64::from(self.refcount_table_clusters) << self.cluster_bits
    }

    /// L2 entries in one table, which fills a cluster.
    pub(super) fn l2_entries(&self) -> u64 {
        self.cluster_size() / if self.extended_l2 { 16 } else { 8 }
    }

    pub(super) fn read<R: ReadAt + ?Sized>(content: &R) -> Result<Header, FormatError> {
        let length = content.len();
        let start = read_up_to(content, 0, 112)?;
        let version = bytes::be_u32(&start, 4);
        if start.len() >= 8 && !matches!(version, 2 | 3) {
            return Err(FormatError::Unsupported {
                what: format!("qcow2 of version {version}, expected 2 or 3"),
            });
        }
        let smallest = if version == 2 { 72 } else { 104 };
        require_inside(0, smallest, length, || "the qcow2 header".to_owned())?;
        let cluster_bits = bytes::be_u32(&start, 20);
        if !(9..=21).contains(&cluster_bits) {
            return Err(corrupt_qcow2(format!(
                "clusters of 2^{cluster_bits} bytes, expected 2^9 to 2^21"
            )));
        }
        let cluster_size = 1u64 << cluster_bits;
        let (incompatible, autoclear, refcount_order, header_length) = if version == 2 {
            (0, 0, 4, 72)
        } else {
            (
                bytes::be_u64(&start, 72),
                bytes::be_u64(&start, 88),
                bytes::be_u32(&start, 96),
                bytes::be_u32(&start, 100),
            )
        };
        let header_length = u64::from(header_length);
        if header_length < smallest
            || header_length > cluster_size
            || !header_length.is_multiple_of(8)
        {
            return Err(corrupt_qcow2(format!(
                "a header of {header_length} bytes, expected {smallest} to {cluster_size} and a multiple of 8"
            )));
        }
        require_inside(0, cluster_size, length, || {
            "the cluster of the qcow2 header".to_owned()
        })?;
        let first_cluster = read_up_to(content, 0, 1 << cluster_bits)?;
        refuse_backing_file(&first_cluster, cluster_size)?;

        let extensions = Extensions::parse(&first_cluster, header_length)?;
        if incompatible & features::EXTERNAL_DATA != 0 || extensions.external_data_file.is_some() {
            let name = extensions.external_data_file.as_deref();
            return Err(FormatError::ExternalDataFile {
                name: name.map_or_else(|| "(unnamed)".to_owned(), quote),
            });
        }
        match bytes::be_u32(&start, 32) {
            0 => {}
            1 => return Err(FormatError::Encrypted { method: "AES" }),
            2 => return Err(FormatError::Encrypted { method: "LUKS" }),
            _ => {
                return Err(FormatError::Encrypted {
                    method: "by an unknown method",
                });
            }
        }
        if extensions.encryption_header {
            return Err(corrupt_qcow2(
                "it has a header of encryption, and is not encrypted".to_owned(),
            ));
        }
        features::check(incompatible, autoclear, &extensions)?;
        // A field that the header is too short for counts as zero.
        let compression_type = match header_length {
            ..=104 => 0,
            _ => start.get(104).copied().unwrap_or(0),
        };
        let zstd = features::is_zstd(incompatible, compression_type)?;

        let header = Header {
            version,
            cluster_bits,
            virtual_size: bytes::be_u64(&start, 24),
            l1_entries: bytes::be_u32(&start, 36),
            l1_offset: bytes::be_u64(&start, 40),
            refcount_table_offset: bytes::be_u64(&start, 48),
            refcount_table_clusters: bytes::be_u32(&start, 56),
            refcount_order,
            snapshots: bytes::be_u32(&start, 60),
            snapshots_offset: bytes::be_u64(&start, 64),
            extended_l2: incompatible & features::EXTENDED_L2 != 0,
            zstd,
            bitmaps: extensions
                .bitmaps
                .filter(|_| autoclear & features::BITMAPS != 0),
        };
        header.check_numbers()?;
        header.check_places(length)?;
        Ok(header)
    }

    fn check_numbers(&self) -> Result<(), FormatError> {
        if self.virtual_size == 0 {
            return Err(corrupt_qcow2(
                "a virtual size of 0 bytes: there is no disk in it".to_owned(),
            ));
        }
        if !self.virtual_size.is_multiple_of(512) {
            return Err(corrupt_qcow2(format!(
                "a virtual size of {} bytes, expected a multiple of 512",
                self.virtual_size
            )));
        }
        if self.extended_l2 && self.cluster_bits < 14 {
            return Err(corrupt_qcow2(format!(
                "extended L2 entries with clusters of {} bytes, expected at least 16384",
                self.cluster_size()
            )));
        }
        if self.refcount_order > 6 {
            return Err(corrupt_qcow2(format!(
                "refcounts of 2^{} bits, expected 2^6 at most",
                self.refcount_order
            )));
        }
        let l1_bytes = self.l1_bytes();
        if l1_bytes > MAXIMUM_L1_BYTES {
            return Err(FormatError::Unsupported {
                what: format!(
                    "an L1 table of {l1_bytes} bytes, at most {MAXIMUM_L1_BYTES} are supported"
                ),
            });
        }
        let needed = self
            .virtual_size
            .div_ceil(self.cluster_size())
            .div_ceil(self.l2_entries());
        if u64::from(self.l1_entries) < needed {
            return Err(corrupt_qcow2(format!(
                "an L1 table of {} entries, expected at least {needed} for a virtual size of {} bytes",
                self.l1_entries, self.virtual_size
            )));
        }
        let refcount_bytes = self.refcount_table_bytes();
        if refcount_bytes == 0 {
            return Err(corrupt_qcow2("no refcount table, expected one".to_owned()));
        }
        if refcount_bytes > MAXIMUM_REFCOUNT_TABLE_BYTES {
            return Err(FormatError::Unsupported {
                what: format!(
                    "a refcount table of {refcount_bytes} bytes, \
                     at most {MAXIMUM_REFCOUNT_TABLE_BYTES} are supported"
                ),
            });
        }
        if self.snapshots > MAXIMUM_SNAPSHOTS {
            return Err(FormatError::Unsupported {
                what: format!(
                    "{} internal snapshots, at most {MAXIMUM_SNAPSHOTS} are supported",
                    self.snapshots
                ),
            });
        }
        Ok(())
    }

    /// Checks that the tables which the header names begin at clusters and lie inside the content.
    fn check_places(&self, length: u64) -> Result<(), FormatError> {
        self.check_place("the L1 table", self.l1_offset, self.l1_bytes(), length)?;
        self.check_place(
            "the refcount table",
            self.refcount_table_offset,
            self.refcount_table_bytes(),
            length,
        )?;
        // QEMU opens no image whose offset is wrong, even where there are no snapshots.
        let what = "the snapshot table";
        if self.snapshots == 0 {
            let beyond = self.snapshots_offset > i64::MAX as u64;
            let offset = self.snapshots_offset % self.cluster_size();
            self.check_place(what, offset, 0, length)?;
            return if beyond {
                Err(corrupt_qcow2(format!(
                    "{what} begins at {:#x}, expected 2^63 - 1 at most",
                    self.snapshots_offset
                )))
            } else {
                Ok(())
            };
        }
        // The smallest entry has 40 bytes; the true size is known only by walking the table.
        let least = u64::from(self.snapshots) * 40;
        self.check_place(what, self.snapshots_offset, least, length)
    }

    /// Checks that a structure begins at a cluster and lies inside the content.
    pub(super) fn check_place(
        &self,
        what: impl Display,
        offset: u64,
        size: u64,
        length: u64,
    ) -> Result<(), FormatError> {
        if !offset.is_multiple_of(self.cluster_size()) {
            return Err(corrupt_qcow2(format!(
                "{what} begins at {offset:#x}, expected a multiple of the cluster size {}",
                self.cluster_size()
            )));
        }
        require_inside(offset, size, length, || what.to_string())
    }
}

fn refuse_backing_file(first_cluster: &[u8], cluster_size: u64) -> Result<(), FormatError> {
    let offset = bytes::be_u64(first_cluster, 8);
    let size = bytes::be_u32(first_cluster, 16);
    if offset == 0 {
        return Ok(());
    }
    let inside = offset
        .checked_add(u64::from(size))
        .is_some_and(|end| end <= cluster_size);
    let name = usize::try_from(offset)
        .ok()
        .filter(|_| inside && (1..=MAXIMUM_BACKING_NAME).contains(&size))
        .and_then(|start| first_cluster.get(start..))
        .map(|tail| {
            tail.iter()
                .copied()
                .take(size as usize)
                .collect::<Vec<u8>>()
        });
    Err(FormatError::BackingFile {
        name: name.map_or_else(|| "(unnamed)".to_owned(), |name| quote(&name)),
    })
}
