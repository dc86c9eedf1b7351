//! `operation`, and what every command does with an operation that it started.

use std::time::Duration;

use prost_reflect::ReflectMessage;
use prost_types::Any;
use tokio::time::Instant;

use super::Context;
use super::client::Client;
use super::errors::{Error, Result};
use super::output::{self, Format};
use super::{progress, values};
use crate::contract::yandex::cloud::operation::{
    CancelOperationRequest, GetOperationRequest, Operation, operation,
};

/// The pauses between questions for an operation: the first, and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
const EMPTY: &str = "google.protobuf.Empty";

#[derive(Debug, clap::Subcommand)]
pub enum Command {
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
pub struct Waiting {
    /// Do not wait: print the operation as the server accepted it
    #[arg(long = "async")]
    pub asynchronous: bool,
}

pub async fn run(context: &Context, command: Command) -> Result<()> {
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
pub async fn conclude(
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

/// Asks for the operation, with growing pauses, until it is done.
pub async fn wait(
    client: &Client,
    mut operation: Operation,
    timeout: Option<Duration>,
) -> Result<Operation> {
    let start = Instant::now();
    let mut goes_on = GoesOn {
        operation_id: (!operation.done).then(|| operation.id.clone()),
    };
    let spinner = match operation.done {
        true => None,
        false => Some(progress::spinner(&operation)),
    };
    let mut pause = FIRST_PAUSE;
    while !operation.done {
        if let Some(timeout) = timeout {
            let left = timeout.saturating_sub(start.elapsed());
            if left.is_zero() {
                // The error says how to go on.
                goes_on.operation_id = None;
                return Err(Error::StillRunning {
                    id: operation.id,
                    waited: format!("{timeout:?}"),
                });
            }
            pause = pause.min(left);
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
        let id = operation.id.clone();
        operation = get(client, id.clone()).await.map_err(|error| {
            goes_on.operation_id = None;
            Error::Following {
                id,
                source: Box::new(error),
            }
        })?;
    }
    goes_on.operation_id = None;
    if let Some(spinner) = spinner {
        spinner.finish_and_clear();
    }
    Ok(operation)
}

/// Says how to go on with an operation when waiting for it is broken off.
struct GoesOn {
    operation_id: Option<String>,
}

impl Drop for GoesOn {
    fn drop(&mut self) {
        if let Some(id) = &self.operation_id {
            eprintln!("operation {id} goes on: `operation wait {id}`, or `operation cancel {id}`");
        }
    }
}

/// What came of an operation that is done: the resource, or the error.
pub fn result(operation: &Operation) -> Result<&Any> {
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
pub fn print_result(format: Format, operation: &Operation) -> Result<()> {
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
pub fn print_operations(format: Format, operations: &[Operation]) -> Result<()> {
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
