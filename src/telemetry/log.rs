//! The log on the standard error: its form, and what is in it.

use std::error::Error;
use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use tracing_subscriber::EnvFilter;

use super::lines::{Limits, Lines};

/// The time for which the end of the process waits for the reader of the log.
const LONGEST_FLUSH: Duration = Duration::from_secs(1);

static LINES: Lines = Lines::new(Limits::USUAL);

/// Hands each line to [`LINES`]. tracing-subscriber 0.3 writes an event by one call
/// (<https://docs.rs/tracing-subscriber/0.3/src/tracing_subscriber/fmt/fmt_layer.rs.html>).
struct Writer;

impl Write for Writer {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        LINES.add(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[derive(Debug, Clone, Copy, Default, clap::ValueEnum)]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}

/// Checks a filter: a level, or directives `TARGET=LEVEL` divided by commas. A word that is no level would be
/// the name of a target to the library: a misspelt level would have nothing logged.
pub(crate) fn filter(text: &str) -> std::result::Result<String, String> {
    for directive in directives(text) {
        let behind_spans = directive.rsplit_once(']').map(|(_, behind)| behind);
        let level = match behind_spans.unwrap_or(directive).rsplit_once('=') {
            Some((_, level)) => level,
            None => directive,
        };
        let levels = ["off", "error", "warn", "info", "debug", "trace"];
        let is_level = levels.iter().any(|it| it.eq_ignore_ascii_case(level));
        if !is_level || directive.contains(char::is_whitespace) {
            return Err(format!(
                "{directive:?} is neither a level (error, warn, info, debug, trace or off) nor TARGET=LEVEL, \
                 as in info,hyper=debug"
            ));
        }
    }
    // The library takes no blanks.
    let filter = directives(text).join(",");
    match EnvFilter::try_new(&filter) {
        Ok(_) => Ok(filter),
        Err(error) => Err(error.to_string()),
    }
}

/// The directives of a filter.
fn directives(text: &str) -> Vec<&str> {
    text.split(',').map(str::trim).collect()
}

/// Starts the log, with a filter that [`filter`] has passed. From then on the process has to end by [`flush`] or
/// [`abort`]; a panic flushes too.
///
/// # Errors
///
/// The filter cannot be parsed, the thread that writes cannot be started, or a log was started before.
pub fn start(format: LogFormat, filter: &str) -> Result<(), Box<dyn Error + Send + Sync>> {
    let filter = EnvFilter::try_new(filter)?;
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        // A log that nobody reads any more must not end who writes it: such errors would go to the standard
        // error in a way that panics.
        .log_internal_errors(false)
        .with_writer(|| Writer);
    match format {
        LogFormat::Text => log.with_ansi(io::stderr().is_terminal()).try_init()?,
        LogFormat::Json => log.json().try_init()?,
    }
    std::thread::Builder::new()
        .name("log".to_owned())
        .spawn(|| {
            LINES.write(io::stderr(), |lines| {
                tracing::error!(
                    lines,
                    "lines of the log were dropped: they were not read in time"
                );
            })
        })?;
    let said_by_default = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        flush();
        said_by_default(panic);
    }));
    Ok(())
}

/// Waits until the log is written, for a second at most.
pub(crate) fn flush() {
    LINES.flush(LONGEST_FLUSH);
}

/// Ends the process at once, as no orderly end is possible; its log is written first.
pub(crate) fn abort() -> ! {
    flush();
    std::process::abort()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_a_level_or_directives_with_levels() {
        for text in [
            "error",
            "WARN",
            "off",
            "info,hyper=debug",
            "info, desktop_images::server=trace",
            "desktop_images[request{method=GET}]=debug,warn",
            "[operation]=trace",
        ] {
            assert_eq!(filter(text), Ok(text.replace(' ', "")));
        }
        for text in [
            "",
            "loud",
            "inof",
            "warning",
            "hyper",
            "hyper=",
            "hyper=loud",
            "info,",
            ",info",
            "info hyper=debug",
            "7",
            "[operation]",
            "desktop_images[request{a=b}]",
        ] {
            assert!(filter(text).is_err(), "{text:?}");
        }
    }
}
