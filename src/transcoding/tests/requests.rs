//! How path, query and body become a message.

use super::{send, thing_of};

/// The message that the service received, as JSON, of a request that must succeed.
async fn received(line: &str, body: &str) -> String {
    let reply = send(line, &[], body).await;
    assert_eq!(reply.status, 200, "{line} {body}: {}", reply.body);
    reply.body
}

#[tokio::test]
async fn requests_become_messages() {
    let cases = [
        // Path variables.
        ("GET /v1/things/a%2Fb%20c", "", r#"{"text": "a/b c"}"#),
        ("GET /v1/things/x:y", "", r#"{"text": "x:y"}"#),
        ("GET /v1/files/a/b%2Fc/", "", r#"{"text": "a/b%2Fc/"}"#),
        ("GET /v1/number/-7", "", r#"{"signedNumber": -7}"#),
        ("GET /v1/bytes/_-8", "", r#"{"data": "/+8="}"#),
        ("GET /v1/colour/GREEN", "", r#"{"colour": "GREEN"}"#),
        ("GET /v1/colour/1", "", r#"{"colour": "RED"}"#),
        (
            "GET /v1/time/2026-01-02T03:04:05Z",
            "",
            r#"{"time": "2026-01-02T03:04:05Z"}"#,
        ),
        ("GET /v1/wrapped/9", "", r#"{"wrappedNumber": "9"}"#),
        ("GET /v1/either/x", "", r#"{"eitherText": "x"}"#),
        (
            "GET /v1/query/x?child.flag=true",
            "",
            r#"{"child": {"text": "x", "flag": true}}"#,
        ),
        // The query: names, kinds.
        ("GET /v1/query", "", "{}"),
        ("GET /v1/query?", "", "{}"),
        ("GET /v1/query?&&text=x&", "", r#"{"text": "x"}"#),
        ("GET /v1/query?text=a+b%2Bc%26", "", r#"{"text": "a b+c&"}"#),
        ("GET /v1/query?text=a=b", "", r#"{"text": "a=b"}"#),
        ("GET /v1/query?maybe_text=", "", r#"{"maybeText": ""}"#),
        ("GET /v1/query?maybeText", "", r#"{"maybeText": ""}"#),
        (
            "GET /v1/query?signedNumber=-2147483648&unsigned_number=4294967295",
            "",
            r#"{"signedNumber": -2147483648, "unsignedNumber": 4294967295}"#,
        ),
        (
            "GET /v1/query?longNumber=-9223372036854775808&longUnsignedNumber=18446744073709551615",
            "",
            r#"{"longNumber": "-9223372036854775808", "longUnsignedNumber": "18446744073709551615"}"#,
        ),
        (
            "GET /v1/query?narrowFloat=1.5e3&wideFloat=-Infinity",
            "",
            r#"{"narrowFloat": 1500, "wideFloat": "-Infinity"}"#,
        ),
        (
            "GET /v1/query?data=%2B/8&flag=true&colour=RED",
            "",
            r#"{"data": "+/8=", "flag": true, "colour": "RED"}"#,
        ),
        ("GET /v1/query?colour=77", "", r#"{"colour": 77}"#),
        (
            "GET /v1/query?tags=a&numbers=1&tags=b&numbers=-2",
            "",
            r#"{"tags": ["a", "b"], "numbers": [1, -2]}"#,
        ),
        (
            "GET /v1/query?labels[a.b]=x&labels%5Bc%5D=&colours[-3]=GREEN",
            "",
            r#"{"labels": {"a.b": "x", "c": ""}, "colours": {"-3": "GREEN"}}"#,
        ),
        (
            "GET /v1/query?child.child.text=x&child.tags=a&child.text=y",
            "",
            r#"{"child": {"text": "y", "tags": ["a"], "child": {"text": "x"}}}"#,
        ),
        (
            "GET /v1/query?time=2026-01-02T03:04:05.25%2B01:00&length=-1.5s",
            "",
            r#"{"time": "2026-01-02T02:04:05.25Z", "length": "-1.5s"}"#,
        ),
        (
            "GET /v1/query?times=1970-01-01T00:00:00Z&times=1970-01-01T00:00:01Z",
            "",
            r#"{"times": ["1970-01-01T00:00:00Z", "1970-01-01T00:00:01Z"]}"#,
        ),
        (
            "GET /v1/query?mask=text,maybeText,child.long_number",
            "",
            r#"{"mask": "text,maybeText,child.longNumber"}"#,
        ),
        (
            "GET /v1/query?wrappedNumber=0&wrappedFlag=false&wrappedText=",
            "",
            r#"{"wrappedNumber": "0", "wrappedFlag": false, "wrappedText": ""}"#,
        ),
        (
            "GET /v1/query?eitherChild.text=a&eitherChild.flag=true",
            "",
            r#"{"eitherChild": {"text": "a", "flag": true}}"#,
        ),
        // The body.
        ("POST /v1/things", "", "{}"),
        ("POST /v1/things", " \n", "{}"),
        ("POST /v1/things", "{}", "{}"),
        (
            "POST /v1/things",
            r#"{"maybe_text": "a", "longNumber": 5, "long_unsigned_number": "6"}"#,
            r#"{"maybeText": "a", "longNumber": "5", "longUnsignedNumber": "6"}"#,
        ),
        (
            "POST /v1/things",
            r#"{"text": null, "child": null, "anyJson": null}"#,
            r#"{"anyJson": null}"#,
        ),
        (
            "POST /v1/things",
            r#"{"anyJson": {"a": [1, null, {"b": "c"}]}}"#,
            r#"{"anyJson": {"a": [1, null, {"b": "c"}]}}"#,
        ),
        (
            "POST /v1/things",
            r#"{"any": {"@type": "type.googleapis.com/transcoding.test.Thing", "text": "a"}}"#,
            r#"{"any": {"@type": "type.googleapis.com/transcoding.test.Thing", "text": "a"}}"#,
        ),
        (
            "PUT /v1/things/x",
            r#"{"text": "y"}"#,
            r#"{"text": "x", "child": {"text": "y"}}"#,
        ),
        ("PUT /v1/things/x", "", r#"{"text": "x"}"#),
        (
            "PUT /v1/things/x?flag=true",
            "{}",
            r#"{"text": "x", "flag": true, "child": {}}"#,
        ),
        (
            "PUT /v1/things/x/child",
            r#"{"flag": true}"#,
            r#"{"child": {"text": "x", "flag": true}}"#,
        ),
        ("PUT /v1/tags", r#"["a", "b"]"#, r#"{"tags": ["a", "b"]}"#),
        ("PUT /v1/number", r#""12""#, r#"{"longNumber": "12"}"#),
        ("PUT /v1/value", "null", r#"{"anyJson": null}"#),
        ("POST /v1/things/x:touch", "", r#"{"text": "x"}"#),
        ("POST /v1/things/x:touch", " { } ", r#"{"text": "x"}"#),
        ("PURGE /v1/things/x", "", r#"{"text": "x"}"#),
        ("POST /v1/things/x:cancel", "", r#"{"text": "x"}"#),
        ("GET /v1/things/x:cancel", "", r#"{"text": "x"}"#),
        // Path and body.
        (
            "PATCH /v1/things/x",
            r#"{"flag": true}"#,
            r#"{"text": "x", "flag": true}"#,
        ),
        ("PATCH /v1/things/x", r#"{"text": "x"}"#, r#"{"text": "x"}"#),
        ("PATCH /v1/things/x", r#"{"text": ""}"#, r#"{"text": "x"}"#),
        (
            "PATCH /v1/wrapped/0",
            r#"{"wrappedNumber": 0}"#,
            r#"{"wrappedNumber": "0"}"#,
        ),
        (
            "PATCH /v1/either/x",
            r#"{"eitherText": "x"}"#,
            r#"{"eitherText": "x"}"#,
        ),
        (
            "PATCH /v1/things/x/child",
            r#"{"child": {"flag": true}}"#,
            r#"{"child": {"flag": true, "child": {"text": "x"}}}"#,
        ),
    ];
    for (line, body, expected) in cases {
        // Messages of a type that holds itself cannot be printed, so no assert_eq.
        let reply = received(line, body).await;
        assert!(
            thing_of(&reply) == thing_of(expected),
            "{line} {body}: {reply}"
        );
    }
}

#[tokio::test]
async fn nesting_is_taken_as_deep_as_protobuf_takes_it() {
    for levels in [1, 50, 100] {
        let body = format!("{}{{}}{}", "{\"child\":".repeat(levels), "}".repeat(levels));
        let reply = received("POST /v1/things", &body).await;
        assert_eq!(reply.matches("\"child\":").count(), levels);
    }
}
