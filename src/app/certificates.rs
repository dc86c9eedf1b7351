//! The certificates of the listeners, and the task that keeps them at what their files hold.

use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use http::uri::Authority;
use tokio_util::sync::CancellationToken;

use super::listeners::Bound;
use super::{AllowedHost, Error};
use crate::tls::{Acceptor, Keeper, Names, TlsSettings};

/// The folder of the certificates that the server makes, in the data folder.
pub(super) const FOLDER: &str = "tls";

/// The names that a server has by its listeners, and that it is told.
pub(super) fn names(bound: &[Bound], hosts: &[AllowedHost], advertise: Option<&str>) -> Names {
    let mut names = Names::of_this_machine();
    for bound in bound {
        if let Bound::Tcp(address) = bound {
            names.add(&address.ip().to_string());
        }
    }
    for host in hosts {
        names.add(host.name());
    }
    let advertised = advertise.and_then(|address| address.parse::<Authority>().ok());
    if let Some(advertised) = advertised {
        names.add(advertised.host());
    }
    names
}

/// Reads or makes the certificates, and looks at them again until `stop`.
pub(super) async fn keep(
    settings: TlsSettings,
    data: &Path,
    names: Names,
    stop: CancellationToken,
) -> Result<Arc<Acceptor>, Error> {
    let folder = data.join(FOLDER);
    let interval = settings.look_interval;
    let started = tokio::task::spawn_blocking(move || {
        Keeper::start(&settings, &folder, names, SystemTime::now())
    });
    let mut keeper = started
        .await
        .map_err(|stopped| Error::Temporary(stopped.into()))??;
    let acceptor = keeper.acceptor();
    tokio::spawn(async move {
        loop {
            tokio::select! {
                () = tokio::time::sleep(interval) => {}
                () = stop.cancelled() => return,
            }
            let looked = tokio::task::spawn_blocking(move || {
                keeper.look(SystemTime::now());
                keeper
            });
            keeper = match looked.await {
                Ok(keeper) => keeper,
                Err(error) => {
                    tracing::error!(%error, "certificates are looked at no more");
                    return;
                }
            };
        }
    });
    Ok(acceptor)
}
