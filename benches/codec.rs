//! JSON of a desktop image, of an operation that carries one, and of a list of a hundred: by the
//! codec, by prost-reflect, and by serde with structs written by hand for it.
//!
//! serde alone starts from the struct and ends with it. `prost_and_serde` does the work of the other
//! two: it decodes or encodes the generated message too, and copies between that and the struct.

#![allow(
    clippy::expect_used,
    reason = "a benchmark that cannot go on may panic"
)]

use std::{borrow::Cow, collections::BTreeMap, sync::LazyLock};

use desktop_images::contract::{
    self,
    yandex::cloud::{
        clouddesktop::v1::api::{
            CopyDesktopImageMetadata, DesktopImage, ListDesktopImagesResponse,
            desktop_image::Status,
        },
        operation::{Operation, operation},
    },
};
use divan::{Bencher, black_box, counter::BytesCount};
use prost::{Message, Name};
use prost_reflect::{DeserializeOptions, DynamicMessage, MessageDescriptor, SerializeOptions};
use serde::{Deserialize, Serialize};
use transcoding::codec::{Codec, MessageType, Settings};

fn main() {
    divan::main();
}

/// One message in all its forms.
struct Sample {
    descriptor: MessageDescriptor,
    message_type: MessageType,
    wire: Vec<u8>,
    json: Vec<u8>,
}

static CODEC: LazyLock<Codec> =
    LazyLock::new(|| Codec::new(contract::descriptor_pool(), Settings::default()));

fn sample<M: Message + Name>(message: &M) -> Sample {
    let descriptor = contract::descriptor::<M>();
    let message_type = CODEC.find(&descriptor).expect("it is in the pool");
    let (wire, mut json) = (message.encode_to_vec(), Vec::new());
    CODEC
        .to_json(message_type, &wire, &mut json)
        .expect("it has a form in JSON");
    Sample {
        descriptor,
        message_type,
        wire,
        json,
    }
}

fn time() -> Option<prost_types::Timestamp> {
    Some(prost_types::Timestamp {
        seconds: 1_790_000_000,
        nanos: 123_456_000,
    })
}

fn image() -> DesktopImage {
    let label = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
    DesktopImage {
        id: "e3v0123456789abcdefg".to_owned(),
        folder_id: "b1gabcdefghijklmnopq".to_owned(),
        created_at: time(),
        status: Status::Active.into(),
        name: "office-desktop-2026-09".to_owned(),
        labels: [("team", "office"), ("release", "2026-09")]
            .map(label)
            .into(),
        storage_size: 21_474_836_480,
        min_disk_size: 42_949_672_960,
        description: "Windows 11 with the office applications, patched monthly".to_owned(),
    }
}

fn copied() -> Operation {
    let any = |url: String, value: Vec<u8>| prost_types::Any {
        type_url: format!("type.googleapis.com/{url}"),
        value,
    };
    let metadata = CopyDesktopImageMetadata {
        image_id: image().id,
    };
    Operation {
        id: "e3v0123456789abcdefh".to_owned(),
        description: "Copy desktop image".to_owned(),
        created_at: time(),
        created_by: "anonymous".to_owned(),
        modified_at: time(),
        done: true,
        metadata: Some(any(
            CopyDesktopImageMetadata::full_name(),
            metadata.encode_to_vec(),
        )),
        result: Some(operation::Result::Response(any(
            DesktopImage::full_name(),
            image().encode_to_vec(),
        ))),
    }
}

fn list() -> ListDesktopImagesResponse {
    ListDesktopImagesResponse {
        desktop_images: vec![image(); 100],
        next_page_token: String::new(),
    }
}

/// The samples by the names under which they are measured.
const NAMES: [&str; 3] = ["image", "operation", "list_of_100"];

fn named(name: &str) -> Sample {
    match name {
        "image" => sample(&image()),
        "operation" => sample(&copied()),
        _ => sample(&list()),
    }
}

mod encode {
    use super::*;

    #[divan::bench(args = NAMES)]
    fn codec(bencher: Bencher, name: &str) {
        let sample = named(name);
        bencher
            .counter(BytesCount::new(sample.json.len()))
            .bench(|| {
                let mut json = Vec::with_capacity(512);
                CODEC
                    .to_json(sample.message_type, black_box(&sample.wire), &mut json)
                    .expect("JSON");
                json
            });
    }

    #[divan::bench(args = NAMES)]
    fn prost_reflect(bencher: Bencher, name: &str) {
        let sample = named(name);
        let options = SerializeOptions::new().skip_default_fields(false);
        bencher
            .counter(BytesCount::new(sample.json.len()))
            .bench(|| {
                let wire = black_box(&sample.wire[..]);
                let message =
                    DynamicMessage::decode(sample.descriptor.clone(), wire).expect("a message");
                let mut json = Vec::with_capacity(512);
                message
                    .serialize_with_options(&mut serde_json::Serializer::new(&mut json), &options)
                    .expect("JSON");
                json
            });
    }

    #[divan::bench]
    fn serde_image(bencher: Bencher) {
        let message = image();
        bencher.bench(|| serde_json::to_vec(&ImageJson::from(black_box(&message))).expect("JSON"));
    }

    #[divan::bench]
    fn serde_operation(bencher: Bencher) {
        let (message, image) = (copied(), image());
        bencher.bench(|| {
            serde_json::to_vec(&OperationJson::new(black_box(&message), &image)).expect("JSON")
        });
    }

    #[divan::bench]
    fn prost_and_serde_image(bencher: Bencher) {
        let wire = image().encode_to_vec();
        bencher.bench(|| {
            let message = DesktopImage::decode(black_box(&wire[..])).expect("a message");
            serde_json::to_vec(&ImageJson::from(&message)).expect("JSON")
        });
    }

    #[divan::bench]
    fn prost_and_serde_operation(bencher: Bencher) {
        let wire = copied().encode_to_vec();
        bencher.bench(|| {
            let message = Operation::decode(black_box(&wire[..])).expect("a message");
            let Some(operation::Result::Response(response)) = &message.result else {
                return Vec::new();
            };
            let image = DesktopImage::decode(&response.value[..]).expect("an image");
            serde_json::to_vec(&OperationJson::new(&message, &image)).expect("JSON")
        });
    }
}

mod decode {
    use super::*;

    #[divan::bench(args = NAMES)]
    fn codec(bencher: Bencher, name: &str) {
        let sample = named(name);
        bencher
            .counter(BytesCount::new(sample.json.len()))
            .bench(|| {
                let mut wire = Vec::with_capacity(512);
                CODEC
                    .to_wire(sample.message_type, black_box(&sample.json), &mut wire)
                    .expect("a message");
                wire
            });
    }

    #[divan::bench(args = NAMES)]
    fn prost_reflect(bencher: Bencher, name: &str) {
        let sample = named(name);
        let options = DeserializeOptions::new();
        bencher
            .counter(BytesCount::new(sample.json.len()))
            .bench(|| {
                let mut deserializer =
                    serde_json::Deserializer::from_slice(black_box(&sample.json));
                let message = DynamicMessage::deserialize_with_options(
                    sample.descriptor.clone(),
                    &mut deserializer,
                    &options,
                );
                message.expect("a message").encode_to_vec()
            });
    }

    #[divan::bench]
    fn serde_image(bencher: Bencher) {
        let json = sample(&image()).json;
        bencher.bench(|| {
            let image: ImageJson<'_> = serde_json::from_slice(black_box(&json)).expect("an image");
            DesktopImage::from(image)
        });
    }

    #[divan::bench]
    fn prost_and_serde_image(bencher: Bencher) {
        let json = sample(&image()).json;
        bencher.bench(|| {
            let image: ImageJson<'_> = serde_json::from_slice(black_box(&json)).expect("an image");
            DesktopImage::from(image).encode_to_vec()
        });
    }
}

/// The JSON of an image as one would write it by hand.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ImageJson<'m> {
    #[serde(rename = "@type", default, skip_serializing_if = "Option::is_none")]
    type_url: Option<Cow<'m, str>>,
    id: Cow<'m, str>,
    folder_id: Cow<'m, str>,
    created_at: Option<String>,
    status: Cow<'m, str>,
    name: Cow<'m, str>,
    labels: BTreeMap<Cow<'m, str>, Cow<'m, str>>,
    storage_size: Long,
    min_disk_size: Long,
    description: Cow<'m, str>,
}

/// A 64-bit integer in a string.
struct Long(i64);

impl Serialize for Long {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Long {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text: Cow<'de, str> = Deserialize::deserialize(deserializer)?;
        text.parse().map(Self).map_err(serde::de::Error::custom)
    }
}

impl<'m> From<&'m DesktopImage> for ImageJson<'m> {
    fn from(image: &'m DesktopImage) -> Self {
        Self {
            type_url: None,
            id: Cow::Borrowed(&image.id),
            folder_id: Cow::Borrowed(&image.folder_id),
            created_at: image.created_at.map(|time| time.to_string()),
            status: Cow::Borrowed(image.status().as_str_name()),
            name: Cow::Borrowed(&image.name),
            labels: image
                .labels
                .iter()
                .map(|(key, value)| (key.into(), value.into()))
                .collect(),
            storage_size: Long(image.storage_size),
            min_disk_size: Long(image.min_disk_size),
            description: Cow::Borrowed(&image.description),
        }
    }
}

impl From<ImageJson<'_>> for DesktopImage {
    fn from(image: ImageJson<'_>) -> Self {
        let labels = image.labels.into_iter();
        Self {
            id: image.id.into_owned(),
            folder_id: image.folder_id.into_owned(),
            created_at: image.created_at.and_then(|time| time.parse().ok()),
            status: Status::from_str_name(&image.status)
                .unwrap_or_default()
                .into(),
            name: image.name.into_owned(),
            labels: labels
                .map(|(key, value)| (key.into_owned(), value.into_owned()))
                .collect(),
            storage_size: image.storage_size.0,
            min_disk_size: image.min_disk_size.0,
            description: image.description.into_owned(),
        }
    }
}

/// The JSON of a Copy that is done as one would write it by hand.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct OperationJson<'m> {
    id: &'m str,
    description: &'m str,
    created_at: Option<String>,
    created_by: &'m str,
    modified_at: Option<String>,
    done: bool,
    metadata: MetadataJson<'m>,
    response: ImageJson<'m>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct MetadataJson<'m> {
    #[serde(rename = "@type")]
    type_url: String,
    image_id: &'m str,
}

impl<'m> OperationJson<'m> {
    fn new(operation: &'m Operation, image: &'m DesktopImage) -> Self {
        let type_url = |name| format!("type.googleapis.com/{name}");
        Self {
            id: &operation.id,
            description: &operation.description,
            created_at: operation.created_at.map(|time| time.to_string()),
            created_by: &operation.created_by,
            modified_at: operation.modified_at.map(|time| time.to_string()),
            done: operation.done,
            metadata: MetadataJson {
                type_url: type_url(CopyDesktopImageMetadata::full_name()),
                image_id: &image.id,
            },
            response: ImageJson {
                type_url: Some(type_url(DesktopImage::full_name()).into()),
                ..ImageJson::from(image)
            },
        }
    }
}
