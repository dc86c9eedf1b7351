//! What is refused of paths, queries and bodies, and how.

use super::{request, send, send_request};

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
            "GET /v1/query?mask=a-b",
            "",
            "must be names of fields joined by commas",
            Some("mask"),
        ),
        (
            "GET /v1/query?mask=a_",
            "",
            "must be names of fields joined by commas",
            Some("mask"),
        ),
        (
            "GET /v1/query?mask=a_1",
            "",
            "must be names of fields joined by commas",
            Some("mask"),
        ),
        (
            "GET /v1/query?mask=a..b",
            "",
            "must be names of fields joined by commas",
            Some("mask"),
        ),
        (
            "GET /v1/query?mask=a,.b",
            "",
            "must be names of fields joined by commas",
            Some("mask"),
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
async fn what_the_client_sent_is_not_repeated_at_length() {
    let long = "x".repeat(20_000);
    let requests = [
        (format!("GET /{long}"), String::new()),
        (format!("GET /v1/query?{long}=1"), String::new()),
        (format!("GET /v1/number/{long}"), String::new()),
        ("POST /v1/things".to_owned(), format!("{{\"{long}\": 1}}")),
        (
            "POST /v1/things".to_owned(),
            format!("{{\"flag\": \"{long}\"}}"),
        ),
        (
            "POST /v1/things".to_owned(),
            format!("{{\"labels\": {{\"{long}\": 1}}}}"),
        ),
    ];
    for (line, body) in requests {
        let reply = send(&line, &[], &body).await;
        assert!(matches!(reply.status, 400 | 404), "{}", reply.status);
        assert!(reply.body.len() < 2_000, "{}", reply.body.len());
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
