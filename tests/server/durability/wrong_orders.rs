//! Traces made by hand: the right order passes, and each wrong one is found.

use super::order::{blob_precedes_commit, reply_follows_commit};
use super::trace::{Call, parse};

const FRAME: usize = 24 + 4096;
const OLD: &[u8] = b"an-older-name";
const NAME: &[u8] = b"the-name";
const ID: &[u8] = b"e3v0operation";
const DIGEST: &[u8] = b"the-thirty-two-bytes-of-a-digest";

/// A frame of the log as SQLite writes it, at its number: first the header, then the page.
fn frame(number: usize, commits: bool, page: &str) -> String {
    let size = if commits { r"\x09" } else { r"\x00" };
    let header = format!(r"\x00\x00\x00\x05\x00\x00\x00{size}{}", r"\x33".repeat(16));
    let at = 32 + number * FRAME;
    let rest = r"\x00".repeat(4096 - page.len());
    format!(
        "1 pwrite64(14</d/metadata.sqlite-wal>, \"{header}\", 24, {at}) = 24\n\
         1 pwrite64(14</d/metadata.sqlite-wal>, \"{page}{rest}\", 4096, {}) = 4096\n",
        at + 24
    )
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

fn reply(id: &[u8]) -> String {
    let id = text(id);
    format!(
        "2 writev(18<TCP:[127.0.0.1:1->127.0.0.1:2]>, [{{iov_base=\"200 {id}\", iov_len=9}}], 1) = 9\n"
    )
}

const SYNC: &str = "1 fdatasync(14</d/metadata.sqlite-wal>) = 0\n";

fn calls(parts: &[&str]) -> Vec<Call> {
    parse(&parts.concat()).unwrap()
}

#[test]
fn a_reply_that_leaves_too_early_is_found() {
    let before = [frame(0, true, text(OLD)), SYNC.to_owned()].concat();
    let name = format!("{} {}", text(OLD), text(NAME));
    let (first, last) = (frame(1, false, &name), frame(2, true, "index"));
    let pages = format!("{first}{last}");
    let again = frame(3, true, &name);
    let reply = reply(ID);
    let other = reply.replace(text(ID), "another");
    let begun = "1 fsync(14</d/metadata.sqlite-wal> <unfinished ...>\n";
    let ended = "1 <... fsync resumed>) = 0\n";
    let failed = ended.replace("= 0", "= -1 EIO (Input/output error)");
    let database = SYNC.replace("-wal", "");
    for (right, what, parts) in [
        (true, "the right order", vec![&pages[..], SYNC, &reply]),
        (
            true,
            "another reply before",
            vec![&other, &pages, SYNC, &reply],
        ),
        (
            true,
            "a later commit under way",
            vec![&pages, SYNC, &again, &reply, SYNC],
        ),
        (true, "a slow sync", vec![&pages, begun, ended, &reply]),
        (false, "a reply before the sync", vec![&pages, &reply, SYNC]),
        (
            false,
            "a reply before the commit",
            vec![&reply, &pages, SYNC],
        ),
        (
            false,
            "a reply during the sync",
            vec![&pages, begun, &reply, ended],
        ),
        (
            false,
            "a sync that failed",
            vec![&pages, begun, &failed, &reply],
        ),
        (false, "no sync", vec![&pages, &reply]),
        (
            false,
            "a sync of the database alone",
            vec![&pages, &database, &reply],
        ),
        (
            false,
            "a sync before the last page",
            vec![&first, SYNC, &last, &reply],
        ),
        (false, "no reply", vec![&pages, SYNC, &other]),
        (false, "no commit", vec![SYNC, &reply]),
        (
            false,
            "a transaction that was not committed",
            vec![&first, SYNC, &reply],
        ),
    ] {
        let calls = calls(&[&[before.as_str()], &parts[..]].concat());
        let found = reply_follows_commit(&calls, NAME, &[ID, b"200"]);
        assert_eq!(found.is_ok(), right, "{what}: {found:?}");
    }
}

#[test]
fn blob_that_becomes_live_too_early_is_found() {
    const MAKE: &str =
        "3 openat(AT_FDCWD</>, \"x\", O_RDWR|O_CREAT|O_EXCL, 0666) = 20</d/contents/cnt1>\n";
    const OTHER: &str =
        "3 openat(AT_FDCWD</>, \"y\", O_RDWR|O_CREAT|O_EXCL, 0666) = 21</d/contents/cnt2>\n";
    const WRITE: &str = "3 pwrite64(20</d/contents/cnt1>, \"abc\"..., 65536, 0) = 65536\n";
    const LENGTH: &str = "3 ftruncate(20</d/contents/cnt1>, 1048576) = 0\n";
    const FILE: &str = "3 fsync(20</d/contents/cnt1>) = 0\n";
    const FOLDER: &str = "3 fsync(19</d/contents>) = 0\n";
    let page = format!("cnt2 row cnt1 row {}", text(DIGEST));
    let live = frame(0, false, &page) + &frame(1, true, "index") + SYNC;
    let unsynced = FILE.replace("= 0", "= -1 EIO (Input/output error)");
    let sync_of_other = FILE.replace("cnt1", "cnt2");
    for (right, what, parts) in [
        (
            true,
            "the right order",
            vec![OTHER, MAKE, WRITE, LENGTH, FILE, FOLDER, &live],
        ),
        (
            true,
            "the folder first",
            vec![OTHER, MAKE, FOLDER, WRITE, LENGTH, FILE, &live],
        ),
        (
            false,
            "the file not synced",
            vec![OTHER, MAKE, WRITE, FOLDER, &live],
        ),
        (
            false,
            "the sync failed",
            vec![OTHER, MAKE, WRITE, &unsynced, FOLDER, &live],
        ),
        (
            false,
            "another file synced",
            vec![OTHER, MAKE, WRITE, &sync_of_other, FOLDER, &live],
        ),
        (
            false,
            "the folder not synced",
            vec![OTHER, MAKE, WRITE, FILE, &live],
        ),
        (
            false,
            "the folder synced too early",
            vec![OTHER, FOLDER, MAKE, WRITE, FILE, &live],
        ),
        (
            false,
            "written after the sync",
            vec![OTHER, MAKE, FILE, FOLDER, WRITE, &live],
        ),
        (
            false,
            "cut after the sync",
            vec![OTHER, MAKE, WRITE, FILE, LENGTH, FOLDER, &live],
        ),
        (
            false,
            "the file synced too late",
            vec![OTHER, MAKE, WRITE, FOLDER, &live, FILE],
        ),
        (
            false,
            "the folder synced too late",
            vec![OTHER, MAKE, WRITE, FILE, &live, FOLDER],
        ),
        (
            false,
            "never written",
            vec![OTHER, MAKE, FILE, FOLDER, &live],
        ),
        (false, "no commit", vec![OTHER, MAKE, WRITE, FILE, FOLDER]),
    ] {
        let found = blob_precedes_commit(&calls(&parts), DIGEST);
        assert_eq!(found.is_ok(), right, "{what}: {found:?}");
    }
}
