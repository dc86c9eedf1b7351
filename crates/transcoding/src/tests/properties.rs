//! Properties of any request and any text.

use proptest::prelude::*;
use prost_reflect::{DynamicMessage, Value};

use super::{
    super::{json, values},
    request, send_request, thing, thing_of,
};

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
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        let parsed: Result<http::Uri, _> = line.split_once(' ').expect("two words").1.parse();
        prop_assume!(parsed.is_ok());
        let reply = runtime.block_on(send_request(request(&line, &[], &body)));
        prop_assert!(reply.status < 500, "{} {:?}: {}", line, body, reply.body);
        reply.json();
    }
}

proptest! {
    /// A text taken as the value of a field can be written back as JSON, whatever it is.
    #[test]
    fn any_text_is_a_value_or_is_refused(
        text in prop_oneof![
            "-?[0-9]{1,22}(\\.[0-9]{0,12})?([eE][+-]?[0-9]{1,4})?s?",
            "[0-9]{4}-[0-9]{2}-[0-3][0-9]T[0-6][0-9]:[0-6][0-9]:[0-6][0-9](\\.[0-9]{0,12})?(Z|[+-][0-9]{2}:[0-9]{2})",
            "[a-zA-Z_.,]{0,12}",
            "\\PC{0,12}",
        ],
    ) {
        for field in thing().fields().filter(|field| !field.is_list() && !field.is_map()) {
            let Ok(value) = values::parse(&field.kind(), &text) else {
                continue;
            };
            let mut message = DynamicMessage::new(thing());
            message.set_field(&field, value);
            let written = json::write(&message);
            prop_assert!(written.is_ok(), "{} {text}: {written:?}", field.name());
            if matches!(message.get_field(&field).as_ref(), Value::Message(_)) {
                let json = String::from_utf8(written.unwrap_or_default()).expect("JSON");
                prop_assert!(thing_of(&json).has_field(&field), "{json}");
            }
        }
    }
}
