//! Messages of the contract as JSON and back, by their descriptors.

use desktop_images::contract;
use prost::{Message, Name};
use prost_reflect::{DynamicMessage, SerializeOptions};
use serde_json::Value;

/// The message of a JSON value that must fit it.
pub fn from_json<M: Message + Name + Default>(value: &Value) -> M {
    DynamicMessage::deserialize(contract::descriptor::<M>(), value.clone())
        .unwrap_or_else(|error| panic!("{value} is no {}: {error}", M::full_name()))
        .transcode_to()
        .expect("the types are equal")
}

/// The JSON of a message, defaults printed.
pub fn to_json<M: Message + Name>(message: &M) -> Value {
    let mut dynamic = DynamicMessage::new(contract::descriptor::<M>());
    dynamic
        .transcode_from(message)
        .expect("the types are equal");
    let options = SerializeOptions::new().skip_default_fields(false);
    dynamic
        .serialize_with_options(serde_json::value::Serializer, &options)
        .expect("a message of the contract has a JSON form")
}
