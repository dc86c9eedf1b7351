//! How path, query and body become a message, and what is refused.

use proptest::prelude::*;

use super::{request, send, send_request, thing_of};

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
async fn bad_requests_are_refused_with_their_field() {
    let deep_query = format!("GET /v1/query?{}text=x", "child.".repeat(40));
    let deep_body = format!("{}{{}}{}", "{\"child\":".repeat(120), "}".repeat(120));
    let deep_list = format!(
        "{{\"anyJson\":{}{}}}",
        "[".repeat(10_000),
        "]".repeat(10_000)
    );
    let cases: &[(&str, &str, &str, Option<&str>)] = &[
        // Paths.
        ("GET /v1/things/%zz", "", "the path has a '%'", None),
        (
            "GET /v1/things/%ff",
            "",
            "the path is not valid UTF-8",
            None,
        ),
        (
            "GET /v1/number/2147483648",
            "",
            "must be a whole number from -2147483648 to 2147483647 in the path",
            Some("signed_number"),
        ),
        (
            "GET /v1/time/today",
            "",
            "must be a time as in 2026-01-31T23:59:59.5Z",
            Some("time"),
        ),
        (
            "GET /v1/colour/BLUE",
            "",
            "a name or a number of the enum Colour (COLOUR_UNSPECIFIED, RED, GREEN)",
            Some("colour"),
        ),
        // Queries.
        ("GET /v1/query?text=%f", "", "the query has a '%'", None),
        (
            "GET /v1/query?text=%ff",
            "",
            "the query is not valid UTF-8",
            None,
        ),
        (
            "GET /v1/query?nothing=1",
            "",
            "nothing: unknown query parameter",
            Some("nothing"),
        ),
        ("GET /v1/query?=1", "", "unknown query parameter", Some("")),
        (
            "GET /v1/query?child.=1",
            "",
            "unknown query parameter",
            Some("child."),
        ),
        (
            "GET /v1/query?text.x=1",
            "",
            "unknown query parameter",
            Some("text.x"),
        ),
        (
            "GET /v1/query?time.seconds=1",
            "",
            "unknown query parameter",
            Some("time.seconds"),
        ),
        (
            "GET /v1/query?children.text=1",
            "",
            "unknown query parameter",
            Some("children.text"),
        ),
        (
            "GET /v1/query?labels[a=1",
            "",
            "unknown query parameter",
            Some("labels[a"),
        ),
        (
            "GET /v1/query?labels=a",
            "",
            "must be given as name[key]=value",
            Some("labels"),
        ),
        (
            "GET /v1/query?labels[a]=1&labels[a]=1",
            "",
            "given more than once",
            Some("labels[a]"),
        ),
        (
            "GET /v1/query?colours[a]=RED",
            "",
            "the key must be a whole number",
            Some("colours[a]"),
        ),
        (
            "GET /v1/query?named[a]=x",
            "",
            "must be given field by field or in the body",
            Some("named[a]"),
        ),
        (
            "GET /v1/query?text[a]=1",
            "",
            "has no keys",
            Some("text[a]"),
        ),
        (
            "GET /v1/query?child=x",
            "",
            "must be given field by field",
            Some("child"),
        ),
        (
            "GET /v1/query?anyJson=1",
            "",
            "must be given field by field or in the body",
            Some("anyJson"),
        ),
        (
            "GET /v1/query?text=a&text=a",
            "",
            "given more than once",
            Some("text"),
        ),
        (
            "GET /v1/query?maybe_text=a&maybeText=a",
            "",
            "given more than once",
            Some("maybeText"),
        ),
        (
            "GET /v1/query?eitherText=a&eitherNumber=1",
            "",
            "cannot be given together with either_text: only one of either can",
            Some("eitherNumber"),
        ),
        (
            "GET /v1/either/x?eitherChild.text=1",
            "",
            "cannot be given together with either_text",
            Some("eitherChild.text"),
        ),
        (
            "GET /v1/things/x?text=x",
            "",
            "already given in the path",
            Some("text"),
        ),
        (
            "GET /v1/query/x?child.text=x",
            "",
            "already given in the path",
            Some("child.text"),
        ),
        (
            "PUT /v1/things/x?child.flag=true",
            "{}",
            "already taken from the body",
            Some("child.flag"),
        ),
        (
            "POST /v1/things?text=x",
            "{}",
            "unknown query parameter: this method takes its fields in the body",
            Some("text"),
        ),
        (
            "GET /v1/query?flag=1",
            "",
            "must be true or false",
            Some("flag"),
        ),
        (
            "GET /v1/query?unsignedNumber=-1",
            "",
            "must be a whole number from 0 to 4294967295",
            Some("unsignedNumber"),
        ),
        (
            "GET /v1/query?longNumber=9223372036854775808",
            "",
            "must be a whole number from",
            Some("longNumber"),
        ),
        (
            "GET /v1/query?longNumber=1.0",
            "",
            "must be a whole number from",
            Some("longNumber"),
        ),
        (
            "GET /v1/query?narrowFloat=1e39",
            "",
            "within the range of a 32-bit float",
            Some("narrowFloat"),
        ),
        (
            "GET /v1/query?wideFloat=1e999",
            "",
            "must be a number, NaN",
            Some("wideFloat"),
        ),
        (
            "GET /v1/query?wideFloat=inf",
            "",
            "must be a number, NaN",
            Some("wideFloat"),
        ),
        ("GET /v1/query?data=a", "", "must be base64", Some("data")),
        (
            "GET /v1/query?length=1",
            "",
            "must be a number of seconds with an s",
            Some("length"),
        ),
        (
            "GET /v1/query?wrappedFlag=maybe",
            "",
            "must be true or false",
            Some("wrappedFlag"),
        ),
        (&deep_query, "", "more than 32 names deep", None),
        // Bodies.
        (
            "POST /v1/things",
            "{",
            "the body is not valid JSON (line 1, column 1)",
            None,
        ),
        (
            "POST /v1/things",
            "x",
            "the body is not valid JSON (line 1, column 1)",
            None,
        ),
        ("POST /v1/things", "{} {}", "trailing characters", None),
        ("POST /v1/things", "[]", "invalid type: sequence", None),
        ("POST /v1/things", "null", "invalid type: null", None),
        (
            "POST /v1/things",
            "{\"text\": \"\\ud800\"}",
            "the body is not valid JSON",
            Some("text"),
        ),
        (
            "POST /v1/things",
            "{\n  \"nothing\": 1}",
            "(line 2, column 11, field \"nothing\"): unrecognized field",
            Some("nothing"),
        ),
        (
            "POST /v1/things",
            r#"{"text": 5}"#,
            "invalid type: integer `5`, expected a string",
            Some("text"),
        ),
        (
            "POST /v1/things",
            r#"{"child": {"children": [{}, {"flag": 1}]}}"#,
            "expected a boolean",
            Some("child.children[1].flag"),
        ),
        (
            "POST /v1/things",
            r#"{"signedNumber": 1e10}"#,
            "out of range",
            Some("signedNumber"),
        ),
        (
            "POST /v1/things",
            r#"{"longNumber": 1e999}"#,
            "number out of range",
            Some("longNumber"),
        ),
        (
            "POST /v1/things",
            r#"{"colour": "BLUE"}"#,
            "unrecognized enum value 'BLUE'",
            Some("colour"),
        ),
        ("POST /v1/things", r#"{"time": "today"}"#, "", Some("time")),
        (
            "POST /v1/things",
            r#"{"tags": [null]}"#,
            "invalid type: null",
            Some("tags[0]"),
        ),
        (
            "POST /v1/things",
            r#"{"text": "a", "text": "a"}"#,
            "duplicate name \"text\"",
            Some("text"),
        ),
        (
            "POST /v1/things",
            r#"{"maybeText": "a", "maybe_text": "a"}"#,
            "duplicate name \"maybe_text\"",
            Some("maybe_text"),
        ),
        (
            "POST /v1/things",
            r#"{"children": [{"flag": true, "fl\u0061g": true}]}"#,
            "duplicate name \"flag\"",
            Some("children[0].flag"),
        ),
        (
            "POST /v1/things",
            r#"{"labels": {"a": "", "a": ""}}"#,
            "duplicate name \"a\"",
            Some("labels.a"),
        ),
        (
            "POST /v1/things",
            r#"{"colours": {"1": 0, "01": 0}}"#,
            "duplicate name \"01\"",
            Some("colours.01"),
        ),
        (
            "POST /v1/things",
            r#"{"anyJson": {"a": 1, "a": 1}}"#,
            "duplicate name \"a\"",
            Some("anyJson.a"),
        ),
        (
            "POST /v1/things",
            r#"{"eitherText": "a", "eitherNumber": 1}"#,
            "multiple fields provided for oneof",
            Some("eitherNumber"),
        ),
        (
            "POST /v1/things",
            &deep_body,
            "nested more than 100 levels deep",
            None,
        ),
        (
            "POST /v1/things",
            &deep_list,
            "nested more than 100 levels deep",
            None,
        ),
        (
            "PUT /v1/tags",
            r#"["a"], "flag": true"#,
            "trailing characters",
            None,
        ),
        (
            "PUT /v1/tags",
            r#"["a", 1]"#,
            "(line 1, column 7, field \"tags[1]\")",
            Some("tags[1]"),
        ),
        (
            "POST /v1/things/x:touch",
            r#"{"flag": true}"#,
            "this method takes no body",
            None,
        ),
        ("GET /v1/query", "[]", "this method takes no body", None),
        // Path against body.
        (
            "PATCH /v1/things/x",
            r#"{"text": "y"}"#,
            "the body contradicts the path",
            Some("text"),
        ),
        (
            "PATCH /v1/maybe/x",
            r#"{"maybeText": ""}"#,
            "the body contradicts the path",
            Some("maybe_text"),
        ),
        (
            "PATCH /v1/either/x",
            r#"{"eitherNumber": 1}"#,
            "cannot be given together with either_number",
            Some("either_text"),
        ),
        (
            "PUT /v1/things/x/child",
            r#"{"text": "y"}"#,
            "the body contradicts the path",
            Some("child.text"),
        ),
    ];
    for (line, body, message, field) in cases {
        let reply = send(line, &[], body).await;
        let what = format!("{line} {:.200}: {}", body, reply.body);
        assert_eq!(reply.status, 400, "{what}");
        let json = reply.json();
        assert_eq!(json["code"], 3, "{what}");
        let text = json["message"].as_str().expect("a message");
        assert!(text.contains(message), "{what}\nwithout: {message}");
        assert!(text.len() < 700, "{what}");
        if let Some(field) = field {
            let detail = &json["details"][0];
            assert_eq!(
                detail["@type"], "type.googleapis.com/google.rpc.BadRequest",
                "{what}"
            );
            assert_eq!(detail["fieldViolations"][0]["field"], *field, "{what}");
        }
    }
}

#[tokio::test]
async fn a_body_that_is_not_utf8_is_refused_with_its_place() {
    let reply = send_request(request("POST /v1/things", &[], b"{\n\"text\": \"a\xff\"}")).await;
    assert_eq!(reply.status, 400, "{}", reply.body);
    assert!(
        reply.body.contains("(line 2, column 11): not valid UTF-8"),
        "{}",
        reply.body
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    /// Whatever is sent, the reply is JSON with a code that says whose fault it is: never a panic,
    /// never a 5xx.
    #[test]
    fn any_request_is_answered(
        line in prop_oneof![
            "(GET|POST|PUT|PATCH) /v1/(things|query|number|tags|either|bytes|time)(/[a-z0-9%:._-]{0,8}){0,2}(:[a-z]{0,6})?",
            "GET /v1/query\\?([a-zT]{1,6}|text|child\\.time|labels\\[[a-z]\\]|colours\\[1\\]|mask|length|data|wideFloat|times)=[A-Za-z0-9%+.,:_-]{0,12}(&(text|tags|time|flag|length)=[a-z0-9%.:-]{0,10}){0,3}",
            "(POST|PUT) /v1/(things|tags|number|value)",
        ],
        body in prop_oneof![
            Just(Vec::new()),
            proptest::collection::vec(any::<u8>(), 0..40),
            "[\\[\\]{}:,\"a-z0-9. \\\\-]{0,40}".prop_map(String::into_bytes),
            "\\{\"(text|child|labels|time|length|mask|any|anyJson|numbers|data|colours|wrappedNumber)\": ?(\\PC{0,10}|\"[0-9TZ:.,s+-]{0,24}\"|[0-9.eE+-]{1,12}|\\{\"(@type|value|text|1)\": ?\"[a-z./]{0,12}\"\\}|\\[[0-9,]{0,6}\\])\\}".prop_map(String::into_bytes),
        ],
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let parsed: Result<http::Uri, _> = line.split_once(' ').expect("two words").1.parse();
        prop_assume!(parsed.is_ok());
        let reply = runtime.block_on(send_request(request(&line, &[], &body)));
        prop_assert!(reply.status < 500, "{} {:?}: {}", line, body, reply.body);
        reply.json();
    }
}
