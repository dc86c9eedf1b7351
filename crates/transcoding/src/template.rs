//! Path templates of `google.api.http`. The grammar, after `google/api/http.proto`:
//!
//! ```text
//! Template  = "/" Segments [ Verb ] ;
//! Segments  = Segment { "/" Segment } ;
//! Segment   = "*" | "**" | LITERAL | Variable ;
//! Variable  = "{" FieldPath [ "=" Segments ] "}" ;
//! FieldPath = IDENT { "." IDENT } ;
//! Verb      = ":" LITERAL ;
//! ```
//!
//! `{field}` is short for `{field=*}`. A variable holds no other variable, `**` stands at most once in
//! a template and, wider than the published grammar, literals and `*` may follow it. LITERAL is one or
//! more `pchar` of RFC 3986 other than `*`, percent-encoding included; a `:` in the last segment starts
//! the verb, so the last `:` counts. Literals are kept decoded.

use super::percent;

/// One parsed template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    /// The segments, variables replaced by what they match.
    pub segments: Vec<Segment>,
    /// The text behind the last `:`, decoded.
    pub verb: Option<String>,
    /// The variables, in the order of their segments.
    pub variables: Vec<Variable>,
}

/// One segment of a template, by what it matches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Segment {
    /// This text and no other, after decoding.
    Literal(String),
    /// `*`: exactly one segment, which is not empty.
    Single,
    /// `**`: any number of segments, none included.
    Multi,
}

/// A variable and the segments that it captures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variable {
    /// The field that takes the captured text, by its names from the request message down.
    pub field_path: Vec<String>,
    /// The first captured segment, as an index into [`Template::segments`].
    pub start: usize,
    /// The segment behind the last captured one.
    pub end: usize,
    /// Whether the pattern is anything but one plain segment; then reserved characters stay encoded.
    pub several_segments: bool,
}

/// Why a template is not one, and where (a byte offset into it).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("path template \"{template}\": at offset {offset}: {problem}")]
pub struct TemplateError {
    template: String,
    offset: usize,
    problem: &'static str,
}

impl Template {
    /// Parses a template; see the grammar above.
    ///
    /// # Errors
    ///
    /// A [`TemplateError`] with the first fault of the text and its offset.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        let mut parser = Parser {
            text,
            at: 0,
            template: Template {
                segments: Vec::new(),
                verb: None,
                variables: Vec::new(),
            },
        };
        parser.template()?;
        Ok(parser.template)
    }

    /// The index of `**`, if there is one.
    pub fn multi(&self) -> Option<usize> {
        self.segments
            .iter()
            .position(|segment| *segment == Segment::Multi)
    }
}

struct Parser<'t> {
    text: &'t str,
    at: usize,
    template: Template,
}

impl<'t> Parser<'t> {
    fn template(&mut self) -> Result<(), TemplateError> {
        if !self.take('/') {
            return Err(self.error("a template starts with '/'"));
        }
        self.segments(false)?;
        if self.take(':') {
            let literal = self.literal(true)?;
            self.template.verb = Some(literal);
        }
        if self.at < self.text.len() {
            return Err(self.error("expected '/', ':' or the end of the template"));
        }
        Ok(())
    }

    fn segments(&mut self, inside_variable: bool) -> Result<(), TemplateError> {
        self.segment(inside_variable)?;
        while self.take('/') {
            self.segment(inside_variable)?;
        }
        Ok(())
    }

    fn segment(&mut self, inside_variable: bool) -> Result<(), TemplateError> {
        if self.rest().starts_with('{') {
            if inside_variable {
                return Err(self.error("a variable cannot hold another variable"));
            }
            return self.variable();
        }
        if self.rest().starts_with("**") {
            if self.template.multi().is_some() {
                return Err(self.error("'**' may stand only once in a template"));
            }
            self.at += 2;
            self.template.segments.push(Segment::Multi);
            return Ok(());
        }
        if self.take('*') {
            self.template.segments.push(Segment::Single);
            return Ok(());
        }
        let literal = self.literal(false)?;
        self.template.segments.push(Segment::Literal(literal));
        Ok(())
    }

    fn variable(&mut self) -> Result<(), TemplateError> {
        let opening = self.at;
        self.at += 1;
        let mut field_path = vec![self.identifier()?];
        while self.take('.') {
            field_path.push(self.identifier()?);
        }
        if self
            .template
            .variables
            .iter()
            .any(|variable| variable.field_path == field_path)
        {
            self.at = opening;
            return Err(self.error("the same field is bound twice"));
        }
        let start = self.template.segments.len();
        if self.take('=') {
            self.segments(true)?;
        } else {
            self.template.segments.push(Segment::Single);
        }
        if !self.take('}') {
            return Err(self.error("expected '}'"));
        }
        let end = self.template.segments.len();
        let several_segments =
            end - start > 1 || self.template.segments.get(start) == Some(&Segment::Multi);
        self.template.variables.push(Variable {
            field_path,
            start,
            end,
            several_segments,
        });
        Ok(())
    }

    fn identifier(&mut self) -> Result<String, TemplateError> {
        let rest = self.rest();
        let length = rest
            .find(|character: char| !character.is_ascii_alphanumeric() && character != '_')
            .unwrap_or(rest.len());
        let name = &rest[..length];
        if !name.starts_with(|character: char| character.is_ascii_alphabetic() || character == '_')
        {
            return Err(self.error("expected the name of a field"));
        }
        self.at += length;
        Ok(name.to_owned())
    }

    /// One literal. A `:` belongs to it only where another `/` or `:` follows, see the grammar.
    fn literal(&mut self, verb: bool) -> Result<String, TemplateError> {
        let rest = self.rest();
        let mut length = rest
            .find(|character: char| !is_literal(character) && character != ':')
            .unwrap_or(rest.len());
        let last_segment = length == rest.len();
        if (verb || last_segment || rest[length..].starts_with('}'))
            && let Some(colon) = rest[..length].rfind(':')
        {
            length = colon;
        }
        if length == 0 {
            return Err(self.error("expected a literal, '*', '**' or '{'"));
        }
        let literal = percent::decode(&rest[..length])
            .map_err(|_| self.error("bad percent-encoding"))?
            .into_owned();
        self.at += length;
        Ok(literal)
    }

    fn rest(&self) -> &'t str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn take(&mut self, expected: char) -> bool {
        let found = self.rest().starts_with(expected);
        if found {
            self.at += expected.len_utf8();
        }
        found
    }

    fn error(&self, problem: &'static str) -> TemplateError {
        TemplateError {
            template: self.text.to_owned(),
            offset: self.at,
            problem,
        }
    }
}

/// `pchar` without `*` (a segment of its own), `:` (see the grammar) and, as `%`, its escapes.
fn is_literal(character: char) -> bool {
    character.is_ascii_alphanumeric() || "-._~%!$&'()+,;=@".contains(character)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn literal(text: &str) -> Segment {
        Segment::Literal(text.to_owned())
    }

    fn variable(field_path: &[&str], start: usize, end: usize, several: bool) -> Variable {
        Variable {
            field_path: field_path.iter().map(|name| (*name).to_owned()).collect(),
            start,
            end,
            several_segments: several,
        }
    }

    #[test]
    fn templates_are_read() {
        use Segment::{Multi, Single};
        type Case<'c> = (&'c str, Vec<Segment>, Option<&'c str>, Vec<Variable>);
        let cases: Vec<Case> = vec![
            ("/v1", vec![literal("v1")], None, vec![]),
            (
                "/v1/things:copy",
                vec![literal("v1"), literal("things")],
                Some("copy"),
                vec![],
            ),
            (
                "/v1/things/{id}",
                vec![literal("v1"), literal("things"), Single],
                None,
                vec![variable(&["id"], 2, 3, false)],
            ),
            (
                "/v1/{thing.id}:stop",
                vec![literal("v1"), Single],
                Some("stop"),
                vec![variable(&["thing", "id"], 1, 2, false)],
            ),
            (
                "/{a.b=x/*/y/**}",
                vec![literal("x"), Single, literal("y"), Multi],
                None,
                vec![variable(&["a", "b"], 0, 4, true)],
            ),
            (
                "/{name=**}/tail/{id}:go",
                vec![Multi, literal("tail"), Single],
                Some("go"),
                vec![
                    variable(&["name"], 0, 1, true),
                    variable(&["id"], 2, 3, false),
                ],
            ),
            (
                "/{kind=things}/*",
                vec![literal("things"), Single],
                None,
                vec![variable(&["kind"], 0, 1, false)],
            ),
            (
                "/a%20b/c:d/e:f:g",
                vec![literal("a b"), literal("c:d"), literal("e:f")],
                Some("g"),
                vec![],
            ),
        ];
        for (text, segments, verb, variables) in cases {
            let expected = Template {
                segments,
                verb: verb.map(str::to_owned),
                variables,
            };
            assert_eq!(Template::parse(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_template_is_refused_with_its_place() {
        let cases = [
            ("", 0, "starts with '/'"),
            ("v1", 0, "starts with '/'"),
            ("/", 1, "expected a literal"),
            ("/v1/", 4, "expected a literal"),
            ("/v1//x", 4, "expected a literal"),
            ("/v1/x:", 6, "expected a literal"),
            ("/{}", 2, "name of a field"),
            ("/{1a}", 2, "name of a field"),
            ("/{a.}", 4, "name of a field"),
            ("/{a", 3, "expected '}'"),
            ("/{a=x:y}", 5, "expected '}'"),
            ("/{a={b}}", 4, "another variable"),
            ("/{a=}", 4, "expected a literal"),
            ("/{a}/{a}", 5, "bound twice"),
            ("/**/x/**", 6, "only once"),
            ("/***", 3, "expected '/'"),
            ("/a*", 2, "expected '/'"),
            ("/a b", 2, "expected '/'"),
            ("/%zz", 1, "percent-encoding"),
            ("/{a}b", 4, "expected '/'"),
            ("/x?y=1", 2, "expected '/'"),
        ];
        for (text, offset, problem) in cases {
            let error = Template::parse(text).expect_err(text);
            assert_eq!(error.offset, offset, "{text}: {error}");
            assert!(error.to_string().contains(problem), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[/{}*:=.%a-z0-9 я]{0,40}") {
            if let Ok(template) = Template::parse(&text) {
                for variable in &template.variables {
                    prop_assert!(variable.start < variable.end);
                    prop_assert!(variable.end <= template.segments.len());
                }
            }
        }
    }
}
