//! Headers of the Connect protocol: metadata both ways, and refusals of layers in front.

use http::{HeaderMap, Request};
use http_body_util::BodyExt;
use tower::ServiceExt;

use super::super::{connect_error, is_connect};
use super::connect::{CONNECT, JSON, METHOD, PROTO, ask, header};
use super::{pool, request};

#[tokio::test]
async fn headers_are_metadata_both_ways() {
    let headers = [
        PROTO,
        CONNECT,
        ("connect-timeout-ms", "5000"),
        ("connect-accept-encoding", "gzip"),
        ("authorization", "Bearer t"),
        ("x-data-bin", "AP8="),
        ("accept-encoding", "gzip"),
        ("x-many", "1"),
        ("x-many", "2"),
    ];
    let (head, _) = ask(&format!("POST {METHOD}"), &headers, b"").await;
    let mut seen: Vec<_> = head
        .headers
        .iter()
        .filter_map(|(name, value)| Some((name.as_str().strip_prefix("seen-")?, value)))
        .map(|(name, value)| format!("{name}: {}", value.to_str().expect("text")))
        .collect();
    seen.sort();
    assert_eq!(
        seen,
        [
            "authorization: Bearer t",
            "bytes: 5",
            "content-type: application/grpc",
            "grpc-timeout: 5000m",
            "line: POST /transcoding.test.Things/Create HTTP/2.0",
            "te: trailers",
            "x-data-bin: AP8",
            "x-many: 1",
            "x-many: 2",
        ]
    );
    assert_eq!(header(&head, "x-reply"), Some("from the service"));
    assert_eq!(header(&head, "grpc-metadata-x-reply"), None);
    assert_eq!(header(&head, "grpc-encoding"), None);
    let (head, body) = ask(
        "POST /transcoding.test.Things/Create",
        &[PROTO, ("connect-timeout-ms", "9999999999")],
        b"",
    )
    .await;
    assert_eq!(head.status, 200, "{body:?}");
    assert_eq!(header(&head, "seen-grpc-timeout"), Some("9999999S"));
}

#[tokio::test]
async fn metadata_behind_the_reply_has_the_prefix_of_trailers() {
    use http_body::Frame;
    use tonic::body::Body;

    let service = tower::service_fn(|_: Request<Body>| async {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", "0".parse().expect("a value"));
        trailers.append("x-cost", "1".parse().expect("a value"));
        trailers.append("x-cost", "2".parse().expect("a value"));
        trailers.insert("x-data-bin", "AP8".parse().expect("a value"));
        let frames = vec![Frame::data(super::data(b"")), Frame::trailers(trailers)];
        Ok(http::Response::new(Body::new(super::Pieces(
            frames.into_iter(),
        ))))
    });
    let transcoder = super::Transcoder::new(
        pool(),
        [super::SERVICE],
        service,
        super::Settings::default(),
    )
    .expect("the rules are right");
    let request = request(&format!("POST {METHOD}"), &[PROTO], b"");
    let Ok(response) = transcoder.oneshot(request).await;
    let headers = response.headers();
    let costs: Vec<_> = headers.get_all("trailer-x-cost").iter().collect();
    assert_eq!(costs, ["1", "2"]);
    assert_eq!(headers["trailer-x-data-bin"], "AP8");
    assert!(!headers.contains_key("trailer-grpc-status"));
}

/// A service in front can refuse in the protocol, too.
#[tokio::test]
async fn layers_in_front_can_answer_in_the_protocol() {
    let status = tonic::Status::permission_denied("no");
    for (line, headers, expected) in [
        (
            "POST /a/b",
            &[CONNECT][..],
            Some((
                403,
                "application/json",
                &b"{\"code\":\"permission_denied\",\"message\":\"no\"}"[..],
            )),
        ),
        (
            "GET /a/b?x=y&connect=v1",
            &[],
            Some((
                403,
                "application/json",
                b"{\"code\":\"permission_denied\",\"message\":\"no\"}",
            )),
        ),
        (
            "POST /a/b",
            &[("content-type", "application/connect+proto")],
            Some((
                200,
                "application/connect+proto",
                b"\x02\0\0\0\x35{\"error\":{\"code\":\"permission_denied\",\"message\":\"no\"}}",
            )),
        ),
        ("POST /a/b", &[JSON], None),
        ("GET /a/b?x=connect=v1", &[], None),
        ("POST /a/b?connect=v1", &[], None),
    ] {
        let request = request(line, headers, b"");
        assert_eq!(is_connect(&request), expected.is_some(), "{line}");
        let response = connect_error(&request, &status, pool());
        assert_eq!(response.is_some(), expected.is_some(), "{line}");
        if let (Some(response), Some((status, content_type, body))) = (response, expected) {
            assert_eq!(response.status(), status);
            assert_eq!(response.headers()["content-type"], content_type);
            let got = response
                .into_body()
                .collect()
                .await
                .expect("a body")
                .to_bytes();
            assert_eq!(got[..], body[..], "{line}");
        }
    }
}
