//! Copies: how many a second, how long one takes, and what each costs.

use std::error::Error;
use std::path::Path;
use std::time::Duration;

use desktop_images::contract::yandex::cloud::clouddesktop::v1::api::CopyDesktopImageRequest;
use uuid::Uuid;

use super::connection::Call;
use super::figures::{Figures, Goal, median, micros, millis, percentile};
use super::load::{self, ALONE, BUSY, Seen, Shape, during};
use super::machine;
use super::server::{LOG, QUIET, Server, Variant, copied};

pub const PATH: &str = "/yandex.cloud.clouddesktop.v1.api.DesktopImageService/Copy";
const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_secs(3);
/// Long enough for several checkpoints of the log.
const LONG_ROUND: Duration = Duration::from_secs(20);
pub const FOLDERS: u64 = 100;
/// Goals.
const OF_COMMITTING_EACH: Goal = Goal::AtLeast(5.0);
const STALL_MILLIS: Goal = Goal::AtMost(100.0);

/// Makes requests for Copies under names that none had before.
pub struct Copies {
    compute_image_id: String,
    folders: u64,
    keys: bool,
    made: u64,
    prefix: String,
}

impl Copies {
    pub fn of(server: &Server) -> Self {
        Self {
            compute_image_id: server.compute_image_id.clone(),
            folders: FOLDERS,
            keys: false,
            made: 0,
            prefix: "image-".to_owned(),
        }
    }

    /// Over so many folders from now on.
    pub fn over_folders(&mut self, folders: u64) -> &mut Self {
        self.folders = folders;
        self
    }

    /// With names that begin so, where others copy into the same folders.
    pub fn named(&mut self, prefix: &str) -> &mut Self {
        self.prefix = prefix.to_owned();
        self
    }

    /// With a fresh idempotency key on each, or with none.
    pub fn with_keys(&mut self, keys: bool) -> &mut Self {
        self.keys = keys;
        self
    }

    pub fn next(&mut self) -> Call {
        self.made += 1;
        let mut call = Call::new(&CopyDesktopImageRequest {
            folder_id: format!("folder-{}", self.made % self.folders),
            name: format!("{}{}", self.prefix, self.made),
            image_id: self.compute_image_id.clone(),
            ..Default::default()
        });
        call.idempotency_key = self.keys.then(Uuid::new_v4);
        call
    }
}

/// Times of Copies, and the CPU time that each took of the server.
pub struct Round {
    pub seen: Seen,
    pub cpu_micros: f64,
}

/// Copies for some time. Replies are looked at one in a hundred: the rest are known to be OK.
pub async fn round(
    server: &Server,
    copies: &mut Copies,
    shape: Shape,
    time: Duration,
) -> Result<Round, Box<dyn Error>> {
    let mut number = 0;
    let mut bad = None;
    let cpu = server.cpu_time()?;
    let check = |reply: &[u8]| {
        number += 1;
        if number % 100 == 1 {
            bad = copied(reply).err().or(bad.take());
        }
    };
    let calls = during(time, || copies.next());
    let seen = load::run(server.address, PATH, shape, calls, check).await?;
    if let Some(error) = bad {
        return Err(error);
    }
    let cpu = server.cpu_time()? - cpu;
    Ok(Round {
        cpu_micros: micros(cpu) / seen.latencies.len() as f64,
        seen,
    })
}

/// A server of a comparison, and the figures of it so far.
struct Contender {
    name: &'static str,
    server: usize,
    keys: bool,
    shape: Shape,
    rates: Vec<f64>,
    cpu_micros: Vec<f64>,
}

/// Copies a second, durable and not, in rounds that alternate, and the stalls.
pub async fn throughput(folder: &Path, figures: &mut Figures) -> Result<(), Box<dyn Error>> {
    let mut servers = Vec::new();
    for (name, variant, log_level) in [
        ("durable", Variant::Durable, LOG),
        ("stores-nothing", Variant::StoresNothing, LOG),
        ("durable-quiet", Variant::Durable, QUIET),
        ("stores-nothing-quiet", Variant::StoresNothing, QUIET),
    ] {
        let server = Server::start(variant, log_level, &folder.join(name)).await?;
        let copies = Copies::of(&server);
        servers.push((server, copies));
    }
    let contender = |name, server, keys| Contender {
        name,
        server,
        keys,
        shape: BUSY,
        rates: Vec::new(),
        cpu_micros: Vec::new(),
    };
    let mut contenders = [
        contender("durable", 0, false),
        contender("storing nothing", 1, false),
        contender("durable, with keys", 0, true),
        contender("storing nothing, with keys", 1, true),
        // One at a time: each has a commit of its own.
        Contender {
            shape: ALONE,
            ..contender("a commit each", 0, false)
        },
        contender("durable, no log of requests", 2, false),
        contender("storing nothing, no log of requests", 3, false),
    ];
    let mut longest_gap = Duration::ZERO;
    // Without keys and with them.
    let mut slowest = [Duration::ZERO; 2];
    for _ in 0..ROUNDS {
        for contender in &mut contenders {
            let (server, copies) = &mut servers[contender.server];
            let copies = copies.with_keys(contender.keys);
            let round = round(server, copies, contender.shape, ROUND).await?;
            contender.rates.push(round.seen.per_second());
            contender.cpu_micros.push(round.cpu_micros);
            if contender.server == 0 {
                longest_gap = longest_gap.max(round.seen.longest_gap);
                note_slowest(&mut slowest, contender.keys, &round.seen);
            }
        }
    }
    for contender in &contenders {
        let (rate, cpu) = (median(&contender.rates), median(&contender.cpu_micros));
        figures.fact(
            &format!("Copies a second, {}", contender.name),
            format!("{rate:.0}, {cpu:.1} µs of CPU each"),
        );
    }
    let [
        durable,
        nothing,
        keyed,
        nothing_keyed,
        each,
        quiet,
        nothing_quiet,
    ] = contenders.map(|each| each.rates);
    let ratio = |ours: &[f64], theirs: &[f64]| {
        let pairs = ours.iter().zip(theirs);
        let ratios: Vec<_> = pairs.map(|(ours, theirs)| ours / theirs).collect();
        median(&ratios)
    };
    for (name, ours, theirs) in [
        ("durable / storing nothing", &durable, &nothing),
        (
            "durable with keys / storing nothing with keys",
            &keyed,
            &nothing_keyed,
        ),
        (
            "durable / storing nothing, no log of requests",
            &quiet,
            &nothing_quiet,
        ),
    ] {
        figures.fact(name, format!("{:.2}", ratio(ours, theirs)));
    }
    figures.goal(
        "durable / a commit each",
        ratio(&durable, &each),
        "",
        OF_COMMITTING_EACH,
    );
    let (server, copies) = &mut servers[0];
    for keys in [false, true] {
        let round = round(server, copies.with_keys(keys), BUSY, LONG_ROUND).await?;
        longest_gap = longest_gap.max(round.seen.longest_gap);
        note_slowest(&mut slowest, keys, &round.seen);
    }
    let gap = "longest time without any reply, durable";
    figures.goal(gap, millis(longest_gap), "ms", STALL_MILLIS);
    let depth = BUSY.connections * BUSY.streams;
    let slowest_of = format!("slowest Copy of {depth} under way at a time, durable");
    figures.goal(&slowest_of, millis(slowest[0]), "ms", STALL_MILLIS);
    // No goal: so many under way, at the rate with keys, wait nearly as long on the average.
    let keyed = format!("{:.0} ms", millis(slowest[1]));
    figures.fact(&format!("{slowest_of}, with keys"), keyed);
    Ok(())
}

fn note_slowest(slowest: &mut [Duration; 2], keys: bool, seen: &Seen) {
    let slowest = &mut slowest[usize::from(keys)];
    *slowest = percentile(&seen.latencies, 1.0).max(*slowest);
}

/// Times of one Copy when nothing else goes on, beside those of the disk.
pub async fn alone(folder: &Path, figures: &mut Figures) -> Result<(), Box<dyn Error>> {
    let server = Server::start(Variant::Durable, LOG, &folder.join("alone")).await?;
    let mut copies = Copies::of(&server);
    // Fills the log once, so that it no longer grows.
    round(&server, &mut copies, BUSY, ROUND).await?;
    let (mut ours, mut disk, mut sizes) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let written = server.bytes_written()?;
        let round = round(&server, &mut copies, ALONE, ROUND / 4).await?;
        let count = round.seen.latencies.len();
        let bytes = (server.bytes_written()? - written) / count as u64;
        ours.extend(round.seen.latencies);
        disk.extend(machine::fdatasync_times(folder, bytes as usize, count)?);
        sizes.push(bytes as f64);
    }
    let bytes = format!("{:.0}", median(&sizes));
    figures.fact(
        "bytes that a Copy alone writes, its line of log included",
        bytes,
    );
    for (name, share) in [("p50", 0.5), ("p99", 0.99)] {
        let (ours, disk) = (percentile(&ours, share), percentile(&disk, share));
        figures.fact(
            &format!("a Copy alone, {name}"),
            format!(
                "{:.0} µs; as many bytes and fdatasync: {:.0} µs",
                micros(ours),
                micros(disk)
            ),
        );
    }
    Ok(())
}
