//! Why a compaction did not happen.
//!
//! *Invariants:* whatever happened, the table is as it was before or as it was to become.
//!
//! *Not here:* what is done about it (`compactor`).

use crate::block;
use crate::error::{HasKind, Kind};
use crate::model::BlockName;
use crate::raft::RaftError;
use crate::{meta, store};

/// Why a compaction did not happen.
#[derive(Debug, thiserror::Error)]
pub enum CompactError {
    /// A block cannot be read: it is left out from now on.
    #[error("block {block}: {source}")]
    Block {
        /// Which.
        block: BlockName,
        /// Why.
        source: block::Error,
    },
    /// The new block cannot be written.
    #[error("write the compacted block: {0}")]
    Write(block::Error),
    /// The bucket failed.
    #[error("{0}")]
    Store(#[from] store::Error),
    /// Meta's group did not take the commit.
    #[error("{0}")]
    Raft(#[from] RaftError),
    /// Meta refused the commit.
    #[error("the commit of the compaction was refused: {0}")]
    Refused(String),
    /// Another compaction of the table was decided first.
    #[error("another compaction of the table was decided first")]
    Overtaken,
    /// The node stops.
    #[error("the node is stopping")]
    Stopping,
}

impl From<meta::Refusal> for CompactError {
    fn from(refusal: meta::Refusal) -> Self {
        Self::Refused(refusal.to_string())
    }
}

impl HasKind for CompactError {
    fn kind(&self) -> Kind {
        match self {
            Self::Block { source, .. } | Self::Write(source) => source.kind(),
            Self::Store(e) => e.kind(),
            Self::Raft(e) => e.kind(),
            Self::Refused(_) | Self::Overtaken | Self::Stopping => Kind::Unavailable,
        }
    }
}
