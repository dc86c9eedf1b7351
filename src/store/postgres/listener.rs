//! The connection that hears of work that another process has left. Nothing depends on it: who looks for work looks
//! again once a second in any case, also where a pooler keeps notifications away.
//!
//! A transaction with a NOTIFY takes a lock over the whole database server at its commit, and commits wait for each
//! other (src/backend/commands/async.c, PostgreSQL 18: `PreCommit_Notify`). So it is sent after the commit of a batch,
//! and only where the batch has left something to claim.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_postgres::tls::TlsStream;
use tokio_postgres::{AsyncMessage, Client, Socket};

use super::super::Result;
use super::Shared;
use super::connection::Pool;
use super::settings::{Connected, Settings};

/// The pause before a lost connection is made anew.
const PAUSE: Duration = Duration::from_secs(1);
const NOTIFY: &str = "NOTIFY desktop_images_work";
const LISTEN: &str = "LISTEN desktop_images_work";

/// Tells all processes that there is work.
pub(super) async fn tell(pool: &Pool) {
    let told = async { pool.take(false).await?.run(NOTIFY).await };
    if let Err(error) = told.await {
        tracing::debug!(%error, "other processes were not told of work");
    }
}

/// Listens in a task of its own.
pub(super) fn start(settings: Settings, shared: Arc<Shared>) -> JoinHandle<()> {
    tokio::spawn(async move {
        loop {
            if let Err(error) = listen(&settings, &shared.work).await {
                tracing::debug!(%error, "work of other processes is not heard of");
            }
            tokio::time::sleep(PAUSE).await;
        }
    })
}

async fn listen(settings: &Settings, work: &Notify) -> Result<()> {
    match settings.connected().await? {
        Connected::Plain(client, connection) => hear(client, *connection, work).await,
        Connected::Tls(client, connection) => hear(client, *connection, work).await,
    }
}

/// Hears until the connection is lost.
async fn hear<T>(
    client: Client,
    mut connection: tokio_postgres::Connection<Socket, T>,
    work: &Notify,
) -> Result<()>
where
    T: TlsStream + Unpin,
{
    let mut listening = std::pin::pin!(client.batch_execute(LISTEN));
    let mut is_listening = false;
    loop {
        tokio::select! {
            listened = &mut listening, if !is_listening => {
                listened?;
                is_listening = true;
                // Notifications of before were not heard.
                work.notify_one();
            }
            message = poll_fn(|context| connection.poll_message(context)) => match message {
                Some(Ok(AsyncMessage::Notification(_))) => work.notify_one(),
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error.into()),
                None => return Ok(()),
            },
        }
    }
}
