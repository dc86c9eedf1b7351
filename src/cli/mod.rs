//! The command line. Knows the commands, their output and their exit codes, as a client of the API like any other.
//! Never mentions how the server does its work, which is behind the contract or behind `app`.

mod access;
mod audit;
mod backup;
mod blobs;
mod client;
mod compute_images;
mod config_file;
mod connection;
mod demo;
mod endpoint;
mod errors;
mod images;
mod listing;
mod migrate;
mod network;
mod operations;
mod output;
mod progress;
mod quotas;
mod secret_file;
mod serve;
mod service_accounts;
mod signals;
mod tokens;
mod transfer;
mod url_keys;
mod values;
mod verify;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use client::{Client, Http};
use config_file::ConfigFile;
use connection::{Connection, ConnectionArguments};
use errors::{Error, Result};
use output::Format;
use signals::Stop;

use crate::telemetry::log;

/// An image service for virtual desktops: its server, and commands that speak to one.
#[derive(Debug, Parser)]
#[command(name = "desktop-images", version, after_help = errors::EXIT_CODES)]
struct Arguments {
    #[command(flatten)]
    connection: ConnectionArguments,
    /// How results are printed: text, unless a command says otherwise
    #[arg(long, global = true, value_enum, help_heading = "Global options")]
    format: Option<Format>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the server
    Serve(Box<serve::Arguments>),
    /// Shows it all at once: a server, an import, two copies, and their bytes read back
    Demo(demo::Arguments),
    /// Compute images: what is imported, and what desktop images are copied from
    #[command(subcommand)]
    ComputeImage(compute_images::Command),
    /// Desktop images
    #[command(subcommand)]
    Image(images::Command),
    /// Operations: what a server is doing, or has done
    #[command(subcommand)]
    Operation(operations::Command),
    /// Quotas: limits of what folders may hold
    #[command(subcommand)]
    Quota(quotas::Command),
    /// Tokens: what people and programs sign in with
    #[command(subcommand)]
    Token(tokens::Command),
    /// Roles: what subjects and groups may do, and where
    #[command(subcommand)]
    Access(access::Command),
    /// Service accounts: what programs sign in as, by keys of their own
    #[command(subcommand)]
    ServiceAccount(service_accounts::Command),
    /// Keys of signed URLs
    #[command(subcommand)]
    UrlKey(url_keys::Command),
    /// Prints audit events, unless --format says otherwise one JSON object a line: who changed what, and how
    /// it ended
    Audit(audit::Arguments),
    /// Copies a data folder while a server may work in it, so that it can be restored
    Backup(backup::BackUp),
    /// Makes a data folder of a backup
    Restore(backup::Restore),
    /// Moves a data folder to a PostgreSQL database and a place of images that several servers share
    Migrate(migrate::Arguments),
    /// Reads all that a data folder holds, and says what is wrong with it; a server may run meanwhile
    Verify(verify::Arguments),
}

/// The options that commands share: the server, and the form of the output.
struct Context {
    connection: Connection,
    format: Format,
    /// The format that was asked for, where one was.
    given_format: Option<Format>,
}

impl Context {
    async fn connect(&self) -> Result<Client> {
        Client::connect(&self.connection).await
    }

    fn http(&self) -> Result<Http> {
        Http::new(&self.connection)
    }
}

/// Runs the command line with its arguments, the program's name first, to the exit code.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments = match parsed(arguments.into_iter().collect()) {
        Ok(Ok(arguments)) => arguments,
        Ok(Err(wrong)) => {
            // Help that nobody reads to its end is no failure.
            let _ = wrong.print();
            return ExitCode::from(u8::try_from(wrong.exit_code()).unwrap_or(2));
        }
        Err(error) => {
            output::complain(&format!("error: {}", readable(&error)));
            return ExitCode::from(error.exit_code());
        }
    };
    let result = block_on(execute(arguments));
    log::flush();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if !matches!(error, Error::OutputClosed) {
                output::complain(&format!("error: {}", readable(&error)));
            }
            ExitCode::from(error.exit_code())
        }
    }
}

/// The arguments, and those that a file of settings gives `serve`.
fn parsed(words: Vec<OsString>) -> Result<clap::error::Result<Arguments>> {
    let mut command = Arguments::command();
    let matches = match command.try_get_matches_from_mut(&words) {
        Ok(matches) => matches,
        Err(wrong) => return Ok(Err(wrong)),
    };
    let mut arguments = match Arguments::from_arg_matches(&matches) {
        Ok(arguments) => arguments,
        Err(wrong) => return Ok(Err(wrong)),
    };
    let Command::Serve(serve) = &arguments.command else {
        return Ok(Ok(arguments));
    };
    let Some(path) = &serve.config else {
        return Ok(Ok(arguments));
    };
    let file = ConfigFile::read(path)?;
    if let (Some(command), Some(given)) = (
        command.find_subcommand("serve"),
        matches.subcommand_matches("serve"),
    ) {
        let more = file.arguments(command, given)?;
        arguments = match Arguments::try_parse_from(words.into_iter().chain(more)) {
            Ok(arguments) => arguments,
            Err(wrong) => return Ok(Err(wrong)),
        };
    }
    if let Command::Serve(serve) = &mut arguments.command {
        serve.issuers = file.issuers;
    }
    Ok(Ok(arguments))
}

fn block_on(execution: impl Future<Output = Result<()>>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::failed("cannot start", &error))?;
    let result = runtime.block_on(execution);
    // A thread that waits for the standard input would wait for ever.
    runtime.shutdown_background();
    result
}

async fn execute(arguments: Arguments) -> Result<()> {
    let (connection, given_format) = (arguments.connection, arguments.format);
    // Of the commands that speak to a server.
    let context = || -> Result<Context> {
        Ok(Context {
            connection: connection.connection()?,
            format: given_format.unwrap_or_default(),
            given_format,
        })
    };
    match arguments.command {
        Command::Serve(arguments) => serve::run(*arguments).await,
        Command::Demo(arguments) => demo::run(arguments).await,
        Command::ComputeImage(command) => {
            interruptible(compute_images::run(&context()?, command)).await
        }
        Command::Image(command) => interruptible(images::run(&context()?, command)).await,
        Command::Operation(command) => interruptible(operations::run(&context()?, command)).await,
        Command::Quota(command) => interruptible(quotas::run(&context()?, command)).await,
        Command::Audit(arguments) => interruptible(audit::run(&context()?, arguments)).await,
        Command::Verify(arguments) => {
            verify::run(given_format.unwrap_or_default(), arguments).await
        }
        Command::Backup(arguments) => {
            backup::back_up(given_format.unwrap_or_default(), arguments).await
        }
        Command::Restore(arguments) => {
            backup::restore(given_format.unwrap_or_default(), arguments).await
        }
        Command::Migrate(arguments) => {
            migrate::run(given_format.unwrap_or_default(), arguments).await
        }
        Command::Token(command) => interruptible(tokens::run(&context()?, command)).await,
        Command::Access(command) => interruptible(access::run(&context()?, command)).await,
        Command::ServiceAccount(command) => {
            interruptible(service_accounts::run(&context()?, command)).await
        }
        Command::UrlKey(command) => interruptible(url_keys::run(&context()?, command)).await,
    }
}

/// Ends a command at a signal that asks for it in an orderly way: what it left half done is removed.
async fn interruptible(command: impl Future<Output = Result<()>>) -> Result<()> {
    let mut stop = Stop::of_a_command()?;
    tokio::select! {
        result = command => result,
        () = stop.ordered() => Err(Error::Interrupted),
    }
}

/// The words of an error without what would control a terminal; its line breaks stay.
fn readable(error: &Error) -> String {
    let lines: Vec<String> = error
        .to_string()
        .lines()
        .map(output::without_controls)
        .collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_fit_together() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn the_commands_of_the_public_client_are_understood() {
        for line in [
            "image copy --compute-image-id fd8 --new-image-name n --folder-id f",
            "image copy --compute-image-id fd8 --new-image-name n --folder-id f --async",
            "image copy --compute-image-id fd8 --new-image-name n --folder-id f --label a=b --label c=d",
            "image list --folder-id f --format yaml",
            "image get e3v",
            "image update --id e3v --new-name n",
            "image delete e3v --async",
            "image download e3v --output -",
            "compute-image import a.qcow2 --folder-id f",
            "compute-image list --folder-id f --filter x --order-by name --page-size 10 --limit 5",
            "operation get e3v",
            "operation cancel e3v",
            "operation wait e3v --timeout 10m",
            "quota list",
            "quota list --folder-id f",
            "quota set --name vdi.desktopImages.count --limit 5 --folder-id f",
            "quota set --name vdi.desktopImages.size --limit 10GiB",
            "quota set --name compute.images.count --limit none",
            "audit",
            "audit --folder-id f --after 7 --follow",
            "token create --description d --expires 30d --output f",
            "token list",
            "token revoke abc",
            "access grant token:abc --folder-id f --role editor --import-uri-prefix file:///golden/",
            "access revoke token:abc",
            "access list --folder-id f",
            "service-account create ci",
            "service-account key create aje --output key.json",
            "service-account key delete aje",
            "url-key rotate",
            "image url e3v --expires 1h",
            "verify --data-dir /srv --format json",
            "backup --data-dir /srv --output /backup --copy --skip-verify --allow-damaged",
            "restore --from /backup --data-dir /srv --format json",
            "serve --data-dir /srv --adopt-empty",
            "serve --listen 0.0.0.0:80 --data-dir /srv --import-dir /images --log-format json",
            "serve --ephemeral",
            "serve --listen 8080 --listen unix:/run/a.sock --listen systemd",
            "serve --tls-cert c.pem --tls-key k.pem --tls-client-ca ca.pem --tls-client-subject dns",
            "serve --trusted-proxy 10.0.0.0/8 --trusted-proxy unix --allow-host a.example --allow-host ::1",
            "serve --require-auth --insecure-plaintext",
            "serve --max-connections 1",
            "serve --insecure-plaintext --insecure-allow-anonymous",
            "serve --tls-self-signed --tls-reload-interval 1m",
            "serve --listen 8080 --idle-timeout 500ms --drain-timeout 1m30s --audit-retention 2d",
            "serve --listen localhost:0 --log-level warn,hyper=debug",
            "serve --listen :0 --log-level OFF",
            "audit --format yaml",
            "demo --once",
            "--endpoint http://h:1 --format json demo --image a.img",
            "--endpoint https://h --ca-file ca.pem --token-file t image get e3v",
            "image get e3v --header X-A:b --header X-B:c --token t --endpoint unix:/run/a.sock",
            "operation get e3v --insecure-plaintext",
        ] {
            let words = std::iter::once("desktop-images").chain(line.split(' '));
            let parsed = Arguments::try_parse_from(words);
            assert!(parsed.is_ok(), "{line}: {}", parsed.unwrap_err());
        }
    }

    #[test]
    fn wrong_usage_is_refused() {
        for line in [
            "",
            "image",
            "image copy --compute-image-id fd8",
            "token create --expires 0s",
            "backup --data-dir /srv",
            "restore --from /backup",
            "access grant token:abc",
            "access grant token:abc --role owner",
            "service-account key create aje",
            "image list",
            "image list --folder-id f --page-size 0",
            "image list --folder-id f --page-size 1001",
            "image copy --compute-image-id fd8 --new-image-name n --folder-id f --label a",
            "compute-image import --folder-id f",
            "operation wait e3v --timeout soon",
            "quota set --name vdi.desktopImages.count",
            "quota set --limit 5",
            "quota set --name vdi.desktopImages.count --limit few",
            "quota set --name vdi.desktopImages.count --limit=-1",
            "audit --after=-1",
            "serve --listen nowhere",
            "serve --listen unix:",
            "serve --tls-cert c.pem",
            "serve --tls-key k.pem",
            "serve --tls-cert c.pem --tls-key k.pem --tls-self-signed",
            "serve --tls-self-signed --tls-client-subject dns",
            "serve --tls-client-ca ca.pem",
            "serve --trusted-proxy 10.0.0.1/8",
            "serve --allow-host a.example:80",
            "serve --max-connections 0",
            "serve --require-auth --insecure-allow-anonymous",
            "serve --idle-timeout 0s",
            "serve --log-level loud",
            "serve --log-level",
            "serve --log-level=",
            "serve --log-level hyper",
            "serve --log-level hyper=loud",
            "serve --log-level info,",
            "serve --log-level 7",
            "audit --format lines",
            "serve --lease-duration 999ms",
            "serve --ephemeral --data-dir /srv",
            "serve --ephemeral --adopt-empty",
            "--endpoint ftp://h operation get e3v",
            "--token t --token-file f operation get e3v",
            "--header none operation get e3v",
            "--format xml operation get e3v",
        ] {
            let words = line.split(' ').filter(|word| !word.is_empty());
            let words = std::iter::once("desktop-images").chain(words);
            let parsed = Arguments::try_parse_from(words);
            assert_eq!(parsed.unwrap_err().exit_code(), 2, "{line}");
        }
    }

    #[test]
    fn an_error_controls_no_terminal() {
        let error = Error::Failed("Validation failed:\n  - name: \x1b[2J".to_owned());
        assert_eq!(readable(&error), "Validation failed:\n  - name: \\u{1b}[2J");
    }
}
