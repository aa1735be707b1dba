//! What can go wrong with a block.
//!
//! *Invariants:* bytes that are not what the writer made are [`Error::Corrupt`]; a store that does not answer is
//! [`Error::Store`]; input the writer cannot take is [`Error::Input`], our caller's mistake.
//!
//! *Not here:* retries, quarantine (`store`).

use crate::error::{HasKind, Kind};

/// A failure to write or read a block.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file is not what the writer made: path, and what did not fit.
    #[error("read block file {path}: {what}")]
    Corrupt {
        /// Path of the file in the store.
        path: String,
        /// What did not fit.
        what: String,
    },
    /// The object store failed.
    #[error("fetch block file {path}")]
    Store {
        /// Path of the file in the store.
        path: String,
        /// The store's own words.
        #[source]
        source: object_store::Error,
    },
    /// Series out of order, timestamps that do not ascend, options that cannot be.
    #[error("write block {block}: {what}")]
    Input {
        /// Name of the block.
        block: String,
        /// What was wrong.
        what: String,
    },
    /// The Parquet encoder refused.
    #[error("encode block {block}")]
    Encode {
        /// Name of the block.
        block: String,
        /// The encoder's own words.
        #[source]
        source: parquet::errors::ParquetError,
    },
    /// Whoever reads does not want that many bytes.
    #[error("{0}")]
    Refused(#[source] crate::error::Error),
}

impl HasKind for Error {
    fn kind(&self) -> Kind {
        match self {
            Self::Corrupt { .. } => Kind::Corrupt,
            Self::Store { source: object_store::Error::NotFound { .. }, .. } => Kind::NotFound,
            Self::Refused(e) => e.kind(),
            Self::Store { .. } => Kind::Unavailable,
            Self::Input { .. } | Self::Encode { .. } => Kind::Internal,
        }
    }
}

/// `Result` of this module.
pub type Result<T> = std::result::Result<T, Error>;
