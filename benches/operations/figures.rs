//! Figures, and whether they meet their goals.

use std::time::Duration;

/// The goal of a figure.
#[derive(Clone, Copy)]
pub enum Goal {
    AtLeast(f64),
    AtMost(f64),
}

/// All figures of a run, as rows of a table.
#[derive(Default)]
pub struct Figures {
    rows: Vec<[String; 4]>,
    failed: usize,
}

impl Figures {
    pub fn fact(&mut self, name: &str, value: String) {
        self.row(name, value, "", "");
    }

    pub fn goal(&mut self, name: &str, value: f64, unit: &str, goal: Goal) {
        let (met, words) = match goal {
            Goal::AtLeast(least) => (value >= least, format!("{least} or more")),
            Goal::AtMost(most) => (value <= most, format!("{most} or less")),
        };
        self.failed += usize::from(!met);
        let words = format!("{words} {unit}");
        let verdict = if met { "pass" } else { "FAIL" };
        self.row(name, format!("{value:.2} {unit}"), words.trim(), verdict);
    }

    /// How many figures miss their goals.
    pub fn failed(&self) -> usize {
        self.failed
    }

    /// Printed as it is known: a run takes minutes.
    fn row(&mut self, name: &str, value: String, goal: &str, verdict: &str) {
        let row = [name, value.trim(), goal, verdict].map(str::to_owned);
        eprintln!("{}", row.join("; "));
        self.rows.push(row);
    }
}

impl std::fmt::Display for Figures {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(formatter, "| figure | value | goal | verdict |")?;
        writeln!(formatter, "|---|---|---|---|")?;
        for row in &self.rows {
            writeln!(formatter, "| {} |", row.join(" | "))?;
        }
        Ok(())
    }
}

/// The time that `share` of the times do not exceed.
pub fn percentile(times: &[Duration], share: f64) -> Duration {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    let at = (sorted.len() as f64 * share) as usize;
    sorted
        .get(at.min(sorted.len().saturating_sub(1)))
        .copied()
        .unwrap_or_default()
}

pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

pub fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

pub fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}
