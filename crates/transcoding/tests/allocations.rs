//! Finding the route of a request allocates nothing. In a test of its own, since the allocator that counts is that of
//! the whole program.

use http::Method;
use transcoding::{
    router::{Route, RouteMethod, Router},
    template::Template,
};

#[test]
fn a_match_allocates_nothing() {
    let mut router = Router::default();
    for (method, template) in [
        (Method::GET, "/compute/v1/images"),
        (Method::GET, "/compute/v1/images/{image_id}"),
        (Method::PATCH, "/compute/v1/images/{image_id}"),
        (Method::GET, "/operations/{operation_id}"),
        (Method::GET, "/operations/{operation_id}:cancel"),
        (Method::GET, "/files/{name=**}"),
        (Method::GET, "/files/{name=**}/meta/{key}"),
        (Method::GET, "/a%20b/{id}"),
    ] {
        let route = Route {
            serves_head: method == Method::GET,
            method: RouteMethod::Exactly(method),
            template: Template::parse(template).expect("a template"),
            value: template,
        };
        router.insert(route).expect("no conflict");
    }
    for (method, path, expected) in [
        (Method::GET, "/compute/v1/images", "/compute/v1/images"),
        (
            Method::HEAD,
            "/compute/v1/images/x",
            "/compute/v1/images/{image_id}",
        ),
        (
            Method::PATCH,
            "/compute/v1/images/x:y",
            "/compute/v1/images/{image_id}",
        ),
        (
            Method::GET,
            "/operations/x:cancel",
            "/operations/{operation_id}:cancel",
        ),
        (
            Method::GET,
            "/operations/x:c%61ncel",
            "/operations/{operation_id}:cancel",
        ),
        (Method::GET, "/oper%61tions/x", "/operations/{operation_id}"),
        (
            Method::GET,
            "/files/a/b/c/meta/d",
            "/files/{name=**}/meta/{key}",
        ),
        (Method::GET, "/a%20b/c%20d", "/a%20b/{id}"),
    ] {
        let counted = allocation_counter::measure(|| {
            let found = router.find(&method, path).expect("a route");
            assert_eq!(router.route(found).value, expected);
        });
        assert_eq!(counted.count_total, 0, "{path}");
        if !path.contains('%') {
            let counted = allocation_counter::measure(|| {
                let found = router.find(&method, path).expect("a route");
                assert!(router.captures(found, path).all(|(_, text)| text.is_ok()));
            });
            assert_eq!(counted.count_total, 0, "the captures of {path}");
        }
    }
    // It does count.
    let counted = allocation_counter::measure(|| drop(std::hint::black_box(path_of(&router))));
    assert!(counted.count_total > 0);
}

fn path_of(router: &Router<&'static str>) -> String {
    router.routes()[0].value.to_owned()
}
