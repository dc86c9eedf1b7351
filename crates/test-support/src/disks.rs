//! Disk images: raw disks built by hand, and what `qemu-img` makes of them.

use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng};

const SECTOR: usize = 512;
const MIB: usize = 1 << 20;
/// The first sector of partitions and, counted from the end, the last one.
const FIRST: usize = 64;
const LAST: usize = 34;
/// The sectors of a GPT's entries.
const ENTRIES: usize = 32;

/// The bytes of a partition.
#[derive(Debug, Clone, Copy)]
pub enum Fill {
    /// One block of data at the end, holes before it.
    Sparse(u64),
    /// Random bytes of this seed.
    Random(u64),
}

/// Raw disks with a partition table.
pub struct Disk;

impl Disk {
    /// A disk of whole MiB with an MBR.
    pub fn mbr(mebibytes: usize, fill: Fill) -> Vec<u8> {
        let mut disk = filled(mebibytes, fill);
        let sectors = disk.len() / SECTOR;
        put_entry(&mut disk, 0x83, FIRST, sectors - FIRST - LAST);
        disk
    }

    /// A disk of whole MiB with a GPT.
    pub fn gpt(mebibytes: usize, fill: Fill) -> Vec<u8> {
        let mut disk = filled(mebibytes, fill);
        let sectors = disk.len() / SECTOR;
        put_entry(&mut disk, 0xEE, 1, sectors - 1);
        let mut entries = vec![0; ENTRIES * SECTOR];
        // The type of a Linux file system, in the byte order of the table.
        let linux = 0xE47D_47D8_693D_798E_477A_84AE_8377_0FC0_u128.to_le_bytes();
        entries[..16].copy_from_slice(&linux);
        entries[16..32].copy_from_slice(&[7; 16]);
        put64(&mut entries, 32, FIRST);
        put64(&mut entries, 40, sectors - LAST - 1);
        let checksum = crc32fast::hash(&entries);
        put(&mut disk, 2 * SECTOR, &entries);
        put(&mut disk, (sectors - 1 - ENTRIES) * SECTOR, &entries);
        for (at, other, table) in [(1, sectors - 1, 2), (sectors - 1, 1, sectors - 1 - ENTRIES)] {
            let mut header = vec![0; 92];
            put(&mut header, 0, b"EFI PART");
            put(&mut header, 8, &0x0001_0000_u32.to_le_bytes());
            put(&mut header, 12, &92_u32.to_le_bytes());
            put64(&mut header, 24, at);
            put64(&mut header, 32, other);
            put64(&mut header, 40, 2 + ENTRIES);
            put64(&mut header, 48, sectors - LAST);
            put(&mut header, 56, &[9; 16]);
            put64(&mut header, 72, table);
            put(&mut header, 80, &128_u32.to_le_bytes());
            put(&mut header, 84, &128_u32.to_le_bytes());
            put(&mut header, 88, &checksum.to_le_bytes());
            let own = crc32fast::hash(&header);
            put(&mut header, 16, &own.to_le_bytes());
            put(&mut disk, at * SECTOR, &header);
        }
        disk
    }

    /// The bytes of all 64 KiB blocks that are not all zeros.
    pub fn stored_size(disk: &[u8]) -> i64 {
        let blocks = disk
            .chunks(64 * 1024)
            .filter(|block| block.iter().any(|byte| *byte != 0));
        blocks.map(|block| block.len() as i64).sum()
    }

    /// A raw disk as qcow2; none where `qemu-img` is missing.
    pub fn qcow2(test: &str, raw: &[u8], arguments: &[&str]) -> Option<Vec<u8>> {
        if !crate::has_tool(test, "qemu-img") {
            return None;
        }
        let folder = tempfile::tempdir().expect("a temporary folder");
        std::fs::write(folder.path().join("disk.img"), raw).expect("a disk");
        let mut all = vec!["convert", "-f", "raw", "-O", "qcow2"];
        all.extend(arguments);
        all.extend(["disk.img", "disk.qcow2"]);
        crate::run(folder.path(), "qemu-img", &all);
        Some(std::fs::read(folder.path().join("disk.qcow2")).expect("a qcow2 image"))
    }
}

fn filled(mebibytes: usize, fill: Fill) -> Vec<u8> {
    let mut disk = vec![0; mebibytes * MIB];
    let end = disk.len() - LAST * SECTOR;
    let (seed, start) = match fill {
        Fill::Sparse(seed) => (seed, end - 4096),
        Fill::Random(seed) => (seed, FIRST * SECTOR),
    };
    StdRng::seed_from_u64(seed).fill_bytes(&mut disk[start..end]);
    disk
}

fn put_entry(disk: &mut [u8], kind: u8, start: usize, sectors: usize) {
    disk[446 + 4] = kind;
    put(disk, 446 + 8, &(start as u32).to_le_bytes());
    put(disk, 446 + 12, &(sectors as u32).to_le_bytes());
    put(disk, 510, &[0x55, 0xAA]);
}

fn put(target: &mut [u8], at: usize, bytes: &[u8]) {
    target[at..at + bytes.len()].copy_from_slice(bytes);
}

fn put64(target: &mut [u8], at: usize, number: usize) {
    put(target, at, &(number as u64).to_le_bytes());
}
