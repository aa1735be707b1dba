//! What can go wrong with the bucket and the tables in it.
//!
//! *Invariants:* every message names the key or table it is about.
//!
//! *Not here:* retries (`bucket` for one request, `meta::copier` for hours).

use crate::error::{HasKind, Kind};
use crate::model::TenantId;

/// An error of this module.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A bucket URL that cannot be opened.
    #[error("open bucket {url:?}: {reason}")]
    Url {
        /// The URL as configured.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The start-up probe failed.
    #[error("bucket {url} cannot be {step}: {source}")]
    Probe {
        /// The bucket.
        url: String,
        /// What was tried, as a participle.
        step: &'static str,
        /// What went wrong.
        #[source]
        source: Box<Error>,
    },
    /// The bucket refused or did not answer, after the retries of one request.
    #[error("{operation} {key}: {source}")]
    Bucket {
        /// What was tried: `put`, `get`, `list`, `delete`.
        operation: &'static str,
        /// The key or prefix.
        key: String,
        /// What the object store client said.
        #[source]
        source: object_store::Error,
    },
    /// Stored bytes are not what was decided or not what the format says.
    #[error("{key} is damaged: {reason}")]
    Corrupt {
        /// The key.
        key: String,
        /// What was found instead.
        reason: String,
    },
    /// A table has no version that was asked for.
    #[error("table of tenant {tenant} has no version {version}")]
    NoVersion {
        /// Whose table.
        tenant: TenantId,
        /// The version asked for.
        version: u64,
    },
    /// The local cache directory cannot be used.
    #[error("open cache in {path}: {reason}")]
    Cache {
        /// The directory.
        path: String,
        /// What went wrong.
        reason: String,
    },
}

impl Error {
    /// A failed request for `key`.
    pub(crate) fn bucket(operation: &'static str, key: impl ToString, source: object_store::Error) -> Self {
        Self::Bucket { operation, key: key.to_string(), source }
    }

    /// Damaged bytes under `key`.
    pub(crate) fn corrupt(key: impl ToString, reason: impl ToString) -> Self {
        Self::Corrupt { key: key.to_string(), reason: reason.to_string() }
    }

    /// Whether the object asked for does not exist.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Bucket { source: object_store::Error::NotFound { .. }, .. } | Self::NoVersion { .. })
    }
}

impl HasKind for Error {
    fn kind(&self) -> Kind {
        match self {
            Self::Url { .. } => Kind::Invalid,
            Self::Bucket { source: object_store::Error::NotFound { .. }, .. } | Self::NoVersion { .. } => {
                Kind::NotFound
            }
            Self::Bucket { .. } | Self::Probe { .. } => Kind::Unavailable,
            Self::Corrupt { .. } => Kind::Corrupt,
            Self::Cache { .. } => Kind::Invalid,
        }
    }
}
