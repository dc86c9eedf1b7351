//! The order in which data must reach the disk: read from the calls of a server, which may come in any
//! order and overlap.

use std::ops::Range;

use super::trace::Call;

const WAL: &str = "metadata.sqlite-wal";
const CONTENTS: &str = "/contents";
/// The write-ahead log of SQLite: a header, then frames of a header and a page each.
const WAL_HEADER: u64 = 32;
const FRAME_HEADER: u64 = 24;
const PAGE: u64 = 4096;

const WRITES: &[&str] = &[
    "write",
    "writev",
    "pwrite64",
    "pwritev",
    "pwritev2",
    "ftruncate",
];
const SENDS: &[&str] = &["write", "writev", "sendto", "sendmsg"];
const SYNCS: &[&str] = &["fsync", "fdatasync"];

/// A reply is on its way only when the commit is on the disk that first holds `stored`: it is the
/// first one that has all of `sent` in it.
pub fn reply_follows_commit(calls: &[Call], stored: &[u8], sent: &[&[u8]]) -> Result<(), String> {
    let reply = calls
        .iter()
        .filter(|call| call.is_one_of(SENDS) && call.file.starts_with("TCP"))
        .find(|call| sent.iter().all(|part| holds(&call.data, part)))
        .ok_or("the reply is not in the trace")?;
    let commit = commit_of(calls, stored).ok_or("the commit is not in the trace")?;
    let synced = synced(calls, |file| file.ends_with(WAL), commit.written);
    match synced {
        None => Err("the log was not synced after the commit".to_owned()),
        Some(synced) if synced < reply.begin => Ok(()),
        Some(synced) => Err(format!(
            "the reply leaves in line {}, before the commit is on the disk in line {}",
            reply.begin + 1,
            synced + 1
        )),
    }
}

/// The blob with this digest becomes live only when its file and the name of that are on the
/// disk: its commit is the first one that holds the digest.
pub fn blob_precedes_commit(calls: &[Call], sha256: &[u8]) -> Result<(), String> {
    let commit = commit_of(calls, sha256).ok_or("the commit is not in the trace")?;
    let path = blob_file_of(calls, &commit, sha256)
        .ok_or("no file of the content folder is named beside the digest")?;
    let made = calls
        .iter()
        .find(|call| call.file == path && call.arguments.contains("O_CREAT"))
        .ok_or_else(|| format!("{path} is not made"))?;
    let written = calls
        .iter()
        .filter(|call| call.file == path && call.is_one_of(WRITES))
        .map(|call| call.end)
        .max()
        .ok_or_else(|| format!("{path} is not written"))?;
    for (what, synced) in [
        ("the file", synced(calls, |file| file == path, written)),
        (
            "the folder",
            synced(calls, |file| file.ends_with(CONTENTS), made.end),
        ),
    ] {
        match synced {
            None => {
                return Err(format!(
                    "{what} was not synced after the last change: {path}"
                ));
            }
            Some(synced) if synced < commit.begun => {}
            Some(synced) => {
                return Err(format!(
                    "the commit is written in line {}, before {what} is on the disk in line {}",
                    commit.begun + 1,
                    synced + 1
                ));
            }
        }
    }
    Ok(())
}

/// The end of the first successful sync of a file that begins after a line.
fn synced(calls: &[Call], is_file: impl Fn(&str) -> bool, after: usize) -> Option<usize> {
    calls
        .iter()
        .filter(|call| call.is_one_of(SYNCS) && call.succeeded() && is_file(&call.file))
        .filter(|call| call.begin > after)
        .map(|call| call.end)
        .min()
}

/// A transaction in the log.
struct Commit {
    /// The writes of the commit, among all that go to the log.
    writes: Range<usize>,
    /// The line where the frame begins to be written that makes it a commit.
    begun: usize,
    /// The line where all of it is written.
    written: usize,
}

/// The first commit that has these bytes in it.
fn commit_of(calls: &[Call], bytes: &[u8]) -> Option<Commit> {
    let writes = log_writes(calls);
    commits(&writes).into_iter().find(|commit| {
        writes[commit.writes.clone()]
            .iter()
            .any(|call| holds(&call.data, bytes))
    })
}

fn log_writes(calls: &[Call]) -> Vec<&Call> {
    calls
        .iter()
        .filter(|call| call.name == "pwrite64" && call.file.ends_with(WAL))
        .collect()
}

fn commits(writes: &[&Call]) -> Vec<Commit> {
    let mut commits = Vec::new();
    let mut first = 0;
    let mut closing: Option<(usize, u64)> = None;
    for (number, call) in writes.iter().enumerate() {
        let start = call.last_number().unwrap_or_default();
        let end = start + call.data.len() as u64;
        for frame in frames(start, end) {
            // The second number is the size of the database for a frame that commits, or zero.
            let at = (frame - start) as usize;
            if call.data[at + 4..at + 8] != [0; 4] {
                closing = Some((call.begin, frame + FRAME_HEADER + PAGE));
            }
        }
        if let Some((begun, _)) = closing.take_if(|(_, last)| *last <= end) {
            let writes = first..number + 1;
            let written = call.end;
            commits.push(Commit {
                writes,
                begun,
                written,
            });
            first = number + 1;
        }
    }
    commits
}

/// The offsets of frames whose headers a write from `start` to `end` holds.
fn frames(start: u64, end: u64) -> impl Iterator<Item = u64> {
    let size = FRAME_HEADER + PAGE;
    let next = start.saturating_sub(WAL_HEADER).div_ceil(size);
    (next..)
        .map(move |frame| WAL_HEADER + frame * size)
        .take_while(move |frame| frame + FRAME_HEADER <= end)
}

/// The file of the blob whose row has the digest. The id stands before the digest in the row,
/// so that it is the last one before it in the page.
fn blob_file_of(calls: &[Call], commit: &Commit, sha256: &[u8]) -> Option<String> {
    let writes = log_writes(calls);
    let made: Vec<&str> = calls
        .iter()
        .filter(|call| call.arguments.contains("O_CREAT"))
        .filter_map(|call| {
            let (folder, _) = call.file.rsplit_once('/')?;
            folder.ends_with(CONTENTS).then_some(call.file.as_str())
        })
        .collect();
    writes[commit.writes.clone()].iter().find_map(|call| {
        let before = &call.data[..find(&call.data, sha256)?];
        let found = made.iter().filter_map(|path| {
            let (_, id) = path.rsplit_once('/')?;
            Some((rfind(before, id.as_bytes())?, path))
        });
        found.max().map(|(_, path)| (*path).to_owned())
    })
}

fn holds(data: &[u8], part: &[u8]) -> bool {
    find(data, part).is_some()
}

fn find(data: &[u8], part: &[u8]) -> Option<usize> {
    data.windows(part.len()).position(|window| window == part)
}

fn rfind(data: &[u8], part: &[u8]) -> Option<usize> {
    data.windows(part.len()).rposition(|window| window == part)
}
