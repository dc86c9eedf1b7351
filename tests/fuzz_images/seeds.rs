//! The images that mutants are made of: by QEMU's own tools, as `tests/data/fuzz-images/seeds.txt` says.

use std::path::Path;
use std::process::Command;

const SEEDS: &str = include_str!("../data/fuzz-images/seeds.txt");

#[derive(Debug)]
pub struct Seed {
    pub name: String,
    pub bytes: Vec<u8>,
}

/// Makes all of them in a folder.
pub fn make(folder: &Path) -> Vec<Seed> {
    let sections = SEEDS.split("\n[").skip(1);
    sections
        .map(|section| {
            let (name, commands) = section.split_once("]\n").expect("a name in brackets");
            let output = Command::new("sh")
                .args(["-ec", commands])
                .current_dir(folder)
                .output()
                .expect("sh");
            let errors = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{name}: {errors}");
            Seed {
                name: name.to_owned(),
                bytes: std::fs::read(folder.join("image")).expect("an image"),
            }
        })
        .collect()
}
