//! How deep bodies may be nested.

use super::send;

/// The message that the service received, as JSON, of a request that must succeed.
async fn received(line: &str, body: &str) -> String {
    let reply = send(line, &[], body).await;
    assert_eq!(reply.status, 200, "{line} {body}: {}", reply.body);
    reply.body
}

#[tokio::test]
async fn nesting_is_taken_as_deep_as_protobuf_takes_it() {
    for levels in [1, 50, 100] {
        let body = format!("{}{{}}{}", "{\"child\":".repeat(levels), "}".repeat(levels));
        let reply = received("POST /v1/things", &body).await;
        assert_eq!(reply.matches("\"child\":").count(), levels);
    }
}
