//! A proxy that hands connections to targets in turn, and cuts those to a target that is to be out of reach.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

/// A proxy, which runs until it is dropped.
pub struct Proxy {
    address: SocketAddr,
    targets: Targets,
    ended: CancellationToken,
}

#[derive(Clone, Default)]
struct Targets(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    open: Vec<(SocketAddr, CancellationToken)>,
    next: usize,
}

impl Proxy {
    /// A proxy without targets, which closes the connections that come.
    pub async fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let listener = listener.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let (targets, ended) = (Targets::default(), CancellationToken::new());
        let (serving, until) = (targets.clone(), ended.clone());
        tokio::spawn(async move {
            let _ = until
                .run_until_cancelled(serve(listener, serving, until.clone()))
                .await;
        });
        Self {
            address,
            targets,
            ended,
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Hands connections to this target, too.
    pub fn open(&self, target: SocketAddr) {
        let mut state = self.targets.lock();
        state.open.push((target, CancellationToken::new()));
    }

    /// Hands no more connections to a target, and closes those that it has.
    pub fn cut(&self, target: SocketAddr) {
        let mut state = self.targets.lock();
        state.open.retain(|(open, cut)| {
            if *open == target {
                cut.cancel();
            }
            *open != target
        });
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.ended.cancel();
    }
}

impl Targets {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The target whose turn it is.
    fn next(&self) -> Option<(SocketAddr, CancellationToken)> {
        let mut state = self.lock();
        state.next += 1;
        let number = state.next.checked_rem(state.open.len())?;
        Some(state.open[number].clone())
    }
}

async fn serve(listener: TcpListener, targets: Targets, ended: CancellationToken) {
    while let Ok((client, _)) = listener.accept().await {
        let Some((target, cut)) = targets.next() else {
            continue;
        };
        let ended = ended.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = pass(client, target) => {}
                () = cut.cancelled() => {}
                () = ended.cancelled() => {}
            }
        });
    }
}

/// Passes bytes on, both ways, until one side is done with it.
async fn pass(mut client: TcpStream, target: SocketAddr) {
    if let Ok(mut target) = TcpStream::connect(target).await {
        // Small packets are not to wait for each other.
        let _ = (client.set_nodelay(true), target.set_nodelay(true));
        let _ = copy_bidirectional(&mut client, &mut target).await;
    }
}
