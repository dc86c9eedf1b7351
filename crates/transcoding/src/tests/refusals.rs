//! Refusals of what is too large or too deep for a table.

use super::{request, send, send_request};

#[tokio::test]
async fn bodies_nested_too_deep_are_refused() {
    let deep = format!("{}{{}}{}", "{\"child\":".repeat(120), "}".repeat(120));
    let deep_list = format!(
        "{{\"anyJson\":{}{}}}",
        "[".repeat(10_000),
        "]".repeat(10_000)
    );
    for body in [deep, deep_list] {
        let reply = send("POST /v1/things", &[], &body).await;
        assert_eq!(reply.status, 400, "{}", reply.body);
        assert!(
            reply.body.contains("nested more than 100 levels deep"),
            "{}",
            reply.body
        );
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
