//! The first bytes of the guest's disk, read through the tables: they tell what a program will find that opens the
//! disk once it is converted to raw.

use super::codec::Codec;
use super::compressed::Descriptor;
use super::entries::{COMPRESSED, OFFSET, ZERO};
use super::header::Header;
use crate::read_at::read_up_to;
use crate::{Format, FormatError, ReadAt, bytes, probe};

/// Subclusters of a cluster with an extended entry.
const SUBCLUSTERS: u64 = 32;

/// Refuses a disk that begins as an image of any format does.
pub(super) fn refuse_image_inside<R: ReadAt + ?Sized>(
    content: &R,
    header: &Header,
) -> Result<(), FormatError> {
    let head = read_head(content, header, probe::HEAD)?;
    match probe::head(&head) {
        Some(found) => Err(FormatError::ImageInside {
            container: Format::Qcow2,
            found,
        }),
        None => Ok(()),
    }
}

/// The bytes of the disk from its start, up to `limit` or the end of the disk. The tables must have been checked.
fn read_head<R: ReadAt + ?Sized>(
    content: &R,
    header: &Header,
    limit: usize,
) -> Result<Vec<u8>, FormatError> {
    let disk = usize::try_from(header.virtual_size).unwrap_or(limit);
    let mut head = vec![0; limit.min(disk)];
    let cluster_size = usize::try_from(header.cluster_size()).unwrap_or(usize::MAX);
    for (number, part) in (0..).zip(head.chunks_mut(cluster_size)) {
        read_cluster(content, header, number, part)?;
    }
    Ok(head)
}

/// Fills `part`, which is all zeros, with the first bytes of a guest cluster.
fn read_cluster<R: ReadAt + ?Sized>(
    content: &R,
    header: &Header,
    number: u64,
    part: &mut [u8],
) -> Result<(), FormatError> {
    let (index, position) = (number / header.l2_entries(), number % header.l2_entries());
    let table = number_at(content, header.l1_offset.saturating_add(index * 8))? & OFFSET;
    if table == 0 {
        return Ok(());
    }
    let entry_size = if header.extended_l2 { 16 } else { 8 };
    let place = table.saturating_add(position * entry_size);
    let entry = number_at(content, place)?;
    if entry & COMPRESSED != 0 {
        return read_compressed(content, header, entry, part);
    }
    let offset = entry & OFFSET;
    if offset == 0 {
        return Ok(());
    }
    if !header.extended_l2 {
        return match entry & ZERO {
            0 => read_stored(content, offset, part),
            _ => Ok(()),
        };
    }
    let allocated = number_at(content, place.saturating_add(8))?;
    let size = header.cluster_size() / SUBCLUSTERS;
    let chunks = part.chunks_mut(usize::try_from(size).unwrap_or(usize::MAX));
    for (subcluster, part) in (0..SUBCLUSTERS).zip(chunks) {
        if allocated >> subcluster & 1 != 0 {
            read_stored(content, offset.saturating_add(subcluster * size), part)?;
        }
    }
    Ok(())
}

fn number_at<R: ReadAt + ?Sized>(content: &R, offset: u64) -> Result<u64, FormatError> {
    Ok(bytes::be_u64(&read_up_to(content, offset, 8)?, 0))
}

/// Data as they are. What lies beyond the end of the file reads as zeros.
fn read_stored<R: ReadAt + ?Sized>(
    content: &R,
    offset: u64,
    part: &mut [u8],
) -> Result<(), FormatError> {
    let stored = read_up_to(content, offset, part.len())?;
    part.iter_mut()
        .zip(stored)
        .for_each(|(target, source)| *target = source);
    Ok(())
}

/// Compressed data have been checked: those that cannot be decompressed leave zeros.
fn read_compressed<R: ReadAt + ?Sized>(
    content: &R,
    header: &Header,
    entry: u64,
    part: &mut [u8],
) -> Result<(), FormatError> {
    let Some(descriptor) = Descriptor::parse(entry, header.cluster_bits) else {
        return Ok(());
    };
    let size = descriptor.end().saturating_sub(descriptor.offset);
    let data = read_up_to(
        content,
        descriptor.offset,
        usize::try_from(size).unwrap_or(usize::MAX),
    )?;
    let mut codec = Codec::new(header);
    if codec.decompress(&data).is_ok() {
        part.iter_mut()
            .zip(codec.cluster())
            .for_each(|(target, source)| *target = *source);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::{installed, run, run_with};
    use crate::{FileReader, FormatError, inspect};

    /// A disk of 300 KB whose bytes all differ from their neighbours, with holes.
    fn disk() -> Vec<u8> {
        let mut disk: Vec<u8> = (0..300_032u32)
            .map(|at| (at * 7 + at / 256) as u8)
            .collect();
        disk[3_000..9_000].fill(0);
        disk[16_384..40_000].fill(0);
        disk
    }

    #[test]
    fn the_first_bytes_of_the_disk_are_read_as_qemu_reads_them() {
        let test = "the_first_bytes_of_the_disk_are_read_as_qemu_reads_them";
        if !installed(test, &["qemu-img", "qemu-io"]) {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        std::fs::write(folder.join("disk"), disk()).unwrap();
        for options in [
            "",
            "-o cluster_size=512",
            "-o cluster_size=2M",
            "-o compat=0.10",
            "-c",
            "-c -o cluster_size=512",
            "-c -o cluster_size=2M",
            "-c -o compression_type=zstd",
            "-c -o compression_type=zstd,cluster_size=4k",
            "-o extended_l2=on,cluster_size=16k",
            "-o extended_l2=on,cluster_size=128k",
            "-c -o extended_l2=on,cluster_size=128k",
        ] {
            run(
                folder,
                &format!("qemu-img convert -q -f raw -O qcow2 {options} disk image"),
            );
            for write in ["", "write -z 4k 8k", "discard 0 64k", "write -P 7 20k 1k"] {
                if !write.is_empty() {
                    run_with(folder, &["qemu-io", "-f", "qcow2", "-c", write, "image"]);
                }
                run(folder, "qemu-img convert -q -f qcow2 -O raw image raw");
                let expected = std::fs::read(folder.join("raw")).unwrap();
                let image = std::fs::read(folder.join("image")).unwrap();
                let header = Header::read(&image).unwrap();
                for limit in [1, 512, 65_536, 400_000] {
                    let head = read_head(&image, &header, limit).unwrap();
                    let expected = &expected[..limit.min(expected.len())];
                    assert!(head == expected, "{options}, {write}, {limit} bytes");
                }
            }
        }
    }

    #[test]
    fn a_qcow2_image_with_an_image_inside_is_refused_however_it_is_stored() {
        let test = "a_qcow2_image_with_an_image_inside_is_refused_however_it_is_stored";
        if !installed(test, &["qemu-img"]) {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let mut descriptor = vec![0; 1 << 20];
        let text =
            b"#\n\nversion=1\nCID=fffffffe\nparentCID=ffffffff\ncreateType=\"monolithicFlat\"\n\
                     RW 8 FLAT \"/etc/passwd\" 0\n";
        descriptor[..text.len()].copy_from_slice(text);
        std::fs::write(folder.join("descriptor"), descriptor).unwrap();
        std::fs::write(folder.join("empty"), vec![0; 1 << 20]).unwrap();
        run(
            folder,
            "qemu-img create -q -f qcow2 -b /etc/passwd -F raw overlay 1M",
        );
        run(folder, "qemu-img convert -q -f raw -O vmdk empty vmdk");
        run(folder, "qemu-img convert -q -f raw -O vdi empty vdi");
        for (inner, expected) in [
            ("descriptor", "looks like the descriptor of a VMDK image"),
            ("overlay", "looks like a qcow2 image"),
            ("vmdk", "looks like a VMDK image"),
            ("vdi", "looks like a VDI image"),
        ] {
            for options in [
                "",
                "-c",
                "-c -o compression_type=zstd",
                "-o cluster_size=512",
                "-o extended_l2=on",
                "-S 0 -o compat=0.10",
            ] {
                run(
                    folder,
                    &format!("qemu-img convert -q -f raw -O qcow2 {options} {inner} image"),
                );
                let file = std::fs::File::open(folder.join("image")).unwrap();
                let error = inspect(&FileReader::new(file).unwrap()).unwrap_err();
                assert!(
                    matches!(error, FormatError::ImageInside { .. })
                        && error.to_string().contains(expected)
                        && error
                            .to_string()
                            .contains("qemu-img convert -f qcow2 -O raw"),
                    "{inner}, {options}: {error}"
                );
            }
        }
    }
}
