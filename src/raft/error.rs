//! What can go wrong with a replicated log.
//!
//! *Invariants:* [`RaftError::Unknown`] is the only answer after which a proposal may or may not take effect;
//! [`RaftError::Fatal`] means that this node must stop.

use std::io;

use super::types::{GroupId, Peer, ReplicaId};
use crate::error::{HasKind, Kind};

/// Why a group could not do what was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RaftError {
    /// Another replica leads; the proposal was not appended.
    #[error("group {group} is not led here, leader {leader:?}")]
    NotLeader {
        /// The group asked.
        group: GroupId,
        /// The leader as far as this replica knows.
        leader: Option<(ReplicaId, Peer)>,
    },
    /// Nobody can answer now; nothing was appended.
    #[error("group {group} is unavailable: {reason}")]
    Unavailable {
        /// The group asked.
        group: GroupId,
        /// Why.
        reason: String,
    },
    /// The leader changed while the proposal was on its way: it may or may not be applied.
    #[error("group {group} lost its leader while committing, outcome unknown")]
    Unknown {
        /// The group asked.
        group: GroupId,
    },
    /// The proposal is larger than an entry may be.
    #[error("propose to group {group}: {bytes} bytes, at most {limit} fit an entry")]
    TooLarge {
        /// The group asked.
        group: GroupId,
        /// The size proposed.
        bytes: usize,
        /// The most an entry may have.
        limit: usize,
    },
    /// The group is not on this node, or is there already.
    #[error("group {group}: {reason}")]
    NoSuchGroup {
        /// The group asked for.
        group: GroupId,
        /// What is wrong with it.
        reason: String,
    },
    /// Stored bytes are not what was written.
    #[error("read {what}: {reason}")]
    Corrupt {
        /// The file.
        what: String,
        /// Where in it, and what is wrong.
        reason: String,
    },
    /// The disk refused while opening.
    #[error("{what}: {reason}")]
    Disk {
        /// What was tried.
        what: String,
        /// The disk's answer.
        reason: String,
    },
    /// The log or a state machine failed: this node must stop.
    #[error("raft stopped: {reason}")]
    Fatal {
        /// What failed first.
        reason: String,
    },
}

impl HasKind for RaftError {
    fn kind(&self) -> Kind {
        match self {
            RaftError::NotLeader { .. } | RaftError::Unavailable { .. } | RaftError::Unknown { .. } => {
                Kind::Unavailable
            }
            RaftError::TooLarge { .. } => Kind::Invalid,
            RaftError::NoSuchGroup { .. } => Kind::NotFound,
            RaftError::Corrupt { .. } => Kind::Corrupt,
            RaftError::Disk { .. } | RaftError::Fatal { .. } => Kind::Internal,
        }
    }
}

impl RaftError {
    pub(crate) fn corrupt(what: impl ToString, reason: impl ToString) -> Self {
        Self::Corrupt { what: what.to_string(), reason: reason.to_string() }
    }

    pub(crate) fn fatal(reason: impl ToString) -> Self {
        Self::Fatal { reason: reason.to_string() }
    }

    /// For `map_err`: an io error while trying `what`.
    pub(crate) fn disk(what: impl ToString) -> impl FnOnce(io::Error) -> Self {
        move |e| Self::Disk { what: what.to_string(), reason: e.to_string() }
    }
}

impl From<RaftError> for io::Error {
    fn from(e: RaftError) -> Self {
        let kind =
            if matches!(e, RaftError::Corrupt { .. }) { io::ErrorKind::InvalidData } else { io::ErrorKind::Other };
        io::Error::new(kind, e)
    }
}
