//! Any bytes are the same JSON by the codec and by prost-reflect, or are refused by both; and what the
//! codec writes it reads. What they are known to see otherwise is listed here, and nothing else is
//! taken.
#![no_main]

mod things;

use libfuzzer_sys::fuzz_target;
use prost_reflect::SerializeOptions;
use serde_json::Value;
use things::THINGS;
use transcoding_reference::codec as reference;

/// Problems that the codec refuses by the letter of the mapping and prost-reflect writes.
const STRICTER: [&str; 6] = [
    // prost-reflect takes an entry of a map for bytes with a length whatever its wire type.
    "its wire type is ",
    "the nanoseconds of the ",
    "the seconds and nanoseconds of the duration differ in sign",
    // A path as `a_`, which would not lead back.
    "the path ",
    // prost-reflect counts levels anew inside Any.
    "nested more than",
    "groups are nested too deep",
];

/// The problem of prost-reflect with what the codec writes: an Any that holds nothing.
const LOOSER: &str = "missing at least one '/'";

fuzz_target!(|wire: &[u8]| {
    let mut json = Vec::new();
    let by_codec = THINGS.codec.to_json(THINGS.message_type, wire, &mut json);
    let options = SerializeOptions::new().skip_default_fields(false);
    let by_reference = reference::write(wire, &THINGS.descriptor, &options);
    match (by_codec, by_reference) {
        (Ok(()), Ok(expected)) => {
            let value = serde_json::from_slice(&json).expect("it is JSON");
            assert!(same(&value, &expected), "{value} is not {expected}");
        }
        (Err(_), Err(_)) => return,
        (Ok(()), Err(problem)) => {
            assert!(
                problem.contains(LOOSER),
                "only prost-reflect refuses: {problem}"
            );
        }
        (Err(error), Ok(_)) => {
            let problem = error.problem();
            assert!(
                STRICTER.iter().any(|known| problem.starts_with(known)),
                "only the codec refuses: {problem}"
            );
            return;
        }
    }
    let again = THINGS
        .codec
        .to_wire(THINGS.message_type, &json, &mut Vec::new());
    if let Err(error) = again {
        // JSON counts lists and maps as levels, messages do not.
        assert!(error.problem().starts_with("nested more than"), "{error:?}");
    }
});

/// prost-reflect writes null for a wrapped float that is not finite.
fn same(value: &Value, expected: &Value) -> bool {
    match (value, expected) {
        (Value::String(text), Value::Null) => {
            matches!(text.as_str(), "NaN" | "Infinity" | "-Infinity")
        }
        (Value::Array(values), Value::Array(expected)) => {
            let pairs = || values.iter().zip(expected);
            values.len() == expected.len() && pairs().all(|(value, expected)| same(value, expected))
        }
        (Value::Object(members), Value::Object(expected)) => {
            let has = |(name, value)| {
                expected
                    .get(name)
                    .is_some_and(|expected| same(value, expected))
            };
            members.len() == expected.len() && members.iter().all(has)
        }
        _ => value == expected,
    }
}
