//! What can go wrong on the way of a sample, beyond samples that are refused.
//!
//! *Invariants:* nothing of a request that failed with one of these was acknowledged; what of it was stored is stored
//! once, also when the sender repeats it.
//!
//! *Not here:* refused samples (`ingest::outcome`).

use std::time::Duration;

use super::codec::Malformed;
use super::decode::DecodeError;
use crate::error::{Error, HasKind, Kind};
use crate::model::{NodeId, ShardId};
use crate::raft::RaftError;
use crate::{block, chunk, store};

/// Why a request or a flush failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum IngestError {
    /// The body is no write request.
    #[error("decode request: {0}")]
    Decode(String, Kind),
    /// The node is over a limit of memory or backlog.
    #[error("{0}")]
    Overloaded(String),
    /// The shard's group could not take it.
    #[error("append to the log: {0}")]
    Raft(#[from] RaftError),
    /// Series kept being retired while they were appended to.
    #[error("append to shard {shard}: {series} series did not settle, repeat the request")]
    Unsettled {
        /// Which shard.
        shard: ShardId,
        /// How many series.
        series: usize,
    },
    /// A shard answered what cannot be read.
    #[error("read the answer of a shard: {0}")]
    Reply(Malformed),
    /// A block could not be written.
    #[error("write a block: {0}")]
    Block(String, Kind),
    /// The bucket refused.
    #[error("bucket: {0}")]
    Bucket(String, Kind),
    /// No leader of a shard took its rows in time.
    #[error("append to shard {shard}: not taken within {waited:?}, tried {attempts} times, last {last}")]
    NotTaken {
        /// Which shard.
        shard: ShardId,
        /// The setting `write.timeout`.
        waited: Duration,
        /// How many nodes were asked, each time it was asked.
        attempts: u32,
        /// What was tried last, and what came of it.
        last: String,
    },
    /// The leader of a shard refused its rows, and would again.
    #[error("append to shard {shard} on node {node}: {reason}")]
    Refused {
        /// Which shard.
        shard: ShardId,
        /// Its leader.
        node: NodeId,
        /// What it said.
        reason: String,
    },
    /// There is no shard map on this node yet.
    #[error("this node does not know the shards yet")]
    NoShards,
    /// Meta could not be asked.
    #[error("ask meta: {0}")]
    Meta(Error),
    /// Meta refused the commit of a flush.
    #[error("commit a flush of shard {shard}: {reason}")]
    Commit {
        /// Which shard.
        shard: ShardId,
        /// Meta's words.
        reason: String,
    },
    /// The shard's epoch has ended: the rows belong to shards of the next.
    #[error("the shard takes no samples anymore, its epoch has ended")]
    Ended,
    /// The node is shutting down.
    #[error("the node is stopping")]
    Stopping,
}

impl HasKind for IngestError {
    fn kind(&self) -> Kind {
        match self {
            Self::Decode(_, kind) | Self::Block(_, kind) | Self::Bucket(_, kind) => *kind,
            Self::Raft(e) => e.kind(),
            Self::Meta(e) => e.kind(),
            Self::Overloaded(_) | Self::Unsettled { .. } | Self::Commit { .. } | Self::Stopping => Kind::Unavailable,
            Self::NotTaken { .. } | Self::NoShards | Self::Ended => Kind::Unavailable,
            Self::Refused { .. } => Kind::Invalid,
            Self::Reply(_) => Kind::Internal,
        }
    }
}

impl From<DecodeError> for IngestError {
    fn from(e: DecodeError) -> Self {
        Self::Decode(e.to_string(), e.kind())
    }
}

impl From<block::Error> for IngestError {
    fn from(e: block::Error) -> Self {
        Self::Block(e.to_string(), e.kind())
    }
}

impl From<chunk::Error> for IngestError {
    fn from(e: chunk::Error) -> Self {
        Self::Block(e.to_string(), e.kind())
    }
}

impl From<store::Error> for IngestError {
    fn from(e: store::Error) -> Self {
        Self::Bucket(e.to_string(), e.kind())
    }
}
