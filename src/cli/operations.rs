//! `operation`, and what every command does with an operation that it started.

use std::time::Duration;

use indicatif::ProgressBar;
use prost_reflect::ReflectMessage;
use prost_types::Any;
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};

use super::Context;
use super::client::Client;
use super::errors::{Error, Result};
use super::output::{self, Format};
use super::{progress, values};
use crate::contract::desktopimages::v1::WatchOperationRequest;
use crate::contract::yandex::cloud::operation::{
    CancelOperationRequest, GetOperationRequest, Operation, operation,
};

/// The pauses between questions for an operation: the first, and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// A server that proposes more than this is not taken at its word.
const LONGEST_PROPOSED_PAUSE: Duration = Duration::from_secs(60);
/// Whole seconds after which to ask for a running operation again.
const POLL_INTERVAL: &str = "x-operation-poll-interval";
const EMPTY: &str = "google.protobuf.Empty";

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Shows an operation
    Get {
        /// The id of the operation
        id: String,
    },
    /// Asks the server to cancel an operation, and shows it as it then stands
    Cancel {
        /// The id of the operation
        id: String,
    },
    /// Waits for the end of an operation, and shows what came of it
    Wait {
        /// The id of the operation
        id: String,
        /// How long to wait, like 90s or 10m; without end when left out
        #[arg(long, value_name = "DURATION", value_parser = values::duration)]
        timeout: Option<Duration>,
    },
}

/// Whether to wait for the operation that a command starts.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct Waiting {
    /// Do not wait: print the operation as the server accepted it
    #[arg(long = "async")]
    pub asynchronous: bool,
}

pub(crate) async fn run(context: &Context, command: Command) -> Result<()> {
    let client = context.connect().await?;
    match command {
        Command::Get { id } => output::print_message(context.format, &get(&client, id).await?),
        Command::Cancel { id } => {
            let request = CancelOperationRequest { operation_id: id };
            let operation = client.operations().cancel(request).await?.into_inner();
            output::print_message(context.format, &operation)
        }
        Command::Wait { id, timeout } => {
            let operation = get(&client, id).await?;
            let operation = wait(&client, operation, timeout).await?;
            print_result(context.format, &operation)
        }
    }
}

/// Waits for an operation unless that is not wanted, and prints what is to be printed.
pub(crate) async fn conclude(
    context: &Context,
    client: &Client,
    operation: Operation,
    waiting: Waiting,
) -> Result<()> {
    if waiting.asynchronous {
        output::print_message(context.format, &operation)?;
        return match &operation.result {
            Some(operation::Result::Error(error)) => Err(Error::operation(&operation.id, error)),
            _ => Ok(()),
        };
    }
    let operation = wait(client, operation, None).await?;
    print_result(context.format, &operation)
}

/// Follows the operation until it is done.
pub(crate) async fn wait(
    client: &Client,
    operation: Operation,
    timeout: Option<Duration>,
) -> Result<Operation> {
    if operation.done {
        return Ok(operation);
    }
    let id = operation.id.clone();
    let mut goes_on = GoesOn {
        operation_id: Some(id.clone()),
    };
    let spinner = progress::spinner(&operation);
    let following = follow(client, operation, &spinner);
    let followed = match timeout {
        None => following.await,
        Some(timeout) => match tokio::time::timeout(timeout, following).await {
            Ok(followed) => followed,
            Err(_) => Err(Error::StillRunning {
                id,
                waited: format!("{timeout:?}"),
            }),
        },
    };
    // Whatever came of it says how to go on.
    goes_on.operation_id = None;
    spinner.finish_and_clear();
    followed
}

/// Watches the operation where the server can tell of it, else asks for it again and again.
async fn follow(
    client: &Client,
    mut operation: Operation,
    spinner: &ProgressBar,
) -> Result<Operation> {
    let id = operation.id.clone();
    let followed = async {
        let watched = watch(client, &mut operation, spinner).await;
        match watched.map_err(Error::from) {
            Err(Error::Refused {
                code: Code::Unimplemented | Code::Unavailable,
                ..
            })
            | Ok(()) => poll(client, operation, spinner).await,
            Err(error) => Err(error),
        }
    };
    followed.await.map_err(|error| Error::Following {
        id,
        source: Box::new(error),
    })
}

/// Keeps the operation up to date by what the server tells, as long as it does.
async fn watch(
    client: &Client,
    operation: &mut Operation,
    spinner: &ProgressBar,
) -> std::result::Result<(), Status> {
    let request = WatchOperationRequest {
        operation_id: operation.id.clone(),
    };
    let mut states = client.operation_watch().watch(request).await?.into_inner();
    while let Some(state) = states.message().await? {
        *operation = state;
        progress::show(spinner, operation);
    }
    Ok(())
}

/// Asks for the operation until it is done, as often as the server proposes, or else with growing
/// pauses.
async fn poll(
    client: &Client,
    mut operation: Operation,
    spinner: &ProgressBar,
) -> Result<Operation> {
    let mut pause = FIRST_PAUSE;
    while !operation.done {
        tokio::time::sleep(pause).await;
        let request = GetOperationRequest {
            operation_id: operation.id.clone(),
        };
        let reply = client.operations().get(request).await?;
        pause = proposed_pause(reply.metadata()).unwrap_or((pause * 2).min(LONGEST_PAUSE));
        operation = reply.into_inner();
        progress::show(spinner, &operation);
    }
    Ok(operation)
}

/// The pause that a server asks for between two questions.
fn proposed_pause(metadata: &MetadataMap) -> Option<Duration> {
    let seconds: u64 = metadata.get(POLL_INTERVAL)?.to_str().ok()?.parse().ok()?;
    let seconds = Duration::from_secs(seconds);
    Some(seconds.clamp(FIRST_PAUSE, LONGEST_PROPOSED_PAUSE))
}

/// Says how to go on with an operation when waiting for it is broken off.
struct GoesOn {
    operation_id: Option<String>,
}

impl Drop for GoesOn {
    fn drop(&mut self) {
        if let Some(id) = &self.operation_id {
            output::complain(&format!(
                "operation {id} goes on: `operation wait {id}`, or `operation cancel {id}`"
            ));
        }
    }
}

/// The result of an operation that is done: the resource, or the error.
pub(crate) fn result(operation: &Operation) -> Result<&Any> {
    match &operation.result {
        Some(operation::Result::Response(response)) => Ok(response),
        Some(operation::Result::Error(error)) => Err(Error::operation(&operation.id, error)),
        None => Err(Error::Failed(format!(
            "operation {} has neither a response nor an error",
            operation.id
        ))),
    }
}

/// Prints the resource that an operation made or changed.
pub(crate) fn print_result(format: Format, operation: &Operation) -> Result<()> {
    let resource = output::unpacked(result(operation)?)?;
    if format == Format::Text && resource.descriptor().full_name() == EMPTY {
        return output::print("Done\n");
    }
    output::print(&output::render(format, &resource)?)
}

async fn get(client: &Client, operation_id: String) -> Result<Operation> {
    let request = GetOperationRequest { operation_id };
    Ok(client.operations().get(request).await?.into_inner())
}

/// Prints operations, the way lists are.
pub(crate) fn print_operations(format: Format, operations: &[Operation]) -> Result<()> {
    let heading = ["ID", "DESCRIPTION", "STATE", "CREATED", "CREATED BY"];
    output::print_list(format, operations, heading, |operation| {
        let state = match (&operation.result, operation.done) {
            (Some(operation::Result::Error(_)), _) => "FAILED",
            (_, true) => "DONE",
            (_, false) => "RUNNING",
        };
        [
            operation.id.clone(),
            operation.description.clone(),
            state.to_owned(),
            output::time(operation.created_at.as_ref()),
            operation.created_by.clone(),
        ]
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::google::rpc;

    #[test]
    fn the_server_proposes_the_pause_between_questions() {
        for (value, seconds) in [
            (None, None),
            (Some("1"), Some(1)),
            (Some("5"), Some(5)),
            (Some("100000"), Some(60)),
            (Some("soon"), None),
            (Some("-1"), None),
        ] {
            let mut metadata = MetadataMap::new();
            if let Some(value) = value {
                metadata.insert(POLL_INTERVAL, value.parse().unwrap());
            }
            let expected = seconds.map(Duration::from_secs);
            assert_eq!(proposed_pause(&metadata), expected, "{value:?}");
        }
        let mut metadata = MetadataMap::new();
        metadata.insert(POLL_INTERVAL, "0".parse().unwrap());
        assert_eq!(proposed_pause(&metadata), Some(FIRST_PAUSE));
    }

    #[test]
    fn the_result_of_an_operation_is_its_response_or_its_error() {
        let mut operation = Operation {
            id: "e3v1".to_owned(),
            done: true,
            ..Operation::default()
        };
        assert_eq!(result(&operation).unwrap_err().exit_code(), 1);
        operation.result = Some(operation::Result::Error(rpc::Status {
            code: 8,
            message: "The server's disk is full".to_owned(),
            details: Vec::new(),
        }));
        let error = result(&operation).unwrap_err();
        assert_eq!(
            error.to_string(),
            "operation e3v1 failed: The server's disk is full"
        );
        assert_eq!(error.exit_code(), 8);
        operation.result = Some(operation::Result::Response(Any::default()));
        assert!(result(&operation).is_ok());
    }
}
