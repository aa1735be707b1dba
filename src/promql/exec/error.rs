//! Why an evaluation failed.
//!
//! *Invariants:* texts of [`Error::Query`] are Prometheus' own, without a position.
//!
//! *Not here:* parse errors (`parser`), warnings (`annotations`).

use crate::error::{self, HasKind, Kind};
use crate::promql::ParseError;

/// Why an evaluation failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The query cannot be answered for this data (API error type `execution`).
    #[error("{0}")]
    Query(String),
    /// A duration expression has no value, or not a fitting one, for these times (API error type `bad_data`).
    #[error(transparent)]
    Duration(#[from] ParseError),
    /// More samples than `max_samples` would be in memory at once.
    #[error("query processing would load too many samples into memory in query execution")]
    TooManySamples,
    /// More bytes than the budget would be in memory at once.
    #[error("query needs more than its budget of {limit} bytes of memory")]
    TooManyBytes {
        /// The budget.
        limit: usize,
    },
    /// The query, or all queries of the node, would hold too many bytes.
    #[error("{0}")]
    Bytes(#[source] error::Error),
    /// The client went away.
    #[error("query was canceled in expression evaluation")]
    Cancelled,
    /// The query took too long.
    #[error("query timed out in expression evaluation")]
    TimedOut,
    /// A thread that worked on the query is gone.
    #[error("query evaluation stopped unexpectedly")]
    Panicked,
    /// What was computed of parts of the storage does not merge; the query has to be evaluated as a whole.
    #[error("parts of an aggregation do not merge: {0}")]
    NotMergeable(&'static str),
    /// Storage failed.
    #[error("expanding series: {0}")]
    Storage(#[source] error::Error),
}

impl Error {
    /// An error of the query itself.
    pub fn query(text: impl Into<String>) -> Self {
        Self::Query(text.into())
    }

    /// Two series of one vector ended up with the same labels.
    pub fn same_labels() -> Self {
        Self::query("vector cannot contain metrics with the same labelset")
    }
}

impl HasKind for Error {
    fn kind(&self) -> Kind {
        match self {
            Self::Query(_) | Self::Duration(_) => Kind::Invalid,
            Self::TooManySamples | Self::TooManyBytes { .. } => Kind::Limited,
            Self::Cancelled => Kind::Cancelled,
            Self::TimedOut => Kind::Unavailable,
            Self::Panicked | Self::NotMergeable(_) => Kind::Internal,
            Self::Storage(e) | Self::Bytes(e) => e.kind(),
        }
    }
}
