//! Positions of the parts of a qcow2 image: the targets of mutations. The image is taken to be sound.

/// A number inside of a part: its place, and how many bytes it has.
pub type Field = (usize, usize);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Header,
    Extensions,
    RefcountTable,
    RefcountBlock,
    L1,
    L2,
    Snapshot,
    SnapshotL1,
    Bitmap,
    BitmapTable,
    Compressed,
    Data,
    /// The start of the guest's disk, as it lies in the file.
    Head,
}

#[derive(Clone, Debug)]
pub struct Part {
    pub kind: Kind,
    pub start: usize,
    pub end: usize,
    /// All of the same size where this is empty.
    pub fields: &'static [Field],
    /// Bytes of an entry.
    pub width: usize,
}

const HEADER: &[Field] = &[
    (4, 4),
    (8, 8),
    (16, 4),
    (20, 4),
    (24, 8),
    (32, 4),
    (36, 4),
    (40, 8),
    (48, 8),
    (56, 4),
    (60, 4),
    (64, 8),
    (72, 8),
    (80, 8),
    (88, 8),
    (96, 4),
    (100, 4),
    (104, 1),
    (105, 1),
];
const SNAPSHOT: &[Field] = &[
    (0, 8),
    (8, 4),
    (12, 2),
    (14, 2),
    (16, 4),
    (20, 4),
    (24, 8),
    (32, 4),
    (36, 4),
    (40, 8),
    (48, 8),
];
const BITMAP: &[Field] = &[
    (0, 8),
    (8, 4),
    (12, 4),
    (16, 1),
    (17, 1),
    (18, 2),
    (20, 4),
    (24, 1),
];

pub const COPIED: u64 = 1 << 63;
pub const COMPRESSED: u64 = 1 << 62;
pub const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;

/// A big-endian number; 0 beyond the end.
pub fn number(image: &[u8], at: usize, width: usize) -> u64 {
    let bytes = image.get(at..at + width).unwrap_or_default();
    bytes
        .iter()
        .fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

/// Writes a big-endian number, as far as there is room.
pub fn put(image: &mut [u8], at: usize, width: usize, value: u64) {
    let bytes = &value.to_be_bytes()[8 - width..];
    if let Some(target) = image.get_mut(at..at + width) {
        target.copy_from_slice(bytes);
    }
}

pub fn is_qcow2(image: &[u8]) -> bool {
    image.starts_with(b"QFI\xfb")
}

pub fn cluster_size(image: &[u8]) -> usize {
    1 << number(image, 20, 4).clamp(9, 21)
}

pub fn l2_entry_size(image: &[u8]) -> usize {
    match number(image, 4, 4) >= 3 && number(image, 72, 8) & 16 != 0 {
        true => 16,
        false => 8,
    }
}

/// The parts of an image; of raw ones the start.
pub fn parts(image: &[u8]) -> Vec<Part> {
    let part = |kind, start: usize, size: usize, width| Part {
        kind,
        start,
        end: (start + size).min(image.len()),
        fields: &[],
        width,
    };
    if !is_qcow2(image) {
        return vec![part(Kind::Head, 0, 65_536, 4)];
    }
    let cluster = cluster_size(image);
    let mut parts = Vec::new();
    let header = match number(image, 4, 4) {
        2 => 72,
        _ => number(image, 100, 4) as usize,
    };
    parts.push(Part {
        fields: HEADER,
        ..part(Kind::Header, 0, 112, 4)
    });
    parts.push(part(Kind::Extensions, header, 64.min(cluster - header), 4));
    let table = number(image, 48, 8) as usize;
    parts.push(part(Kind::RefcountTable, table, 32, 8));
    let block = number(image, table, 8) as usize;
    let order = match number(image, 4, 4) {
        2 => 4,
        _ => number(image, 96, 4),
    };
    let counted = ((image.len() / cluster) << order) / 8 + 8;
    let width = (1 << order) / 8;
    parts.push(part(
        Kind::RefcountBlock,
        block,
        counted.min(cluster),
        width.max(1),
    ));
    add_tables(image, &mut parts, Kind::L1, 40, 36, 0);
    let mut at = number(image, 64, 8) as usize;
    for _ in 0..number(image, 60, 4) {
        let size = 40
            + number(image, at + 36, 4) as usize
            + number(image, at + 12, 2) as usize
            + number(image, at + 14, 2) as usize;
        parts.push(Part {
            fields: SNAPSHOT,
            ..part(Kind::Snapshot, at, size, 4)
        });
        add_tables(image, &mut parts, Kind::SnapshotL1, 0, 8, at);
        at = (at + size).next_multiple_of(8);
    }
    add_bitmaps(image, &mut parts, header);
    parts
}

/// An L1 table, whose place and size stand at those places after `base`, and the L2 tables that it names.
fn add_tables(
    image: &[u8],
    parts: &mut Vec<Part>,
    kind: Kind,
    offset: usize,
    entries: usize,
    base: usize,
) {
    let start = number(image, base + offset, 8) as usize;
    let entries = number(image, base + entries, 4) as usize;
    let part = |kind, start: usize, end: usize, width| Part {
        kind,
        start,
        end: end.min(image.len()),
        fields: &[],
        width,
    };
    parts.push(part(kind, start, start + entries * 8, 8));
    let (cluster, width) = (cluster_size(image), l2_entry_size(image));
    for index in 0..entries {
        let table = (number(image, start + index * 8, 8) & OFFSET) as usize;
        if table == 0
            || parts
                .iter()
                .any(|other| other.kind == Kind::L2 && other.start == table)
        {
            continue;
        }
        let used = (0..cluster / width)
            .rev()
            .find(|entry| number(image, table + entry * width, 8) != 0);
        let end = table + ((used.unwrap_or(0) + 4) * width).min(cluster);
        parts.push(part(Kind::L2, table, end, width));
        for entry in (0..=used.unwrap_or(0)).step_by(1 + used.unwrap_or(0) / 16) {
            let number = number(image, table + entry * width, 8);
            if number & COMPRESSED != 0 {
                let bits = 62 - (cluster.trailing_zeros() - 8);
                let data = (number & ((1 << bits) - 1)) as usize;
                parts.push(part(Kind::Compressed, data, data + 600, 1));
            } else if number & OFFSET != 0 {
                let data = (number & OFFSET) as usize;
                let kind = if index + entry == 0 {
                    Kind::Head
                } else {
                    Kind::Data
                };
                parts.push(part(kind, data, data + cluster, 1));
            }
        }
    }
}

fn add_bitmaps(image: &[u8], parts: &mut Vec<Part>, header: usize) {
    let mut at = header;
    let directory = loop {
        let (kind, size) = (number(image, at, 4), number(image, at + 4, 4) as usize);
        match kind {
            0x2385_2875 => break number(image, at + 24, 8) as usize,
            0 => return,
            _ => at += 8 + size.next_multiple_of(8),
        }
    };
    let count = number(image, at + 8, 4);
    let mut entry = directory;
    for _ in 0..count {
        let size = (24 + number(image, entry + 18, 2) as usize).next_multiple_of(8);
        let table = number(image, entry, 8) as usize;
        parts.push(Part {
            kind: Kind::Bitmap,
            start: entry,
            end: entry + size,
            fields: BITMAP,
            width: 4,
        });
        parts.push(Part {
            kind: Kind::BitmapTable,
            start: table,
            end: table + number(image, entry + 8, 4) as usize * 8,
            fields: &[],
            width: 8,
        });
        entry += size;
    }
}

/// The place of the refcount of a cluster: byte, bit, and width in bits; None where it has no block.
pub fn refcount_place(image: &[u8], cluster: usize) -> Option<(usize, usize, u32)> {
    let size = cluster_size(image);
    let order = match number(image, 4, 4) {
        2 => 4,
        _ => number(image, 96, 4).min(6) as u32,
    };
    let per_block = (size * 8) >> order;
    // An earlier step may have put anything there.
    let offset = |at: usize| (number(image, at, 8) as usize).min(image.len());
    let entry = offset(48) + cluster / per_block * 8;
    let block = offset(entry);
    let bit = (cluster % per_block) << order;
    (block != 0).then_some((block + bit / 8, bit % 8, 1 << order))
}

/// Adds to the refcount of a cluster, as far as its width allows.
pub fn add_to_refcount(image: &mut [u8], cluster: usize, by: i64) {
    match refcount_place(image, cluster) {
        Some((at, bit, width @ 0..8)) if at < image.len() => {
            let mask = (1u8 << width) - 1;
            let old = (image[at] >> bit) & mask;
            let new = (i64::from(old) + by).clamp(0, i64::from(mask)) as u8;
            image[at] = image[at] & !(mask << bit) | new << bit;
        }
        Some((at, _, width @ 8..)) => {
            let old = number(image, at, width as usize / 8);
            put(image, at, width as usize / 8, old.wrapping_add_signed(by));
        }
        _ => {}
    }
}
