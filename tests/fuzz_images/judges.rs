//! QEMU's tools as judges of an image that was accepted: they must open it, find nothing wrong that matters, and read
//! no other file.

use std::path::Path;
use std::process::Command;

use disk_image::Format;
use regex::Regex;

use crate::mutate::{CANARY, Mutant};

/// The text of the file that no image may lead to.
const SECRET: &str = "This line is in no image, and must be in no copy of one.\n";
/// How long a judge may take.
const SECONDS: &str = "60";

/// A folder with the image under trial, and the canary beside it.
pub struct Bench<'a> {
    folder: &'a Path,
    differences: &'a Differences,
}

struct Answer {
    code: Option<i32>,
    text: String,
    canary_opened: bool,
}

impl<'a> Bench<'a> {
    pub fn new(folder: &'a Path, differences: &'a Differences) -> Bench<'a> {
        std::fs::write(folder.join(CANARY), SECRET.repeat(1000)).expect("the canary");
        Bench {
            folder,
            differences,
        }
    }

    /// Runs a judge, and sees which files it opens if that is asked for.
    fn ask(&self, arguments: &[&str], traced: bool) -> Answer {
        let tracing = match traced {
            true => "strace -f -qq --seccomp-bpf -e trace=open,openat -o trace qemu-img",
            false => "qemu-img",
        };
        let _ = std::fs::remove_file(self.folder.join("trace"));
        let output = Command::new("timeout")
            .arg(SECONDS)
            .args(tracing.split(' '))
            .args(arguments)
            .current_dir(self.folder)
            .output()
            .expect("timeout");
        let trace = std::fs::read(self.folder.join("trace")).unwrap_or_default();
        let text = [output.stdout, output.stderr].concat();
        Answer {
            code: output.status.code(),
            text: String::from_utf8_lossy(&text).into_owned(),
            canary_opened: String::from_utf8_lossy(&trace).contains(CANARY),
        }
    }

    /// Tells what is wrong with an accepted image; or in which classes `qemu-img check` sees it differently.
    pub fn judge(&self, mutant: &Mutant, format: Format) -> Result<Vec<String>, String> {
        std::fs::write(self.folder.join("image"), &mutant.bytes).expect("the image");
        let _ = std::fs::remove_file(self.folder.join("copy"));
        let mut questions = vec![vec!["info", "image"]];
        if format == Format::Qcow2 {
            questions.push(vec!["check", "image"]);
        }
        questions.push(vec!["convert", "-O", "raw", "image", "copy"]);
        // Who does not know the name of the canary cannot find it.
        let names_canary = mutant
            .bytes
            .windows(CANARY.len())
            .any(|bytes| bytes == CANARY.as_bytes());
        if names_canary {
            // What the next program will see that opens the disk.
            questions.push(vec!["info", "copy"]);
        }
        let mut classes = Vec::new();
        for question in &questions {
            let answer = self.ask(question, names_canary);
            let name = question.join(" ");
            if answer.canary_opened {
                return Err(format!("qemu-img {name} opened the canary"));
            }
            match (question[0], answer.code) {
                ("check", Some(0 | 3)) | ("info" | "convert", Some(0)) => {}
                ("check", Some(2)) => classes.extend(self.differences.classes(&answer.text)?),
                (_, code) => {
                    return Err(format!(
                        "qemu-img {name} ended with {code:?}: {}",
                        answer.text
                    ));
                }
            }
            if *question == ["info", "image"]
                && !answer.text.contains(&format!("file format: {format}"))
            {
                return Err(format!(
                    "qemu-img takes it for another format: {}",
                    answer.text
                ));
            }
        }
        let copy = std::fs::File::open(self.folder.join("copy")).expect("a copy");
        if begins_with_secret(&copy) {
            return Err("the copy holds what the canary holds".to_owned());
        }
        Ok(classes)
    }
}

/// Whether the secret is in the first MiB: an extent of another file would be there.
fn begins_with_secret(copy: &std::fs::File) -> bool {
    use std::io::Read;
    let mut start = Vec::new();
    copy.take(1 << 20)
        .read_to_end(&mut start)
        .expect("the copy");
    start
        .windows(SECRET.len())
        .any(|window| window == SECRET.as_bytes())
}

/// The classes of what `qemu-img check` calls an error and is accepted all the same, from
/// `tests/data/fuzz-images/check-differences.txt`.
pub struct Differences {
    known: Vec<String>,
    number: Regex,
}

impl Differences {
    pub fn load() -> Differences {
        let text = include_str!("../data/fuzz-images/check-differences.txt");
        let known = text.lines().filter(|line| line.starts_with("ERROR"));
        Differences {
            known: known.map(str::to_owned).collect(),
            number: Regex::new(r"\b(0x)?[0-9a-f]*[0-9][0-9a-f]*\b").expect("a pattern"),
        }
    }

    /// The class of a line: numbers do not matter, but for a refcount of 1.
    fn class(&self, line: &str) -> String {
        let kept = line.replace("refcount=1", "refcount=one");
        let kept = if kept.ends_with("refcount=one") {
            &kept
        } else {
            line
        };
        let kept = kept.replace("L2", "L<two>").replace("l2_", "l<two>_");
        let kept = self
            .number
            .replace_all(&kept.replace("l1_", "l<one>_"), "N")
            .into_owned();
        kept.replace("<two>", "2")
            .replace("<one>", "1")
            .replace("refcount=one", "refcount=1")
    }

    /// The classes of all errors in an answer. Errors: one that is not listed.
    fn classes(&self, answer: &str) -> Result<Vec<String>, String> {
        let mut classes: Vec<String> = answer
            .lines()
            .filter(|line| line.starts_with("ERROR"))
            .map(|line| self.class(line))
            .collect();
        classes.sort();
        classes.dedup();
        match classes.iter().find(|class| !self.known.contains(class)) {
            Some(class) => Err(format!("qemu-img check says what is not listed: {class}")),
            None if classes.is_empty() => Err(format!("qemu-img check found a fault: {answer}")),
            None => Ok(classes),
        }
    }
}
