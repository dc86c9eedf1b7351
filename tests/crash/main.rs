//! The program, killed again and again while it works. After each restart nothing acknowledged is
//! lost, nothing is done twice, and nothing half done stays.

#![allow(
    unreachable_pub,
    reason = "nothing of a program is reachable from outside"
)]
#![allow(
    clippy::expect_used,
    reason = "a test that fails may panic where it stands"
)]

mod audit;
mod blobs;
mod callers;
mod checks;
mod data_folder;
mod disks;
mod embedded;
mod kill;
mod limits;
mod load;
mod model;
mod object_proxy;
mod proxy;
mod quotas;
mod replicas;
mod request;
mod resolve;
mod rounds;
mod shared_data;

use clap::Parser;
use libtest_mimic::{Conclusion, Trial};
use test_support::postgres_server;

/// Kills a working server again and again, and checks what it knows afterwards.
#[derive(Debug, Parser)]
struct Options {
    /// How many times the server is killed
    #[arg(long, value_name = "N", default_value_t = 3)]
    rounds: u64,
    /// How many replicas there are, on one PostgreSQL; without this one server on a data folder
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(3..=3))]
    replicas: Option<u8>,
    /// Decides what is asked and when the server is killed
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    harness: libtest_mimic::Arguments,
}

fn main() {
    let options = Options::parse();
    let (rounds, seed) = (options.rounds, options.seed);
    let trial = match options.replicas {
        None => Trial::test("what_was_acknowledged_survives_every_kill", move || {
            rounds::run::<embedded::Embedded>(rounds, seed).map_err(Into::into)
        }),
        Some(_) if !postgres_server::is_installed("kills of replicas") => return,
        Some(_) => Trial::test("what_replicas_have_acknowledged_survives", move || {
            rounds::run::<replicas::Replicas>(rounds, seed).map_err(Into::into)
        }),
    };
    let conclusion: Conclusion = libtest_mimic::run(&options.harness, vec![trial]);
    conclusion.exit();
}
