//! A server on a store in memory, in a process of its own that runs this program once more: what the durable server
//! is measured against. All but the store is the same.

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use desktop_images::app::{Config, Data, Server, StoreSettings};
use desktop_images::telemetry::log::{self, LogFormat};

/// The word that has this program serve, before the arguments of `desktop-images serve` that follow.
pub const WORD: &str = "serve-in-memory";

/// Serves until it is killed.
pub fn serve() -> Result<ExitCode, Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let value = |name: &str| {
        let position = arguments.iter().position(|argument| argument == name)?;
        arguments.get(position + 1).cloned()
    };
    let data = PathBuf::from(value("--data-dir").ok_or("no --data-dir")?);
    let level = value("--log-level").ok_or("no --log-level")?;
    log::start(LogFormat::Text, &level).map_err(|error| error.to_string())?;
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        let server = Server::start(Config {
            store: StoreSettings::Memory,
            ..Config::new(Data::Folder(data))
        })
        .await?;
        println!("Listening on http://{}", server.address());
        std::future::pending::<()>().await;
        Ok(ExitCode::SUCCESS)
    })
}
