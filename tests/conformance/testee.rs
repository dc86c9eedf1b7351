//! The program that protobuf's conformance runner asks: `testee FOLDER CODEC`, with the runner's
//! protos in FOLDER and `fast` or `prost-reflect` as CODEC. See `scripts/conformance`.
//!
//! The runner sends a request, preceded by its length in 32 bits, and waits for the response.

use std::{
    error::Error,
    io::{ErrorKind, Read, Write},
};

use prost::Message;
use prost_reflect::{
    DescriptorPool, DeserializeOptions, DynamicMessage, MessageDescriptor, SerializeOptions, Value,
};
use transcoding::codec::{Codec, Settings};

const BINARY: i32 = 1;
const JSON: i32 = 2;
const IGNORE_UNKNOWN: i32 = 3;

/// A response's field, with what went wrong.
struct Failure(&'static str, String);

/// The result of a codec for one payload.
type Outcome = Result<Vec<u8>, Failure>;

struct Request {
    message: MessageDescriptor,
    payload: Vec<u8>,
    from_json: bool,
    to_json: bool,
    ignore_unknown: bool,
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [folder, codec] = &arguments[..] else {
        return Err("usage: testee FOLDER fast|prost-reflect".into());
    };
    let mut compiler = protox::Compiler::new([folder])?;
    compiler.include_imports(true);
    compiler.open_files([
        "conformance/conformance.proto",
        "google/protobuf/test_messages_proto3.proto",
    ])?;
    // Not the compiler's own pool, which was made before options as `packed` were read.
    let pool = DescriptorPool::decode(&compiler.encode_file_descriptor_set()[..])?;
    let settings = |ignore_unknown| Settings {
        print_defaults: false,
        ignore_unknown,
        ..Settings::default()
    };
    let codecs = [false, true].map(|ignore| Codec::new(&pool, settings(ignore)));
    let transcode = |request: &Request| match codec.as_str() {
        "fast" => by_codec(&codecs[usize::from(request.ignore_unknown)], request),
        _ => by_prost_reflect(request),
    };
    let (mut input, mut output) = (std::io::stdin().lock(), std::io::stdout().lock());
    loop {
        let mut length = [0; 4];
        match input.read_exact(&mut length) {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(()),
            result => result?,
        }
        let mut request = vec![0; u32::from_le_bytes(length) as usize];
        input.read_exact(&mut request)?;
        let response = answer(&pool, &request, transcode)?.encode_to_vec();
        output.write_all(&u32::try_from(response.len())?.to_le_bytes())?;
        output.write_all(&response)?;
        output.flush()?;
    }
}

fn answer(
    pool: &DescriptorPool,
    request: &[u8],
    transcode: impl Fn(&Request) -> Outcome,
) -> Result<DynamicMessage, Box<dyn Error>> {
    let message = |name| {
        pool.get_message_by_name(name)
            .ok_or("conformance.proto is another")
    };
    let request = DynamicMessage::decode(message("conformance.ConformanceRequest")?, request)?;
    let number = |field| {
        let value = request.get_field_by_name(field);
        value
            .and_then(|value| value.as_enum_number())
            .unwrap_or_default()
    };
    let format = number("requested_output_format");
    let name = request
        .get_field_by_name("message_type")
        .ok_or("no message_type")?;
    let name = name.as_str().unwrap_or_default();
    let from_json = request.has_field_by_name("json_payload");
    let payload = match from_json {
        true => request.get_field_by_name("json_payload"),
        false => request.get_field_by_name("protobuf_payload"),
    };
    let is_ours = from_json || request.has_field_by_name("protobuf_payload");
    let (field, value) = match pool.get_message_by_name(name) {
        // The runner asks for this one first: tests that are known to fail. There are none.
        _ if name == "conformance.FailureSet" => {
            ("protobuf_payload", Value::Bytes(Vec::new().into()))
        }
        Some(message) if is_ours && matches!(format, BINARY | JSON) => {
            let payload = payload.ok_or("no payload")?;
            let payload = match payload.as_ref() {
                Value::Bytes(payload) => payload.to_vec(),
                Value::String(payload) => payload.clone().into_bytes(),
                _ => Vec::new(),
            };
            let outcome = transcode(&Request {
                message,
                payload,
                from_json,
                to_json: format == JSON,
                ignore_unknown: number("test_category") == IGNORE_UNKNOWN,
            });
            match outcome {
                Ok(bytes) if format == JSON => {
                    ("json_payload", Value::String(String::from_utf8(bytes)?))
                }
                Ok(bytes) => ("protobuf_payload", Value::Bytes(bytes.into())),
                Err(Failure(field, problem)) => (field, Value::String(problem)),
            }
        }
        _ => (
            "skipped",
            Value::String("neither binary nor JSON of proto3".to_owned()),
        ),
    };
    let mut response = DynamicMessage::new(message("conformance.ConformanceResponse")?);
    response.set_field_by_name(field, value);
    Ok(response)
}

/// Binary to binary, too, goes by way of JSON: this codec has no other.
fn by_codec(codec: &Codec, request: &Request) -> Outcome {
    let parse_error = |problem: String| Failure("parse_error", problem);
    let message = codec.find(&request.message);
    let message = message.ok_or_else(|| Failure("runtime_error", "an unknown type".to_owned()))?;
    let to_json = |wire: &[u8]| {
        let mut json = Vec::new();
        codec.to_json(message, wire, &mut json).map_err(|error| {
            let field = if error.is_malformed() {
                "parse_error"
            } else {
                "serialize_error"
            };
            Failure(field, error.to_string())
        })?;
        Ok(json)
    };
    let to_wire = |json: &[u8]| {
        let mut wire = Vec::new();
        codec
            .to_wire(message, json, &mut wire)
            .map_err(|error| parse_error(format!("{}: {}", error.field(), error.problem())))?;
        Ok(wire)
    };
    match (request.from_json, request.to_json) {
        (true, true) => to_json(&to_wire(&request.payload)?),
        (true, false) => to_wire(&request.payload),
        (false, true) => to_json(&request.payload),
        (false, false) => to_wire(&to_json(&request.payload)?),
    }
}

fn by_prost_reflect(request: &Request) -> Outcome {
    let parse_error = |problem: String| Failure("parse_error", problem);
    let message = request.message.clone();
    let message = if request.from_json {
        let options = DeserializeOptions::new().deny_unknown_fields(!request.ignore_unknown);
        let mut deserializer = serde_json::Deserializer::from_slice(&request.payload);
        DynamicMessage::deserialize_with_options(message, &mut deserializer, &options)
            .and_then(|message| deserializer.end().map(|()| message))
            .map_err(|error| parse_error(error.to_string()))?
    } else {
        DynamicMessage::decode(message, &request.payload[..])
            .map_err(|error| parse_error(error.to_string()))?
    };
    if !request.to_json {
        return Ok(message.encode_to_vec());
    }
    let mut json = Vec::new();
    message
        .serialize_with_options(
            &mut serde_json::Serializer::new(&mut json),
            &SerializeOptions::new(),
        )
        .map_err(|error| Failure("serialize_error", error.to_string()))?;
    Ok(json)
}
