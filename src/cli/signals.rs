//! Signals that ask a process to stop, and those that must not end it.

use std::io::IsTerminal;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::errors::{Error, Result};

/// Orders to stop: SIGTERM, SIGINT (Ctrl-C) and SIGQUIT, and SIGHUP of a process whose standard input was a
/// terminal when it started: then the terminal has gone.
pub(crate) struct Stop {
    terminate: Signal,
    interrupt: Signal,
    quit: Signal,
    hangup: Option<Signal>,
    /// Whether SIGHUP still is an order. A closed terminal sends it twice, by the kernel and by the shell.
    hangup_is_order: bool,
    /// Signals that are logged and ignored, whose default would end the process.
    ignored: Option<[(Signal, &'static str); 2]>,
}

impl Stop {
    /// The signals of a server: nothing but an order to stop ends it.
    pub(crate) fn of_a_server() -> Result<Self> {
        let stop = Self {
            hangup: Some(listen(SignalKind::hangup())?),
            ignored: Some([
                (listen(SignalKind::user_defined1())?, "SIGUSR1"),
                (listen(SignalKind::user_defined2())?, "SIGUSR2"),
            ]),
            ..Self::of_a_command()?
        };
        Ok(stop)
    }

    /// The signals of a command. A command without a terminal keeps what it inherited for SIGHUP, as by `nohup`.
    pub(crate) fn of_a_command() -> Result<Self> {
        let has_terminal = std::io::stdin().is_terminal();
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            quit: listen(SignalKind::quit())?,
            hangup: match has_terminal {
                true => Some(listen(SignalKind::hangup())?),
                false => None,
            },
            hangup_is_order: has_terminal,
            ignored: None,
        })
    }

    /// Returns at the next order.
    pub(crate) async fn ordered(&mut self) {
        loop {
            let ignored = tokio::select! {
                _ = self.terminate.recv() => break,
                _ = self.interrupt.recv() => break,
                _ = self.quit.recv() => break,
                () = received(self.hangup.as_mut()) => {
                    if self.hangup_is_order {
                        break;
                    }
                    "SIGHUP"
                }
                name = any(self.ignored.as_mut()) => name,
            };
            tracing::info!(signal = ignored, "a signal that changes nothing is ignored");
        }
        self.hangup_is_order = false;
    }
}

fn listen(kind: SignalKind) -> Result<Signal> {
    signal(kind).map_err(|error| Error::failed("cannot listen for signals", &error))
}

async fn received(signal: Option<&mut Signal>) {
    match signal {
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}

async fn any(signals: Option<&mut [(Signal, &'static str); 2]>) -> &'static str {
    match signals {
        Some([(one, first), (other, second)]) => tokio::select! {
            _ = one.recv() => first,
            _ = other.recv() => second,
        },
        None => std::future::pending().await,
    }
}
