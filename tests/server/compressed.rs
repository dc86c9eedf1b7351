//! Compressed qcow2 images: damage that no checksum shows is found before an image is READY.

use std::time::Duration;

use serde_json::json;
use test_support::{
    Disk, Fill, Method, SlowUpload, TestServer, eventually, failure, response, text,
};
use tonic::Code;

/// A disk whose bytes compress, though not to nothing.
fn words() -> Vec<u8> {
    let mut disk = Disk::mbr(8, Fill::Sparse(1));
    let mut state = 1u32;
    for line in disk[1 << 20..7 << 20].chunks_exact_mut(8) {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        line.copy_from_slice(b"a letter");
        line[..2].copy_from_slice(&[32 + (state >> 26) as u8, 32 + (state >> 20) as u8 % 64]);
    }
    disk
}

#[tokio::test]
async fn compressed_images_are_ready_when_whole_and_refused_when_damaged() {
    let test = "compressed_images_are_ready_when_whole_and_refused_when_damaged";
    let server = TestServer::start().await;
    let disk = words();
    for (method, other) in [("zlib", "zstd"), ("zstd", "zlib")] {
        let option = format!("compression_type={method}");
        let Some(whole) = Disk::qcow2(test, &disk, &["-c", "-o", &option]) else {
            return;
        };
        let mut zeroed = whole.clone();
        // Behind header, refcounts and tables, a cluster each, are the data.
        zeroed[(5 << 16) + 100_000..][..300_000].fill(0);
        let mut mislabelled = whole.clone();
        mislabelled[79] ^= 8;
        mislabelled[104] ^= 1;
        for (name, image, refusal) in [
            ("whole", whole, None),
            ("zeroed", zeroed, Some(format!("expected {method} data"))),
            (
                "mislabelled",
                mislabelled,
                Some(format!(
                    "expected {other} data, as the header says, that give exactly 65536 bytes; they are {method} data"
                )),
            ),
        ] {
            let uri = server.importable(name, &image);
            let request = json!({"folderId": "f", "uri": uri});
            let accepted = server.ask(Method::Create, request).await;
            let imported = server.wait(text(&accepted, "id")).await;
            let uploaded = server.uploaded("f", "", &image).await;
            for operation in [imported, uploaded] {
                match &refusal {
                    None => assert_eq!(response(&operation)["status"], "READY"),
                    Some(expected) => {
                        let (code, message) = failure(&operation);
                        assert_eq!(code, Code::InvalidArgument, "{name}: {message}");
                        for words in [expected, "compressed guest cluster", "qemu-img convert -c"] {
                            assert!(message.contains(words), "{name}: {message}");
                        }
                    }
                }
            }
        }
    }
}

/// A small image of a disk of hundreds of gigabytes, all of which must be decompressed: clusters of 2 MiB, whose data
/// are never the same bytes.
fn endless() -> Vec<u8> {
    const CLUSTER: usize = 2 << 20;
    const CLUSTERS: usize = 200_000;
    let mut compress = flate2::Compress::new(flate2::Compression::best(), false);
    let mut stream = Vec::with_capacity(CLUSTER);
    compress
        .compress_vec(
            &vec![0; CLUSTER],
            &mut stream,
            flate2::FlushCompress::Finish,
        )
        .unwrap();
    let mut image = vec![0; 7 * CLUSTER];
    let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"QFI\xfb\0\0\0\x03");
    put(20, &21u32.to_be_bytes());
    put(24, &((CLUSTERS * CLUSTER) as u64).to_be_bytes());
    put(36, &1u32.to_be_bytes());
    for (at, cluster) in [(40, 3), (48, 1), (CLUSTER, 2), (3 * CLUSTER, 4)] {
        put(at, &((cluster * CLUSTER) as u64).to_be_bytes());
    }
    put(56, &1u32.to_be_bytes());
    put(96, &4u32.to_be_bytes());
    put(100, &104u32.to_be_bytes());
    put(2 * CLUSTER, &[0xff; 14]);
    let data = 5 * CLUSTER;
    let copies = 200;
    for copy in 0..copies {
        put(data + copy * stream.len(), &stream);
    }
    for index in 0..CLUSTERS {
        let offset = data + index % copies * stream.len();
        let sectors = stream.len() / 512 + 1 + index / copies;
        let entry = 1 << 62 | (sectors as u64) << 49 | offset as u64;
        put(4 * CLUSTER + index * 8, &entry.to_be_bytes());
    }
    image
}

/// Whether this process has a thread that decompresses.
fn decompresses() -> bool {
    let threads = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    let mut names = threads.map(|thread| std::fs::read_to_string(thread.path().join("comm")));
    names.any(|name| name.is_ok_and(|name| name.trim() == "decompression"))
}

#[tokio::test]
async fn an_upload_can_be_cancelled_while_its_clusters_are_decompressed() {
    let server = TestServer::start().await;
    let image = endless();
    let upload = SlowUpload::start(&server, "f", "endless", &image[..1 << 20]).await;
    let id = upload.operation_id.clone();
    let reply = tokio::spawn(async move {
        upload.send(&image[1 << 20..]).await;
        upload.finish().await
    });
    eventually("clusters are decompressed", async || {
        decompresses().then_some(())
    })
    .await;
    server
        .ask(Method::OperationCancel, json!({"operationId": id}))
        .await;
    let operation = tokio::time::timeout(Duration::from_secs(20), server.wait(&id));
    let operation = operation.await.expect("an end");
    let (code, message) = failure(&operation);
    assert_eq!(code, Code::Cancelled, "{message}");
    reply.abort();
}
