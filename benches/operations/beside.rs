//! This build of the program beside another one, usually the version before: Copy, Get, List and uploads, in
//! rounds that alternate, as ratios of this one to the other.

use std::error::Error;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use desktop_images::contract::yandex::cloud::clouddesktop::v1::api::{
    GetDesktopImageRequest, ListDesktopImagesRequest,
};
use rand::RngCore;
use test_support::{Disk, Fill};

use super::connection::Call;
use super::copies::{Copies, round};
use super::figures::{Figures, Goal, median};
use super::images::{GET, LIST, PAGE};
use super::load::{self, BUSY, Shape, during};
use super::server::{LOG, Server, Variant, copied};

const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_secs(3);
const READS: Shape = Shape {
    connections: 8,
    streams: 8,
};
const DISK: usize = 1 << 30;
const KEPT: Goal = Goal::AtLeast(0.95);
/// Time of a compressed upload to that of `qemu-img convert` of it.
const OF_CONVERT: Goal = Goal::AtMost(1.0);

/// Two servers of different builds, in this order: this one, the other.
struct Pair {
    servers: [Server; 2],
    copies: [Copies; 2],
    ids: [String; 2],
}

/// Compares this build with `other`.
pub async fn compare(
    folder: &Path,
    other: &Path,
    figures: &mut Figures,
) -> Result<(), Box<dyn Error>> {
    let this = Server::start(Variant::Durable, LOG, &folder.join("this")).await?;
    let data = folder.join("other");
    let other = Server::start_binary(other, LOG, &data).await?;
    let copies = [Copies::of(&this), Copies::of(&other)];
    let mut pair = Pair {
        servers: [this, other],
        copies,
        ids: Default::default(),
    };
    pair.fill().await?;
    pair.calls(figures).await?;
    pair.uploads(folder, figures)
}

impl Pair {
    /// Copies a page of images into the first folder of each server, and keeps the id of one.
    async fn fill(&mut self) -> Result<(), Box<dyn Error>> {
        for side in 0..2 {
            let copies = self.copies[side].over_folders(1);
            let mut left = PAGE;
            let next = || {
                left -= 1;
                (left >= 0).then(|| copies.next())
            };
            let mut last = None;
            let keep = |reply: &[u8]| last = Some(copied(reply));
            let path = super::copies::PATH;
            load::run(self.servers[side].address, path, READS, next, keep).await?;
            self.ids[side] = last.ok_or("no image was copied")??;
            self.copies[side].over_folders(super::copies::FOLDERS);
        }
        Ok(())
    }

    async fn calls(&mut self, figures: &mut Figures) -> Result<(), Box<dyn Error>> {
        let mut rates: [[Vec<f64>; 2]; 3] = Default::default();
        // The first round warms up.
        for number in 0..=ROUNDS {
            for (side, server) in self.servers.iter().enumerate() {
                let address = server.address;
                let get = Call::new(&GetDesktopImageRequest {
                    image_id: self.ids[side].clone(),
                });
                let list = Call::new(&ListDesktopImagesRequest {
                    folder_id: "folder-0".to_owned(),
                    page_size: PAGE,
                    ..Default::default()
                });
                let again = |call: &Call| Call {
                    message: call.message.clone(),
                    idempotency_key: None,
                };
                let gets = during(ROUND, || again(&get));
                let gets = load::run(address, GET, READS, gets, |_| {}).await?;
                let lists = during(ROUND, || again(&list));
                let lists = load::run(address, LIST, READS, lists, |_| {}).await?;
                let copies = round(server, &mut self.copies[side], BUSY, ROUND).await?;
                if number > 0 {
                    for (method, seen) in [gets, lists, copies.seen].iter().enumerate() {
                        rates[method][side].push(seen.per_second());
                    }
                }
            }
        }
        for (name, [this, other]) in ["Get", "List of 100", "Copy"].iter().zip(&rates) {
            let name = format!(
                "{name}, a second: this build ({:.0}) / the other ({:.0})",
                median(this),
                median(other)
            );
            figures.goal(&name, ratio(this, other), "", KEPT);
        }
        Ok(())
    }

    /// Uploads disks of one GiB by curl, and deletes them again.
    fn uploads(&self, folder: &Path, figures: &mut Figures) -> Result<(), Box<dyn Error>> {
        let raw = folder.join("disk.raw");
        make_disk(&raw)?;
        let plain = convert(&raw, "qcow2", folder.join("plain.qcow2"), &[])?;
        let options = ["-c", "-o", "compression_type=zlib"];
        let zlib = convert(&raw, "qcow2", folder.join("zlib.qcow2"), &options)?;
        let options = ["-c", "-o", "compression_type=zstd"];
        let zstd = convert(&raw, "qcow2", folder.join("zstd.qcow2"), &options)?;
        for (name, path) in [
            ("raw", &raw),
            ("qcow2", &plain),
            ("zlib", &zlib),
            ("zstd", &zstd),
        ] {
            let mut times: [Vec<f64>; 3] = Default::default();
            for _ in 0..ROUNDS {
                for (server, times) in self.servers.iter().zip(&mut times) {
                    times.push(upload(server, path)?.as_secs_f64());
                }
                let started = Instant::now();
                let converted = convert(path, "raw", folder.join("converted.raw"), &[])?;
                times[2].push(started.elapsed().as_secs_f64());
                std::fs::remove_file(converted)?;
            }
            let [this, other, convert] = &times;
            let label = format!(
                "upload of 1 GiB, {name}: speed of this build ({:.2} s) / of the other ({:.2} s)",
                median(this),
                median(other)
            );
            let compressed = matches!(name, "zlib" | "zstd");
            if compressed {
                // The other build may check less of them.
                figures.fact(&label, format!("{:.2}", ratio(other, this)));
                let label = format!(
                    "upload of 1 GiB, {name}: time / that of qemu-img convert to raw ({:.2} s)",
                    median(convert)
                );
                figures.goal(&label, ratio(this, convert), "", OF_CONVERT);
            } else {
                figures.goal(&label, ratio(other, this), "", KEPT);
            }
        }
        Ok(())
    }
}

fn ratio(above: &[f64], below: &[f64]) -> f64 {
    let pairs = above.iter().zip(below);
    median(
        &pairs
            .map(|(above, below)| above / below)
            .collect::<Vec<_>>(),
    )
}

/// A raw disk with a partition table, of blocks of which half are random and half repeat themselves.
fn make_disk(path: &Path) -> Result<(), Box<dyn Error>> {
    let mut file = File::create(path)?;
    let mut block = vec![0; 64 << 10];
    let mut random = rand::rng();
    for number in 0..DISK / block.len() {
        if number % 2 == 0 {
            random.fill_bytes(&mut block);
        } else {
            let word = number.to_le_bytes();
            block
                .chunks_mut(word.len())
                .for_each(|part| part.copy_from_slice(&word[..part.len()]));
        }
        if number == 0 {
            block[..512].copy_from_slice(&Disk::mbr(1, Fill::Sparse(0))[..512]);
        }
        file.write_all(&block)?;
    }
    file.sync_all()?;
    Ok(())
}

fn convert(
    from: &Path,
    format: &str,
    to: PathBuf,
    options: &[&str],
) -> Result<PathBuf, Box<dyn Error>> {
    let mut command = Command::new("qemu-img");
    command
        .args(["convert", "-O", format])
        .args(options)
        .args([from, &to]);
    run(&mut command)?;
    Ok(to)
}

/// Uploads a file, waits until it is READY, and deletes it again. Returns how long the upload took.
fn upload(server: &Server, path: &Path) -> Result<Duration, Box<dyn Error>> {
    let base = format!("http://{}/compute/v1/images", server.address);
    let started = Instant::now();
    let mut command = Command::new("curl");
    command
        .args(["-sS", "--fail", "-X", "POST", "-T"])
        .arg(path)
        .arg(format!("{base}:upload?folderId=uploads"));
    let reply: serde_json::Value = serde_json::from_slice(&run(&mut command)?)?;
    let took = started.elapsed();
    let id = reply["response"]["id"].as_str();
    let id = id.ok_or_else(|| format!("an upload failed: {reply}"))?;
    run(Command::new("curl").args(["-sS", "--fail", "-X", "DELETE", &format!("{base}/{id}")]))?;
    Ok(took)
}

fn run(command: &mut Command) -> Result<Vec<u8>, Box<dyn Error>> {
    let output = command.output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into());
    }
    Ok(output.stdout)
}
