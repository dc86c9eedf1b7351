//! The file of settings of `serve`. Each setting is a flag of the command and is defined there alone: the file gives
//! values to flags that are neither on the command line nor in the environment. Only what flags cannot say well is of
//! the file alone: issuers of JWTs.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::parser::ValueSource;
use clap::{ArgAction, ArgMatches, Command};
use serde::Deserialize;
use toml::{Table, Value};

use super::errors::{Error, Result};
use super::serve::LOG_VARIABLE;
use crate::app::IssuerSettings;

/// The key of the issuers.
const ISSUER: &str = "issuer";

/// The flags that a file gives values to, and the settings that no flag has.
#[derive(Debug, Default)]
pub(super) struct ConfigFile {
    path: PathBuf,
    flags: Table,
    pub(super) issuers: Vec<IssuerSettings>,
}

#[derive(Deserialize)]
struct Issuers {
    #[serde(default)]
    issuer: Vec<IssuerSettings>,
}

impl ConfigFile {
    /// # Errors
    /// Where the file cannot be read, or is not as it must be.
    pub(super) fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path);
        let text = text.map_err(|error| Error::failed(path.display().to_string(), &error))?;
        Self::parse(path, &text)
            .map_err(|why| Error::Usage(format!("{}: {}", path.display(), why.trim_end())))
    }

    fn parse(path: &Path, text: &str) -> std::result::Result<Self, String> {
        let mut flags: Table = toml::from_str(text).map_err(|error| error.to_string())?;
        flags.remove(ISSUER);
        // Of the text, so that an error tells its line. Other keys are looked at with the flags.
        let issuers: Issuers = toml::from_str(text).map_err(|error| error.to_string())?;
        Ok(Self {
            path: path.to_owned(),
            flags,
            issuers: issuers.issuer,
        })
    }

    /// The arguments that give the file's values to the flags of `command` that `given` does not.
    ///
    /// # Errors
    /// Where a key is no flag, or its value not of the flag's kind.
    pub(super) fn arguments(&self, command: &Command, given: &ArgMatches) -> Result<Vec<OsString>> {
        let mut arguments = Vec::new();
        for (key, value) in &self.flags {
            let wrong = |why: &str| Error::Usage(format!("{}: {key} {why}", self.path.display()));
            let name = key.replace('_', "-");
            let mut flags = command.get_arguments();
            let flag = flags.find(|flag| flag.get_long() == Some(&name));
            let flag = flag.filter(|flag| flag.get_id() != "config" && flag.get_id() != "help");
            let flag = flag.ok_or_else(|| wrong("is no setting of serve"))?;
            let is_given = |id: &str| {
                let source = given.value_source(id);
                matches!(
                    source,
                    Some(ValueSource::CommandLine | ValueSource::EnvVariable)
                )
            };
            // A flag that excludes this one takes its place. Security is never put aside so.
            let conflicts = command.get_arg_conflicts_with(flag);
            let mut conflicts = conflicts.iter().map(|other| other.get_id().as_str());
            let is_put_aside = name != "require-auth" && conflicts.any(is_given);
            let has_variable = name == "log-level" && std::env::var_os(LOG_VARIABLE).is_some();
            if is_given(flag.get_id().as_str()) || is_put_aside || has_variable {
                continue;
            }
            match (flag.get_action(), value) {
                (ArgAction::SetTrue, Value::Boolean(true)) => arguments.push(format!("--{name}")),
                (ArgAction::SetTrue, Value::Boolean(false)) => {}
                (ArgAction::SetTrue, _) => return Err(wrong("must be true or false")),
                (ArgAction::Append, Value::Array(values)) => {
                    for value in values {
                        let value = text(value).ok_or_else(|| wrong("must be a list of texts"))?;
                        arguments.push(format!("--{name}={value}"));
                    }
                }
                (_, value) => {
                    let value = text(value).ok_or_else(|| wrong("must be a text or a number"))?;
                    arguments.push(format!("--{name}={value}"));
                }
            }
        }
        Ok(arguments.into_iter().map(OsString::from).collect())
    }
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Integer(number) => Some(number.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use clap::{Arg, value_parser};

    use super::*;

    fn command() -> Command {
        Command::new("serve")
            .arg(
                Arg::new("listen")
                    .long("listen")
                    .action(ArgAction::Append)
                    .default_value("8080"),
            )
            .arg(
                Arg::new("ephemeral")
                    .long("ephemeral")
                    .action(ArgAction::SetTrue),
            )
            .arg(
                Arg::new("max_uploads")
                    .long("max-uploads")
                    .value_parser(value_parser!(u16)),
            )
            .arg(Arg::new("config").long("config"))
    }

    fn arguments(text: &str, given: &[&str]) -> std::result::Result<Vec<String>, String> {
        let path = Path::new("f.toml");
        let file = ConfigFile::parse(path, text)?;
        let given = command().get_matches_from([&["serve"], given].concat());
        let arguments = file
            .arguments(&command(), &given)
            .map_err(|error| error.to_string())?;
        Ok(arguments
            .into_iter()
            .map(|it| it.into_string().unwrap())
            .collect())
    }

    #[test]
    fn a_file_gives_values_to_flags_that_are_not_given() {
        for (text, given, wanted) in [
            (
                "listen = [\"1\", \"2\"]",
                &[][..],
                &["--listen=1", "--listen=2"][..],
            ),
            ("listen = \"1\"", &[], &["--listen=1"]),
            ("listen = [\"1\"]", &["--listen", "3"], &[]),
            (
                "ephemeral = true\nmax_uploads = 4",
                &[],
                &["--ephemeral", "--max-uploads=4"],
            ),
            ("ephemeral = false", &[], &[]),
            ("max-uploads = 4", &[], &["--max-uploads=4"]),
            ("", &[], &[]),
        ] {
            assert_eq!(arguments(text, given).unwrap(), wanted, "{text}");
        }
    }

    #[test]
    fn a_key_that_is_no_flag_is_told() {
        for (text, wanted) in [
            ("nothing = 1", "f.toml: nothing is no setting of serve"),
            ("config = \"x\"", "config is no setting"),
            ("ephemeral = 1", "ephemeral must be true or false"),
            (
                "max_uploads = [1]",
                "max_uploads must be a text or a number",
            ),
            ("listen = [true]", "listen must be a list of texts"),
            ("listen", "expected"),
            ("[[issuer]]\nname = \"a\"\n", "missing field"),
            (
                "[[issuer]]\nname = \"a\"\nurl = \"u\"\naudiences = []\nurk = 1",
                "urk",
            ),
        ] {
            let error = arguments(text, &[]).unwrap_err();
            assert!(error.contains(wanted), "{text}: {error}");
        }
    }

    #[test]
    fn issuers_are_of_the_file_alone() {
        let text = "[[issuer]]\nname = \"corp\"\nurl = \"https://a\"\naudiences = [\"x\"]\n";
        let file = ConfigFile::parse(Path::new("f"), text).unwrap();
        assert_eq!(file.issuers.len(), 1);
        assert_eq!(file.issuers[0].refresh_seconds, 60);
        assert!(file.flags.is_empty());
    }
}
