//! Errors of a body that is not the JSON asked for; and messages at hand as JSON.

use std::sync::{Arc, Mutex, PoisonError};

use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, ReflectMessage, SerializeOptions};

use super::{
    codec::{self, Codec},
    shortened::shortened,
};

/// Why a text is not the message asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{what} (line {line}, column {column}{}): {problem}",
    .field.as_ref().map(|field| format!(", field \"{field}\"")).unwrap_or_default()
)]
pub(crate) struct JsonError {
    what: &'static str,
    line: usize,
    column: usize,
    /// The problem.
    pub problem: String,
    /// The field concerned, by the names the client wrote, as `a.b[0].c`.
    pub field: Option<String>,
}

/// Writes a message: default scalars and enums, empty lists and maps are printed, what is unset and
/// has presence is not; 64-bit integers are strings.
/// Entries of maps are in the order of their keys.
///
/// # Errors
///
/// A [`serde_json::Error`] for a message that JSON cannot hold, as an Any of an unknown type.
pub fn write(message: &DynamicMessage) -> Result<Vec<u8>, serde_json::Error> {
    let mut text = Vec::with_capacity(512);
    let descriptor = message.descriptor();
    let codec = codec_of(descriptor.parent_pool());
    if let Some(kind) = codec.find(&descriptor)
        && codec
            .to_json(kind, &message.encode_to_vec(), &mut text)
            .is_ok()
    {
        return Ok(text);
    }
    // What the codec refuses is told in the words of the library.
    let options = SerializeOptions::new().skip_default_fields(false);
    message.serialize_with_options(&mut serde_json::Serializer::new(&mut text), &options)?;
    Ok(text)
}

/// The codec of a pool. There are few pools, and to compile one takes long.
fn codec_of(pool: &DescriptorPool) -> Arc<Codec> {
    const MOST: usize = 8;
    static CODECS: Mutex<Vec<(DescriptorPool, Arc<Codec>)>> = Mutex::new(Vec::new());
    let mut codecs = CODECS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, codec)) = codecs.iter().find(|(known, _)| known == pool) {
        return codec.clone();
    }
    if codecs.len() == MOST {
        codecs.remove(0);
    }
    let codec = Arc::new(Codec::new(pool, codec::Settings::default()));
    codecs.push((pool.clone(), codec.clone()));
    codec
}

impl JsonError {
    /// The codec's error of this text.
    pub(crate) fn new(error: &codec::JsonError, text: &[u8]) -> Self {
        let before = &text[..error.offset().min(text.len())];
        let line_start = before.iter().rposition(|byte| *byte == b'\n');
        let field = error.field();
        Self {
            what: match error.is_syntax() {
                true => "the body is not valid JSON",
                false => "the body does not fit the request",
            },
            line: before.iter().filter(|byte| **byte == b'\n').count() + 1,
            column: before.len() - line_start.map_or(0, |newline| newline + 1) + 1,
            problem: shortened(error.problem()),
            field: (!field.is_empty()).then(|| shortened(&field)),
        }
    }
}
