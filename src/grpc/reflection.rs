//! gRPC server reflection, v1 and v1alpha: what of `proto/` and of the common services clients ask for.
//!
//! tonic-reflection ends the stream at the first name that it does not know, knows no extensions, and has
//! enum values under names that protobuf does not give them. Its generated types and servers are used here.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;

use futures_util::stream::{self, Stream};
use prost::Message;
use prost_reflect::{DescriptorPool, EnumDescriptor, ExtensionDescriptor, MessageDescriptor};
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_reflection::pb::v1::server_reflection_server as v1_server;
use tonic_reflection::pb::v1::{
    ErrorResponse, ExtensionNumberResponse, FileDescriptorResponse, ListServiceResponse,
    ServerReflectionRequest, ServerReflectionResponse, ServiceResponse,
};
use tonic_reflection::pb::v1alpha::server_reflection_server as v1alpha_server;
use tonic_reflection::pb::{v1, v1alpha};

use crate::contract::texts;

/// The replies to the requests of one stream, each to its own.
type Replies<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// The reflection service, in both versions.
#[derive(Clone)]
pub(crate) struct Reflection(Arc<Described>);

/// All that can be asked for.
struct Described {
    pool: DescriptorPool,
    services: Vec<ServiceResponse>,
    /// The name of the file of every symbol.
    symbols: HashMap<String, String>,
}

impl Reflection {
    /// Tells of all files of `pool`, and lists `services`.
    pub(crate) fn new(
        pool: DescriptorPool,
        services: impl IntoIterator<Item = &'static str>,
    ) -> Self {
        let services = services.into_iter().map(|name| ServiceResponse {
            name: name.to_owned(),
        });
        Self(Arc::new(Described {
            services: services.collect(),
            symbols: symbols(&pool),
            pool,
        }))
    }
}

/// Every name that protobuf gives, with the file that it is from.
fn symbols(pool: &DescriptorPool) -> HashMap<String, String> {
    let mut symbols = HashMap::new();
    let mut add = |name: &str, file: &str| {
        symbols.insert(name.to_owned(), file.to_owned());
    };
    for service in pool.services() {
        let file = service.parent_file();
        add(service.full_name(), file.name());
        for method in service.methods() {
            add(method.full_name(), file.name());
        }
    }
    for message in pool.all_messages() {
        let file = message.parent_file();
        add(message.full_name(), file.name());
        for field in message.fields() {
            add(field.full_name(), file.name());
        }
        for oneof in message.oneofs() {
            add(oneof.full_name(), file.name());
        }
    }
    for enumeration in pool.all_enums() {
        let file = enumeration.parent_file();
        add(enumeration.full_name(), file.name());
        for value in enumeration.values() {
            add(value.full_name(), file.name());
            // A value is named beside its enum. Some clients look for it within, as tonic has it.
            add(&within(&enumeration, value.name()), file.name());
        }
    }
    for extension in pool.all_extensions() {
        add(extension.full_name(), extension.parent_file().name());
    }
    symbols
}

fn within(enumeration: &EnumDescriptor, value: &str) -> String {
    format!("{}.{value}", enumeration.full_name())
}

impl Described {
    /// The reply to one request. What is not there is told in the reply: the stream goes on.
    fn reply(&self, request: ServerReflectionRequest) -> ServerReflectionResponse {
        let response = self.answer(request.message_request.as_ref());
        let response = response.unwrap_or_else(|(code, error_message)| {
            MessageResponse::ErrorResponse(ErrorResponse {
                error_code: code as i32,
                error_message,
            })
        });
        ServerReflectionResponse {
            valid_host: request.host.clone(),
            original_request: Some(request),
            message_response: Some(response),
        }
    }

    fn answer(&self, asked: Option<&MessageRequest>) -> Result<MessageResponse, (Code, String)> {
        match asked {
            Some(MessageRequest::FileByFilename(name)) => self.file(name),
            Some(MessageRequest::FileContainingSymbol(name)) => match self.symbols.get(name) {
                Some(file) => self.file(file),
                None => Err(not_found("symbol", name)),
            },
            Some(MessageRequest::FileContainingExtension(asked)) => {
                let message = self.message(&asked.containing_type)?;
                let number = u32::try_from(asked.extension_number).ok();
                match number.and_then(|number| message.get_extension(number)) {
                    Some(extension) => self.file(extension.parent_file().name()),
                    None => Err(not_found(
                        "extension",
                        &format!("{} of {}", asked.extension_number, asked.containing_type),
                    )),
                }
            }
            Some(MessageRequest::AllExtensionNumbersOfType(name)) => {
                let message = self.message(name)?;
                let numbers = message.extensions();
                let mut numbers: Vec<_> =
                    numbers.map(|it: ExtensionDescriptor| it.number()).collect();
                numbers.sort_unstable();
                Ok(MessageResponse::AllExtensionNumbersResponse(
                    ExtensionNumberResponse {
                        base_type_name: name.clone(),
                        // Field numbers have 29 bits.
                        extension_number: numbers.into_iter().map(|number| number as i32).collect(),
                    },
                ))
            }
            Some(MessageRequest::ListServices(_)) => {
                Ok(MessageResponse::ListServicesResponse(ListServiceResponse {
                    service: self.services.clone(),
                }))
            }
            None => Err((
                Code::InvalidArgument,
                "the request asks for nothing: one of its fields other than host must be set"
                    .to_owned(),
            )),
        }
    }

    fn message(&self, name: &str) -> Result<MessageDescriptor, (Code, String)> {
        let message = self.pool.get_message_by_name(name);
        message.ok_or_else(|| not_found("message type", name))
    }

    /// The file as it was compiled, options of all kinds included.
    fn file(&self, name: &str) -> Result<MessageResponse, (Code, String)> {
        let file = self.pool.get_file_by_name(name);
        let file = file.ok_or_else(|| not_found("file", name))?;
        Ok(MessageResponse::FileDescriptorResponse(
            FileDescriptorResponse {
                file_descriptor_proto: vec![file.encode_to_vec()],
            },
        ))
    }
}

fn not_found(kind: &str, name: &str) -> (Code, String) {
    let name = texts::shown_path(name);
    (Code::NotFound, format!("{kind} {name:?} not found"))
}

/// Answers each request of a stream, until the client ends it.
fn replies<Q: Send + 'static, R: 'static>(
    requests: Streaming<Q>,
    reply: impl Fn(Q) -> Result<R, Status> + Send + 'static,
) -> Response<Replies<R>> {
    let replies = stream::unfold(Some((requests, reply)), |state| async {
        let (mut requests, reply) = state?;
        match requests.message().await.transpose()? {
            Ok(request) => Some((reply(request), Some((requests, reply)))),
            Err(status) => Some((Err(status), None)),
        }
    });
    Response::new(Box::pin(replies))
}

#[tonic::async_trait]
impl v1_server::ServerReflection for Reflection {
    type ServerReflectionInfoStream = Replies<v1::ServerReflectionResponse>;

    async fn server_reflection_info(
        &self,
        requests: Request<Streaming<v1::ServerReflectionRequest>>,
    ) -> Result<Response<Self::ServerReflectionInfoStream>, Status> {
        let described = Arc::clone(&self.0);
        Ok(replies(requests.into_inner(), move |request| {
            Ok(described.reply(request))
        }))
    }
}

#[tonic::async_trait]
impl v1alpha_server::ServerReflection for Reflection {
    type ServerReflectionInfoStream = Replies<v1alpha::ServerReflectionResponse>;

    async fn server_reflection_info(
        &self,
        requests: Request<Streaming<v1alpha::ServerReflectionRequest>>,
    ) -> Result<Response<Self::ServerReflectionInfoStream>, Status> {
        let described = Arc::clone(&self.0);
        Ok(replies(requests.into_inner(), move |request| {
            // The versions differ in their package only.
            let request: ServerReflectionRequest = converted(&request)?;
            converted(&described.reply(request))
        }))
    }
}

fn converted<R: Message + Default>(message: &impl Message) -> Result<R, Status> {
    R::decode(message.encode_to_vec().as_slice()).map_err(|error| {
        tracing::error!(%error, "v1 and v1alpha of reflection differ");
        Status::internal("Internal error; the server's log says more")
    })
}
