//! A trie of path segments whose leaves know their verbs and methods.
//!
//! A path is split while it is still encoded, and decoded piece by piece. At every segment a literal
//! beats `*` beats `**`, with backtracking. What stands behind the last `:` of the last segment is
//! looked up as a verb first; a verb that no template at this place knows belongs to the segment.
//! Finding a route allocates nothing; its captures allocate where they are percent-encoded.

use std::{borrow::Cow, cmp::Ordering, collections::BTreeSet};

use http::Method;

pub use super::percent::DecodeError;
use super::{
    percent,
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
    /// The target of the route.
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

/// A route found for a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Match {
    /// The index of the route.
    route: usize,
    /// The offset at which the segments of the path end, and the verb begins if there is one.
    end: usize,
}

/// A variable of a template and what stands for it in a path.
pub type Capture<'r, 'p> = (&'r Variable, Result<Cow<'p, str>, DecodeError>);

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
    /// In the order of [`literal_order`].
    literals: Vec<(Box<str>, Node)>,
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
    /// Adds a route.
    ///
    /// # Errors
    ///
    /// The value of another route with the same method and a template of the same shape: the new one is not added.
    pub fn insert(&mut self, route: Route<T>) -> Result<(), &T> {
        let mut node = &mut self.root;
        for segment in &route.template.segments {
            node = match segment {
                Segment::Literal(text) => node.literal_or_new(text),
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

    /// All routes, in the order in which they were added.
    pub fn routes(&self) -> &[Route<T>] {
        &self.routes
    }

    /// The route of a method and a raw path (still encoded, without its query).
    ///
    /// # Errors
    ///
    /// [`Miss::BadPath`], [`Miss::NotFound`] or [`Miss::MethodNotAllowed`].
    pub fn find(&self, method: &Method, path: &str) -> Result<Match, Miss> {
        let path = path.strip_prefix('/').ok_or(Miss::NotFound)?;
        let is_escaped = percent::is_escaped(path);
        if is_escaped {
            percent::check(path).map_err(Miss::BadPath)?;
        }
        let tail = path.bytes().rposition(|byte| matches!(byte, b'/' | b':'));
        if let Some(colon) = tail.filter(|at| path.as_bytes()[*at] == b':') {
            let verb = &path[colon + 1..];
            let rest = Rest::of(&path[..colon], is_escaped);
            match self.find_with_verb(method, rest, Some(verb)) {
                Err(Miss::NotFound) => {}
                found => return found,
            }
        }
        self.find_with_verb(method, Rest::of(path, is_escaped), None)
    }

    /// `path` is without its first slash, and without its verb.
    fn find_with_verb(
        &self,
        method: &Method,
        path: Rest<'_>,
        verb: Option<&str>,
    ) -> Result<Match, Miss> {
        let mut found = None;
        let stopped = self.root.walk(path, &mut |node| {
            found = self.pick(node.routes(verb), method);
            found.is_some()
        });
        if stopped && let Some(route) = found {
            let end = 1 + path.segments.map_or(0, str::len);
            return Ok(Match { route, end });
        }
        let mut allow = BTreeSet::new();
        self.root.walk(path, &mut |node| {
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

    fn pick(&self, routes: &[usize], method: &Method) -> Option<usize> {
        let find = |is_it: &dyn Fn(&Route<T>) -> bool| {
            let mut routes = routes.iter().copied();
            routes.find(|index| is_it(&self.routes[*index]))
        };
        let exact =
            find(&|route| matches!(&route.method, RouteMethod::Exactly(own) if own == method));
        match *method {
            _ if exact.is_some() => exact,
            // OPTIONS is answered by the layer itself unless a rule names it.
            Method::OPTIONS => None,
            Method::HEAD => find(&|route| route.serves_head),
            _ => find(&|route| route.method == RouteMethod::Any),
        }
    }

    /// The route found.
    pub fn route(&self, found: Match) -> &Route<T> {
        &self.routes[found.route]
    }

    /// The variables of the route found for a path, each with its text, decoded: a variable of one
    /// segment fully, one of several keeps the escapes of reserved characters.
    pub fn captures<'r, 'p>(
        &'r self,
        found: Match,
        path: &'p str,
    ) -> impl Iterator<Item = Capture<'r, 'p>> {
        let template = &self.route(found).template;
        let path = path.get(1..found.end).unwrap_or_default();
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

impl Node {
    fn routes(&self, verb: Option<&str>) -> &[usize] {
        self.ends
            .iter()
            .find(|end| match (end.verb.as_deref(), verb) {
                (Some(own), Some(verb)) => percent::decodes_to(verb, own),
                (own, verb) => own == verb,
            })
            .map_or(&[], |end| &end.routes)
    }

    fn literal_or_new(&mut self, text: &str) -> &mut Node {
        let at = self.find_literal(text).unwrap_or_else(|at| {
            self.literals.insert(at, (text.into(), Node::default()));
            at
        });
        &mut self.literals[at].1
    }

    fn find_literal(&self, text: &str) -> Result<usize, usize> {
        self.literals
            .binary_search_by(|(literal, _)| literal_order(literal, text))
    }

    /// The node behind a segment as a literal.
    fn literal(&self, segment: &str, is_escaped: bool) -> Option<&Node> {
        if !is_escaped || !percent::is_escaped(segment) {
            let at = self.find_literal(segment).ok()?;
            return Some(&self.literals[at].1);
        }
        let mut literals = self.literals.iter();
        let found = literals.find(|(literal, _)| percent::decodes_to(segment, literal));
        found.map(|(_, node)| node)
    }

    /// Shows `visit` every node that the rest of a path leads to, best first, until it says stop.
    /// The depth of the recursion is that of the trie.
    fn walk<'n>(&'n self, rest: Rest<'_>, visit: &mut dyn FnMut(&'n Node) -> bool) -> bool {
        if let Some((segment, after)) = rest.next() {
            if let Some(node) = self.literal(segment, rest.is_escaped)
                && node.walk(after, visit)
            {
                return true;
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
            match rest.next() {
                Some((_, after)) => rest = after,
                None => return false,
            }
        }
    }
}

/// By length first: most are told apart without a look at their bytes.
fn literal_order(left: &str, right: &str) -> Ordering {
    (left.len(), left).cmp(&(right.len(), right))
}

/// The rest of a path.
#[derive(Clone, Copy)]
struct Rest<'p> {
    /// `None` is a path used up; `Some("")` is one more segment, an empty one.
    segments: Option<&'p str>,
    /// Whether there are escapes anywhere in the path.
    is_escaped: bool,
}

impl<'p> Rest<'p> {
    fn of(path: &'p str, is_escaped: bool) -> Self {
        Self {
            segments: Some(path),
            is_escaped,
        }
    }

    /// The next segment, and what is behind it.
    fn next(self) -> Option<(&'p str, Self)> {
        let path = self.segments?;
        // Over so few bytes, a loop is quicker than a searcher.
        let (segment, segments) = match path.bytes().position(|byte| byte == b'/') {
            Some(slash) => (&path[..slash], Some(&path[slash + 1..])),
            None => (path, None),
        };
        Some((segment, Self { segments, ..self }))
    }
}

/// The part of a path, known to match the template, that a variable stands for.
fn captured<'p>(template: &Template, variable: &Variable, path: &'p str) -> &'p str {
    let is_last = variable.end == template.segments.len();
    if is_last && !variable.several_segments {
        let slash = path.bytes().rposition(|byte| byte == b'/');
        return &path[slash.map_or(0, |slash| slash + 1)..];
    }
    captured_within(template, variable, path)
}

#[inline(never)]
fn captured_within<'p>(template: &Template, variable: &Variable, path: &'p str) -> &'p str {
    let is_last = variable.end == template.segments.len();
    let multi = template.multi();
    // How many segments `**` took, less the one that it is in the template, is what the path has more.
    let position = |index: usize| match multi {
        Some(multi) if index > multi => {
            let in_path = path.bytes().filter(|byte| *byte == b'/').count() + 1;
            (index + in_path).saturating_sub(template.segments.len())
        }
        _ => index,
    };
    let (start, end) = (position(variable.start), position(variable.end));
    let segments = end.saturating_sub(start);
    if segments == 0 {
        return "";
    }
    let start = segment_offset(path, start);
    let length = match path.get(start..) {
        // The rest of the path, as a rule.
        Some(rest) if is_last => rest.len(),
        // The slash that follows the last segment is the variable's no more.
        Some(rest) => segment_offset(rest, segments).saturating_sub(1),
        None => 0,
    };
    path.get(start..start + length).unwrap_or_default()
}

/// The offset at which the nth segment starts; one past the end of the path, and a slash, where there are fewer.
fn segment_offset(path: &str, index: usize) -> usize {
    let Some(nth) = index.checked_sub(1) else {
        return 0;
    };
    let bytes = path.bytes().enumerate();
    let mut slashes = bytes.filter(|(_, byte)| *byte == b'/');
    slashes
        .nth(nth)
        .map_or(path.len() + 1, |(slash, _)| slash + 1)
}
