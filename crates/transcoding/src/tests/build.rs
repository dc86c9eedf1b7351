//! Which rules make a router.

use prost_reflect::DescriptorPool;

use super::super::{BuildError, Settings, Transcoder};

/// A service with one method for each of these rules, and the messages that they speak of.
fn build(rules: &[&str]) -> Result<(), BuildError> {
    let mut source = String::from(
        r#"syntax = "proto3"; package p;
        import "google/api/annotations.proto"; import "google/protobuf/timestamp.proto";
        message M {
          string a = 1; M m = 2; repeated string list = 3; map<string, string> map = 4;
          google.protobuf.Timestamp time = 5; repeated M ms = 6;
        }
        service S {"#,
    );
    for (index, rule) in rules.iter().enumerate() {
        source.push_str(&format!(
            "rpc R{index}(M) returns (M) {{ option (google.api.http) = {{ {rule} }}; }}\n"
        ));
    }
    source.push('}');
    // The source is no file: its imports come from the folder, itself from here.
    struct Source(String);
    impl protox::file::FileResolver for Source {
        fn open_file(&self, name: &str) -> Result<protox::file::File, protox::Error> {
            match name {
                "p.proto" => protox::file::File::from_source(name, &self.0),
                _ => Err(protox::Error::file_not_found(name)),
            }
        }
    }
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("proto");
    let mut resolver = protox::file::ChainFileResolver::new();
    resolver.add(Source(source));
    resolver.add(protox::file::IncludeFileResolver::new(folder));
    resolver.add(protox::file::GoogleFileResolver::new());
    let mut compiler = protox::Compiler::with_file_resolver(resolver);
    compiler.open_file("p.proto").expect("the source compiles");
    let pool: DescriptorPool = compiler.descriptor_pool();
    Transcoder::new(&pool, ["p.S"], (), Settings::default()).map(|_| ())
}

#[test]
fn right_rules_are_served() {
    let cases: &[&[&str]] = &[
        &[],
        &[
            r#"get: "/a/{a}""#,
            r#"delete: "/a/{a}""#,
            r#"post: "/a" body: "*""#,
        ],
        &[r#"get: "/{m.m.a}/{time}""#],
        &[r#"patch: "/{m.a}" body: "m""#],
        &[r#"put: "/x" body: "list""#, r#"put: "/y" body: "map""#],
        &[r#"custom { kind: "*" path: "/x" }"#, r#"get: "/x""#],
        &[
            r#"get: "/{a=**}""#,
            r#"get: "/{a=x/*}""#,
            r#"get: "/x/{a}:y""#,
        ],
    ];
    for rules in cases {
        build(rules).unwrap_or_else(|error| panic!("{error}: {rules:?}"));
    }
}

#[test]
fn wrong_rules_are_named() {
    let cases: &[(&[&str], &str)] = &[
        (
            &[r#"get: "/a/{a}""#, r#"get: "/a/{m.a}""#],
            "GET /a/{m.a} (p.S/R1) conflicts with GET /a/{a} (p.S/R0): the same method and shape of path",
        ),
        (
            &[r#"get: "/a" additional_bindings { get: "/a" }"#],
            "GET /a (p.S/R0) conflicts with GET /a (p.S/R0)",
        ),
        (
            &[r#"get: "a/b""#],
            "p.S/R0: path template \"a/b\": at offset 0: a template starts with '/'",
        ),
        (&[r#"get: """#], "p.S/R0: path template \"\""),
        (&[r#"body: "*""#], "it has no method"),
        (
            &[r#"custom { kind: "A B" path: "/x" }"#],
            "\"A B\" is no HTTP method",
        ),
        (&[r#"get: "/{b}""#], "GET /{b}: p.M has no field b"),
        (&[r#"get: "/{a.b}""#], "the field a is not a message"),
        (&[r#"get: "/{ms.a}""#], "the field ms is not a message"),
        (&[r#"get: "/{m}""#], "the field p.M.m cannot be a variable"),
        (
            &[r#"get: "/{list}""#],
            "the field p.M.list cannot be a variable",
        ),
        (
            &[r#"get: "/{map}""#],
            "the field p.M.map cannot be a variable",
        ),
        (
            &[r#"put: "/x" body: "b""#],
            "p.M has no field b for the body",
        ),
        (
            &[r#"put: "/{a}" body: "a""#],
            "the field a is bound by the path and by the body",
        ),
        (
            &[r#"get: "/x" response_body: "b""#],
            "GET /x: p.M has no field b for the response body",
        ),
        (
            &[r#"get: "/x" additional_bindings { get: "/y" additional_bindings { get: "/z" } }"#],
            "p.S/R0: its HTTP rule GET /y: an additional binding has additional bindings of its own",
        ),
        (
            &[r#"post: "/p.S/R0" body: "m""#, r#"post: "/p.S/R0""#],
            "POST /p.S/R0 (p.S/R1) conflicts with POST /p.S/R0 (p.S/R0)",
        ),
    ];
    for (rules, expected) in cases {
        let error = build(rules).expect_err(expected).to_string();
        assert!(
            error.contains(expected),
            "{error}\ndoes not contain\n{expected}"
        );
    }
}

#[test]
fn a_service_that_is_not_there_is_named() {
    let error = Transcoder::new(super::pool(), ["a.B"], (), Settings::default()).map(|_| ());
    let error = error.expect_err("there is no such service").to_string();
    assert_eq!(error, "the descriptors have no service a.B");
}
