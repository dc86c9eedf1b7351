//! The names that prost gives to the types that it generates.

use heck::{ToSnakeCase, ToUpperCamelCase};
use prost_reflect::MessageDescriptor;

/// The path of a message's generated type, seen from where the outermost packages are in scope.
pub fn rust_path(message: &MessageDescriptor) -> String {
    format!("{}::{}", outside(message), pascal_case(message.name()))
}

/// The module that holds what prost nests in a message.
pub fn rust_module(message: &MessageDescriptor) -> String {
    format!("{}::{}", outside(message), message.name().to_snake_case())
}

/// The module that holds a message.
fn outside(message: &MessageDescriptor) -> String {
    match message.parent_message() {
        Some(parent) => rust_module(&parent),
        None => message.package_name().replace('.', "::"),
    }
}

/// The name of a type, or of a variant for a field of a oneof.
pub fn pascal_case(name: &str) -> String {
    name.to_upper_camel_case()
}
