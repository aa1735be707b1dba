//! The four types of PromQL values.
//!
//! *Invariants:* none.
//!
//! *Not here:* values themselves (`exec`).

use std::fmt;

/// Type of an expression's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ValueType {
    /// One float.
    Scalar,
    /// Bytes.
    String,
    /// One sample per series.
    Vector,
    /// Many samples per series.
    Matrix,
}

impl ValueType {
    /// The name in JSON answers: `vector`, `matrix`.
    pub fn raw_name(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            Self::String => "string",
            Self::Vector => "vector",
            Self::Matrix => "matrix",
        }
    }

    /// The name in documentation and most error texts: `instant vector`, `range vector`.
    pub fn documented_name(self) -> &'static str {
        match self {
            Self::Vector => "instant vector",
            Self::Matrix => "range vector",
            other => other.raw_name(),
        }
    }
}

impl fmt::Display for ValueType {
    /// The documented name.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.documented_name())
    }
}
