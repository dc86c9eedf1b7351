//! Mutants: images with a few changes, each aimed at a part. Which ones, the seed and the number decide.

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use crate::layout::{
    COMPRESSED, COPIED, Kind, OFFSET, Part, add_to_refcount, cluster_size, is_qcow2, l2_entry_size,
    number, parts, put,
};
use crate::seeds::Seed;

/// The name of the file that no image may lead to. It lies beside the image.
pub const CANARY: &str = "canary";

#[derive(Debug)]
pub struct Mutant {
    pub bytes: Vec<u8>,
    /// The mutations that were made, in words.
    pub steps: Vec<String>,
    random: StdRng,
}

/// The mutant of that number.
pub fn mutant(seeds: &[Seed], seed: u64, number: u64) -> Mutant {
    let mut random = StdRng::seed_from_u64(seed.wrapping_mul(1_000_003).wrapping_add(number));
    let base = seeds.choose(&mut random).expect("seeds");
    let mut mutant = Mutant {
        bytes: base.bytes.clone(),
        steps: vec![base.name.clone()],
        random,
    };
    let steps = *[1, 1, 1, 1, 2, 2, 3]
        .choose(&mut mutant.random)
        .expect("some");
    for _ in 0..steps {
        let parts = parts(&base.bytes);
        mutant.step(&parts);
    }
    mutant
}

impl Mutant {
    fn below(&mut self, limit: usize) -> usize {
        self.random.random_range(0..limit.max(1))
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        *from.choose(&mut self.random).expect("never empty")
    }

    fn say(&mut self, what: String) {
        self.steps.push(what);
    }

    fn step(&mut self, parts: &[Part]) {
        // The kind first: a part is not hit more often since there are many of it.
        let kinds: Vec<Kind> =
            parts
                .iter()
                .map(|part| part.kind)
                .fold(Vec::new(), |mut all, kind| {
                    if !all.contains(&kind) {
                        all.push(kind);
                    }
                    all
                });
        let kind = self.pick(&kinds);
        let of_kind: Vec<&Part> = parts.iter().filter(|part| part.kind == kind).collect();
        let part = of_kind[self.below(of_kind.len())].clone();
        if !is_qcow2(&self.bytes) {
            return match self.below(3) {
                0 => self.set_number(&part, parts),
                _ => self.write_descriptor(&part),
            };
        }
        match self.below(20) {
            0..7 => self.set_number(&part, parts),
            7 => self.flip_bit(&part),
            8 => self.copy_entry(&part, &of_kind),
            9 => self.scribble(&part),
            10 => self.change_length(),
            11 | 12 => self.insert_extension(),
            13 => self.name_backing_file(),
            14 | 15 => self.share_cluster(parts),
            16 => self.count_otherwise(),
            17 => self.repeat_bitmap(parts),
            18 => match parts.iter().find(|part| part.kind == Kind::Head) {
                Some(head) => self.write_descriptor(&head.clone()),
                None => self.flip_bit(&part),
            },
            _ => match kind {
                Kind::Compressed | Kind::Data => self.scribble(&part),
                _ => self.set_number(&part, parts),
            },
        }
    }

    /// A number that has a chance to break something.
    fn telling(&mut self, old: u64, width: usize, parts: &[Part]) -> u64 {
        let cluster = cluster_size(&self.bytes) as u64;
        let length = self.bytes.len() as u64;
        let place = parts[self.below(parts.len())].start as u64;
        let bit = 1u64.rotate_left(self.below(width * 8) as u32);
        let small = self.below(70) as u64;
        let values = [
            small,
            small,
            0,
            1,
            old.wrapping_add(1),
            old.wrapping_sub(1),
            old ^ bit,
            old ^ bit,
            old << 1,
            old | COPIED,
            old & !COPIED,
            old | COMPRESSED,
            place,
            place | COPIED,
            place + 1,
            length,
            length.next_multiple_of(cluster),
            length & !(cluster - 1),
            length + (1 << 20),
            cluster,
            cluster - 1,
            old.wrapping_add(cluster),
            old.wrapping_sub(cluster),
            512,
            0x7fff_ffff,
            0x8000_0000,
            0xffff_ffff,
            i64::MAX as u64,
            1 << 63,
            u64::MAX,
            !511,
            self.random.random(),
        ];
        self.pick(&values)
    }

    fn set_number(&mut self, part: &Part, parts: &[Part]) {
        let (at, width) = if part.fields.is_empty() || self.below(8) == 0 {
            let entries = (part.end - part.start) / part.width.max(1);
            let index = self.below(entries);
            (index * part.width, part.width.min(8))
        } else {
            self.pick(part.fields)
        };
        // Of extended entries the other half too.
        let other = if part.width == 16 {
            self.below(2) * 8
        } else {
            0
        };
        let at = part.start + at + other;
        let old = number(&self.bytes, at, width);
        let value = self.telling(old, width, parts);
        put(&mut self.bytes, at, width, value);
        self.say(format!(
            "{:?}: {width} bytes at {at:#x} from {old:#x} to {value:#x}",
            part.kind
        ));
    }

    fn flip_bit(&mut self, part: &Part) {
        let at = part.start + self.below(part.end.saturating_sub(part.start));
        let bit = self.below(8);
        if let Some(byte) = self.bytes.get_mut(at) {
            *byte ^= 1 << bit;
        }
        self.say(format!("{:?}: bit {bit} at {at:#x} flipped", part.kind));
    }

    fn copy_entry(&mut self, part: &Part, of_kind: &[&Part]) {
        let width = part.width.max(1);
        let other = of_kind[self.below(of_kind.len())];
        let from = other.start + self.below((other.end - other.start) / width) * width;
        let to = part.start + self.below((part.end - part.start) / width) * width;
        let entry = self.bytes.get(from..from + width).map(<[u8]>::to_vec);
        if let Some((entry, target)) = entry.zip(self.bytes.get_mut(to..to + width)) {
            target.copy_from_slice(&entry);
        }
        self.say(format!(
            "{:?}: entry at {from:#x} copied to {to:#x}",
            part.kind
        ));
    }

    fn scribble(&mut self, part: &Part) {
        let at = part.start + self.below(part.end.saturating_sub(part.start));
        let size = 1 + self.below(self.bytes.len().saturating_sub(at).min(300));
        let zero = self.below(2) == 0;
        for index in at..at + size {
            let byte = if zero { 0 } else { self.random.random() };
            if let Some(target) = self.bytes.get_mut(index) {
                *target = byte;
            }
        }
        self.say(format!(
            "{:?}: {size} bytes at {at:#x} overwritten",
            part.kind
        ));
    }

    fn change_length(&mut self) {
        let length = self.bytes.len();
        let cluster = cluster_size(&self.bytes);
        let new = match self.below(5) {
            0 => self.below(length),
            1 => length - 1 - self.below(700.min(length - 1)),
            2 => length.saturating_sub(cluster),
            3 => length + self.below(2 * cluster),
            _ => length.next_multiple_of(cluster),
        };
        self.bytes.resize(new, 0);
        self.say(format!("{length} bytes became {new}"));
    }

    fn header_length(&self) -> usize {
        match number(&self.bytes, 4, 4) {
            2 => 72,
            _ => number(&self.bytes, 100, 4) as usize,
        }
    }

    /// Puts an extension before the others.
    fn insert_extension(&mut self) {
        let (kind, what) = self.pick(&[
            (0xe279_2aca_u32, "backing format"),
            (0xe279_2aca, "backing format"),
            (0x0537_be77, "encryption"),
            (0x4441_5441, "data file"),
            (0x2385_2875, "bitmaps"),
            (0x6803_f857, "feature names"),
            (0x1234_5678, "unknown"),
            (0, "end"),
        ]);
        let data: Vec<u8> = match kind {
            0x4441_5441 => CANARY.as_bytes().to_vec(),
            0x2385_2875 => vec![0; self.pick(&[0, 8, 24, 32])],
            0x0537_be77 => vec![0; self.pick(&[0, 16, 24])],
            _ => b"raw".repeat(40)[..self.pick(&[0, 3, 8, 15, 16, 17, 48, 100])].to_vec(),
        };
        let mut extension = Vec::from(kind.to_be_bytes());
        let claimed = match self.below(8) {
            0 => u32::MAX,
            1 => cluster_size(&self.bytes) as u32,
            _ => data.len() as u32,
        };
        extension.extend(claimed.to_be_bytes());
        extension.extend(&data);
        extension.resize(extension.len().next_multiple_of(8), 0);
        let (start, end) = (self.header_length(), cluster_size(&self.bytes));
        if start <= end && end <= self.bytes.len() {
            let rest: Vec<u8> = extension
                .iter()
                .chain(&self.bytes[start..end])
                .copied()
                .take(end - start)
                .collect();
            self.bytes[start..end].copy_from_slice(&rest);
        }
        self.say(format!(
            "extension: {what}, {} bytes, said to be {claimed}",
            data.len()
        ));
    }

    fn name_backing_file(&mut self) {
        let end = cluster_size(&self.bytes).min(self.bytes.len());
        let name = self.pick(&[
            CANARY,
            "json:{\"driver\":\"raw\",\"file.filename\":\"canary\"}",
            "./canary",
        ]);
        let at = end.saturating_sub(name.len());
        if let Some(target) = self.bytes.get_mut(at..end) {
            target.copy_from_slice(name.as_bytes());
        }
        let offset = self.pick(&[at as u64, at as u64, at as u64, 0, end as u64, u64::MAX]);
        let size = self.pick(&[name.len() as u64, name.len() as u64, 0, 1024, 0xffff_ffff]);
        put(&mut self.bytes, 8, 8, offset);
        put(&mut self.bytes, 16, 4, size);
        self.say(format!(
            "backing file {name:?}: {size} bytes at {offset:#x}"
        ));
    }

    /// Makes two entries name one cluster, counted rightly or not.
    fn share_cluster(&mut self, parts: &[Part]) {
        let width = l2_entry_size(&self.bytes);
        let tables: Vec<&Part> = parts.iter().filter(|part| part.kind == Kind::L2).collect();
        if tables.is_empty() {
            return;
        }
        let table = tables[self.below(tables.len())].clone();
        let entries: Vec<usize> = (table.start..table.end).step_by(width).collect();
        let (from, to) = (self.pick(&entries), self.pick(&entries));
        let mut entry = number(&self.bytes, from, 8);
        if self.below(4) != 0 {
            entry &= !COPIED;
            put(&mut self.bytes, from, 8, entry);
        }
        put(&mut self.bytes, to, 8, entry);
        if width == 16 {
            let subclusters = number(&self.bytes, from + 8, 8);
            put(&mut self.bytes, to + 8, 8, subclusters);
        }
        let by = self.pick(&[0, 1, 1, 2]);
        let cluster = cluster_size(&self.bytes);
        if entry & COMPRESSED == 0 && entry & OFFSET != 0 {
            add_to_refcount(&mut self.bytes, (entry & OFFSET) as usize / cluster, by);
        }
        self.say(format!(
            "entry {entry:#x} at {from:#x} also at {to:#x}, counted {by} more"
        ));
    }

    fn count_otherwise(&mut self) {
        let clusters = self.bytes.len().div_ceil(cluster_size(&self.bytes));
        let cluster = self.below(clusters + 1);
        let by = self.pick(&[-1, 1, 1, 2, -2]);
        add_to_refcount(&mut self.bytes, cluster, by);
        self.say(format!("the refcount of cluster {cluster}: {by:+}"));
    }

    /// Gives two bitmaps one name, or one place.
    fn repeat_bitmap(&mut self, parts: &[Part]) {
        let bitmaps: Vec<&Part> = parts
            .iter()
            .filter(|part| part.kind == Kind::Bitmap)
            .collect();
        let [first, second, ..] = bitmaps[..] else {
            return self.count_otherwise();
        };
        let range = match self.below(3) {
            0 => 0..24,
            1 => 24..32,
            _ => 0..32,
        };
        let source = self
            .bytes
            .get(first.start..first.start + 32)
            .map(<[u8]>::to_vec);
        let target = self.bytes.get_mut(second.start..second.start + 32);
        if let Some((source, target)) = source.zip(target) {
            target[range.clone()].copy_from_slice(&source[range.clone()]);
        }
        self.say(format!(
            "bytes {range:?} of the first bitmap's entry in the second's"
        ));
    }

    /// Writes what other formats begin with to the start of the disk, naming the canary.
    fn write_descriptor(&mut self, head: &Part) {
        let before = self.pick(&[
            "",
            "",
            "# Disk DescriptorFile\n",
            "#\n\n",
            "\n\n#x\r\n",
            " \n",
            "\t",
        ]);
        let version = self.pick(&["1", "2", "3", "4", "0", "1 "]);
        let line = self.pick(&["\n", "\n", "\r\n"]);
        let extent = self.pick(&[
            "RW 8 FLAT \"canary\" 0",
            "RW 8 VMFS \"canary\"",
            "RW 8 SPARSE \"canary\"",
        ]);
        let text = format!(
            "{before}version={version}{line}CID=fffffffe{line}parentCID=ffffffff{line}\
             createType=\"monolithicFlat\"{line}{extent}{line}"
        );
        let mut overlay = vec![0; 104];
        overlay[..8].copy_from_slice(b"QFI\xfb\0\0\0\x03");
        let size = self.bytes.len() as u64 & !511;
        for (at, width, value) in [
            (8, 8, 120),
            (16, 4, 6),
            (20, 4, 16),
            (24, 8, size),
            (100, 4, 104),
        ] {
            put(&mut overlay, at, width, value);
        }
        overlay.extend([0; 16]);
        overlay.extend(CANARY.as_bytes());
        let bytes = match self.below(4) {
            0 => overlay,
            _ => text.clone().into_bytes(),
        };
        if let Some(target) = self.bytes.get_mut(head.start..head.start + bytes.len()) {
            target.copy_from_slice(&bytes);
        }
        self.say(format!(
            "the disk begins with {:?}",
            String::from_utf8_lossy(&bytes[..40])
        ));
    }
}
