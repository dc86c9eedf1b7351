//! The figures of durable operations, each beside its goal, all of one run on one machine:
//! throughput against a server that stores nothing and one that commits each change alone, what a
//! Copy takes alone, what a million images change, what a Delete takes of many copies, and what SQLite
//! takes by itself.
//! `scripts/bench-operations` runs it.

#![allow(
    unreachable_pub,
    reason = "nothing of a program is reachable from outside"
)]

mod beside;
mod connection;
mod copies;
mod deletes;
mod figures;
mod images;
mod in_memory;
mod load;
mod machine;
mod rows;
mod scale;
mod server;

use std::error::Error;
use std::path::Path;
use std::process::ExitCode;

use figures::Figures;

/// The names of the parts that can be measured alone.
const THROUGHPUT: &str = "throughput";
const ALONE: &str = "alone";
const IMAGES: &str = "images";
const ROWS: &str = "rows";
const DELETES: &str = "deletes";
/// Not part of a whole run: it needs PostgreSQL.
const SCALE: &str = "scale";
/// Begins the word that names another build of the program, to be compared with this one.
const BESIDE: &str = "beside=";
const PARTS: [&str; 6] = [THROUGHPUT, ALONE, IMAGES, DELETES, ROWS, SCALE];

fn main() -> Result<ExitCode, Box<dyn Error>> {
    if std::env::args().nth(1).as_deref() == Some(in_memory::WORD) {
        return in_memory::serve();
    }
    // `cargo bench` passes --bench. The folder decides which disk is measured.
    let words = std::env::args().skip(1).filter(|word| word != "--bench");
    let (chosen, folders): (Vec<_>, Vec<_>) =
        words.partition(|word| PARTS.contains(&word.as_str()));
    let (other, folders): (Vec<_>, Vec<_>) = folders
        .into_iter()
        .partition(|word| word.starts_with(BESIDE));
    let other = other.first().and_then(|word| word.strip_prefix(BESIDE));
    let whole = chosen.is_empty() && other.is_none();
    let named = |part| chosen.iter().any(|word| word == part);
    let is_chosen = |part| whole || named(part);
    let folder = folders.into_iter().next();
    let folder = folder.unwrap_or_else(|| env!("CARGO_TARGET_TMPDIR").to_owned());
    let folder = tempfile::TempDir::with_prefix_in("bench-operations-", folder)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let facts = machine::facts(folder.path())?;
    let mut figures = Figures::default();
    runtime.block_on(async {
        if is_chosen(THROUGHPUT) {
            copies::throughput(folder.path(), &mut figures).await?;
        }
        if is_chosen(ALONE) {
            copies::alone(folder.path(), &mut figures).await?;
        }
        if is_chosen(IMAGES) {
            images::few_and_many(folder.path(), &mut figures).await?;
        }
        if is_chosen(DELETES) {
            deletes::of_few_and_many(folder.path(), &mut figures).await?;
        }
        if is_chosen(ROWS) {
            rows::by_indexes(folder.path(), &mut figures)?;
        }
        if named(SCALE) {
            scale::measure(folder.path(), &mut figures).await?;
        }
        if let Some(binary) = other {
            beside::compare(folder.path(), Path::new(binary), &mut figures).await?;
        }
        Ok::<_, Box<dyn Error>>(())
    })?;
    println!("{}\n\n{figures}", facts.join("\n"));
    Ok(match figures.failed() {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    })
}
