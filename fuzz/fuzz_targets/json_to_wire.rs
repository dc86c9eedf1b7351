//! Any JSON text is the same message by the codec and by prost-reflect, or is refused by both. What
//! they are known to see otherwise is listed here, and nothing else is taken.
#![no_main]

mod seeds;
mod things;

use libfuzzer_sys::fuzz_target;
use things::THINGS;
use transcoding_reference::codec as reference;

/// Problems that the codec refuses by the letter of the mapping and prost-reflect takes.
const STRICTER: [&str; 9] = [
    // A type URL with a dot before the full name, which prost-reflect takes.
    "the message type \".",
    "duplicate name",
    // Numbers in strings that are none of JSON's: "+1", "01", "inf".
    "invalid value: ",
    "invalid key: ",
    // Doubles in strings that become infinite; whole numbers beyond a double's precision.
    "number out of range",
    // Fractions that a double rounds away.
    "not a whole number",
    // Digits of a second that prost-reflect drops.
    "finer than nanoseconds",
    // prost-reflect counts levels anew inside Any.
    "nested more than",
    "multiple fields provided for oneof",
];

/// Problems of prost-reflect with what the codec takes by the letter of the mapping.
const LOOSER: [&str; 6] = [
    // "1e3" in a string.
    "invalid digit found in string",
    // The greatest float, which a double is a little larger than; whole numbers as 1e3.
    "float value out of range",
    "out of range integral type conversion attempted",
    // An enum as 1.0.
    "invalid type: floating point",
    // An Any that holds nothing.
    "expected '@type' field",
    // Base64 in the other alphabet of which the first wrong byte is not one of that.
    "invalid base64",
];

fn plant() {
    let cases = seeds::cases().into_iter();
    seeds::plant(
        "json_to_wire",
        cases.flat_map(|case| [case.body, case.message]),
    );
}

fuzz_target!(init: plant(), |json: &[u8]| {
    let mut wire = Vec::new();
    let by_codec = THINGS.codec.to_wire(THINGS.message_type, json, &mut wire);
    let by_reference = reference::read(json, &THINGS.descriptor);
    match (by_codec, by_reference) {
        (Ok(()), Ok(expected)) => {
            let message =
                reference::decode(&wire, &THINGS.descriptor).expect("what was made decodes");
            use prost::Message;
            let expected = reference::decode(&expected.encode_to_vec(), &THINGS.descriptor);
            let same = reference::same(&message, &expected.expect("it decodes"));
            assert!(same || has_long_number(json), "not the same message");
        }
        (Err(error), Err(_)) => assert!(error.offset() <= json.len()),
        (Ok(()), Err(problem)) => {
            assert!(
                LOOSER.iter().any(|known| problem.contains(known)),
                "only prost-reflect refuses: {problem}"
            );
        }
        (Err(error), Ok(_)) => {
            let problem = error.problem();
            assert!(
                STRICTER.iter().any(|known| problem.starts_with(known)),
                "only the codec refuses: {problem}"
            );
        }
    }
});

/// prost-reflect reads whole numbers with a point or an exponent, and floats, by way of a double.
fn has_long_number(json: &[u8]) -> bool {
    let is_of_number = |byte: &u8| byte.is_ascii_digit() || b".eE+-".contains(byte);
    json.split(|byte| !is_of_number(byte))
        .any(|number| number.len() > 9)
}
