//! Random messages of random types are the same by either codec, both ways.

use proptest::prelude::*;
use prost::Message;
use prost_reflect::SerializeOptions;
use transcoding_reference::codec as reference;

use super::{
    super::{Codec, Settings},
    permuted::permuted,
    random::{self, Tape},
};

/// The choices behind the type and the message on the tape.
fn tape() -> impl Strategy<Value = (Vec<u32>, Vec<u32>, Vec<u32>)> {
    use proptest::collection::vec;
    let choice = || prop_oneof![3 => 0_u32..16, 1 => any::<u32>()];
    (
        vec(choice(), 0..150),
        vec(choice(), 0..400),
        vec(choice(), 0..60),
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn both_codecs_agree((types, choices, order) in tape(), (print_defaults, proto_names, enum_numbers) in any::<(bool, bool, bool)>()) {
        let pool = random::pool(&mut Tape::new(&types));
        let descriptor = pool.get_message_by_name("r.M0").expect("it is there");
        let settings = Settings { print_defaults, proto_names, enum_numbers, ..Settings::default() };
        let codec = Codec::new(&pool, settings);
        let message_type = codec.find(&descriptor).expect("it is there");
        let options = SerializeOptions::new()
            .skip_default_fields(!print_defaults)
            .use_proto_field_name(proto_names)
            .use_enum_numbers(enum_numbers);
        let mut tape = Tape::new(&choices);
        let message = random::message(&descriptor, 4, &mut tape);
        let canonical = message.encode_to_vec();
        let other = permuted(&canonical, &descriptor, &mut Tape::new(&order));
        let expected = reference::decode(&other, &descriptor).expect("it decodes");
        for wire in [&canonical, &other] {
            let message = reference::decode(wire, &descriptor).expect("it decodes");
            prop_assert!(order.is_empty() || reference::same(&message, &expected), "the permutation is wrong");
            // Wire to JSON.
            let mut json = Vec::new();
            let written = codec.to_json(message_type, wire, &mut json);
            let expected_json = reference::write(wire, &descriptor, &options);
            let text = String::from_utf8_lossy(&json);
            prop_assert!(written.is_ok() && expected_json.is_ok(), "{written:?} {expected_json:?} {wire:?}");
            let value: serde_json::Value = serde_json::from_slice(&json).map_err(|error| TestCaseError::fail(format!("{error}: {text}")))?;
            prop_assert_eq!(&value, &expected_json.unwrap_or_default());
            // JSON to wire, by the codec's own text.
            let mut again = Vec::new();
            let read = codec.to_wire(message_type, &json, &mut again);
            prop_assert!(read.is_ok(), "{read:?}: {text}");
            let by_codec = reference::decode(&again, &descriptor);
            prop_assert!(by_codec.is_ok(), "{:?}: {text}", by_codec.as_ref().err());
            let by_reference = reference::read(&json, &descriptor);
            prop_assert!(by_reference.is_ok(), "{:?}: {text}", by_reference.as_ref().err());
            let by_reference = reference::decode(&by_reference.expect("as above").encode_to_vec(), &descriptor).expect("it decodes");
            prop_assert!(reference::same(&by_codec.expect("as above"), &by_reference), "{}", text);
        }
    }
}
