//! Rules that a GPT must keep to, and which faults of its backup are only noted.

use crate::test_support::{Put, gpt, installed, put_boot_record, run, seal_gpt, seal_header};
use crate::{FormatError, Partition, PartitionScheme, inspect};

const SECTORS: usize = 200;
const PARTITIONS: [(u64, u64); 2] = [(40, 99), (100, 150)];
/// The places of the headers and of the entries in sectors of 512 bytes.
const PRIMARY: usize = 512;
const ENTRIES: usize = 2 * 512;
const BACKUP: usize = (SECTORS - 1) * 512;
const BACKUP_ENTRIES: usize = (SECTORS - 33) * 512;

fn sample() -> Vec<u8> {
    gpt(512, SECTORS, &PARTITIONS)
}

#[test]
fn tables_in_both_sizes_of_sectors_are_accepted() {
    for (sector, partitions) in [
        (512, &PARTITIONS[..]),
        (512, &[]),
        (4096, &[(6, 100), (101, 194)]),
    ] {
        let found = inspect(&gpt(sector, SECTORS, partitions)).unwrap();
        assert_eq!(found.virtual_size, (sector * SECTORS) as u64);
        let table = found.partition_table.unwrap();
        assert_eq!(table.scheme, PartitionScheme::Gpt);
        let expected: Vec<Partition> = (1..)
            .zip(partitions)
            .map(|(number, (first, last))| Partition {
                number,
                offset: first * sector as u64,
                size: (last - first + 1) * sector as u64,
            })
            .collect();
        assert_eq!(table.partitions, expected);
    }
}

#[test]
fn a_hybrid_boot_record_and_a_disk_that_has_grown_are_accepted() {
    let mut image = sample();
    put_boot_record(&mut image, 0, &[(0, 0xEE, 1, 39), (0x80, 0x83, 40, 60)]);
    inspect(&image).unwrap();
    image.resize(SECTORS * 2 * 512, 0);
    let found = inspect(&image).unwrap();
    assert_eq!(found.virtual_size, (SECTORS * 2 * 512) as u64);
    assert!(
        found.notes[0].contains("not at the end of the disk")
            && found.notes[0].contains("sgdisk -e"),
        "{:?}",
        found.notes
    );
    put_boot_record(
        &mut image,
        0,
        &[(0, 0xEE, 1, 39), (0, 0x83, 40, 60), (0, 0x83, 99, 2)],
    );
    let message = inspect(&image).unwrap_err().to_string();
    assert!(
        message.contains("partition 2 (sectors 40 to 99) and partition 3"),
        "{message}"
    );
}

#[test]
fn every_changed_byte_of_either_table_is_found_and_noted_where_only_the_backup_has_it() {
    let image = sample();
    assert_eq!(inspect(&image).unwrap().notes, [""; 0]);
    let changed = |at: usize| {
        let mut damaged = image.clone();
        damaged[at] ^= 0x10;
        inspect(&damaged)
    };
    for at in [PRIMARY..PRIMARY + 92, ENTRIES..ENTRIES + 300]
        .into_iter()
        .flatten()
    {
        assert!(changed(at).is_err(), "byte {at}");
    }
    for at in [BACKUP..BACKUP + 92, BACKUP_ENTRIES..BACKUP_ENTRIES + 300]
        .into_iter()
        .flatten()
    {
        let notes = changed(at).unwrap().notes;
        assert!(notes[0].contains("sgdisk -e"), "byte {at}: {notes:?}");
    }
}

#[test]
fn a_sound_primary_table_is_enough_where_no_partition_is_cut() {
    type Damage = fn(&mut Vec<u8>);
    let cases: [(&str, Damage); 11] = [
        ("the disk ends before its backup", |image| {
            image.truncate((SECTORS - 1) * 512)
        }),
        ("the disk ends before its backup", |image| {
            image.truncate((SECTORS - 33) * 512)
        }),
        ("does not begin with the signature", |image| {
            image[(SECTORS - 33) * 512..].fill(0)
        }),
        ("does not begin with the signature", |image| {
            image[BACKUP..].fill(0)
        }),
        ("the checksum of the backup entries is wrong", |image| {
            image[BACKUP_ENTRIES..BACKUP].fill(0)
        }),
        ("the disk ends before its backup", |image| {
            put_number(image, PRIMARY, 32, u64::MAX)
        }),
        ("names itself as the backup", |image| {
            put_number(image, PRIMARY, 32, 1)
        }),
        ("sector 150 does not begin with the signature", |image| {
            put_number(image, PRIMARY, 32, 150)
        }),
        ("says that it is at sector 7", |image| {
            put_number(image, BACKUP, 24, 7)
        }),
        ("names sector 9 for the primary header", |image| {
            put_number(image, BACKUP, 32, 9)
        }),
        ("names other usable sectors", |image| {
            put_number(image, BACKUP, 48, 160)
        }),
    ];
    for (number, (expected, damage)) in cases.into_iter().enumerate() {
        let mut image = sample();
        damage(&mut image);
        let notes = inspect(&image)
            .unwrap_or_else(|error| panic!("{number}: {error}"))
            .notes;
        assert!(
            notes[0].contains(expected) && notes[0].contains("sgdisk -e IMAGE"),
            "{number}: {notes:?}"
        );
    }
}

/// Puts a number into one header only, and makes its checksum right again.
fn put_number(image: &mut Vec<u8>, header: usize, at: usize, value: u64) {
    image.put_le64(header + at, value);
    seal_header(image, header);
}

#[test]
fn a_damaged_primary_table_is_refused_with_the_command_that_mends_it_from_its_backup() {
    type Damage = fn(&mut Vec<u8>);
    let cases: [(&str, Damage); 5] = [
        ("no GPT header after it", |image| {
            image[PRIMARY..PRIMARY + 512].fill(0)
        }),
        ("the primary header has the revision", |image| {
            image[PRIMARY + 8] ^= 1
        }),
        ("the checksum of the primary header is wrong", |image| {
            image[PRIMARY + 72] ^= 1
        }),
        ("the checksum of the primary entries is wrong", |image| {
            image[ENTRIES..ENTRIES + 512].fill(0)
        }),
        ("no protective MBR before it", |image| image[..512].fill(0)),
    ];
    for (expected, damage) in cases {
        let mut image = sample();
        damage(&mut image);
        let message = inspect(&image).unwrap_err().to_string();
        assert!(
            message.contains(expected) && message.contains("sgdisk -e IMAGE"),
            "expected {expected:?} in {message:?}"
        );
        // Nothing to mend it from.
        image[BACKUP..].fill(0);
        let message = inspect(&image).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn the_command_that_a_refusal_or_a_note_names_mends_the_table() {
    let test = "the_command_that_a_refusal_or_a_note_names_mends_the_table";
    if !installed(test, &["sgdisk"]) {
        return;
    }
    type Damage = fn(&mut Vec<u8>);
    let cases: [Damage; 8] = [
        |image| {
            let other = gpt(512, SECTORS, &[(40, 98)]);
            image[BACKUP_ENTRIES..].copy_from_slice(&other[BACKUP_ENTRIES..]);
        },
        |image| image[..512].fill(0),
        |image| image[PRIMARY..PRIMARY + 512].fill(0),
        |image| image[ENTRIES..ENTRIES + 512].fill(0),
        |image| image[BACKUP_ENTRIES..].fill(0),
        |image| image.truncate((SECTORS - 33) * 512),
        // The area of the table is cut, and no partition.
        |image| image.truncate((SECTORS - 40) * 512),
        |image| image.resize(2 * SECTORS * 512, 0),
    ];
    let folder = tempfile::tempdir().unwrap();
    for (number, damage) in cases.into_iter().enumerate() {
        let mut image = gpt(512, SECTORS, &[(40, 99)]);
        damage(&mut image);
        let said = match inspect(&image) {
            Ok(found) => found.notes.concat(),
            Err(error) => error.to_string(),
        };
        assert!(said.contains("sgdisk -e IMAGE"), "{number}: {said}");
        let path = folder.path().join("image");
        std::fs::write(&path, image).unwrap();
        run(folder.path(), "sgdisk -e image");
        let mended = std::fs::read(&path).unwrap();
        let found = inspect(&mended).unwrap_or_else(|error| panic!("{number}: {error}"));
        assert_eq!(found.notes, [""; 0], "{number}");
    }
}

#[test]
fn a_sound_backup_that_describes_other_partitions_is_refused() {
    let mut image = sample();
    let other = gpt(512, SECTORS, &[(40, 98), (100, 150)]);
    image[(SECTORS - 33) * 512..].copy_from_slice(&other[(SECTORS - 33) * 512..]);
    let message = inspect(&image).unwrap_err().to_string();
    assert!(
        message.contains("sector 199 describes other partitions") && message.contains("sgdisk -e"),
        "{message}"
    );
}

#[test]
fn a_table_for_a_larger_disk_is_refused_with_the_command_that_fits_it() {
    let image = sample();
    for sectors in [152, 160, 166] {
        let message = inspect(&image[..sectors * 512]).unwrap_err().to_string();
        assert!(
            message.contains("no partition is cut") && message.contains("sgdisk -e IMAGE"),
            "{sectors}: {message}"
        );
    }
    for sectors in [100, 150] {
        let message = inspect(&image[..sectors * 512]).unwrap_err().to_string();
        assert!(
            message.contains("truncated: GPT partition 2"),
            "{sectors}: {message}"
        );
    }
}

#[test]
fn a_disk_with_two_tables_for_sectors_of_two_sizes_is_refused_unless_they_agree() {
    const BYTES: usize = 200 * 4096;
    // In sectors of 512 bytes the entries are moved behind the header for sectors of 4096.
    let both = |small: &[(u64, u64)], large: &[(u64, u64)]| {
        let mut image = gpt(4096, BYTES / 4096, large);
        let mut other = gpt(512, BYTES / 512, small);
        other.put_le64(512 + 72, 64);
        other.put_le64(512 + 40, 96);
        other.put_le64(BYTES - 512 + 40, 96);
        let entries = other[1024..1024 + 32 * 512].to_vec();
        other.put_bytes(64 * 512, &entries);
        seal_gpt(&mut other, 512);
        image[512..1024].copy_from_slice(&other[512..1024]);
        image.put_bytes(64 * 512, &entries);
        image
    };
    let agreeing = both(&[(800, 807)], &[(100, 100)]);
    inspect(&agreeing).unwrap();
    let message = inspect(&both(&[(800, 807)], &[(101, 101)]))
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("one table in sectors of 512 bytes and another in sectors of 4096 bytes"),
        "{message}"
    );
    // Firmware that finds no primary table takes the backup at the end of the disk.
    let mut image = gpt(4096, BYTES / 4096, &[(100, 100)]);
    let other = gpt(512, BYTES / 512, &[(800, 900)]);
    image[BYTES - 33 * 512..BYTES - 8 * 512]
        .copy_from_slice(&other[BYTES - 33 * 512..BYTES - 8 * 512]);
    image[BYTES - 7 * 512..].copy_from_slice(&other[BYTES - 7 * 512..]);
    let mut moved = image.clone();
    let entries = other[1024..1024 + 32 * 512].to_vec();
    moved.put_bytes(120 * 4096, &entries);
    moved.put_le64(BYTES - 512 + 72, 120 * 8);
    seal_header(&mut moved, BYTES - 512);
    let message = inspect(&moved).unwrap_err().to_string();
    assert!(
        message.contains("another in sectors of 512 bytes"),
        "{message}"
    );
}

#[test]
fn tables_that_contradict_themselves_are_refused_although_the_checksums_are_right() {
    type Damage = fn(&mut Vec<u8>);
    let cases: [(&str, Damage); 10] = [
        ("the primary header has the revision 0x00020000", |image| {
            image.put_le32(PRIMARY + 8, 0x20000)
        }),
        ("says that it has 91 bytes", |image| {
            image.put_le32(PRIMARY + 12, 91)
        }),
        ("says that it has 513 bytes", |image| {
            image.put_le32(PRIMARY + 12, 513)
        }),
        (
            "the primary header at sector 1 says that it is at sector 2",
            |image| image.put_le64(PRIMARY + 24, 2),
        ),
        ("its parts are out of order", |image| {
            image.put_le64(PRIMARY + 40, 33)
        }),
        ("its parts are out of order", |image| {
            image.put_le64(PRIMARY + 48, 20)
        }),
        ("its parts are out of order", |image| {
            image.put_le64(PRIMARY + 72, 1)
        }),
        ("0 entries of 128 bytes", |image| {
            image.put_le32(PRIMARY + 80, 0)
        }),
        ("4294967295 entries of 128 bytes", |image| {
            image.put_le32(PRIMARY + 80, u32::MAX)
        }),
        ("128 entries of 192 bytes", |image| {
            image.put_le32(PRIMARY + 84, 192)
        }),
    ];
    for (expected, damage) in cases {
        let mut image = gpt(512, SECTORS, &[]);
        damage(&mut image);
        seal_gpt(&mut image, 512);
        let message = inspect(&image).unwrap_err().to_string();
        assert!(
            message.contains(expected),
            "expected {expected:?} in {message:?}"
        );
    }
}

#[test]
fn partitions_outside_of_the_usable_sectors_or_on_each_other_are_refused() {
    let cases: [(&str, &[(u64, u64)]); 5] = [
        ("partition 1 has the sectors 33 to 60", &[(33, 60)]),
        (
            "partition 2 has the sectors 100 to 167",
            &[(40, 60), (100, 167)],
        ),
        ("partition 1 has the sectors 60 to 59", &[(60, 59)]),
        (
            "partition 1 has the sectors 50 to 18446744073709551615",
            &[(50, u64::MAX)],
        ),
        (
            "partition 2 (sectors 40 to 60) and partition 1 (sectors 60 to 70) overlap",
            &[(60, 70), (40, 60)],
        ),
    ];
    for (expected, partitions) in cases {
        let message = inspect(&gpt(512, SECTORS, partitions))
            .unwrap_err()
            .to_string();
        assert!(
            message.contains(expected),
            "expected {expected:?} in {message:?}"
        );
    }
}

#[test]
fn a_cut_is_found_wherever_it_is() {
    let image = sample();
    for length in (512..image.len())
        .step_by(37)
        .chain([image.len() - 512, image.len() - 1])
    {
        let result = inspect(&image[..length]);
        // Up to the end of the usable sectors something is lost; beyond, only the backup.
        let usable = length >= (SECTORS - 33) * 512;
        match result {
            Ok(found) => assert!(
                usable && length.is_multiple_of(512) && !found.notes.is_empty(),
                "{length}: {found:?}"
            ),
            Err(FormatError::PartialSector { .. }) => assert!(usable, "{length}"),
            Err(FormatError::GptBeyondDisk { .. }) => {
                assert!(!usable && length >= 151 * 512, "{length}")
            }
            Err(error) => assert!(
                matches!(error, FormatError::Truncated { .. }) && length < 151 * 512,
                "{length}: {error}"
            ),
        }
    }
}

#[test]
fn a_boot_record_and_a_table_that_lack_each_other_are_refused() {
    let mut image = sample();
    image[510] = 0;
    let message = inspect(&image).unwrap_err().to_string();
    assert!(
        message.contains("a GPT header, but no protective MBR"),
        "{message}"
    );
    let mut image = sample();
    image[PRIMARY] = 0;
    let message = inspect(&image).unwrap_err().to_string();
    assert!(
        message.contains("a protective MBR and no GPT header after it"),
        "{message}"
    );
}
