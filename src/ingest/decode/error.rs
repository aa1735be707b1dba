//! Why a whole write request could not be read.
//!
//! *Invariants:* every variant names what and where; none is worth a retry.
//!
//! *Not here:* single bad series (`ingest::outcome`).

use std::fmt;

use super::wire::WireError;
use crate::error::{HasKind, Kind};

/// Why a request could not be read.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// The body declares more than is accepted.
    #[error("decompress write request: it declares {declared} bytes, the limit is {limit}")]
    TooLarge {
        /// Bytes it declares.
        declared: usize,
        /// Bytes accepted.
        limit: usize,
    },
    /// The body declares more than its bytes can be.
    #[error("decompress write request: {body} bytes of snappy cannot be the {declared} bytes they declare")]
    Inflated {
        /// Bytes it declares.
        declared: usize,
        /// Bytes it has.
        body: usize,
    },
    /// Not a snappy block.
    #[error("decompress write request: not a snappy block: {0}")]
    Snappy(#[source] snap::Error),
    /// Not the protobuf message it should be, or too much of it.
    #[error("decode write request: {}{error}", Series(*.series))]
    Malformed {
        /// Index of the series it was found in.
        series: Option<usize>,
        /// What and where.
        error: WireError,
    },
}

impl HasKind for DecodeError {
    fn kind(&self) -> Kind {
        Kind::Invalid
    }
}

struct Series(Option<usize>);

impl fmt::Display for Series {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |i| write!(f, "series {i}, "))
    }
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.message.is_empty() {
            write!(f, "{} ", self.message)?;
        }
        if self.field > 0 {
            write!(f, "field {} ", self.field)?;
        }
        write!(f, "at byte {}: {}", self.offset, self.fault)
    }
}
