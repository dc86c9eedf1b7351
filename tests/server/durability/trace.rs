//! The system calls of a process, as `strace -f -x -yy` wrote them down.

use std::collections::HashMap;

/// A system call. Its begin and end are lines of the trace: strace stops a thread at both, so that
/// what another thread does because of the end comes in a later line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    pub name: String,
    pub begin: usize,
    pub end: usize,
    /// The file of the descriptor: a path, or `TCP:[…]`. For a call that opens, the file that it opened.
    pub file: String,
    /// The strings that it was given, put together.
    pub data: Vec<u8>,
    /// The arguments, without strings.
    pub arguments: String,
    /// Less than zero where it failed.
    pub result: i64,
}

impl Call {
    pub fn succeeded(&self) -> bool {
        self.result >= 0
    }

    /// The last argument, as the position of a `pwrite64` is.
    pub fn last_number(&self) -> Option<u64> {
        self.arguments.rsplit([',', ' ']).next()?.parse().ok()
    }

    pub fn is_one_of(&self, names: &[&str]) -> bool {
        names.contains(&self.name.as_str())
    }
}

/// The calls that ended, in the order of their begins.
pub fn parse(text: &str) -> Result<Vec<Call>, String> {
    let mut calls = Vec::new();
    // By thread: where an unfinished call began, and its text up to there.
    let mut unfinished: HashMap<&str, (usize, &str)> = HashMap::new();
    for (number, line) in text.lines().enumerate() {
        let wrong = || format!("line {}: {line}", number + 1);
        let (thread, rest) = line.split_once(' ').ok_or_else(wrong)?;
        let rest = rest.trim_start();
        if rest.starts_with("+++") || rest.starts_with("---") {
            continue;
        }
        if let Some(begun) = rest.strip_suffix(" <unfinished ...>") {
            unfinished.insert(thread, (number, begun));
            continue;
        }
        let (begin, whole) = match rest.strip_prefix("<... ") {
            Some(resumed) => {
                let (_, ended) = resumed.split_once(" resumed>").ok_or_else(wrong)?;
                let (begin, begun) = unfinished.remove(thread).ok_or_else(wrong)?;
                (begin, format!("{begun}{ended}"))
            }
            None => (number, rest.to_owned()),
        };
        // The end of a process leaves calls without a result.
        if whole.ends_with(" = ?") {
            continue;
        }
        calls.push(call(&whole, begin, number).ok_or_else(wrong)?);
    }
    calls.sort_by_key(|call| call.begin);
    Ok(calls)
}

fn call(text: &str, begin: usize, end: usize) -> Option<Call> {
    let (name, rest) = text.split_once('(')?;
    let (outside, data) = without_strings(rest)?;
    let (arguments, result) = outside.rsplit_once(" = ")?;
    let arguments = arguments.trim_end().strip_suffix(')')?;
    let (opened, file) = match file_of(result) {
        Some(file) => (result.split('<').next()?, file),
        None => (
            result.split(' ').next()?,
            file_of(arguments).unwrap_or_default(),
        ),
    };
    Some(Call {
        name: name.to_owned(),
        begin,
        end,
        file: file.to_owned(),
        data,
        arguments: arguments.to_owned(),
        result: opened.parse().ok()?,
    })
}

/// The file after a descriptor at the start: `18<TCP:[127.0.0.1:80->127.0.0.1:9]>`.
fn file_of(text: &str) -> Option<&str> {
    let (number, rest) = text.split_once('<')?;
    number.parse::<u32>().ok()?;
    let end = rest
        .match_indices('>')
        .map(|(at, _)| at)
        .find(|at| rest[at + 1..].is_empty() || rest[at + 1..].starts_with([',', ' ', ')']))?;
    Some(&rest[..end])
}

/// The text without its strings in quotes, and these, put together.
fn without_strings(text: &str) -> Option<(String, Vec<u8>)> {
    let (mut outside, mut data) = (String::new(), Vec::new());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'"' {
            outside.push(byte.into());
            continue;
        }
        loop {
            match rest.next()? {
                b'"' => break,
                b'\\' => data.push(escape(&mut rest)?),
                byte => data.push(byte),
            }
        }
    }
    Some((outside, data))
}

/// The byte of an escape of C, after its backslash. Of the numbers, `-x` uses but `\xNN`.
fn escape(rest: &mut std::str::Bytes<'_>) -> Option<u8> {
    Some(match rest.next()? {
        b'x' => {
            let digits = [rest.next()?, rest.next()?];
            u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
        }
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'v' => 11,
        b'f' => 12,
        byte @ (b'"' | b'\\') => byte,
        _ => return None,
    })
}

mod tests {
    use super::*;

    #[test]
    fn calls_have_their_files_data_and_results() {
        let text = r#"7  pwrite64(14</d/m-wal>, "\x00a\"\\\n\xff", 6, 4120) = 6
7  openat(AT_FDCWD</d>, "x/y", O_RDWR|O_CREAT, 0666) = 20</d/x/y>
7  openat(AT_FDCWD</d>, "z", O_RDONLY) = -1 ENOENT (No such file or directory)
8  writev(18<TCP:[127.0.0.1:1->127.0.0.1:2]>, [{iov_base="a = ", iov_len=4}, {iov_base="b"..., iov_len=1}], 2) = 5
8  --- SIGCHLD {si_signo=SIGCHLD} ---
8  +++ exited with 0 +++
"#;
        let calls = parse(text).unwrap();
        let seen: Vec<_> = calls
            .iter()
            .map(|call| {
                (
                    call.name.as_str(),
                    call.file.as_str(),
                    call.data.as_slice(),
                    call.result,
                )
            })
            .collect();
        let expected: [(&str, &str, &[u8], i64); 4] = [
            ("pwrite64", "/d/m-wal", b"\0a\"\\\n\xff", 6),
            ("openat", "/d/x/y", b"x/y", 20),
            ("openat", "", b"z", -1),
            ("writev", "TCP:[127.0.0.1:1->127.0.0.1:2]", b"a = b", 5),
        ];
        assert_eq!(seen, expected);
        assert_eq!(calls[0].last_number(), Some(4120));
        assert!(calls[1].arguments.contains("O_CREAT"));
    }

    #[test]
    fn a_call_that_another_interrupts_spans_both() {
        let text = "\
1 fsync(3</a> <unfinished ...>
2 write(4</b>, \"x\", 1 <unfinished ...>
1 <... fsync resumed>) = 0
2 <... write resumed>) = 1
3 fsync(5</c> <unfinished ...>
3 <... fsync resumed>) = ?
";
        let calls = parse(text).unwrap();
        let spans: Vec<_> = calls
            .iter()
            .map(|call| (call.file.as_str(), call.begin, call.end))
            .collect();
        assert_eq!(spans, [("/a", 0, 2), ("/b", 1, 3)]);
    }

    #[test]
    fn what_is_no_trace_is_refused() {
        for text in [
            "1 fsync",
            "1 fsync(3</a>) = x",
            "1 <... fsync resumed>) = 0",
            "1 write(3, \"a",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
