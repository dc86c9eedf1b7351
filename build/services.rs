//! The services as tonic generates them, but for what reads the request of a call and writes its reply.

use prost_build::{Service, ServiceGenerator};

/// How tonic's code begins what it does of a unary call once it is polled,
const TONIC_BEGINS: &str = "let fut = async move {";
/// answers the call there,
const TONIC_ANSWERS: &str = "let res = grpc.unary(method, req).await;";
/// and gives what is to be polled.
const TONIC_GIVES: &str = "Box::pin(fut)";
/// A call that replies with a stream is answered there.
const TONIC_STREAMS: &str = "grpc.server_streaming(method, req).await";

/// Generates servers that answer unary calls by a function with tonic's handler of the call, the method,
/// the request and the limits of the service. It is called at once: what waits holds no request. Calls
/// that reply with a stream are answered by another one.
pub struct Services {
    tonic: Box<dyn ServiceGenerator>,
    answer: String,
    stream: String,
}

impl Services {
    /// `answer` and `stream` are the paths of those functions in the crate that is generated for.
    pub fn new(tonic: tonic_prost_build::Builder, answer: &str, stream: &str) -> Box<Self> {
        Box::new(Self {
            tonic: tonic.service_generator(),
            answer: format!(
                "Box::pin({answer}(grpc, method, req, max_decoding_message_size, max_encoding_message_size))"
            ),
            stream: format!("{stream}(grpc, method, req, max_decoding_message_size).await"),
        })
    }

    /// Tonic's code with other answers to calls; `None` where it is not as it was.
    fn replaced(&self, code: &str, unary: usize, streams: usize) -> Option<String> {
        let mut parts = code.split(TONIC_ANSWERS);
        let mut out = parts.next()?.to_owned();
        let mut replaced = 0;
        for part in parts {
            let begins = out.rfind(TONIC_BEGINS)?;
            out.replace_range(begins..begins + TONIC_BEGINS.len(), "");
            let (_, rest) = part.split_once(TONIC_GIVES)?;
            out.push_str(&self.answer);
            out.push_str(rest);
            replaced += 1;
        }
        let is_as_it_was = replaced == unary && out.matches(TONIC_STREAMS).count() == streams;
        is_as_it_was.then(|| out.replace(TONIC_STREAMS, &self.stream))
    }
}

impl ServiceGenerator for Services {
    fn generate(&mut self, service: Service, out: &mut String) {
        let count = |server_streaming| {
            let methods = service.methods.iter();
            let alike = methods.filter(|method| {
                // A stream of requests would pass tonic's own frames.
                assert!(!method.client_streaming, "no service here takes a stream");
                method.server_streaming == server_streaming
            });
            alike.count()
        };
        let (unary, streams) = (count(false), count(true));
        let mut code = String::new();
        self.tonic.generate(service, &mut code);
        let code = self.replaced(&code, unary, streams);
        out.push_str(&code.expect("tonic's code has changed; see what answers a unary call now"));
    }

    fn finalize(&mut self, out: &mut String) {
        self.tonic.finalize(out);
    }

    fn finalize_package(&mut self, package: &str, out: &mut String) {
        self.tonic.finalize_package(package, out);
    }
}
