//! The mapping, case by case, over a message with a field of every kind.

use std::sync::LazyLock;

use prost::Message;
use prost_reflect::{DescriptorPool, MessageDescriptor};

use super::super::{Codec, JsonError, MessageType, Settings, UndecodableAny};

static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let folders = ["tests/data", "proto"].map(|folder| root.join(folder));
    let mut compiler = protox::Compiler::new(folders).expect("the folders are there");
    compiler.include_imports(true);
    compiler.open_file("things.proto").expect("it compiles");
    let set = compiler.encode_file_descriptor_set();
    DescriptorPool::decode(&set[..]).expect("it was just made")
});

/// Nothing is written that need not be, so that the cases are short.
pub(super) const BRIEF: Settings = Settings {
    print_defaults: false,
    proto_names: false,
    enum_numbers: false,
    ignore_unknown: false,
    undecodable_any: UndecodableAny::Refuse,
};

pub(super) fn thing() -> MessageDescriptor {
    let thing = POOL.get_message_by_name("transcoding.test.Thing");
    thing.expect("things.proto declares it")
}

fn codec(settings: Settings) -> (Codec, MessageType) {
    let codec = Codec::new(&POOL, settings);
    let thing = codec.find(&thing()).expect("it is there");
    (codec, thing)
}

fn wire(json: &str, settings: Settings) -> Result<Vec<u8>, JsonError> {
    let (codec, thing) = codec(settings);
    let mut wire = Vec::new();
    codec.to_wire(thing, json.as_bytes(), &mut wire)?;
    Ok(wire)
}

pub(super) fn json(wire: &[u8], settings: Settings) -> Result<String, String> {
    let (codec, thing) = codec(settings);
    let mut json = Vec::new();
    codec
        .to_json(thing, wire, &mut json)
        .map_err(|error| error.to_string())?;
    Ok(String::from_utf8(json).expect("JSON is UTF-8"))
}

/// The text of a message that is read and written again.
fn again(text: &str) -> String {
    let wire = wire(text, BRIEF).unwrap_or_else(|error| panic!("{error:?}: {text}"));
    json(&wire, BRIEF).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn one_value_has_many_texts() {
    let any = |rest: &str| format!(r#"{{"any":{{"@type":"type.googleapis.com/{rest}}}}}"#);
    let timestamp = any(r#"google.protobuf.Timestamp","value":"1970-01-01T00:00:00Z""#);
    let nested =
        any(r#"google.protobuf.Any","value":{"@type":"x/transcoding.test.Thing","tags":["a"]}"#);
    let cases = [
        (" { } ", "{}"),
        (
            r#"{"text":"","flag":false,"colour":0,"tags":[],"labels":{}}"#,
            "{}",
        ),
        (
            r#"{"text":null,"tags":null,"labels":null,"child":null,"time":null}"#,
            "{}",
        ),
        (
            r#"{"maybe_text":"","child":{},"eitherNumber":0}"#,
            r#"{"maybeText":"","child":{},"eitherNumber":0}"#,
        ),
        // Strings.
        (
            r#"{"te\u0078t":"\"\\\/\b\f\n\r\t\u00e9\ud83e\udd80"}"#,
            r#"{"text":"\"\\/\b\f\n\r\té🦀"}"#,
        ),
        ("{\"text\":\"\u{7f}я\"}", "{\"text\":\"\u{7f}я\"}"),
        (r#"{"text":"\u0000"}"#, r#"{"text":"\u0000"}"#),
        // Numbers.
        (
            r#"{"signedNumber":1e3,"unsignedNumber":4294967295.0}"#,
            r#"{"signedNumber":1000,"unsignedNumber":4294967295}"#,
        ),
        (
            r#"{"signedNumber":"-2147483648"}"#,
            r#"{"signedNumber":-2147483648}"#,
        ),
        (
            r#"{"longNumber":9223372036854775807}"#,
            r#"{"longNumber":"9223372036854775807"}"#,
        ),
        (
            r#"{"longNumber":"-9.223372036854775808e18"}"#,
            r#"{"longNumber":"-9223372036854775808"}"#,
        ),
        (
            r#"{"longUnsignedNumber":18446744073709551615.0}"#,
            r#"{"longUnsignedNumber":"18446744073709551615"}"#,
        ),
        (
            r#"{"longNumber":9007199254740993.0}"#,
            r#"{"longNumber":"9007199254740993"}"#,
        ),
        (
            r#"{"narrowFloat":3.4028235e38,"wideFloat":"1.5"}"#,
            r#"{"narrowFloat":3.4028235e+38,"wideFloat":1.5}"#,
        ),
        (
            r#"{"narrowFloat":"NaN","wideFloat":"-Infinity"}"#,
            r#"{"narrowFloat":"NaN","wideFloat":"-Infinity"}"#,
        ),
        (r#"{"wideFloat":-0.0}"#, r#"{"wideFloat":-0.0}"#),
        // Bytes, enums, maps.
        (r#"{"data":"-_8"}"#, r#"{"data":"+/8="}"#),
        (r#"{"data":"\/+8="}"#, r#"{"data":"/+8="}"#),
        (
            r#"{"colour":"GREEN","colours":{"2":1,"-1":"RED","10":99}}"#,
            r#"{"colour":"GREEN","colours":{"-1":"RED","2":"RED","10":99}}"#,
        ),
        (
            r#"{"labels":{"b":"1","":"2","a\n":"3"}}"#,
            r#"{"labels":{"":"2","a\n":"3","b":"1"}}"#,
        ),
        (
            r#"{"named":{"x":{}},"children":[{},{"text":"a"}]}"#,
            r#"{"children":[{},{"text":"a"}],"named":{"x":{}}}"#,
        ),
        // Well-known types.
        (
            r#"{"time":"2026-01-31T23:59:59.5+01:00","length":"-1.50s"}"#,
            r#"{"time":"2026-01-31T22:59:59.500Z","length":"-1.500s"}"#,
        ),
        (r#"{"mask":"aB,c.dE,"}"#, r#"{"mask":"aB,c.dE"}"#),
        (
            r#"{"wrappedNumber":"0","wrappedFlag":false,"wrappedText":null}"#,
            r#"{"wrappedNumber":"0","wrappedFlag":false}"#,
        ),
        (r#"{"anyJson":null}"#, r#"{"anyJson":null}"#),
        (
            r#"{"anyJson":{"z":[1,"a",null,true,{}],"a":-2.5e1}}"#,
            r#"{"anyJson":{"a":-25.0,"z":[1.0,"a",null,true,{}]}}"#,
        ),
        (r#"{"any":{}}"#, r#"{"any":{}}"#),
        (&timestamp, &timestamp),
        (&nested, &nested),
        (
            r#"{"any":{"child":{"text":"b"},"text":"a","@type":"x/transcoding.test.Thing"}}"#,
            r#"{"any":{"@type":"x/transcoding.test.Thing","text":"a","child":{"text":"b"}}}"#,
        ),
        (
            r#"{"any":{"value":{},"@type":"x/google.protobuf.Empty"}}"#,
            r#"{"any":{"@type":"x/google.protobuf.Empty","value":{}}}"#,
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(again(text), expected, "{text}");
        assert_eq!(again(expected), expected);
    }
}

#[test]
fn wrong_texts_are_refused_with_their_field() {
    let deep =
        |open: &str, close: &str, times| format!("{}{}", open.repeat(times), close.repeat(times));
    let children = format!("{}{{}}{}", r#"{"child":"#.repeat(101), "}".repeat(101));
    let lists = format!(r#"{{"anyJson":{}}}"#, deep("[", "]", 60));
    let ignored = format!(r#"{{"tags":{}}}"#, deep("[", "]", 200));
    let cases = [
        // No JSON.
        ("", "", "ends too early"),
        ("{", "", "ends too early"),
        ("{\"text\"", "text", "ends too early"),
        ("{\"text\":\"a", "text", "ends too early"),
        ("{\"text\":\"\\", "text", "ends too early"),
        ("{,}", "", "name in quotes"),
        ("{\"text\":\"a\",}", "", "comma before the end"),
        ("{\"text\" \"a\"}", "text", "colon"),
        ("{\"text\":\"a\" \"flag\":true}", "", "comma or the end"),
        ("{\"tags\":[\"a\",]}", "tags", "comma before the end"),
        ("{text:1}", "", "name in quotes"),
        ("{\"text\":'a'}", "text", "expected a value"),
        ("{} x", "", "trailing"),
        ("{\"text\":\"\n\"}", "text", "control character"),
        (r#"{"text":"\x"}"#, "text", "invalid escape"),
        (r#"{"text":"\u12g4"}"#, "text", "invalid escape"),
        (r#"{"text":"\ud800"}"#, "text", "lone surrogate"),
        (r#"{"text":"\ud800\u0041"}"#, "text", "lone surrogate"),
        (r#"{"text":"\udc00"}"#, "text", "lone surrogate"),
        (r#"{"signedNumber":01}"#, "signedNumber", "invalid number"),
        (r#"{"signedNumber":1.}"#, "signedNumber", "invalid number"),
        (r#"{"signedNumber":-}"#, "signedNumber", "invalid number"),
        (r#"{"wideFloat":NaN}"#, "wideFloat", "expected a value"),
        (r#"{"flag":tru}"#, "flag", "expected a value"),
        // JSON of something else.
        ("[]", "", "invalid type: sequence, expected an object"),
        (r#"{"nothing":1}"#, "nothing", "unrecognized field name"),
        (r#"{"text":1}"#, "text", "integer `1`, expected a string"),
        (r#"{"flag":"true"}"#, "flag", "expected a boolean"),
        (r#"{"tags":{}}"#, "tags", "expected a list"),
        (r#"{"tags":["a",null]}"#, "tags[1]", "invalid type: null"),
        (r#"{"labels":[]}"#, "labels", "expected an object"),
        (r#"{"labels":{"a":null}}"#, "labels.a", "invalid type: null"),
        (
            r#"{"named":{"x":{"child":{"flag":1}}}}"#,
            "named.x.child.flag",
            "expected a boolean",
        ),
        (
            r#"{"signedNumber":2147483648}"#,
            "signedNumber",
            "out of range",
        ),
        (
            r#"{"unsignedNumber":-1}"#,
            "unsignedNumber",
            "a whole number from 0 to 4294967295",
        ),
        (r#"{"longNumber":1e19}"#, "longNumber", "out of range"),
        (r#"{"longNumber":1.5}"#, "longNumber", "not a whole number"),
        (r#"{"longNumber":"+1"}"#, "longNumber", "invalid value"),
        (r#"{"longNumber":" 1"}"#, "longNumber", "invalid value"),
        (r#"{"longNumber":""}"#, "longNumber", "invalid value"),
        (r#"{"narrowFloat":3.5e38}"#, "narrowFloat", "out of range"),
        (r#"{"wideFloat":1e309}"#, "wideFloat", "out of range"),
        (r#"{"wideFloat":"inf"}"#, "wideFloat", "\"Infinity\""),
        (r#"{"data":"a"}"#, "data", "base64"),
        (r#"{"data":"+_=="}"#, "data", "base64"),
        (
            r#"{"colour":"BLUE"}"#,
            "colour",
            "COLOUR_UNSPECIFIED, RED, GREEN",
        ),
        (r#"{"colour":1.5}"#, "colour", "not a whole number"),
        (
            r#"{"colours":{"a":1}}"#,
            "colours.a",
            "invalid key: expected a whole number",
        ),
        (r#"{"time":"today"}"#, "time", "RFC 3339"),
        (r#"{"length":"1"}"#, "length", "seconds with an s"),
        (r#"{"mask":"a_b"}"#, "mask", "names of fields"),
        (r#"{"anyJson":1e999}"#, "anyJson", "out of range"),
        (r#"{"any":{"text":"a"}}"#, "any", "needs its type"),
        (r#"{"any":{"@type":"a.B"}}"#, "any.@type", "no type URL"),
        (
            r#"{"any":{"@type":"x/a.B"}}"#,
            "any.@type",
            "\"a.B\" is not known",
        ),
        // A full name in a type URL has no dot before it, as it would have in a proto file.
        (
            r#"{"any":{"@type":"x/.google.protobuf.Duration","value":"1s"}}"#,
            "any.@type",
            "\".google.protobuf.Duration\" is not known",
        ),
        (r#"{"any":{"@type":5}}"#, "any.@type", "a type URL"),
        (
            r#"{"any":{"@type":"x/google.protobuf.Duration"}}"#,
            "any",
            "needs its \"value\"",
        ),
        (
            r#"{"any":{"@type":"x/google.protobuf.Duration","value":"1s","x":1}}"#,
            "any.x",
            "unrecognized",
        ),
        (
            r#"{"any":{"@type":"x/transcoding.test.Thing","child":{"flag":0}}}"#,
            "any.child.flag",
            "boolean",
        ),
        // Twice.
        (r#"{"text":"a","text":"a"}"#, "text", "duplicate name"),
        (
            r#"{"maybeText":null,"maybe_text":null}"#,
            "maybe_text",
            "duplicate name",
        ),
        (
            r#"{"labels":{"a":"","\u0061":""}}"#,
            "labels.a",
            "duplicate name",
        ),
        (
            r#"{"colours":{"1":0,"1e0":0}}"#,
            "colours.1e0",
            "duplicate name",
        ),
        (
            r#"{"anyJson":{"a":{"b":1,"b":1}}}"#,
            "anyJson.a.b",
            "duplicate name",
        ),
        (
            r#"{"any":{"@type":"x/transcoding.test.Thing","@type":"x/transcoding.test.Thing"}}"#,
            "any.@type",
            "duplicate name",
        ),
        (
            r#"{"any":{"text":"","@type":"x/transcoding.test.Thing","text":""}}"#,
            "any.text",
            "duplicate name",
        ),
        (
            r#"{"eitherText":"","eitherNumber":0}"#,
            "eitherNumber",
            "multiple fields provided for oneof",
        ),
        // Too deep.
        (&children, "", "nested more than 100 levels"),
        (&lists, "", "nested more than 100 levels"),
        (&ignored, "", "expected a string"),
    ];
    for (text, field, problem) in cases {
        let error = wire(text, BRIEF).expect_err(text);
        assert!(error.problem().contains(problem), "{error:?}: {text}");
        assert!(error.offset() <= text.len(), "{error:?}: {text}");
        if !field.is_empty() {
            assert_eq!(error.field(), field, "{error:?}: {text}");
        }
    }
}

#[test]
fn unknown_names_are_skipped_where_that_is_set() {
    let settings = Settings {
        ignore_unknown: true,
        ..BRIEF
    };
    let cases = [
        (
            r#"{"nothing":{"a":[1,{"b":null}]},"text":"a"}"#,
            r#"{"text":"a"}"#,
        ),
        (r#"{"colour":"BLUE","text":"a"}"#, r#"{"text":"a"}"#),
        (
            r#"{"colours":{"1":"BLUE","2":"RED"}}"#,
            r#"{"colours":{"2":"RED"}}"#,
        ),
        (
            r#"{"any":{"x":1,"@type":"x/transcoding.test.Thing","text":"a"}}"#,
            r#"{"any":{"@type":"x/transcoding.test.Thing","text":"a"}}"#,
        ),
    ];
    for (text, expected) in cases {
        let wire = wire(text, settings).unwrap_or_else(|error| panic!("{error:?}: {text}"));
        assert_eq!(json(&wire, settings).as_deref(), Ok(expected), "{text}");
    }
    for (text, problem) in [
        (r#"{"nothing":1,"nothing":1}"#, "duplicate name"),
        (r#"{"nothing":{"a":1,"a":2}}"#, "duplicate name"),
        (r#"{"nothing":[1,}"#, "expected a value"),
        (
            &format!("{{\"nothing\":{}", "[".repeat(200)),
            "nested more than",
        ),
    ] {
        let error = wire(text, settings).expect_err(text);
        assert!(error.problem().contains(problem), "{error:?}: {text}");
    }
}

#[test]
fn settings_change_what_is_written() {
    let wire = wire(r#"{"maybeText":"a","colour":1}"#, BRIEF).expect("right");
    let settings = Settings {
        proto_names: true,
        enum_numbers: true,
        ..BRIEF
    };
    assert_eq!(
        json(&wire, settings).as_deref(),
        Ok(r#"{"maybe_text":"a","colour":1}"#)
    );
    let all = json(&[], Settings::default()).expect("JSON");
    assert_eq!(
        all,
        concat!(
            r#"{"text":"","data":"","flag":false,"colour":"COLOUR_UNSPECIFIED","signedNumber":0,"#,
            r#""unsignedNumber":0,"longNumber":"0","longUnsignedNumber":"0","narrowFloat":0.0,"#,
            r#""wideFloat":0.0,"tags":[],"numbers":[],"children":[],"labels":{},"colours":{},"#,
            r#""named":{},"times":[]}"#
        )
    );
}

#[test]
fn an_any_that_cannot_be_written_is_an_error_or_base64() {
    let any = |type_url: &str, value: &[u8]| {
        let any = prost_types::Any {
            type_url: type_url.to_owned(),
            value: value.to_vec(),
        };
        // Field 26 of a Thing.
        let mut wire = vec![0xd2, 0x01];
        wire.extend(any.encode_length_delimited_to_vec());
        wire
    };
    let base64 = Settings {
        undecodable_any: UndecodableAny::Base64,
        ..BRIEF
    };
    for (type_url, value, problem) in [
        (
            "x/a.B",
            &[1, 2][..],
            "any: the message type \"a.B\" is not known",
        ),
        ("nonsense", &[1, 2], "any: \"nonsense\" is no type URL"),
        (
            "x/transcoding.test.Thing",
            &[0x0a, 5],
            "any.text: a field ends beyond the end",
        ),
    ] {
        let wire = any(type_url, value);
        let error = json(&wire, BRIEF).expect_err("refused");
        assert!(error.starts_with(problem), "{error}");
        let text = json(&wire, base64).expect("written");
        let value: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(value["any"]["@type"], type_url);
        assert!(value["any"]["value"].is_string());
    }
}

#[test]
fn one_field_is_read_and_written_alone() {
    let (codec, thing) = codec(Settings::default());
    let field = |name| {
        self::thing()
            .get_field_by_name(name)
            .expect("it is there")
            .number()
    };
    let cases = [
        ("text", r#""a""#),
        ("tags", r#"["a","b"]"#),
        ("labels", r#"{"a":"b"}"#),
        ("any_json", "null"),
        ("long_number", r#""5""#),
        ("child", "null"),
        ("numbers", "[]"),
    ];
    for (name, text) in cases {
        let (mut wire, mut json) = (Vec::new(), Vec::new());
        let read = codec.field_to_wire(thing, field(name), text.as_bytes(), &mut wire);
        assert_eq!(read, Ok(()), "{name}");
        // Another field before and behind.
        let all = [&[0x20, 1], &wire[..], &[0xba, 0x01, 0]].concat();
        let written = codec.field_to_json(thing, field(name), &all, &mut json);
        assert_eq!(written, Ok(()), "{name}");
        assert_eq!(String::from_utf8(json).as_deref(), Ok(text));
    }
    let error = codec.field_to_wire(thing, field("tags"), br#"["a",1]"#, &mut Vec::new());
    assert_eq!(
        error.map_err(|error| error.field()),
        Err("tags[1]".to_owned())
    );
}
