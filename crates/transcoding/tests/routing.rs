//! Which path leads where, and which routes cannot stand together.

#![allow(
    clippy::expect_used,
    reason = "a test that fails may panic where it stands"
)]

use std::borrow::Cow;

use http::Method;
use proptest::prelude::*;

use transcoding::{
    router::{Miss, Route, RouteMethod, Router},
    template::Template,
};
use transcoding_reference::{matcher, routers};

fn router(routes: &[&str]) -> Router<String> {
    let mut router = Router::default();
    for text in routes {
        let (method, template) = text.split_once(' ').expect("a method and a template");
        let method = match method {
            "ANY" => RouteMethod::Any,
            method => RouteMethod::Exactly(method.parse().expect("a method")),
        };
        let serves_head = method == RouteMethod::Exactly(Method::GET);
        let route = Route {
            method,
            serves_head,
            template: Template::parse(template).expect("a template"),
            value: (*text).to_owned(),
        };
        router.insert(route).expect("no conflict");
    }
    router
}

/// The route found with its captures, or the miss, as text.
fn find(router: &Router<String>, request: &str) -> String {
    let (method, path) = request.split_once(' ').expect("a method and a path");
    match router.find(&method.parse().expect("a method"), path) {
        Ok(found) => {
            let mut text = router.route(found).value.clone();
            for (variable, value) in router.captures(found, path) {
                let value = value.map_or_else(|error| error.to_string(), Cow::into_owned);
                text.push_str(&format!(" {}={value}", variable.field_path.join(".")));
            }
            text
        }
        Err(Miss::NotFound) => "404".to_owned(),
        Err(Miss::MethodNotAllowed(allow)) => format!("405 {allow}"),
        Err(Miss::BadPath(error)) => format!("400 {error}"),
    }
}

#[test]
fn paths_lead_to_their_routes() {
    let router = router(&[
        "GET /v1/things",
        "POST /v1/things",
        "POST /v1/things:copy",
        "GET /v1/things/{id}",
        "DELETE /v1/things/{id}",
        "POST /v1/things/{id}:stop",
        "POST /v1/things/special",
        "GET /v1/things/{id}/parts/{part}",
        "GET /v1/things/*/parts/first",
        "GET /files/{name=**}",
        "GET /files/{name=**}/meta/{key}",
        "POST /files/{name=**}:move",
        "GET /deep/{name=shelves/*/books/**}",
        "GET /a%20b/{id}",
        "ANY /any/{id}",
        "PUT /any/{id}",
        "PURGE /cache",
        "OPTIONS /own",
    ]);
    let cases = [
        ("GET /v1/things", "GET /v1/things"),
        ("GET /v1/things/", "404"),
        ("GET /v1//things", "404"),
        ("GET v1/things", "404"),
        ("GET /", "404"),
        ("GET *", "404"),
        ("POST /v1/things:copy", "POST /v1/things:copy"),
        ("GET /v1/things:copy", "405 OPTIONS, POST"),
        ("POST /v1/things:unknown", "404"),
        ("GET /v1/things/x", "GET /v1/things/{id} id=x"),
        ("HEAD /v1/things/x", "GET /v1/things/{id} id=x"),
        ("PUT /v1/things/x", "405 DELETE, GET, HEAD, OPTIONS"),
        ("OPTIONS /v1/things", "405 GET, HEAD, OPTIONS, POST"),
        ("GET /v1/things/a%2Fb", "GET /v1/things/{id} id=a/b"),
        ("GET /v1/things/%41", "GET /v1/things/{id} id=A"),
        ("GET /v1/thing%73/x", "GET /v1/things/{id} id=x"),
        ("POST /v1/things/x:stop", "POST /v1/things/{id}:stop id=x"),
        ("POST /v1/things/x:%73top", "POST /v1/things/{id}:stop id=x"),
        ("GET /v1/things/x:stop", "405 OPTIONS, POST"),
        ("GET /v1/things/x%3Astop", "GET /v1/things/{id} id=x:stop"),
        ("GET /v1/things/x:else", "GET /v1/things/{id} id=x:else"),
        ("GET /v1/things/x:", "GET /v1/things/{id} id=x:"),
        ("GET /v1/things/:stop", "GET /v1/things/{id} id=:stop"),
        (
            "POST /v1/things/a:b:stop",
            "POST /v1/things/{id}:stop id=a:b",
        ),
        // A literal comes first, but only where it has the method.
        ("POST /v1/things/special", "POST /v1/things/special"),
        ("GET /v1/things/special", "GET /v1/things/{id} id=special"),
        (
            "PUT /v1/things/special",
            "405 DELETE, GET, HEAD, OPTIONS, POST",
        ),
        (
            "GET /v1/things/x/parts/first",
            "GET /v1/things/*/parts/first",
        ),
        (
            "GET /v1/things/special/parts/7",
            "GET /v1/things/{id}/parts/{part} id=special part=7",
        ),
        ("GET /files", "GET /files/{name=**} name="),
        ("GET /files/", "GET /files/{name=**} name="),
        ("GET /files/a", "GET /files/{name=**} name=a"),
        ("GET /files/a//b/", "GET /files/{name=**} name=a//b/"),
        (
            "GET /files/a%2Fb%20/c",
            "GET /files/{name=**} name=a%2Fb /c",
        ),
        (
            "GET /files/a/b/meta/k",
            "GET /files/{name=**}/meta/{key} name=a/b key=k",
        ),
        (
            "GET /files/meta/k",
            "GET /files/{name=**}/meta/{key} name= key=k",
        ),
        (
            "GET /files/meta/meta/meta/k",
            "GET /files/{name=**}/meta/{key} name=meta/meta key=k",
        ),
        ("GET /files/meta", "GET /files/{name=**} name=meta"),
        (
            "POST /files/a/b:move",
            "POST /files/{name=**}:move name=a/b",
        ),
        ("GET /files/a:x/b", "GET /files/{name=**} name=a:x/b"),
        (
            "GET /deep/shelves/1/books/2/3",
            "GET /deep/{name=shelves/*/books/**} name=shelves/1/books/2/3",
        ),
        (
            "GET /deep/shelves/1/books",
            "GET /deep/{name=shelves/*/books/**} name=shelves/1/books",
        ),
        ("GET /deep/shelves/1", "404"),
        ("GET /a%20b/c", "GET /a%20b/{id} id=c"),
        ("GET /a+b/c", "404"),
        ("PUT /any/x", "PUT /any/{id} id=x"),
        ("LINK /any/x", "ANY /any/{id} id=x"),
        ("PURGE /cache", "PURGE /cache"),
        ("GET /cache", "405 OPTIONS, PURGE"),
        ("OPTIONS /own", "OPTIONS /own"),
        (
            "GET /v1/things/%zz",
            "400 has a '%' that is not followed by two hexadecimal digits",
        ),
        (
            "GET /v1/things/%ff",
            "GET /v1/things/{id} id=is not valid UTF-8 once its percent-encoding is decoded",
        ),
    ];
    for (request, expected) in cases {
        assert_eq!(find(&router, request), expected, "{request}");
    }
}

#[test]
fn the_same_shape_under_the_same_method_is_a_conflict() {
    let cases = [
        ("GET /a/{b}", "GET /a/{c}", true),
        ("GET /a/{b}", "GET /a/*", true),
        ("GET /a/{b}:x", "GET /a/{c}:x", true),
        ("GET /{a=x/*}", "GET /x/{a}", true),
        ("GET /a/%41", "GET /a/A", true),
        ("GET /a/{b}:x", "GET /a/{c}", false),
        ("GET /a/{b}", "POST /a/{b}", false),
        ("GET /a/{b}", "ANY /a/{b}", false),
        ("GET /a/{b=**}", "GET /a/{b}", false),
    ];
    for (first, second, conflict) in cases {
        let mut router = router(&[first]);
        let (method, template) = second.split_once(' ').expect("a method and a template");
        let method = match method {
            "ANY" => RouteMethod::Any,
            method => RouteMethod::Exactly(method.parse().expect("a method")),
        };
        let result = router.insert(Route {
            method,
            serves_head: false,
            template: Template::parse(template).expect("a template"),
            value: second.to_owned(),
        });
        let expected = if conflict {
            Err(&first.to_owned())
        } else {
            Ok(())
        };
        assert_eq!(result, expected, "{first} and {second}");
    }
}

proptest! {
    /// Whatever a template's variables are filled with comes back from the path, encoded or not.
    #[test]
    fn captures_return_what_was_put_in(
        id in "[^/]{1,12}",
        parts in proptest::collection::vec("[a-z0-9.~_-]{0,6}", 0..6),
        key in "\\PC{1,12}",
    ) {
        use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
        let router = router(&["GET /x/{id}/{name=**}/tail/{key}"]);
        let mut path = format!("/x/{}", utf8_percent_encode(&id, NON_ALPHANUMERIC));
        for part in &parts {
            path.push('/');
            path.push_str(part);
        }
        path.push_str(&format!("/tail/{}", utf8_percent_encode(&key, NON_ALPHANUMERIC)));
        let found = router.find(&Method::GET, &path).map_err(|miss| {
            TestCaseError::fail(format!("{path}: {miss:?}"))
        })?;
        let values: Vec<_> = router.captures(found, &path).map(|(_, value)| value).collect();
        prop_assert_eq!(values, vec![
            Ok(Cow::Owned(id)),
            Ok(Cow::Owned(parts.join("/"))),
            Ok(Cow::Owned(key)),
        ]);
    }

    #[test]
    fn any_path_is_answered(path in "(/([a-z:%/]|%2F|%zz|я|\\PC){0,8}){0,6}", method in "[A-Z]{1,7}") {
        let router = router(&[
            "GET /{name=**}:a", "GET /a/{name=**}/b", "POST /{a}/{b=*/c}", "ANY /x/**",
        ]);
        let method = Method::from_bytes(method.as_bytes()).expect("letters are a method");
        if let Ok(found) = router.find(&method, &path) {
            prop_assert!(router.captures(found, &path).count() <= 2);
        }
    }
    #[test]
    fn any_path_leads_where_the_slow_matcher_says(
        rules in proptest::collection::vec(rule(), 0..10),
        method in "GET|POST|HEAD|PUT|OPTIONS",
        path in "(/(a|b|%61|%62|a%2Fb|a:b|c|%ff|)){0,5}(:a|:%62|:c|%|)",
    ) {
        let (router, rules) = routers::build(rules);
        routers::compare(&router, &rules, &method, &path);
    }
}

/// Rules of few words, so that they meet each other and the paths.
fn rule() -> impl Strategy<Value = matcher::Rule> {
    let segment = r"a|b|%61|a%3Ab|\*|\*\*|\{v\}|\{v=\*\*\}|\{w=a/\*\*\}|\{w=\*/b\}";
    let segments = proptest::collection::vec(segment, 1..4);
    let rule = ("GET|POST|HEAD|\\*", any::<bool>(), segments, "|:a|:b");
    rule.prop_filter_map("a template", |(method, serves_head, segments, verb)| {
        let template = format!("/{}{verb}", segments.join("/"));
        Some(matcher::Rule {
            method,
            serves_head,
            template: Template::parse(&template).ok()?,
        })
    })
}
