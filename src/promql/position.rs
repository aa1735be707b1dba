//! Where in a query's text something stands.
//!
//! *Invariants:* positions are byte offsets; lines and columns count from 1, columns in bytes.
//!
//! *Not here:* error texts (`parser`), annotations (`annotations`).

use std::fmt;

/// A half-open range of bytes of the query's text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, PartialOrd, Ord)]
pub struct Span {
    /// First byte.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
}

impl Span {
    /// From `start` up to but not including `end`.
    pub fn new(start: usize, end: usize) -> Self {
        Self { start: start as u32, end: end as u32 }
    }

    /// As long, `by` bytes further on.
    pub fn moved(self, by: i64) -> Self {
        let moved = |at: u32| (i64::from(at) + by) as u32;
        Self { start: moved(self.start), end: moved(self.end) }
    }

    /// From the start of this one to the end of `other`.
    pub fn to(self, other: Span) -> Self {
        Self { start: self.start, end: other.end }
    }
}

/// A line and a column, both from 1; a column counts bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LineCol {
    /// Line.
    pub line: u32,
    /// Byte within the line.
    pub column: u32,
}

impl LineCol {
    /// Where byte `offset` of `text` stands; past the end it is `None`, which prints as `invalid position`.
    pub fn of(text: &str, offset: u32) -> Option<Self> {
        let before = text.as_bytes().get(..offset as usize)?;
        let line = before.iter().filter(|b| **b == b'\n').count() as u32 + 1;
        let column = before.iter().rev().take_while(|b| **b != b'\n').count() as u32 + 1;
        Some(Self { line, column })
    }
}

impl fmt::Display for LineCol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_restart_after_each_line_break() {
        let at = |offset| LineCol::of("ab\nc\n\nd", offset).map(|p| p.to_string());
        assert_eq!(at(0).as_deref(), Some("1:1"));
        assert_eq!(at(2).as_deref(), Some("1:3"));
        assert_eq!(at(3).as_deref(), Some("2:1"));
        assert_eq!(at(7).as_deref(), Some("4:2"));
        assert_eq!(at(8), None);
    }
}
