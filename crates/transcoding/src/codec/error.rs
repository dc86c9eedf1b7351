//! Errors of the codec: the problem, and where it is.

use std::fmt;

use super::wire::Malformed;

/// A step on the way from a message down to a value.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Name(String),
    Index(usize),
}

/// The way to a value, gathered from the value up.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Path(Vec<Step>);

impl fmt::Display for Path {
    /// Writes the path as `a.b[0].c`.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, step) in self.0.iter().rev().enumerate() {
            match step {
                Step::Name(name) if position == 0 => formatter.write_str(name)?,
                Step::Name(name) => write!(formatter, ".{name}")?,
                Step::Index(index) => write!(formatter, "[{index}]")?,
            }
        }
        Ok(())
    }
}

/// Why a JSON text is not the message asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JsonError(Box<JsonProblem>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct JsonProblem {
    is_syntax: bool,
    offset: usize,
    problem: String,
    path: Path,
}

impl JsonError {
    /// No JSON.
    #[cold]
    pub(super) fn syntax(offset: usize, problem: impl Into<String>) -> Self {
        Self::new(true, offset, problem.into())
    }

    /// JSON of something else.
    #[cold]
    pub(super) fn data(offset: usize, problem: impl Into<String>) -> Self {
        Self::new(false, offset, problem.into())
    }

    fn new(is_syntax: bool, offset: usize, problem: String) -> Self {
        Self(Box::new(JsonProblem {
            is_syntax,
            offset,
            problem,
            path: Path::default(),
        }))
    }

    /// The same within the member of this name.
    #[cold]
    pub(super) fn within(mut self, name: &str) -> Self {
        self.0.path.0.push(Step::Name(name.to_owned()));
        self
    }

    /// The same within the element of this index.
    #[cold]
    pub(super) fn at(mut self, index: usize) -> Self {
        self.0.path.0.push(Step::Index(index));
        self
    }

    /// Whether the text is not JSON at all.
    pub fn is_syntax(&self) -> bool {
        self.0.is_syntax
    }

    /// The problem, and what would be right.
    pub fn problem(&self) -> &str {
        &self.0.problem
    }

    /// The offset at which the error was noticed, in bytes from the start of the text.
    pub fn offset(&self) -> usize {
        self.0.offset
    }

    /// The member concerned, by the names in the text, as `a.b[0].c`; empty at the top.
    pub fn field(&self) -> String {
        self.0.path.to_string()
    }
}

/// Why bytes make no JSON text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WireError(Box<WireProblem>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct WireProblem {
    is_malformed: bool,
    problem: String,
    path: Path,
}

impl WireError {
    pub(super) fn new(problem: impl Into<String>) -> Self {
        Self(Box::new(WireProblem {
            is_malformed: false,
            problem: problem.into(),
            path: Path::default(),
        }))
    }

    /// Whether the bytes are no message at all, rather than one without a form in JSON.
    pub fn is_malformed(&self) -> bool {
        self.0.is_malformed
    }

    /// The problem.
    pub fn problem(&self) -> &str {
        &self.0.problem
    }

    /// The field concerned, by proto names, as `a.b`; empty at the top.
    pub fn field(&self) -> String {
        self.0.path.to_string()
    }
}

impl fmt::Display for WireError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.0.path.0.is_empty() {
            write!(formatter, "{}: ", self.0.path)?;
        }
        formatter.write_str(&self.0.problem)
    }
}

impl std::error::Error for WireError {}

/// Why writing stopped.
#[derive(Debug)]
pub(super) enum Stop {
    /// The bytes are in no order for one pass: prost-reflect must bring them into one.
    Disordered,
    Error(WireError),
}

impl Stop {
    #[cold]
    pub(super) fn error(problem: impl Into<String>) -> Self {
        Self::Error(WireError::new(problem))
    }

    /// The bytes are no message of their type.
    #[cold]
    pub(super) fn malformed(problem: impl Into<String>) -> Self {
        let mut error = WireError::new(problem);
        error.0.is_malformed = true;
        Self::Error(error)
    }

    /// The same within the field of this name.
    #[cold]
    pub(super) fn within(self, name: &str) -> Self {
        match self {
            Self::Disordered => Self::Disordered,
            Self::Error(mut error) => {
                error.0.path.0.push(Step::Name(name.to_owned()));
                Self::Error(error)
            }
        }
    }
}

impl From<Malformed> for Stop {
    #[cold]
    fn from(Malformed(problem): Malformed) -> Self {
        Self::malformed(problem)
    }
}
