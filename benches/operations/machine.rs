//! The machine and the disk that the figures were measured on.

use std::error::Error;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// The unit in which the kernel counts processor time, on every Linux that Rust knows (`USER_HZ`).
const TICK: Duration = Duration::from_millis(10);

/// Lines that tell of the machine and of the disk that holds `folder`.
pub fn facts(folder: &Path) -> io::Result<Vec<String>> {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo")?;
    let model = cpuinfo
        .lines()
        .find(|line| line.starts_with("model name"))
        .and_then(|line| line.split(": ").nth(1))
        .unwrap_or("unknown processor");
    let cores = std::thread::available_parallelism()?;
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let load = fs::read_to_string("/proc/loadavg")?;
    let load = load.split(' ').next().unwrap_or_default();
    let mount = Command::new("findmnt")
        .args(["-n", "-o", "SOURCE,FSTYPE,OPTIONS", "-T"])
        .arg(folder)
        .output()?;
    Ok(vec![
        format!("{cores} cores, {model}, Linux {}", kernel.trim()),
        format!("data on {}", String::from_utf8_lossy(&mount.stdout).trim()),
        format!("load average at the start {load}: figures need an idle machine"),
    ])
}

/// How long appending `bytes` to a file and `fdatasync` take, `count` times.
pub fn fdatasync_times(folder: &Path, bytes: usize, count: usize) -> io::Result<Vec<Duration>> {
    let mut file = File::create(folder.join("fdatasync"))?;
    let data = vec![0x5a; bytes];
    (0..count)
        .map(|_| {
            let started = Instant::now();
            file.write_all(&data)?;
            file.sync_data()?;
            Ok(started.elapsed())
        })
        .collect()
}

/// Processor time that a process and those that it has started have used so far.
pub fn cpu_time_of_family(parent: u32) -> Result<Duration, Box<dyn Error>> {
    let parent = parent.to_string();
    let mut sum = cpu_time(&parent)?;
    for entry in fs::read_dir("/proc")? {
        let process = entry?.file_name().to_string_lossy().into_owned();
        let text = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
        // The fourth field, after the name of the command.
        let fields = text.rsplit(") ").next().unwrap_or_default();
        if fields.split(' ').nth(1) == Some(&parent) {
            sum += cpu_time(&process).unwrap_or_default();
        }
    }
    Ok(sum)
}

/// Processor time that a process has used so far, by its number or `self`.
pub fn cpu_time(process: &str) -> Result<Duration, Box<dyn Error>> {
    let text = fs::read_to_string(format!("/proc/{process}/stat"))?;
    // After the name of the command, which stands in parentheses: utime and stime are the
    // 14th and the 15th field of proc_pid_stat(5).
    let fields = text.rsplit(") ").next().unwrap_or_default();
    let ticks = fields.split(' ').skip(11).take(2);
    let ticks = ticks.map(str::parse::<u32>).sum::<Result<u32, _>>()?;
    Ok(TICK * ticks)
}
