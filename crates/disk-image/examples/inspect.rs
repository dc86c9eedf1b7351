//! Inspects a file, and prints what it is or why it is refused:
//!
//! ```text
//! cargo run --release -p disk-image --example inspect -- FILE
//! ```
//!
//! Ends with the code 1 where the file is refused or cannot be read.

use std::env;
use std::fs::File;
use std::process::ExitCode;

use disk_image::{FileReader, FormatError, Inspection, inspect};

fn main() -> ExitCode {
    let Some(path) = env::args_os().nth(1) else {
        eprintln!("usage: inspect FILE");
        return ExitCode::from(2);
    };
    let opened = File::open(path).and_then(FileReader::new);
    match opened
        .map_err(FormatError::from)
        .and_then(|file| inspect(&file))
    {
        Ok(inspection) => {
            print(&inspection);
            ExitCode::SUCCESS
        }
        // The message says what would help, too.
        Err(refusal) => {
            eprintln!("{refusal}");
            ExitCode::FAILURE
        }
    }
}

fn print(inspection: &Inspection) {
    println!("format: {}", inspection.format);
    println!("virtual size: {} bytes", inspection.virtual_size);
    if let Some(table) = &inspection.partition_table {
        println!("partition table: {}", table.scheme);
        for partition in &table.partitions {
            println!(
                "  partition {}: {} bytes from byte {} on",
                partition.number, partition.size, partition.offset
            );
        }
    }
    for note in &inspection.notes {
        println!("note: {note}");
    }
}
