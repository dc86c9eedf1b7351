//! The password, where the URL has none: from the environment, `PGPASSWORD`, or from a file with lines
//! `host:port:database:user:password`, as psql reads them. The file is `passfile` of the URL, or `PGPASSFILE`.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tokio_postgres::Config;
use tokio_postgres::config::Host;

use super::super::{Error, Result};

/// The password for the first host of a URL.
pub(super) fn find(config: &Config, file: Option<PathBuf>) -> Result<Option<Vec<u8>>> {
    if file.is_none()
        && let Some(password) = std::env::var_os("PGPASSWORD")
    {
        use std::os::unix::ffi::OsStringExt;
        return Ok(Some(password.into_vec()));
    }
    let Some(path) = file.or_else(|| std::env::var_os("PGPASSFILE").map(PathBuf::from)) else {
        return Ok(None);
    };
    let failed = |what: String| Error::Failed(format!("{}: {what}", path.display()).into());
    let text = read(&path).map_err(failed)?;
    let host = match config.get_hosts().first() {
        Some(Host::Tcp(name)) => name.clone(),
        _ => "localhost".to_owned(),
    };
    let port = config.get_ports().first().copied().unwrap_or(5432);
    let user = config.get_user().unwrap_or_default();
    let database = config.get_dbname().unwrap_or(user);
    let wanted = [&host, &port.to_string(), database, user];
    text.lines()
        .find_map(|line| password_of(line, wanted))
        .map(|password| Some(password.into_bytes()))
        .ok_or_else(|| failed("no line is about this server, database and user".to_owned()))
}

/// The password that a file has alone, without the end of its line.
pub(super) fn read_alone(path: &Path) -> Result<Vec<u8>> {
    let failed = |what: String| Error::Failed(format!("{}: {what}", path.display()).into());
    let mut password = std::fs::read(path).map_err(|error| failed(error.to_string()))?;
    while password.last().is_some_and(|last| b"\r\n".contains(last)) {
        password.pop();
    }
    match password.is_empty() {
        true => Err(failed("the file of the password is empty".to_owned())),
        false => Ok(password),
    }
}

fn read(path: &Path) -> std::result::Result<String, String> {
    let mode = std::fs::metadata(path).map_err(|error| error.to_string())?;
    if mode.permissions().mode() & 0o077 != 0 {
        return Err("others may read the passwords in it: chmod 600".to_owned());
    }
    std::fs::read_to_string(path).map_err(|error| error.to_string())
}

/// The password of a line that is about what is wanted.
fn password_of(line: &str, wanted: [&str; 4]) -> Option<String> {
    if line.starts_with('#') {
        return None;
    }
    let fields = fields(line);
    let [about @ .., password] = &fields[..] else {
        return None;
    };
    let matches = about.len() == wanted.len()
        && about
            .iter()
            .zip(wanted)
            .all(|(field, wanted)| field == "*" || field == wanted);
    matches.then(|| password.clone())
}

/// The fields between colons. A backslash takes the next character as it is.
fn fields(line: &str) -> Vec<String> {
    let (mut fields, mut characters) = (vec![String::new()], line.chars());
    while let Some(character) = characters.next() {
        let taken = match character {
            ':' if fields.len() < 5 => {
                fields.push(String::new());
                continue;
            }
            '\\' => characters.next(),
            other => Some(other),
        };
        if let Some(field) = fields.last_mut() {
            field.extend(taken);
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_about_what_it_names() {
        let wanted = ["db", "5432", "images", "me"];
        for (line, password) in [
            ("db:5432:images:me:secret", Some("secret")),
            ("*:*:*:*:a:b", Some("a:b")),
            ("db:*:images:me:a\\:b\\\\", Some("a:b\\")),
            ("other:5432:images:me:secret", None),
            ("# db:5432:images:me:secret", None),
            ("db:5432:images:me", None),
            ("", None),
        ] {
            assert_eq!(password_of(line, wanted).as_deref(), password, "{line}");
        }
    }
}
