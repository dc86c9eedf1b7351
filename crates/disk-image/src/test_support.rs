//! Small sound images built by hand, for tests to damage; and the outside tools, where they are installed.

use std::process::Command;

/// A number put into an image in its byte order.
pub(crate) trait Put {
    fn put_be32(&mut self, at: usize, value: u32);
    fn put_be64(&mut self, at: usize, value: u64);
    fn put_le32(&mut self, at: usize, value: u32);
    fn put_le64(&mut self, at: usize, value: u64);
    fn put_bytes(&mut self, at: usize, bytes: &[u8]);
}

impl Put for Vec<u8> {
    fn put_be32(&mut self, at: usize, value: u32) {
        self.put_bytes(at, &value.to_be_bytes());
    }

    fn put_be64(&mut self, at: usize, value: u64) {
        self.put_bytes(at, &value.to_be_bytes());
    }

    fn put_le32(&mut self, at: usize, value: u32) {
        self.put_bytes(at, &value.to_le_bytes());
    }

    fn put_le64(&mut self, at: usize, value: u64) {
        self.put_bytes(at, &value.to_le_bytes());
    }

    fn put_bytes(&mut self, at: usize, bytes: &[u8]) {
        self[at..at + bytes.len()].copy_from_slice(bytes);
    }
}

/// Positions of the parts of the image of [`qcow2`], in clusters.
pub(crate) mod qcow2_layout {
    pub(crate) const REFCOUNT_TABLE: usize = 1;
    pub(crate) const REFCOUNT_BLOCK: usize = 2;
    pub(crate) const L1: usize = 3;
    pub(crate) const L2: usize = 4;
    pub(crate) const DATA: usize = 5;
    /// Counted once, and used by nothing yet.
    pub(crate) const SPARE: usize = 7;
    pub(crate) const CLUSTERS: usize = 8;
}

/// A qcow2 image of version 3 with a disk of 1 MiB, whose first two clusters have data.
pub(crate) fn qcow2(cluster_bits: u32) -> Vec<u8> {
    use qcow2_layout::*;
    let cluster = 1usize << cluster_bits;
    let at = |index: usize| (index * cluster) as u64;
    let l2_entries = cluster / 8;
    let l1_entries = (1usize << 20).div_ceil(cluster).div_ceil(l2_entries);
    let mut image = vec![0; CLUSTERS * cluster];
    image.put_bytes(0, b"QFI\xfb");
    image.put_be32(4, 3);
    image.put_be32(20, cluster_bits);
    image.put_be64(24, 1 << 20);
    image.put_be32(36, l1_entries as u32);
    image.put_be64(40, at(L1));
    image.put_be64(48, at(REFCOUNT_TABLE));
    image.put_be32(56, 1);
    image.put_be32(96, 4);
    image.put_be32(100, 112);
    image.put_be64(REFCOUNT_TABLE * cluster, at(REFCOUNT_BLOCK));
    for index in 0..CLUSTERS {
        image.put_bytes(REFCOUNT_BLOCK * cluster + index * 2, &[0, 1]);
    }
    image.put_be64(L1 * cluster, at(L2) | 1 << 63);
    for index in 0..2 {
        image.put_be64(L2 * cluster + index * 8, at(DATA + index) | 1 << 63);
        image[(DATA + index) * cluster..][..cluster].fill(0xAB);
    }
    image
}

/// An entry of a boot record: status, type, first sector, sectors.
pub(crate) type MbrEntry = (u8, u8, u32, u32);

/// Writes a boot record into the sector of that number.
pub(crate) fn put_boot_record(image: &mut Vec<u8>, sector: usize, entries: &[MbrEntry]) {
    let start = sector * 512;
    for (index, (status, kind, first, sectors)) in entries.iter().enumerate() {
        let at = start + 446 + index * 16;
        image[at] = *status;
        image[at + 4] = *kind;
        image.put_le32(at + 8, *first);
        image.put_le32(at + 12, *sectors);
    }
    image.put_bytes(start + 510, &[0x55, 0xAA]);
}

/// A raw image with that boot record.
pub(crate) fn mbr(sectors: usize, entries: &[MbrEntry]) -> Vec<u8> {
    let mut image = vec![0; sectors * 512];
    put_boot_record(&mut image, 0, entries);
    image
}

/// A raw image of 200 sectors with an extended partition (sectors 50 to 149) that holds two logical ones.
pub(crate) fn mbr_with_logical() -> Vec<u8> {
    let mut image = mbr(200, &[(0x80, 0x83, 1, 49), (0, 0x05, 50, 100)]);
    put_boot_record(&mut image, 50, &[(0, 0x83, 1, 29), (0, 0x05, 50, 50)]);
    put_boot_record(&mut image, 100, &[(0, 0x83, 1, 49)]);
    image
}

/// Sectors that the GPT of [`gpt`] takes at each end, without the boot record: header and entries.
const GPT_ENTRIES: usize = 128;

/// A raw image with a GPT of 128 entries in sectors of that size, and those partitions (first and last sector).
pub(crate) fn gpt(sector: usize, sectors: usize, partitions: &[(u64, u64)]) -> Vec<u8> {
    let entry_sectors = (GPT_ENTRIES * 128).div_ceil(sector);
    let mut image = vec![0; sector * sectors];
    put_boot_record(&mut image, 0, &[(0, 0xEE, 1, (sectors - 1) as u32)]);
    let last = sectors - 1;
    let places = [(1, last, 2), (last, 1, last - entry_sectors)];
    for (own, other, entries) in places {
        let at = own * sector;
        image.put_bytes(at, b"EFI PART");
        image.put_le32(at + 8, 0x0001_0000);
        image.put_le32(at + 12, 92);
        image.put_le64(at + 24, own as u64);
        image.put_le64(at + 32, other as u64);
        image.put_le64(at + 40, (2 + entry_sectors) as u64);
        image.put_le64(at + 48, (last - entry_sectors - 1) as u64);
        image.put_bytes(at + 56, &[0x5A; 16]);
        image.put_le64(at + 72, entries as u64);
        image.put_le32(at + 80, GPT_ENTRIES as u32);
        image.put_le32(at + 84, 128);
        for (index, (first, last)) in partitions.iter().enumerate() {
            let entry = entries * sector + index * 128;
            image.put_bytes(entry, &[0x11; 16]);
            image.put_le64(entry + 32, *first);
            image.put_le64(entry + 40, *last);
        }
    }
    seal_gpt(&mut image, sector);
    image
}

/// Makes the checksums of both headers and both copies of the entries right again.
pub(crate) fn seal_gpt(image: &mut Vec<u8>, sector: usize) {
    let number = |image: &Vec<u8>, at: usize| {
        u64::from_le_bytes(image[at..at + 8].try_into().unwrap()) as usize
    };
    for header in [sector, image.len() - sector] {
        let entries = number(image, header + 72) * sector;
        if let Some(entries) = image.get(entries..entries + GPT_ENTRIES * 128) {
            let checksum = crc32fast::hash(entries);
            image.put_le32(header + 88, checksum);
        }
        seal_header(image, header);
    }
}

/// Makes the checksum of one header right again.
pub(crate) fn seal_header(image: &mut Vec<u8>, header: usize) {
    image.put_le32(header + 16, 0);
    let checksum = crc32fast::hash(&image[header..header + 92]);
    image.put_le32(header + 16, checksum);
}

/// Whether the tools of a test are installed. Says aloud that the test is left out where one is not, and fails where
/// that must not be (`CI=true`).
pub(crate) fn installed(test: &str, tools: &[&str]) -> bool {
    for tool in tools {
        if Command::new(tool).arg("--version").output().is_ok() {
            continue;
        }
        let message = format!("left out: {test}: {tool} is not installed");
        assert!(std::env::var("CI").as_deref() != Ok("true"), "{message}");
        // Not by a macro, whose output the harness keeps to itself where a test passes.
        let _ =
            std::io::Write::write_all(&mut std::io::stderr(), format!("{message}\n").as_bytes());
        return false;
    }
    true
}

/// Runs a tool in a folder, with arguments separated by blanks.
pub(crate) fn run(folder: &std::path::Path, command: &str) {
    run_with(folder, &command.split_whitespace().collect::<Vec<_>>());
}

/// Runs a tool in a folder.
pub(crate) fn run_with(folder: &std::path::Path, command: &[&str]) {
    // LUKS measures the processor's speed, which fails now and then where others use it too.
    const TRIES: usize = 10;
    let mut tries = 1;
    let output = loop {
        let output = Command::new(command[0])
            .args(&command[1..])
            .current_dir(folder)
            .output()
            .unwrap();
        let unmeasured = String::from_utf8_lossy(&output.stderr).contains("accurate CPU usage");
        if !unmeasured || tries == TRIES {
            break output;
        }
        tries += 1;
    };
    assert!(
        output.status.success(),
        "{command:?}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}
