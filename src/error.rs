//! What can go wrong, sorted by what the caller should do next.
//!
//! Every module has its own `thiserror` enum; each maps to a [`Kind`] through [`HasKind`], and only `api::reply` turns a
//! kind into a status code.
//!
//! *Invariants:* a kind is decided where the error is made and never guessed from a message.
//!
//! *Not here:* status codes (`api`), messages (each module's enum).

use std::fmt;

/// What the caller of a failed operation should do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The request is wrong and will be wrong again: fix it (HTTP 400).
    Invalid,
    /// What was asked for does not exist (404).
    NotFound,
    /// A limit of the tenant or the node refused it: slow down or ask for a higher limit (429, 422 for queries).
    Limited,
    /// Not now: retry later, perhaps elsewhere (503).
    Unavailable,
    /// Stored bytes are not what was written: an operator must look (500).
    Corrupt,
    /// The caller went away or asked to stop (499).
    Cancelled,
    /// Our mistake (500).
    Internal,
}

/// An error that knows its [`Kind`].
pub trait HasKind {
    /// What the caller should do next.
    fn kind(&self) -> Kind;
}

/// A kind with a message: for edges where nothing more is to be said.
#[derive(Debug, Clone)]
pub struct Error {
    /// What the caller should do next.
    pub kind: Kind,
    /// What was tried, with which id, in lower case.
    pub message: String,
}

impl Error {
    /// An error of `kind` saying `message`.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

impl HasKind for Error {
    fn kind(&self) -> Kind {
        self.kind
    }
}
