//! Sound images: what QEMU's tools leave behind after commands in any order must be accepted.

use std::path::Path;
use std::process::Command;

use disk_image::{FileReader, inspect};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

/// How many commands are tried on one image.
const COMMANDS: usize = 9;
/// In seconds. What a command leaves behind that is stopped then is not looked at.
const LONGEST_COMMAND: &str = "20";

/// The life of an image.
pub struct Life {
    random: StdRng,
    cluster: u64,
    size: u64,
    /// The commands that were run, to be shown.
    commands: Vec<String>,
}

impl Life {
    /// Makes an image and changes it; tells how many states were looked at, or which one was refused.
    pub fn live(folder: &Path, seed: u64, number: u64) -> Result<u64, String> {
        let random = StdRng::seed_from_u64(seed.wrapping_mul(999_983).wrapping_add(number));
        let mut life = Life {
            random,
            cluster: 0,
            size: 0,
            commands: Vec::new(),
        };
        let _ = std::fs::remove_file(folder.join("image"));
        let mut states = 0;
        let mut last = Vec::new();
        for step in 0..COMMANDS {
            let command = if step == 0 {
                life.create()
            } else {
                life.change()
            };
            life.commands.push(command.clone());
            // A command may not fit the image; what it leaves is an image all the same.
            let output = Command::new("timeout")
                .args(["--signal=KILL", LONGEST_COMMAND, "sh", "-c", &command])
                .current_dir(folder)
                .output()
                .map_err(|error| error.to_string())?;
            // Some versions of qemu-img never end: 7.2 at `amend -o refcount_bits=32`, of some images.
            if matches!(output.status.code(), None | Some(137)) {
                break;
            }
            let Ok(bytes) = std::fs::read(folder.join("image")) else {
                return Err(format!(
                    "{command}: {}",
                    String::from_utf8_lossy(&output.stderr)
                ));
            };
            if bytes == last {
                continue;
            }
            states += 1;
            let file =
                std::fs::File::open(folder.join("image")).map_err(|error| error.to_string())?;
            let reader = FileReader::new(file).map_err(|error| error.to_string())?;
            if let Err(error) = inspect(&reader) {
                return Err(format!(
                    "{error}\n    after: {}",
                    life.commands.join("\n           ")
                ));
            }
            last = bytes;
        }
        Ok(states)
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        *from.choose(&mut self.random).expect("never empty")
    }

    /// A place in the disk, and a size from there.
    fn area(&mut self, grain: u64) -> (u64, u64) {
        let start = self.random.random_range(0..self.size) / grain * grain;
        let size = self.random.random_range(1..=self.size / 4 + 1);
        let size = size.next_multiple_of(grain).min(self.size - start);
        (start, size.max(grain.min(self.size - start)))
    }

    fn create(&mut self) -> String {
        self.cluster = self.pick(&[
            512,
            512,
            1024,
            4096,
            16_384,
            65_536,
            65_536,
            262_144,
            2 << 20,
        ]);
        let sectors = self
            .random
            .random_range(1..=(self.cluster * 60).min(8 << 20) / 512);
        self.size = sectors * 512;
        let mut options = format!("cluster_size={},size={}", self.cluster, self.size);
        let more = self.pick(&[
            "",
            "",
            "compat=0.10",
            "lazy_refcounts=on",
            "compression_type=zstd",
        ]);
        if !more.is_empty() {
            options += &format!(",{more}");
        }
        if more != "compat=0.10" {
            let bits = self.pick(&[1, 2, 4, 8, 16, 16, 16, 16, 32, 64]);
            options += &format!(",refcount_bits={bits}");
            if self.cluster >= 16_384 && self.random.random_ratio(1, 3) {
                options += ",extended_l2=on";
            }
        }
        if self.random.random_ratio(1, 4) {
            options += &format!(
                ",preallocation={}",
                self.pick(&["metadata", "falloc", "full"])
            );
        }
        format!("qemu-img create -q -f qcow2 -o {options} image")
    }

    fn io(&mut self) -> String {
        let grain = self.pick(&[512, 512, self.cluster]);
        let (start, size) = self.area(grain);
        let byte = self.random.random_range(1..256);
        let (cluster, all) = self.area(self.cluster);
        match self.random.random_range(0..8) {
            0..3 => format!("write -P {byte} {start} {size}"),
            3 => format!("write -z {start} {size}"),
            4 => format!("write -z -u {start} {size}"),
            5 => format!("discard {start} {size}"),
            _ => format!("write -c -P {byte} {cluster} {}", all.min(self.cluster)),
        }
    }

    fn change(&mut self) -> String {
        let name = self.pick(&["one", "two", "three"]);
        match self.random.random_range(0..20) {
            0..9 => {
                let count = self.random.random_range(1..6);
                let all: Vec<String> = (0..count).map(|_| format!("-c '{}'", self.io())).collect();
                format!("qemu-io -f qcow2 {} image", all.join(" "))
            }
            9 | 10 => format!("qemu-img snapshot -q -c {name} image"),
            11 => format!("qemu-img snapshot -q -a {name} image"),
            12 => format!("qemu-img snapshot -q -d {name} image"),
            13 | 14 => {
                let granularity = self.pick(&[512, 4096, 65_536, 1 << 20]);
                format!("qemu-img bitmap --add -g {granularity} image {name}")
            }
            15 => {
                let action = self.pick(&["--remove", "--clear", "--disable", "--enable"]);
                format!("qemu-img bitmap {action} image {name}")
            }
            16 => {
                let sectors = self.random.random_range(1..=self.size / 256);
                let shrink = if sectors * 512 < self.size {
                    "--shrink "
                } else {
                    ""
                };
                let command = format!("qemu-img resize -q {shrink}image {}", sectors * 512);
                self.size = self.size.min(sectors * 512);
                command
            }
            17 => {
                let option = self.pick(&[
                    "compat=1.1",
                    "compat=0.10",
                    "lazy_refcounts=on",
                    "refcount_bits=32",
                ]);
                format!("qemu-img amend -f qcow2 -o {option} image")
            }
            18 => "qemu-img check -q -r leaks image".to_owned(),
            _ => {
                let compress = self.pick(&["", "-c", "-c -W", "-S 0"]);
                let option = self.pick(&[
                    "",
                    "-o compression_type=zstd",
                    "-o compat=0.10",
                    "-o cluster_size=4k",
                ]);
                format!(
                    "qemu-img convert -q -O qcow2 {compress} {option} image other && mv other image"
                )
            }
        }
    }
}
