//! Disk images, damaged in all their parts: none is accepted that QEMU refuses or that leads to another file, and none
//! is refused that QEMU made.

#![allow(
    unreachable_pub,
    reason = "nothing of a program is reachable from outside"
)]
#![allow(
    clippy::expect_used,
    reason = "a test that fails may panic where it stands"
)]

mod judges;
mod layout;
mod mutate;
mod seeds;
mod valid;

use std::collections::BTreeMap;
use std::panic::catch_unwind;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use clap::Parser;
use disk_image::{Follower, Stop, inspect};
use judges::{Bench, Differences};
use libtest_mimic::{Conclusion, Failed, Trial};
use test_support::has_tool;

/// The largest disk that the server takes.
const LARGEST_DISK: u64 = 4 << 40;
const THREADS: usize = 2;
/// How many failures of one kind are shown.
const SHOWN: usize = 3;

/// Damages disk images in all their parts, and has QEMU judge those that are accepted.
#[derive(Clone, Debug, Parser)]
struct Options {
    /// How many mutants are made
    #[arg(long, value_name = "N", default_value_t = 150)]
    mutants: u64,
    /// How many sound images are made; one for each 25 mutants where this is not given
    #[arg(long, value_name = "N")]
    valid: Option<u64>,
    /// Decides what is done to the images
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
    /// Makes only the mutant of that number, and keeps it
    #[arg(long, value_name = "NUMBER")]
    only: Option<u64>,
    #[command(flatten)]
    harness: libtest_mimic::Arguments,
}

fn main() {
    let options = Options::parse();
    let harness = options.harness.clone();
    let (mutants, valid) = (options.clone(), options);
    let trials = vec![
        Trial::test(
            "what_is_accepted_is_accepted_by_qemu_and_reads_no_other_file",
            move || run_mutants(&mutants),
        ),
        Trial::test("what_qemu_made_is_accepted", move || run_valid(&valid)),
    ];
    let conclusion: Conclusion = libtest_mimic::run(&harness, trials);
    conclusion.exit();
}

/// Results of all mutants.
#[derive(Default)]
struct Tally {
    accepted: u64,
    classes: BTreeMap<String, u64>,
    failures: Vec<String>,
}

fn run_mutants(options: &Options) -> Result<(), Failed> {
    let test = "what_is_accepted_is_accepted_by_qemu_and_reads_no_other_file";
    let tools = ["qemu-img", "qemu-io", "strace", "timeout"];
    if !tools.iter().all(|tool| has_tool(test, tool)) {
        return Ok(());
    }
    let started = Instant::now();
    let seeds = seeds::make(tempfile::tempdir()?.path());
    for seed in &seeds {
        inspect(&seed.bytes).map_err(|error| format!("the seed [{}]: {error}", seed.name))?;
    }
    let differences = Differences::load();
    let tally = Mutex::new(Tally::default());
    let range = match options.only {
        Some(number) => number..number + 1,
        None => 0..options.mutants,
    };
    let next = AtomicU64::new(range.start);
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                let folder = tempfile::tempdir().expect("a folder");
                let bench = Bench::new(folder.path(), &differences);
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= range.end {
                        break;
                    }
                    try_mutant(&bench, &seeds, options, number, &tally);
                }
            });
        }
    });
    let tally = tally.into_inner().expect("no panic");
    println!(
        "{} mutants of {} images, {} accepted, {} of them wrongly; {} s",
        range.end - range.start,
        seeds.len(),
        tally.accepted,
        tally.failures.len(),
        started.elapsed().as_secs()
    );
    for (class, count) in &tally.classes {
        println!("  {count} times: {class}");
    }
    finish(tally.failures)
}

fn try_mutant(
    bench: &Bench<'_>,
    seeds: &[seeds::Seed],
    options: &Options,
    number: u64,
    tally: &Mutex<Tally>,
) {
    let mutant = mutate::mutant(seeds, options.seed, number);
    let found = catch_unwind(|| inspect(&mutant.bytes));
    let arriving = catch_unwind(|| inspect_arriving(&mutant.bytes));
    let judged = match &found {
        Ok(found) if !matches!(arriving, Ok(accepted) if accepted == found.is_ok()) => Err(
            format!("accepted while it arrives: {arriving:?}, else {found:?}"),
        ),
        Ok(Ok(found)) if found.virtual_size <= LARGEST_DISK => bench.judge(&mutant, found.format),
        Ok(_) => Ok(Vec::new()),
        Err(_) => Err("the inspection panicked".to_owned()),
    };
    if options.only.is_some() {
        let path = keep(&mutant, options.seed, number);
        let steps = mutant.steps.join("\n    ");
        println!("{}: {found:?}\n    {steps}", path.display());
    }
    let mut tally = tally.lock().expect("no panic");
    tally.accepted += u64::from(matches!(found, Ok(Ok(_))));
    match judged {
        Ok(classes) => {
            for class in classes {
                *tally.classes.entry(class).or_default() += 1;
            }
        }
        Err(fault) => {
            let path = keep(&mutant, options.seed, number);
            let steps = mutant.steps.join("; ");
            tally.failures.push(format!(
                "{fault}\n    {steps}\n    {}; again: scripts/fuzz-images --seed {} --only {number}",
                path.display(),
                options.seed
            ));
        }
    }
}

/// Whether an image is accepted that is looked at while it arrives.
fn inspect_arriving(bytes: &[u8]) -> bool {
    let mut follower = Follower::new(Stop::never(), u64::MAX);
    for piece in bytes.chunks(5000) {
        follower.data(piece);
    }
    let options = disk_image::Options::default();
    follower.inspect(bytes, options).is_ok()
}

/// Keeps a mutant to be looked at.
fn keep(mutant: &mutate::Mutant, seed: u64, number: u64) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("mutant-{seed}-{number}"));
    std::fs::write(&path, &mutant.bytes).expect("a copy");
    path
}

fn run_valid(options: &Options) -> Result<(), Failed> {
    let tools = ["qemu-img", "qemu-io"];
    if options.only.is_some()
        || !tools
            .iter()
            .all(|tool| has_tool("what_qemu_made_is_accepted", tool))
    {
        return Ok(());
    }
    let wanted = options.valid.unwrap_or(options.mutants / 25);
    let (next, done) = (AtomicU64::new(0), AtomicU64::new(0));
    let failures = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                let folder = tempfile::tempdir().expect("a folder");
                while done.load(Ordering::Relaxed) < wanted {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    match valid::Life::live(folder.path(), options.seed, number) {
                        Ok(states) => {
                            done.fetch_add(states, Ordering::Relaxed);
                        }
                        Err(failure) => {
                            done.fetch_add(1, Ordering::Relaxed);
                            failures.lock().expect("no panic").push(failure);
                        }
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().expect("no panic");
    let done = done.into_inner();
    println!("{done} images that QEMU made, {} refused", failures.len());
    finish(failures)
}

fn finish(failures: Vec<String>) -> Result<(), Failed> {
    if failures.is_empty() {
        return Ok(());
    }
    let digits = regex::Regex::new("[0-9]+")?;
    let mut kinds = BTreeMap::<_, Vec<_>>::new();
    for failure in &failures {
        let first = failure.lines().next().unwrap_or_default();
        let kind = digits.replace_all(first, "N").into_owned();
        kinds.entry(kind).or_default().push(failure.as_str());
    }
    let mut text = format!("{} failures", failures.len());
    for (kind, failures) in &kinds {
        let shown = failures[..failures.len().min(SHOWN)].join("\n");
        text += &format!("\n{} times: {kind}\n{shown}", failures.len());
    }
    Err(text.into())
}
