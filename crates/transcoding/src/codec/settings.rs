//! How JSON is written and read, where the mapping leaves a choice.

/// How JSON is written and read, where the mapping leaves a choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Whether scalars and enums with their default value, empty lists and empty maps are written.
    /// Fields with presence (messages, `optional`, members of a oneof) are written only if they are set.
    pub print_defaults: bool,
    /// Whether fields have the names of the proto file rather than lowerCamelCase ones. Both are read.
    pub proto_names: bool,
    /// Whether enum values are written as numbers. Both are read.
    pub enum_numbers: bool,
    /// Whether unknown fields and unknown names of enum values are skipped rather than refused.
    pub ignore_unknown: bool,
    /// The form of an Any whose message cannot be written.
    pub undecodable_any: UndecodableAny,
}

/// The form of an Any of a type that the descriptors lack, or of bytes that are not its type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UndecodableAny {
    /// The Any is an error.
    Refuse,
    /// The Any is written as `@type` and its bytes in base64 as `value`, which is not read back.
    Base64,
}

/// Defaults are written, and nothing unknown is accepted.
impl Default for Settings {
    fn default() -> Self {
        Self {
            print_defaults: true,
            proto_names: false,
            enum_numbers: false,
            ignore_unknown: false,
            undecodable_any: UndecodableAny::Refuse,
        }
    }
}
