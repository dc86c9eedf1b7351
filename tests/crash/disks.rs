//! The bytes that images are made of.

use std::collections::HashMap;
use std::fs::File;
use std::path::Path;

use sha2::{Digest, Sha256};
use test_support::{Disk, Fill};

const MIB: usize = 1 << 20;
/// The blocks that are not stored where they are all zeros.
const UNIT: usize = 64 << 10;
/// The size of the disks that are uploaded in parts, in MiB.
const IN_PARTS: usize = 18;
/// How many of those there are.
pub const LONG: u64 = 2;
/// The data of the large disk, and its whole size with the hole behind them, in MiB.
const LARGE_DATA: usize = 16;
const LARGE: usize = 192;
/// How many small disks lie in the import folder, and are uploaded again and again.
pub const SHARED: u64 = 6;

/// Which bytes an image has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Bytes {
    /// Of one to three MiB; each number has bytes of its own.
    Small(u64),
    /// More than fits in one part of an upload to an object storage, and less than the large one; each number has bytes
    /// of its own.
    Long(u64),
    /// Large enough that its import takes a while.
    Large,
}

/// Facts of the bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Bytes.
    pub size: i64,
    /// Bytes, all-zero blocks not counted.
    pub stored_size: i64,
    pub sha256: [u8; 32],
    /// That of its blocks that are not all zeros, one after the other.
    pub units_sha256: [u8; 32],
}

impl Facts {
    /// Facts of a disk of `size` bytes, the last of which are zeros that are not in `data`.
    fn new(data: &[u8], size: usize) -> Self {
        static ZEROS: [u8; UNIT] = [0; UNIT];
        let mut whole = Sha256::new_with_prefix(data);
        for _ in 0..(size - data.len()) / UNIT {
            whole.update(ZEROS);
        }
        let mut units = Sha256::new();
        for unit in data.chunks(UNIT) {
            if *unit != ZEROS[..unit.len()] {
                units.update(unit);
            }
        }
        Self {
            size: size as i64,
            stored_size: Disk::stored_size(data),
            sha256: whole.finalize().into(),
            units_sha256: units.finalize().into(),
        }
    }
}

/// The import folder of a server, and the facts of all bytes that were used.
pub struct Disks {
    folder: String,
    facts: HashMap<Bytes, Facts>,
}

impl Disks {
    /// Fills an import folder.
    pub fn make(folder: &Path) -> Self {
        std::fs::create_dir_all(folder).expect("an import folder");
        let mut disks = Self {
            folder: folder.to_str().expect("a path in UTF-8").to_owned(),
            facts: HashMap::new(),
        };
        for number in 0..SHARED {
            std::fs::write(disks.path(Bytes::Small(number)), small(number)).expect("a disk");
        }
        let data = large_data();
        let path = disks.path(Bytes::Large);
        std::fs::write(&path, &data).expect("a disk");
        let file = File::options().write(true).open(&path).expect("the disk");
        file.set_len((LARGE * MIB) as u64).expect("a hole");
        let facts = Facts::new(&data, LARGE * MIB);
        disks.facts.insert(Bytes::Large, facts);
        disks
    }

    /// The uri of a file of the import folder.
    pub fn uri(&self, bytes: Bytes) -> String {
        format!("file://{}", self.path(bytes))
    }

    fn path(&self, bytes: Bytes) -> String {
        match bytes {
            Bytes::Small(number) => format!("{}/small-{number}.img", self.folder),
            Bytes::Large => format!("{}/large.img", self.folder),
            Bytes::Long(_) => unreachable!("only uploaded"),
        }
    }

    pub fn facts(&mut self, bytes: Bytes) -> Facts {
        let facts = self.facts.entry(bytes).or_insert_with(|| {
            // The large one has been there from the start.
            let disk = uploaded(bytes);
            Facts::new(&disk, disk.len())
        });
        facts.clone()
    }
}

/// The bytes of an upload.
pub fn uploaded(bytes: Bytes) -> Vec<u8> {
    match bytes {
        Bytes::Small(number) => small(number),
        Bytes::Long(number) => {
            let mut disk = Disk::mbr(IN_PARTS, Fill::Sparse(number));
            fill(&mut disk, u64::MAX / 2 + number);
            disk
        }
        Bytes::Large => unreachable!("only imported"),
    }
}

/// A small disk: those that are used again and again have much data, the others little.
fn small(number: u64) -> Vec<u8> {
    let mut disk = Disk::mbr(1 + (number % 3) as usize, Fill::Sparse(number));
    if number < SHARED {
        fill(&mut disk, number);
    }
    disk
}

fn large_data() -> Vec<u8> {
    let mut disk = Disk::mbr(LARGE_DATA, Fill::Sparse(0));
    fill(&mut disk, u64::MAX);
    disk
}

/// Fills what follows the partition table with noise, by xorshift: the generators of the crate
/// `rand` take long where nothing is optimised.
fn fill(disk: &mut [u8], seed: u64) {
    let mut state = seed.wrapping_mul(2).wrapping_add(0x9E37_79B9_7F4A_7C15) | 1;
    for word in disk[64 * 1024..].chunks_exact_mut(8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        word.copy_from_slice(&state.to_le_bytes());
    }
}
