//! Errors of a command, and the exit codes that tell scripts of them.

use std::error::Error as StdError;
use std::io;

use tonic::{Code, Status};

use crate::contract::google::rpc;
use crate::telemetry::chain;

/// Shown at the end of `--help`. The numbers are a promise to scripts.
pub(crate) const EXIT_CODES: &str = "\
Exit codes:
  0   success
  1   any other failure
  2   wrong usage of the command line
  3   INVALID_ARGUMENT, FAILED_PRECONDITION or OUT_OF_RANGE
  4   NOT_FOUND
  5   ALREADY_EXISTS
  6   PERMISSION_DENIED or UNAUTHENTICATED
  7   UNAVAILABLE, or no connection to the server
  8   RESOURCE_EXHAUSTED
  9   CANCELLED or ABORTED
  10  DEADLINE_EXCEEDED, or the wait took longer than asked for
  130 interrupted by Ctrl-C or SIGTERM
An operation that ended in an error gives the exit code of that error.";

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The server refused the request, in its words.
    #[error("{message}")]
    Refused { code: Code, message: String },
    /// The operation was accepted and ended in an error.
    #[error("operation {id} failed: {message}")]
    Operation {
        id: String,
        code: Code,
        message: String,
    },
    /// The operation may go on, but following it failed.
    #[error("cannot follow operation {id}: {source}\nIt may still go on: operation wait {id}")]
    Following {
        id: String,
        #[source]
        source: Box<Error>,
    },
    #[error("cannot reach {endpoint}: {reason}")]
    Unreachable { endpoint: String, reason: String },
    #[error("operation {id} is still running after {waited}")]
    StillRunning { id: String, waited: String },
    /// The arguments contradict each other in a way that their parser does not know.
    #[error("{0}")]
    Usage(String),
    #[error("{0}")]
    Failed(String),
    #[error("interrupted")]
    Interrupted,
    /// The reader of the standard output went away, as `head` does: the end, but no failure.
    #[error("the reader of the output went away")]
    OutputClosed,
}

pub(crate) type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// A failure on this side, with its causes.
    pub(crate) fn failed(what: impl std::fmt::Display, cause: &dyn StdError) -> Self {
        Self::Failed(format!("{what}: {}", chain(cause)))
    }

    /// The error of an operation that is done.
    pub(crate) fn operation(id: &str, error: &rpc::Status) -> Self {
        Self::Operation {
            id: id.to_owned(),
            code: Code::from_i32(error.code),
            message: error.message.clone(),
        }
    }

    /// A failure to write to the standard output.
    pub(crate) fn output(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::OutputClosed,
            _ => Self::failed("cannot write the output", error),
        }
    }

    /// The exit code, as [`EXIT_CODES`] has it.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Refused { code, .. } | Self::Operation { code, .. } => exit_code_of(*code),
            Self::Following { source, .. } => source.exit_code(),
            Self::Unreachable { .. } => 7,
            Self::StillRunning { .. } => 10,
            Self::Usage(_) => 2,
            Self::Failed(_) => 1,
            Self::Interrupted => 130,
            Self::OutputClosed => 0,
        }
    }
}

/// The words for a connection that broke, with what may help: a server that speaks TLS closes a connection on which a
/// client does not.
fn broken(why: &str) -> String {
    let advice = match why.ends_with("connection closed") {
        true => "; does the server speak TLS? then its address is https://",
        false => "",
    };
    format!("the connection to the server broke: {why}{advice}")
}

impl From<Status> for Error {
    fn from(status: Status) -> Self {
        // A status made on this side has a cause; one that the server sent has none.
        if let Some(cause) = StdError::source(&status) {
            return Self::Refused {
                code: Code::Unavailable,
                message: broken(&chain(cause)),
            };
        }
        Self::Refused {
            code: status.code(),
            message: match status.message() {
                "" => format!("the server answered {:?}", status.code()),
                message => message.to_owned(),
            },
        }
    }
}

fn exit_code_of(code: Code) -> u8 {
    match code {
        Code::Ok => 0,
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => 3,
        Code::NotFound => 4,
        Code::AlreadyExists => 5,
        Code::PermissionDenied | Code::Unauthenticated => 6,
        Code::Unavailable => 7,
        Code::ResourceExhausted => 8,
        Code::Cancelled | Code::Aborted => 9,
        Code::DeadlineExceeded => 10,
        Code::Unknown | Code::Unimplemented | Code::Internal | Code::DataLoss => 1,
    }
}

/// The last cause of an error: of a connection that failed, the words of the system.
pub(crate) fn root(error: &dyn StdError) -> String {
    let mut last = error;
    while let Some(cause) = last.source() {
        last = cause;
    }
    last.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_of_a_refusal_decides_the_exit_code() {
        let expected = [
            (Code::Cancelled, 9),
            (Code::Unknown, 1),
            (Code::InvalidArgument, 3),
            (Code::DeadlineExceeded, 10),
            (Code::NotFound, 4),
            (Code::AlreadyExists, 5),
            (Code::PermissionDenied, 6),
            (Code::ResourceExhausted, 8),
            (Code::FailedPrecondition, 3),
            (Code::Aborted, 9),
            (Code::OutOfRange, 3),
            (Code::Unimplemented, 1),
            (Code::Internal, 1),
            (Code::Unavailable, 7),
            (Code::DataLoss, 1),
            (Code::Unauthenticated, 6),
        ];
        for (code, exit_code) in expected {
            let error = Error::from(Status::new(code, "why"));
            assert_eq!(error.exit_code(), exit_code, "{code:?}");
            assert_eq!(error.to_string(), "why");
            let ended = rpc::Status {
                code: code.into(),
                message: "why".to_owned(),
                details: Vec::new(),
            };
            assert_eq!(Error::operation("e3v", &ended).exit_code(), exit_code);
        }
    }

    #[test]
    fn a_closed_output_is_no_failure() {
        let closed = io::Error::from(io::ErrorKind::BrokenPipe);
        assert_eq!(Error::output(&closed).exit_code(), 0);
        let full = io::Error::from(io::ErrorKind::StorageFull);
        assert_eq!(Error::output(&full).exit_code(), 1);
    }

    #[test]
    fn a_broken_connection_is_unavailable_whatever_its_code() {
        let status = Status::from_error(Box::new(io::Error::from(io::ErrorKind::ConnectionReset)));
        assert_eq!(Error::from(status).exit_code(), 7);
    }

    #[test]
    fn causes_are_said_once() {
        let inner = io::Error::other("inner");
        let outer = Error::failed("outer", &inner);
        assert_eq!(outer.to_string(), "outer: inner");
    }
}
