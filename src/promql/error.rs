//! Why a query cannot be read.
//!
//! *Invariants:* messages and positions are those of Prometheus; only the first mistake is reported.
//!
//! *Not here:* mistakes found while evaluating (`exec`).

use std::fmt;

use super::position::{LineCol, Span};
use crate::error::{HasKind, Kind};

/// The first mistake in a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseError {
    /// The bytes at fault.
    pub span: Span,
    /// Line and column where they begin; `None` past the end of the text and in a text that is empty.
    pub position: Option<LineCol>,
    /// What is wrong.
    pub message: String,
}

impl ParseError {
    pub(super) fn new(mistake: Mistake, query: &str) -> Self {
        let Mistake { span, message } = mistake;
        let position = if query.is_empty() { None } else { LineCol::of(query, span.start) };
        Self { span, position, message }
    }
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.position {
            Some(at) => write!(f, "{at}: parse error: {}", self.message),
            None if self.span.start == 0 => write!(f, "unknown position: parse error: {}", self.message),
            None => write!(f, "invalid position: parse error: {}", self.message),
        }
    }
}

impl std::error::Error for ParseError {}

impl HasKind for ParseError {
    fn kind(&self) -> Kind {
        Kind::Invalid
    }
}

/// A mistake whose line and column are not yet looked up.
#[derive(Debug)]
pub(super) struct Mistake {
    pub span: Span,
    pub message: String,
}

impl Mistake {
    pub fn new(span: Span, message: impl Into<String>) -> Self {
        Self { span, message: message.into() }
    }
}
