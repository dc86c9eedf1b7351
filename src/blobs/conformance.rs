//! The conformance suite: promises of every store of blobs, tested from outside, on each of them.

use std::ops::Range;

use bytes::Bytes;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use test_support::seaweedfs::{self, ObjectPlace};

use super::checksums::{BLOCK, Summing};
use super::*;

const MIB: usize = 1 << 20;
const LONGER_THAN_A_BLOCK: usize = BLOCK as usize + MIB;

/// Runs tests, each on every store.
macro_rules! conformance {
    ($($test:ident),+ $(,)?) => {
        mod local {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                super::$test(super::Fixture::local()).await;
            })+
        }

        mod object {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                let layout = super::BlobLayout::Packed;
                if let Some(fixture) = super::Fixture::object(stringify!($test), layout).await {
                    super::$test(fixture).await;
                }
            })+
        }

        mod whole_object {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                let layout = super::BlobLayout::Whole;
                if let Some(fixture) = super::Fixture::object(stringify!($test), layout).await {
                    super::$test(fixture).await;
                }
            })+
        }
    };
}

conformance! {
    every_range_of_a_blob_is_read_as_it_was_written,
    size_digest_and_checksums_are_those_of_the_bytes,
    zeros_come_back_and_are_stored_only_in_whole_objects,
    many_read_one_blob_at_once,
    an_id_is_used_once,
    a_blob_that_was_not_finished_leaves_nothing_behind,
    what_was_removed_is_missing_and_may_be_removed_again,
    a_blob_that_is_removed_while_it_is_read_is_never_wrong,
    the_list_has_all_blobs_and_those_that_were_begun,
    damage_is_noticed_before_a_byte_leaves,
    a_blob_of_another_size_is_damage,
    what_is_in_the_place_of_the_blobs_is_not_taken_for_them,
}

/// A store, and the ways of its tests to what it has stored.
struct Fixture {
    blobs: Arc<dyn BlobStore>,
    storage: Storage,
    layout: BlobLayout,
}

enum Storage {
    Local(TempDir),
    Object(ObjectPlace),
}

impl Fixture {
    fn local() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let blobs = LocalBlobs::open(&folder.path().join("contents")).unwrap();
        Self {
            blobs: Arc::new(blobs),
            storage: Storage::Local(folder),
            layout: BlobLayout::Packed,
        }
    }

    async fn object(test: &str, layout: BlobLayout) -> Option<Self> {
        if !seaweedfs::is_installed(test) {
            return None;
        }
        let place = seaweedfs::place().await;
        let settings = ObjectSettings {
            url: place.url.clone(),
            endpoint: Some(place.endpoint.clone()),
            environment: place.environment.clone(),
            upload_memory: 64 << 20,
            layout,
            redirect: None,
        };
        let blobs = ObjectBlobs::new(&settings).unwrap();
        blobs.probe().await.unwrap();
        blobs.note_owner("this").await.unwrap();
        blobs.expect_owner("this");
        Some(Self {
            blobs: Arc::new(blobs),
            storage: Storage::Object(place),
            layout,
        })
    }

    /// Writes a blob in chunks of all sizes.
    async fn write(&self, id: &str, bytes: &[u8]) -> Written {
        let writer = self.blobs.create(id, Some(bytes.len() as u64)).await;
        let writer = writer.unwrap();
        for chunk in bytes.chunks(300_007) {
            assert!(
                writer
                    .write(Chunk::Data(Bytes::copy_from_slice(chunk)))
                    .await
            );
        }
        writer.finish().await.unwrap()
    }

    /// Changes what is stored of a blob.
    async fn damage(&self, id: &str, change: impl FnOnce(&mut Vec<u8>)) {
        match &self.storage {
            Storage::Local(folder) => {
                let path = folder.path().join("contents").join(id);
                let mut bytes = std::fs::read(&path).unwrap();
                change(&mut bytes);
                std::fs::write(&path, bytes).unwrap();
            }
            Storage::Object(place) => {
                let name = format!("blobs/{id}");
                let mut bytes = place.object(&name).await.unwrap();
                change(&mut bytes);
                place.put(&name, bytes).await;
            }
        }
    }

    /// Puts another place where that of the blobs was.
    async fn lose(&self) {
        match &self.storage {
            Storage::Local(folder) => {
                let contents = folder.path().join("contents");
                std::fs::rename(&contents, folder.path().join("elsewhere")).unwrap();
                std::fs::create_dir(&contents).unwrap();
            }
            Storage::Object(place) => place.put("owner", b"another".to_vec()).await,
        }
    }
}

/// Bytes without two equal blocks and without a block of zeros.
fn bytes(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at / 4099 + at) as u8 | 1).collect()
}

async fn read(reader: &dyn BlobReader, range: Range<u64>) -> Result<Vec<u8>, Error> {
    let mut read = Vec::new();
    for part in by_many_blocks(range, reader.blocks_at_once()) {
        read.extend(reader.read(part).await?);
    }
    Ok(read)
}

async fn every_range_of_a_blob_is_read_as_it_was_written(fixture: Fixture) {
    let whole = bytes(2 * LONGER_THAN_A_BLOCK);
    let size = whole.len() as u64;
    let written = fixture.write("blob", &whole).await;
    let mut runner = TestRunner::deterministic();
    for checksums in [Some(written.checksums), None] {
        let reader = fixture.blobs.open("blob", size, checksums).await.unwrap();
        assert!(read(&*reader, 0..size).await.unwrap() == whole);
        for _ in 0..12 {
            let range = (0..size, 1..=BLOCK).new_tree(&mut runner);
            let (start, length) = range.unwrap().current();
            let range = start..(start + length).min(size);
            let expected = &whole[range.start as usize..range.end as usize];
            assert!(read(&*reader, range).await.unwrap() == expected);
        }
        for range in [0..1, size - 1..size, BLOCK - 1..BLOCK + 1] {
            let expected = &whole[range.start as usize..range.end as usize];
            assert!(read(&*reader, range).await.unwrap() == expected);
        }
    }
}

async fn size_digest_and_checksums_are_those_of_the_bytes(fixture: Fixture) {
    for (id, length) in [
        ("nothing", 0),
        ("one", 1),
        ("block", BLOCK as usize),
        ("more", LONGER_THAN_A_BLOCK),
    ] {
        let whole = bytes(length);
        let mut summing = Summing::default();
        summing.data(&whole);
        let expected = Written {
            size: length as u64,
            stored_size: length as u64,
            sha256: Sha256::digest(&whole).into(),
            checksums: summing.finish(),
        };
        assert_eq!(fixture.write(id, &whole).await, expected, "{id}");
        let blob = fixture.blobs.open_unchecked(id, length as u64).await;
        let blob = blob.unwrap();
        assert_eq!(blob.len(), length as u64);
        let examined = tokio::task::spawn_blocking(move || examine(&*blob, |_| true));
        let examined = examined.await.unwrap().unwrap().unwrap();
        assert_eq!(examined.sha256, expected.sha256, "{id}");
        assert_eq!(examined.checksums, expected.checksums, "{id}");
    }
}

async fn zeros_come_back_and_are_stored_only_in_whole_objects(fixture: Fixture) {
    let zeros = |count: usize| Chunk::Zeros(count as u64);
    let data = |count: usize| Chunk::Data(bytes(count).into());
    let zeros_as_data = |count: usize| Chunk::Data(vec![0; count].into());
    let stored_block = 64 << 10;
    for (id, chunks, stored) in [
        ("only zeros", vec![zeros(9 * MIB + 1)], 0),
        (
            "zeros as data",
            vec![data(MIB), zeros_as_data(6 * MIB), data(MIB)],
            2 * MIB,
        ),
        (
            "unaligned",
            vec![data(5), zeros(5 * MIB), data(7), zeros(2 * MIB)],
            2 * stored_block,
        ),
        (
            "a hole of many blocks",
            vec![data(MIB), zeros(50 * MIB), data(3), zeros(20 * MIB)],
            MIB + stored_block,
        ),
    ] {
        let mut whole = Vec::new();
        let writer = fixture.blobs.create(id, None).await.unwrap();
        for chunk in chunks {
            match &chunk {
                Chunk::Data(data) => whole.extend_from_slice(data),
                Chunk::Zeros(count) => whole.resize(whole.len() + *count as usize, 0),
            }
            assert!(writer.write(chunk).await);
        }
        let written = writer.finish().await.unwrap();
        let size = whole.len() as u64;
        let stored = match fixture.layout {
            BlobLayout::Packed => stored,
            BlobLayout::Whole => whole.len(),
        };
        assert_eq!(
            (written.size, written.stored_size),
            (size, stored as u64),
            "{id}"
        );
        assert_eq!(
            written.sha256,
            <[u8; 32]>::from(Sha256::digest(&whole)),
            "{id}"
        );
        let checksums = Some(written.checksums);
        let reader = fixture.blobs.open(id, size, checksums).await.unwrap();
        assert!(read(&*reader, 0..size).await.unwrap() == whole, "{id}");
        for at in (0..size - 1).step_by(MIB - 1) {
            let range = at..(at + 70_000).min(size);
            let expected = &whole[range.start as usize..range.end as usize];
            assert!(read(&*reader, range).await.unwrap() == expected, "{id}");
        }
        let blob = fixture.blobs.open_unchecked(id, size).await.unwrap();
        let compared = tokio::task::spawn_blocking(move || {
            let mut found = vec![1; whole.len()];
            blob.read_exact_at(&mut found, 0).unwrap();
            assert!(found == whole, "{id}");
            // Data lie within the areas that are told of.
            let (mut told, mut offset) = (vec![0; whole.len()], 0);
            while let Some(area) = blob.next_data(offset) {
                let area_of = area.start as usize..area.end as usize;
                told[area_of.clone()].copy_from_slice(&whole[area_of]);
                offset = area.end;
            }
            assert!(told == whole, "{id}");
        });
        compared.await.unwrap();
    }
}

async fn many_read_one_blob_at_once(fixture: Fixture) {
    let whole = bytes(LONGER_THAN_A_BLOCK);
    let size = whole.len() as u64;
    let written = fixture.write("blob", &whole).await;
    let reader = fixture.blobs.open("blob", size, Some(written.checksums));
    let reader = reader.await.unwrap();
    let readers: Vec<_> = (0..8)
        .map(|number| {
            let reader = reader.clone();
            let expected = whole[number * 1000..].to_vec();
            tokio::spawn(async move {
                let range = number as u64 * 1000..size;
                assert!(read(&*reader, range).await.unwrap() == expected);
            })
        })
        .collect();
    for reader in readers {
        reader.await.unwrap();
    }
}

async fn an_id_is_used_once(fixture: Fixture) {
    let whole = bytes(MIB);
    let written = fixture.write("blob", &whole).await;
    let second = fixture.blobs.create("blob", None).await;
    assert!(second.is_err());
    let reader = fixture
        .blobs
        .open("blob", written.size, Some(written.checksums));
    let reader = reader.await.unwrap();
    assert!(read(&*reader, 0..written.size).await.unwrap() == whole);
}

async fn a_blob_that_was_not_finished_leaves_nothing_behind(fixture: Fixture) {
    for (id, length) in [("some", 1), ("more", 30 * MIB)] {
        let writer = fixture.blobs.create(id, Some(40 * MIB as u64)).await;
        let writer = writer.unwrap();
        for _ in 0..length / MIB {
            assert!(writer.write(Chunk::Data(bytes(MIB).into())).await);
        }
        drop(writer);
        let opened = fixture.blobs.open(id, 40 * MIB as u64, None).await;
        assert!(opened.is_err_and(|error| error.is_damage()));
        let removed = fixture.blobs.remove(vec![id.to_owned()]).await.unwrap();
        assert_eq!(removed, [id]);
        assert!(fixture.blobs.list().await.unwrap().is_empty());
    }
}

async fn what_was_removed_is_missing_and_may_be_removed_again(fixture: Fixture) {
    let written = fixture.write("blob", &bytes(MIB)).await;
    fixture.write("other", &bytes(MIB)).await;
    for ids in [["blob", "never there"], ["blob", "blob"]] {
        let ids = ids.map(str::to_owned).to_vec();
        let removed = fixture.blobs.remove(ids.clone()).await.unwrap();
        assert_eq!(removed, ids);
        assert_eq!(fixture.blobs.list().await.unwrap(), ["other"]);
    }
    assert!(fixture.blobs.remove(Vec::new()).await.unwrap().is_empty());
    let checksums = Some(written.checksums);
    let opened = fixture.blobs.open("blob", written.size, checksums).await;
    assert!(matches!(opened.err(), Some(Error::Missing)));
    let opened = fixture.blobs.open_unchecked("blob", written.size).await;
    assert!(matches!(opened.err(), Some(Error::Missing)));
}

async fn a_blob_that_is_removed_while_it_is_read_is_never_wrong(fixture: Fixture) {
    let whole = bytes(LONGER_THAN_A_BLOCK);
    let size = whole.len() as u64;
    let written = fixture.write("blob", &whole).await;
    let reader = fixture.blobs.open("blob", size, Some(written.checksums));
    let reader = reader.await.unwrap();
    let first = reader.read(0..MIB as u64).await.unwrap();
    assert!(first == whole[..MIB]);
    fixture.blobs.remove(vec!["blob".to_owned()]).await.unwrap();
    match read(&*reader, 0..size).await {
        Ok(read) => assert!(read == whole),
        Err(error) => assert!(matches!(error, Error::Missing), "{error}"),
    }
}

async fn the_list_has_all_blobs_and_those_that_were_begun(fixture: Fixture) {
    assert!(fixture.blobs.list().await.unwrap().is_empty());
    for number in 0..5 {
        fixture
            .write(&format!("blob-{number}"), &bytes(number))
            .await;
    }
    let mut found = fixture.blobs.list().await.unwrap();
    found.sort();
    assert_eq!(found, ["blob-0", "blob-1", "blob-2", "blob-3", "blob-4"]);

    // The stored length of a whole blob is told from that of another one, however it is laid out.
    let mut sparse = bytes(LONGER_THAN_A_BLOCK);
    sparse.resize(3 * LONGER_THAN_A_BLOCK, 0);
    let written = fixture.write("sparse", &sparse).await;
    let stored = fixture.blobs.stored().await.unwrap();
    assert_eq!(stored.len(), 6);
    for number in 0..5 {
        assert_eq!(stored[&format!("blob-{number}")], number);
    }
    let Written {
        size, stored_size, ..
    } = written;
    let fits = |found: u64| fixture.blobs.fits(found, size, stored_size);
    let found = stored["sparse"];
    assert!(fits(found));
    for other in [0, found - 1, found + 1, size - 1, size + 1] {
        assert!(!fits(other), "{other}");
    }
}

async fn damage_is_noticed_before_a_byte_leaves(fixture: Fixture) {
    let whole = bytes(2 * LONGER_THAN_A_BLOCK);
    let size = whole.len() as u64;
    let written = fixture.write("blob", &whole).await;
    let bad = BLOCK + 100_000;
    let open = || {
        fixture
            .blobs
            .open("blob", size, Some(written.checksums.clone()))
    };
    let reader = open().await.unwrap();
    reader.read(bad - 10..bad + 10).await.unwrap();
    fixture
        .damage("blob", |stored| stored[bad as usize] ^= 1)
        .await;
    for reader in [reader, open().await.unwrap()] {
        for range in [bad..bad + 1, BLOCK..2 * BLOCK, BLOCK..BLOCK + 10] {
            let refused = reader.read(range).await.unwrap_err();
            assert!(matches!(refused, Error::BadBlock { .. }), "{refused}");
        }
        let refused = read(&*reader, 0..size).await.unwrap_err();
        assert!(matches!(refused, Error::BadBlock { .. }), "{refused}");
        reader.read(0..BLOCK).await.unwrap();
        reader.read(2 * BLOCK..2 * BLOCK + 10).await.unwrap();
    }
    let blob = fixture.blobs.open_unchecked("blob", size).await.unwrap();
    let examined = tokio::task::spawn_blocking(move || examine(&*blob, |_| true));
    let examined = examined.await.unwrap().unwrap().unwrap();
    assert_ne!(examined.sha256, written.sha256);
    assert_eq!(written.checksums.differences(&examined.checksums), [BLOCK]);
}

async fn a_blob_of_another_size_is_damage(fixture: Fixture) {
    let written = fixture.write("blob", &bytes(MIB)).await;
    fixture
        .damage("blob", |stored| stored.truncate(MIB - 1))
        .await;
    let opened = fixture
        .blobs
        .open("blob", written.size, Some(written.checksums))
        .await;
    assert!(matches!(opened.err(), Some(Error::WrongSize { .. })));
    let opened = fixture.blobs.open_unchecked("blob", written.size).await;
    assert!(matches!(opened.err(), Some(Error::WrongSize { .. })));
}

async fn what_is_in_the_place_of_the_blobs_is_not_taken_for_them(fixture: Fixture) {
    let written = fixture.write("blob", &bytes(MIB)).await;
    fixture.blobs.check().await.unwrap();
    fixture.lose().await;
    let is_lost = |error: Option<Error>| matches!(error, Some(Error::Lost { .. }));
    assert!(is_lost(fixture.blobs.check().await.err()));
    // An object of another bucket cannot be open by this name. The one that was written may be read.
    if let Storage::Local(_) = fixture.storage {
        let opened = fixture.blobs.open("blob", written.size, None).await;
        assert!(is_lost(opened.err()));
    }
    assert!(is_lost(fixture.blobs.create("new", None).await.err()));
    let removed = fixture.blobs.remove(vec!["blob".to_owned()]).await;
    assert!(is_lost(removed.err()));
}
