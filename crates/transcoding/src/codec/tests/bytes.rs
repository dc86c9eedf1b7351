//! Bytes that are wrong, and bytes that no encoder would write, over the same message.

use prost::Message;
use prost_reflect::DynamicMessage;

use super::mapping::{BRIEF, json, thing};

#[test]
fn wrong_bytes_are_refused_with_their_field() {
    let cases: [(&[u8], &str); 8] = [
        (&[0x0a], "text: a varint does not end"),
        (&[0x0a, 5, b'a'], "text: a field ends beyond the end"),
        (&[0x0a, 1, 0xff], "text: not valid UTF-8"),
        (&[0x08, 1], "text: its wire type is 0, not 2"),
        (&[0x00, 1], "a field has the number 0"),
        (&[0x0c], "text: its wire type is 4, not 2"),
        // A child whose text is wrong, and a time in the year 10000.
        (
            &[0x92, 0x01, 3, 0x0a, 1, 0xff],
            "child.text: not valid UTF-8",
        ),
        (
            &[0x9a, 0x01, 7, 0x08, 0x80, 0xdc, 0xea, 0xa5, 0xb0, 0x07],
            "time: the time is not within",
        ),
    ];
    for (bytes, problem) in cases {
        let error = json(bytes, BRIEF).expect_err(problem);
        assert!(error.starts_with(problem), "{error}, not {problem}");
    }
    let mut deep = Vec::new();
    for _ in 0..101 {
        let mut outer = vec![0x92, 0x01];
        prost::encoding::encode_varint(deep.len() as u64, &mut outer);
        outer.extend(deep);
        deep = outer;
    }
    let error = json(&deep, BRIEF).expect_err("too deep");
    assert!(
        error.ends_with("nested more than 100 levels deep"),
        "{error}"
    );
}

#[test]
fn what_cannot_be_one_pass_is_still_right() {
    let (text, other) = (&[0x0a, 1, b'a'][..], &[0x0a, 1, b'b'][..]);
    let child = |inner: &[u8]| [&[0x92, 0x01, inner.len() as u8], inner].concat();
    let label = |key: u8, value: u8| [0x7a, 6, 0x0a, 1, key, 0x12, 1, value];
    let either = [&[0xda, 0x01, 1, b'a'][..], &[0xe0, 0x01, 5]].concat();
    let held = [other, text, &[0x20, 1], text].concat();
    let held = prost_types::Any {
        type_url: "x/transcoding.test.Thing".to_owned(),
        value: held,
    };
    let any = [&[0xd2, 0x01], &held.encode_length_delimited_to_vec()[..]].concat();
    let of_any = |inner: &[u8]| [&[0xd2, 0x01, inner.len() as u8], inner].concat();
    let url = [&[0x0a, 24][..], b"x/transcoding.test.Thing"].concat();
    let cases = [
        (
            [of_any(&[&[0x12, 3][..], text].concat()), of_any(&url)].concat(),
            r#"{"any":{"@type":"x/transcoding.test.Thing","text":"a"}}"#,
        ),
        ([text, other].concat(), r#"{"text":"b"}"#),
        ([&[0x20, 1], text].concat(), r#"{"text":"a","flag":true}"#),
        (
            [child(text), child(&[0x20, 1])].concat(),
            r#"{"child":{"text":"a","flag":true}}"#,
        ),
        (
            [&[0x6a, 1, 1][..], &[0x20, 1], &[0x68, 2]].concat(),
            r#"{"flag":true,"numbers":[1,2]}"#,
        ),
        (
            [label(b'b', b'1'), label(b'a', b'2')].concat(),
            r#"{"labels":{"a":"2","b":"1"}}"#,
        ),
        (
            [label(b'a', b'1'), label(b'a', b'2')].concat(),
            r#"{"labels":{"a":"2"}}"#,
        ),
        (
            vec![0x7a, 6, 0x12, 1, b'v', 0x0a, 1, b'k'],
            r#"{"labels":{"k":"v"}}"#,
        ),
        (vec![0x7a, 0], r#"{"labels":{"":""}}"#),
        (either, r#"{"eitherNumber":5}"#),
        (
            any,
            r#"{"any":{"@type":"x/transcoding.test.Thing","text":"a","flag":true}}"#,
        ),
    ];
    for (wire, expected) in cases {
        assert_eq!(json(&wire, BRIEF).as_deref(), Ok(expected));
        DynamicMessage::decode(thing(), &wire[..]).expect("prost-reflect takes it too");
    }
}

#[test]
fn a_chain_of_anys_in_no_order_takes_no_longer_than_its_length_and_depth() {
    // Tried again at each level it would take 2^40 steps.
    let mut wire = vec![0x20, 1, 0x0a, 1, b'a'];
    for _ in 0..40 {
        let held = prost_types::Any {
            type_url: "x/transcoding.test.Thing".to_owned(),
            value: wire,
        };
        wire = [
            &[0xd2, 0x01],
            &held.encode_length_delimited_to_vec()[..],
            &[0x20, 1],
        ]
        .concat();
    }
    let text = json(&wire, BRIEF).expect("JSON");
    assert_eq!(text.matches("\"flag\":true").count(), 41);
}
