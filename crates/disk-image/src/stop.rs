//! The wish that long work ends early.

use std::fmt;
use std::sync::Arc;

/// Asked now and then by work that takes long. Cheap to clone.
#[derive(Clone)]
pub struct Stop(Arc<dyn Fn() -> bool + Send + Sync>);

impl Stop {
    /// The work ends soon after the function has returned true.
    pub fn when(is_asked: impl Fn() -> bool + Send + Sync + 'static) -> Stop {
        Stop(Arc::new(is_asked))
    }

    /// The work goes on to its end.
    pub fn never() -> Stop {
        Stop::when(|| false)
    }

    pub(crate) fn is_asked(&self) -> bool {
        (self.0)()
    }
}

impl fmt::Debug for Stop {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Stop")
    }
}
