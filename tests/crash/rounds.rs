//! Rounds: load, a fault, recovery, checks.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use rand::SeedableRng;
use rand::rngs::StdRng;
use tempfile::TempDir;

/// An installation that lives through some rounds, and what is known of it.
pub trait Life: Sized {
    /// After so many rounds a new one is begun.
    const ROUNDS: u64;

    /// The processes that serve all lives of a run, one after the other.
    type Site;

    async fn site() -> Self::Site;

    /// Begins a life in an empty folder.
    async fn begin(site: &mut Self::Site, random: StdRng) -> Self;

    /// One round; what happened in it.
    async fn round(&mut self, site: &mut Self::Site, round: u64, random: StdRng) -> String;

    /// The folder with its data and logs.
    fn into_folder(self, site: &Self::Site) -> TempDir;
}

/// Runs rounds until one fails; tells which one that was.
pub fn run<L: Life>(rounds: u64, seed: u64) -> Result<(), String> {
    let runtime = tokio::runtime::Runtime::new().map_err(|error| error.to_string())?;
    let mut times = Vec::new();
    let mut site = runtime.block_on(L::site());
    let mut life: Option<L> = None;
    for round in 0..rounds {
        if round % L::ROUNDS == 0 {
            life = None;
        }
        let random = StdRng::seed_from_u64(seed.wrapping_mul(1_000_003).wrapping_add(round));
        let mut current = match life.take() {
            Some(life) => life,
            None => runtime.block_on(L::begin(&mut site, random.clone())),
        };
        let started = Instant::now();
        let ended = catch_unwind(AssertUnwindSafe(|| {
            runtime.block_on(current.round(&mut site, round, random))
        }));
        match ended {
            Ok(summary) => {
                let time = started.elapsed();
                println!("round {round}: {summary}, {} ms", time.as_millis());
                times.push(time);
                life = Some(current);
            }
            Err(panic) => {
                let kept = current.into_folder(&site).keep();
                return Err(format!(
                    "seed {seed}, round {round}: {}\nThe data folder and the logs are kept at {}",
                    message(&*panic),
                    kept.display()
                ));
            }
        }
    }
    times.sort();
    if let (Some(median), Some(longest)) = (times.get(times.len() / 2), times.last()) {
        println!(
            "{rounds} rounds of seed {seed}: median {} ms, longest {} ms",
            median.as_millis(),
            longest.as_millis()
        );
    }
    Ok(())
}

fn message(panic: &(dyn Any + Send)) -> &str {
    match (panic.downcast_ref::<String>(), panic.downcast_ref::<&str>()) {
        (Some(message), _) => message,
        (_, Some(message)) => message,
        _ => "a panic without a message",
    }
}
