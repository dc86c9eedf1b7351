//! A trie of path segments whose leaves know their verbs and methods.
//!
//! A path is split while it is still encoded, and decoded piece by piece. At every segment a literal
//! beats `*` beats `**`, with backtracking. What stands behind the last `:` of the last segment is
//! looked up as a verb first; a verb that no template at this place knows belongs to the segment.
//! Finding a route and its captures allocates only where a segment is percent-encoded.

use std::{borrow::Cow, collections::BTreeSet, collections::HashMap};

use http::Method;

use super::{
    percent::{self, DecodeError},
    template::{Segment, Template, Variable},
};

/// Routes to values of any kind.
#[derive(Debug)]
pub struct Router<T> {
    root: Node,
    routes: Vec<Route<T>>,
}

/// One template under one method.
#[derive(Debug)]
pub struct Route<T> {
    /// The method served.
    pub method: RouteMethod,
    /// Whether HEAD is served too (a GET without side effects).
    pub serves_head: bool,
    /// The template of the path.
    pub template: Template,
    /// What the route leads to.
    pub value: T,
}

/// The methods that a route serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RouteMethod {
    /// Every method that has no route of its own: the custom kind `*`.
    Any,
    /// One method.
    Exactly(Method),
}

/// A route found, and the part of the path that its template matched.
#[derive(Debug)]
pub struct Match<'r, 'p, T> {
    /// The route.
    pub route: &'r Route<T>,
    path: &'p str,
}

/// Why a path leads nowhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Miss {
    /// The path cannot be decoded.
    BadPath(DecodeError),
    /// No template matches the path.
    NotFound,
    /// Templates match, but none under this method; the value of `Allow`.
    MethodNotAllowed(String),
}

#[derive(Debug, Default)]
struct Node {
    literals: HashMap<Box<str>, Node>,
    single: Option<Box<Node>>,
    multi: Option<Box<Node>>,
    ends: Vec<End>,
}

/// Templates that end at a node with one verb, or none.
#[derive(Debug)]
struct End {
    verb: Option<Box<str>>,
    routes: Vec<usize>,
}

impl<T> Default for Router<T> {
    fn default() -> Self {
        Self {
            root: Node::default(),
            routes: Vec::new(),
        }
    }
}

impl<T> Router<T> {
    /// Adds a route. Where another has the same method and a template of the same shape, the new one
    /// is not added, and the value of the other is the error.
    pub fn insert(&mut self, route: Route<T>) -> Result<(), &T> {
        let mut node = &mut self.root;
        for segment in &route.template.segments {
            node = match segment {
                Segment::Literal(text) => node.literals.entry(text.as_str().into()).or_default(),
                Segment::Single => node.single.get_or_insert_default(),
                Segment::Multi => node.multi.get_or_insert_default(),
            };
        }
        let verb = route.template.verb.as_deref();
        let index = match node.ends.iter().position(|end| end.verb.as_deref() == verb) {
            Some(index) => index,
            None => {
                node.ends.push(End {
                    verb: verb.map(Into::into),
                    routes: Vec::new(),
                });
                node.ends.len() - 1
            }
        };
        let end = &mut node.ends[index];
        if let Some(other) = end
            .routes
            .iter()
            .find(|other| self.routes[**other].method == route.method)
        {
            return Err(&self.routes[*other].value);
        }
        end.routes.push(self.routes.len());
        self.routes.push(route);
        Ok(())
    }

    /// The routes, in the order they were added.
    pub fn routes(&self) -> &[Route<T>] {
        &self.routes
    }

    /// The route of a method and a raw path (still encoded, without its query).
    pub fn find<'p>(&self, method: &Method, path: &'p str) -> Result<Match<'_, 'p, T>, Miss> {
        let path = path.strip_prefix('/').ok_or(Miss::NotFound)?;
        percent::check(path).map_err(Miss::BadPath)?;
        let verb_at = path
            .rfind(':')
            .filter(|colon| !path[*colon..].contains('/'));
        if let Some(colon) = verb_at {
            let verb = percent::decode(&path[colon + 1..]).map_err(Miss::BadPath)?;
            match self.find_with_verb(method, &path[..colon], Some(&verb)) {
                Err(Miss::NotFound) => {}
                found => return found,
            }
        }
        self.find_with_verb(method, path, None)
    }

    fn find_with_verb<'p>(
        &self,
        method: &Method,
        path: &'p str,
        verb: Option<&str>,
    ) -> Result<Match<'_, 'p, T>, Miss> {
        let mut found = None;
        let stopped = self.root.walk(Some(path), &mut |node| {
            found = self.pick(node.routes(verb), method);
            found.is_some()
        });
        if stopped && let Some(route) = found {
            return Ok(Match { route, path });
        }
        let mut allow = BTreeSet::new();
        self.root.walk(Some(path), &mut |node| {
            for index in node.routes(verb) {
                let route = &self.routes[*index];
                match &route.method {
                    RouteMethod::Exactly(method) => {
                        allow.insert(method.as_str());
                    }
                    RouteMethod::Any => {
                        allow.extend(["DELETE", "GET", "PATCH", "POST", "PUT"]);
                    }
                }
                if route.serves_head {
                    allow.insert("HEAD");
                }
            }
            false
        });
        if allow.is_empty() {
            return Err(Miss::NotFound);
        }
        allow.insert("OPTIONS");
        let allow: Vec<_> = allow.into_iter().collect();
        Err(Miss::MethodNotAllowed(allow.join(", ")))
    }

    fn pick(&self, routes: &[usize], method: &Method) -> Option<&Route<T>> {
        let routes = routes.iter().map(|index| &self.routes[*index]);
        let exact = routes
            .clone()
            .find(|route| matches!(&route.method, RouteMethod::Exactly(own) if own == method));
        match *method {
            _ if exact.is_some() => exact,
            // OPTIONS is answered by the layer itself unless a rule names it.
            Method::OPTIONS => None,
            Method::HEAD => routes.clone().find(|route| route.serves_head),
            _ => routes
                .clone()
                .find(|route| route.method == RouteMethod::Any),
        }
    }
}

impl Node {
    fn routes(&self, verb: Option<&str>) -> &[usize] {
        self.ends
            .iter()
            .find(|end| end.verb.as_deref() == verb)
            .map_or(&[], |end| &end.routes)
    }

    /// Shows `visit` every node that the rest of a path leads to, best first, until it says stop.
    /// `None` is a path used up; `Some("")` is one more segment, an empty one. The depth of the
    /// recursion is that of the trie.
    fn walk<'n>(&'n self, rest: Option<&str>, visit: &mut dyn FnMut(&'n Node) -> bool) -> bool {
        if let Some(path) = rest {
            let (segment, after) = next_segment(path);
            if !self.literals.is_empty() {
                // A segment that is not text equals no literal.
                let decoded = percent::decode(segment).unwrap_or(Cow::Borrowed(segment));
                if let Some(node) = self.literals.get(decoded.as_ref())
                    && node.walk(after, visit)
                {
                    return true;
                }
            }
            if let Some(node) = &self.single
                && !segment.is_empty()
                && node.walk(after, visit)
            {
                return true;
            }
        } else if !self.ends.is_empty() && visit(self) {
            return true;
        }
        let Some(node) = &self.multi else {
            return false;
        };
        if node.literals.is_empty() && node.single.is_none() {
            return visit(node);
        }
        let mut rest = rest;
        loop {
            if node.walk(rest, visit) {
                return true;
            }
            match rest {
                Some(path) => rest = next_segment(path).1,
                None => return false,
            }
        }
    }
}

fn next_segment(path: &str) -> (&str, Option<&str>) {
    match path.split_once('/') {
        Some((segment, after)) => (segment, Some(after)),
        None => (path, None),
    }
}

impl<'r, 'p, T> Match<'r, 'p, T> {
    /// The variables of the route, each with its text, decoded: a variable of one segment fully, one
    /// of several keeps the escapes of reserved characters.
    pub fn captures(
        &self,
    ) -> impl Iterator<Item = (&'r Variable, Result<Cow<'p, str>, DecodeError>)> {
        let (template, path) = (&self.route.template, self.path);
        template.variables.iter().map(move |variable| {
            let raw = captured(template, variable, path);
            let text = if variable.several_segments {
                percent::decode_unreserved(raw)
            } else {
                percent::decode(raw)
            };
            (variable, text)
        })
    }
}

/// The part of a path, known to match the template, that a variable stands for.
fn captured<'p>(template: &Template, variable: &Variable, path: &'p str) -> &'p str {
    let multi = template.multi();
    let in_path = path.bytes().filter(|byte| *byte == b'/').count() + 1;
    // How many segments `**` took, less the one that it is in the template.
    let position = |index: usize| match multi {
        Some(multi) if index > multi => (index + in_path).saturating_sub(template.segments.len()),
        _ => index,
    };
    let (start, end) = (position(variable.start), position(variable.end));
    if start >= end {
        return "";
    }
    let start = segment_offset(path, start);
    // The offset behind the slash that follows the last segment, or behind the path.
    let end = segment_offset(path, end).saturating_sub(1);
    path.get(start..end).unwrap_or_default()
}

/// Where the nth segment starts; one past the end of the path, and a slash, where there are fewer.
fn segment_offset(path: &str, index: usize) -> usize {
    match index {
        0 => 0,
        _ => path
            .match_indices('/')
            .nth(index - 1)
            .map_or(path.len() + 1, |(slash, _)| slash + 1),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

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
                let mut text = found.route.value.clone();
                for (variable, value) in found.captures() {
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
            let values: Vec<_> = found.captures().map(|(_, value)| value).collect();
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
                prop_assert!(found.captures().count() <= 2);
            }
        }
    }
}
