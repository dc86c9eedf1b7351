//! The services as tonic generates them, but for what reads the request of a unary call and writes its reply.

use prost_build::{Service, ServiceGenerator};

/// What tonic's code says at the one place where it answers a unary call.
const TONIC_ANSWERS: &str = "grpc.unary(method, req).await";

/// Generates servers that answer unary calls by a function with tonic's handler of the call, the method,
/// the request and the limits of the service.
pub struct Services {
    tonic: Box<dyn ServiceGenerator>,
    answer: String,
}

impl Services {
    /// `answer` is the path of that function in the crate that is generated for.
    pub fn new(tonic: tonic_prost_build::Builder, answer: &str) -> Box<Self> {
        Box::new(Self {
            tonic: tonic.service_generator(),
            answer: format!(
                "{answer}(grpc, method, req, max_decoding_message_size, max_encoding_message_size).await"
            ),
        })
    }
}

impl ServiceGenerator for Services {
    fn generate(&mut self, service: Service, out: &mut String) {
        let is_unary =
            |method: &prost_build::Method| !method.client_streaming && !method.server_streaming;
        let unary = service
            .methods
            .iter()
            .filter(|method| is_unary(method))
            .count();
        let mut code = String::new();
        self.tonic.generate(service, &mut code);
        assert_eq!(
            code.matches(TONIC_ANSWERS).count(),
            unary,
            "tonic's code has changed; see what answers a unary call now"
        );
        out.push_str(&code.replace(TONIC_ANSWERS, &self.answer));
    }

    fn finalize(&mut self, out: &mut String) {
        self.tonic.finalize(out);
    }

    fn finalize_package(&mut self, package: &str, out: &mut String) {
        self.tonic.finalize_package(package, out);
    }
}
