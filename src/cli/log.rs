//! The log on the standard error: its form, and what is in it.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::writer::BoxMakeWriter;

use super::errors::{Error, Result};

/// The default of `--log-level`.
const DEFAULT_LEVEL: &str = "info";
/// Where the filter is taken from if no argument has it.
const VARIABLE: &str = "RUST_LOG";

#[derive(Debug, Clone, Copy, Default, clap::ValueEnum)]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}

/// Checks a filter: a level, or directives `TARGET=LEVEL` divided by commas. A word that is no level would be
/// the name of a target to the library: a misspelt level would have nothing logged.
pub fn filter(text: &str) -> std::result::Result<String, String> {
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

/// Starts the log. Without a level that of the environment counts, if it has one.
pub fn start(format: LogFormat, level: Option<String>) -> Result<()> {
    let level = match (level, std::env::var(VARIABLE)) {
        (Some(level), _) => level,
        (None, Ok(level)) if !level.is_empty() => filter(&level)
            .map_err(|wrong| Error::Usage(format!("the variable {VARIABLE}: {wrong}")))?,
        _ => DEFAULT_LEVEL.to_owned(),
    };
    let filter = EnvFilter::try_new(level).map_err(|error| Error::failed("--log-level", &error))?;
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        // A log that nobody reads any more must not end who writes it: such errors would go to the standard
        // error in a way that panics.
        .log_internal_errors(false)
        .with_writer(BoxMakeWriter::new(std::io::stderr));
    let started = match format {
        LogFormat::Text => log
            .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
            .try_init(),
        LogFormat::Json => log.json().try_init(),
    };
    started.map_err(|error| Error::failed("cannot start the log", error.as_ref()))
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
            "info, desktop_images::http=trace",
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
