//! The comments of protos, from the source info of their descriptors.

use std::collections::HashMap;

use prost_reflect::{
    DescriptorPool, EnumDescriptor, EnumValueDescriptor, FieldDescriptor, MessageDescriptor,
    MethodDescriptor, ServiceDescriptor,
};

/// Comments by file and place. Descriptors without source info have none.
pub(super) struct Comments(HashMap<String, HashMap<Vec<i32>, String>>);

impl Comments {
    pub(super) fn of(pool: &DescriptorPool) -> Self {
        let files = pool.files().map(|file| {
            let info = file.file_descriptor_proto().source_code_info.as_ref();
            let locations = info.map_or(&[][..], |info| &info.location);
            let comments = locations.iter().filter_map(|location| {
                let text = [location.leading_comments(), location.trailing_comments()]
                    .into_iter()
                    .find(|text| !text.trim().is_empty())?;
                Some((location.path.clone(), cleaned(text)))
            });
            (file.name().to_owned(), comments.collect())
        });
        Self(files.collect())
    }

    fn at(&self, file: &str, path: &[i32]) -> &str {
        let comment = self.0.get(file).and_then(|comments| comments.get(path));
        comment.map_or("", String::as_str)
    }

    pub(super) fn service(&self, service: &ServiceDescriptor) -> &str {
        self.at(service.parent_file().name(), service.path())
    }

    pub(super) fn method(&self, method: &MethodDescriptor) -> &str {
        self.at(method.parent_service().parent_file().name(), method.path())
    }

    pub(super) fn message(&self, message: &MessageDescriptor) -> &str {
        self.at(message.parent_file().name(), message.path())
    }

    pub(super) fn field(&self, field: &FieldDescriptor) -> &str {
        self.at(field.parent_message().parent_file().name(), field.path())
    }

    pub(super) fn enumeration(&self, descriptor: &EnumDescriptor) -> &str {
        self.at(descriptor.parent_file().name(), descriptor.path())
    }

    pub(super) fn enum_value(&self, value: &EnumValueDescriptor) -> &str {
        self.at(value.parent_enum().parent_file().name(), value.path())
    }
}

/// A comment without the space that stands before each of its lines.
fn cleaned(text: &str) -> String {
    let lines = text
        .lines()
        .map(|line| line.strip_prefix(' ').unwrap_or(line).trim_end());
    lines.collect::<Vec<_>>().join("\n").trim().to_owned()
}

/// The first sentence of a comment, on one line.
pub(super) fn summary(comment: &str) -> String {
    let paragraph = comment.split("\n\n").next().unwrap_or_default();
    let line = paragraph.replace('\n', " ");
    let end = line.find(". ").unwrap_or(line.len());
    line[..end].trim_end_matches('.').to_owned()
}
