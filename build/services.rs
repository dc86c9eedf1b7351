//! Generates gRPC services: clients by tonic-prost-build, servers by a generator of our own on tonic's public
//! interface, since each call is to be answered by `src/contract/answers.rs`.
//!
//! The names are those of tonic-build: `image_service_server::{ImageService, ImageServiceServer}`.

use heck::ToSnakeCase;
use prost_build::{Comments, Method, Service, ServiceGenerator};

/// The generator to give to prost-build.
pub struct Services {
    clients: Box<dyn ServiceGenerator>,
    contract: String,
}

impl Services {
    /// `clients` says how tonic-prost-build makes clients; `contract` is the path of the module that has
    /// `answers`, seen from the generated code.
    pub fn new(clients: tonic_prost_build::Builder, contract: &str) -> Box<Self> {
        Box::new(Self {
            clients: clients.build_server(false).service_generator(),
            contract: contract.to_owned(),
        })
    }

    fn server(&self, service: &Service) -> String {
        let Service { name, .. } = service;
        let full_name = format!("{}.{}", service.package, service.proto_name);
        let functions: String = service.methods.iter().map(function).collect();
        let calls = service.methods.iter();
        let calls: String = calls.map(|method| self.call(&full_name, method)).collect();
        let comment = comment(&service.comments);
        format!(
            "/// Generated server.
            pub mod {module}_server {{
                use tonic::codegen::*;
                {comment}#[async_trait]
                pub trait {name}: Send + Sync + 'static {{
                    {functions}
                }}
                /// Serves the service over gRPC.
                #[derive(Debug)]
                pub struct {name}Server<T>(Arc<T>);
                impl<T> {name}Server<T> {{
                    pub fn new(service: T) -> Self {{
                        Self(Arc::new(service))
                    }}
                }}
                impl<T> Clone for {name}Server<T> {{
                    fn clone(&self) -> Self {{
                        Self(Arc::clone(&self.0))
                    }}
                }}
                impl<T> tonic::server::NamedService for {name}Server<T> {{
                    const NAME: &'static str = {full_name:?};
                }}
                impl<T: {name}> Service<http::Request<tonic::body::Body>> for {name}Server<T> {{
                    type Response = http::Response<tonic::body::Body>;
                    type Error = std::convert::Infallible;
                    type Future = BoxFuture<Self::Response, Self::Error>;
                    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {{
                        Poll::Ready(Ok(()))
                    }}
                    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {{
                        let service = Arc::clone(&self.0);
                        match request.uri().path() {{
                            {calls}
                            _ => Box::pin(async {{ Ok(tonic::Status::unimplemented(\"\").into_http()) }}),
                        }}
                    }}
                }}
            }}\n",
            module = service.name.to_snake_case(),
        )
    }

    /// The arm that answers a method by its path.
    fn call(&self, service: &str, method: &Method) -> String {
        let answer = match method.server_streaming {
            true => "server_streaming",
            false => "unary",
        };
        format!(
            "\"/{service}/{}\" => Box::pin({}::answers::{answer}(
                move |request| {{
                    let service = Arc::clone(&service);
                    async move {{ service.{}(request).await }}
                }},
                request,
            )),\n",
            method.proto_name, self.contract, method.name
        )
    }
}

impl ServiceGenerator for Services {
    fn generate(&mut self, service: Service, out: &mut String) {
        out.push_str(&self.server(&service));
        self.clients.generate(service, out);
    }

    fn finalize(&mut self, out: &mut String) {
        self.clients.finalize(out);
    }

    fn finalize_package(&mut self, package: &str, out: &mut String) {
        self.clients.finalize_package(package, out);
    }
}

/// The method in the trait of its service.
fn function(method: &Method) -> String {
    assert!(
        !method.client_streaming,
        "{}: the server has no code for streams of requests",
        method.proto_name
    );
    let (request, reply) = (path(&method.input_type), path(&method.output_type));
    let comment = comment(&method.comments);
    let (stream, reply) = match method.server_streaming {
        false => (String::new(), reply),
        true => {
            let name = format!("{}Stream", method.proto_name);
            let stream = format!(
                "type {name}: tokio_stream::Stream<Item = Result<{reply}, tonic::Status>> + Send + 'static;\n"
            );
            (stream, format!("Self::{name}"))
        }
    };
    format!(
        "{stream}{comment}async fn {}(&self, request: tonic::Request<{request}>) \
         -> Result<tonic::Response<{reply}>, tonic::Status>;\n",
        method.name
    )
}

/// The path of a message's type, seen from the module of a server. prost has () for google.protobuf.Empty.
fn path(of_message: &str) -> String {
    let is_absolute = |prefix: &&str| of_message.starts_with(prefix);
    match ["::", "crate::", "()"].iter().any(is_absolute) {
        true => of_message.to_owned(),
        false => format!("super::{of_message}"),
    }
}

fn comment(comments: &Comments) -> String {
    let mut out = String::new();
    comments.append_with_indent(0, &mut out);
    out
}
