//! Bars and spinners, on the standard error and only where that is a terminal.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::output::without_controls;
use crate::contract::yandex::cloud::operation::Operation;

const TICK: Duration = Duration::from_millis(100);

/// A bar for so many bytes; a count that only grows where their number is not known.
pub fn bytes(what: &str, total: Option<u64>) -> ProgressBar {
    let (bar, template) = match total {
        Some(total) => (
            ProgressBar::new(total),
            "{msg} [{bar:30}] {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec}, {eta} left",
        ),
        None => (
            ProgressBar::no_length(),
            "{msg} {spinner} {binary_bytes} {binary_bytes_per_sec}",
        ),
    };
    bar.with_style(style(template))
        .with_message(without_controls(what))
}

/// A spinner for an operation that runs.
pub fn spinner(operation: &Operation) -> ProgressBar {
    let spinner = ProgressBar::no_length().with_style(style("{spinner} {msg} {elapsed}"));
    show(&spinner, operation);
    spinner.enable_steady_tick(TICK);
    spinner
}

/// Lets a spinner tell of its operation as it now stands.
pub fn show(spinner: &ProgressBar, operation: &Operation) {
    let what = format!("{} ({})", operation.description, operation.id);
    spinner.set_message(without_controls(&what));
}

fn style(template: &str) -> ProgressStyle {
    // A test holds that the templates above are valid; the default is as good.
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_can_be_drawn() {
        for bar in [
            bytes("Upload", Some(10)),
            bytes("Upload", None),
            spinner(&Operation::default()),
        ] {
            bar.set_draw_target(indicatif::ProgressDrawTarget::hidden());
            bar.inc(10);
            bar.finish_and_clear();
            assert_eq!(bar.position(), 10);
        }
    }
}
