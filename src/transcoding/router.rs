//! A trie of path segments whose leaves know their verbs and methods.
//!
//! A path is split while it is still encoded, and decoded piece by piece. At every segment a literal
//! beats `*` beats `**`, with backtracking. What stands behind the last `:` of the last segment is
//! looked up as a verb first; a verb that no template at this place knows belongs to the segment.
//! Finding a route allocates nothing; its captures allocate where they are percent-encoded.

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

    /// All routes, in the order in which they were added.
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
            let verb = &path[colon + 1..];
            match self.find_with_verb(method, &path[..colon], Some(verb)) {
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
            .find(|end| match (end.verb.as_deref(), verb) {
                (Some(own), Some(verb)) => percent::decodes_to(verb, own),
                (own, verb) => own == verb,
            })
            .map_or(&[], |end| &end.routes)
    }

    /// The node behind a segment as a literal.
    fn literal(&self, segment: &str) -> Option<&Node> {
        if !segment.contains('%') {
            return self.literals.get(segment);
        }
        let mut literals = self.literals.iter();
        let found = literals.find(|(literal, _)| percent::decodes_to(segment, literal));
        found.map(|(_, node)| node)
    }

    /// Shows `visit` every node that the rest of a path leads to, best first, until it says stop.
    /// `None` is a path used up; `Some("")` is one more segment, an empty one. The depth of the
    /// recursion is that of the trie.
    fn walk<'n>(&'n self, rest: Option<&str>, visit: &mut dyn FnMut(&'n Node) -> bool) -> bool {
        if let Some(path) = rest {
            let (segment, after) = next_segment(path);
            if let Some(node) = self.literal(segment)
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
