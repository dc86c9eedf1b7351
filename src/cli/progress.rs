//! Bars and spinners, on the standard error and only where that is a terminal.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::errors::{Error, Result};
use super::output::without_controls;
use super::signals::Stop;
use crate::app::progress::Progress;
use crate::contract::yandex::cloud::operation::Operation;
use crate::telemetry::chain;

const TICK: Duration = Duration::from_millis(100);

/// A bar for so many bytes; a count that only grows where their number is not known.
pub(crate) fn bytes(what: &str, total: Option<u64>) -> ProgressBar {
    let (bar, template) = match total {
        Some(total) => (
            ProgressBar::new(total),
            "{msg} [{wide_bar}] {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec}, {eta} left",
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
pub(crate) fn spinner(operation: &Operation) -> ProgressBar {
    let spinner = ProgressBar::no_length().with_style(style("{spinner} {wide_msg} {elapsed}"));
    show(&spinner, operation);
    spinner.enable_steady_tick(TICK);
    spinner
}

/// Lets a spinner tell of its operation as it now stands.
pub(crate) fn show(spinner: &ProgressBar, operation: &Operation) {
    let what = format!("{} ({})", operation.description, operation.id);
    spinner.set_message(without_controls(&what));
}

/// The stages of a command that works on a data folder, each with a bar.
#[derive(Clone, Default)]
pub(crate) struct Stages {
    bar: Option<ProgressBar>,
    stopped: Arc<AtomicBool>,
}

impl Stages {
    /// Waits for the end, or has it end early at a signal: then all that was begun is left in a state to be gone on from.
    pub(crate) async fn until_stopped<T, E: std::error::Error>(
        &self,
        working: impl Future<Output = std::result::Result<Option<T>, E>>,
        mut stop: Stop,
    ) -> Result<T> {
        let mut working = std::pin::pin!(working);
        let worked = tokio::select! {
            worked = &mut working => worked,
            () = stop.ordered() => {
                self.stopped.store(true, Ordering::Relaxed);
                working.await
            }
        };
        let worked = worked.map_err(|error| Error::Failed(chain(&error)))?;
        worked.ok_or(Error::Interrupted)
    }
}

impl Progress for Stages {
    fn begin(&mut self, what: &'static str, sum: u64) {
        if let Some(bar) = self.bar.replace(bytes(what, Some(sum))) {
            bar.finish_and_clear();
        }
    }

    fn advance(&mut self, done: u64) -> bool {
        if let Some(bar) = &self.bar {
            bar.inc(done);
        }
        !self.stopped.load(Ordering::Relaxed)
    }
}

fn style(template: &str) -> ProgressStyle {
    // A test holds that the templates above are valid; the default is as good.
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use indicatif::{ProgressDrawTarget, TermLike};

    use super::*;

    /// A terminal of 80 columns that keeps what is written to it.
    #[derive(Debug, Clone, Default)]
    struct Terminal(Arc<Mutex<Vec<String>>>);

    impl TermLike for Terminal {
        fn width(&self) -> u16 {
            80
        }

        fn height(&self) -> u16 {
            24
        }

        fn move_cursor_up(&self, _: usize) -> std::io::Result<()> {
            Ok(())
        }

        fn move_cursor_down(&self, _: usize) -> std::io::Result<()> {
            Ok(())
        }

        fn move_cursor_right(&self, _: usize) -> std::io::Result<()> {
            Ok(())
        }

        fn move_cursor_left(&self, _: usize) -> std::io::Result<()> {
            Ok(())
        }

        fn write_line(&self, line: &str) -> std::io::Result<()> {
            self.write_str(line)
        }

        fn write_str(&self, text: &str) -> std::io::Result<()> {
            self.0.lock().unwrap().push(text.trim_end().to_owned());
            Ok(())
        }

        fn clear_line(&self) -> std::io::Result<()> {
            Ok(())
        }

        fn flush(&self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn bars_fit_a_terminal_of_80_columns() {
        let operation = Operation {
            id: "e3v0123456789abcdefg".to_owned(),
            description:
                "Create image: 1023.99 GiB of 1023.99 GiB are here, attempt 10 of 10 at the most"
                    .to_owned(),
            ..Operation::default()
        };
        let size = 1023 << 40;
        for (bar, end) in [
            (bytes("Download", Some(size)), " left"),
            (bytes("Download", None), "/s"),
            (spinner(&operation), "s"),
        ] {
            let terminal = Terminal::default();
            // A steady tick would draw at times of its own.
            bar.disable_steady_tick();
            let target = Box::new(terminal.clone());
            bar.set_draw_target(ProgressDrawTarget::term_like_with_hz(target, 255));
            for part in 1..=3 {
                bar.set_position(size / 4 * part + 1023);
                bar.force_draw();
            }
            let drawn = terminal.0.lock().unwrap().clone();
            assert!(drawn.iter().any(|line| line.ends_with(end)), "{drawn:?}");
            for line in drawn {
                assert!(line.chars().count() <= 80, "{line:?}");
            }
        }
    }

    #[test]
    fn bars_can_be_drawn() {
        for bar in [
            bytes("Upload", Some(10)),
            bytes("Upload", None),
            spinner(&Operation::default()),
        ] {
            bar.set_draw_target(ProgressDrawTarget::hidden());
            bar.inc(10);
            bar.finish_and_clear();
            assert_eq!(bar.position(), 10);
        }
    }
}
