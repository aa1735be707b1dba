//! What meta answers, and why it refuses.
//!
//! ```text
//! answer   version (1) | kind | fields        kinds: 1 done, 2 committed, 3 refused, 4 joined
//! ```
//!
//! *Invariants:* a refusal changed nothing. Its text is for people, so it names what and where.
//!
//! *Not here:* the rules (`state`).

use bytes::Bytes;

use super::codec::{Malformed, Writer};
use super::command::{VERSION, open};
use crate::error::{HasKind, Kind};
use crate::model::{NodeId, TenantId};
use crate::raft::{GroupId, ReplicaId};

/// What meta answers to a proposal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It is so.
    Done,
    /// These versions hold the commit.
    Committed(Committed),
    /// Nothing was changed.
    Refused(Refusal),
    /// The node belongs to the cluster.
    Joined {
        /// Its id.
        node: NodeId,
        /// Its replica of the meta group.
        meta_replica: ReplicaId,
    },
}

/// Where a commit went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// The version per tenant that holds it, in the order of the commit. For a repeat of an older number it is a version
    /// that holds it, not the first one that did.
    pub versions: Vec<(TenantId, u64)>,
    /// Whether it had been decided before.
    pub repeat: bool,
}

/// Why meta changed nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The entry cannot be read or contradicts itself.
    #[error("entry cannot be applied: {0}")]
    Invalid(String),
    /// There is no cluster yet.
    #[error("the cluster is not initialised")]
    NotInitialised,
    /// There is another cluster already.
    #[error("the cluster is initialised as {0}")]
    OtherCluster(String),
    /// The files may have been taken for orphans: upload them again.
    #[error("the upload began {0} ms before the commit, longer than files without an entry are safe")]
    UploadTooOld(u64),
    /// A repeat names a table that the first commit of this number did not have.
    #[error("commit was decided before without the table of tenant {0}")]
    NotARepeat(String),
    /// Too many commits wait for the bucket.
    #[error("{0} bytes of commits wait for the bucket")]
    Backlog(u64),
    /// Decided on an older state: look again.
    #[error("the placement of group {0} changed meanwhile")]
    Stale(GroupId),
    /// The cluster is not in a state that allows it.
    #[error("{0}")]
    Conflict(String),
    /// No such node.
    #[error("node {0} is not part of the cluster")]
    UnknownNode(NodeId),
}

impl HasKind for Refusal {
    fn kind(&self) -> Kind {
        match self {
            Self::Invalid(_) | Self::NotARepeat(_) => Kind::Internal,
            Self::NotInitialised | Self::UploadTooOld(_) | Self::Backlog(_) | Self::Stale(_) => Kind::Unavailable,
            Self::OtherCluster(_) | Self::Conflict(_) => Kind::Invalid,
            Self::UnknownNode(_) => Kind::NotFound,
        }
    }
}

impl Answer {
    /// The answer's bytes.
    pub fn encode(&self) -> Bytes {
        let mut w = Writer::default();
        w.number(VERSION);
        match self {
            Self::Done => {
                w.number(1);
            }
            Self::Committed(committed) => {
                w.number(2).number(u64::from(committed.repeat)).number(committed.versions.len() as u64);
                for (tenant, version) in &committed.versions {
                    w.text(tenant.as_str()).number(*version);
                }
            }
            Self::Refused(refusal) => {
                w.number(3);
                match refusal {
                    Refusal::Invalid(why) => w.number(1).text(why),
                    Refusal::NotInitialised => w.number(2),
                    Refusal::OtherCluster(id) => w.number(3).text(id),
                    Refusal::UploadTooOld(ms) => w.number(4).number(*ms),
                    Refusal::NotARepeat(tenant) => w.number(5).text(tenant),
                    Refusal::Backlog(bytes) => w.number(6).number(*bytes),
                    Refusal::Stale(group) => w.number(7).number(group.0),
                    Refusal::Conflict(why) => w.number(8).text(why),
                    Refusal::UnknownNode(node) => w.number(9).number(node.0),
                };
            }
            Self::Joined { node, meta_replica } => {
                w.number(4).number(node.0).replica(Some(*meta_replica));
            }
        }
        w.0.into()
    }

    /// Reads an answer's bytes.
    pub fn decode(bytes: &Bytes) -> Result<Self, Malformed> {
        let mut r = open(bytes)?;
        let answer = match r.number()? {
            1 => Self::Done,
            2 => {
                let repeat = r.number()? != 0;
                let mut versions = Vec::new();
                for _ in 0..r.count()? {
                    versions.push((r.tenant()?, r.number()?));
                }
                Self::Committed(Committed { versions, repeat })
            }
            3 => Self::Refused(match r.number()? {
                1 => Refusal::Invalid(r.text()?),
                2 => Refusal::NotInitialised,
                3 => Refusal::OtherCluster(r.text()?),
                4 => Refusal::UploadTooOld(r.number()?),
                5 => Refusal::NotARepeat(r.text()?),
                6 => Refusal::Backlog(r.number()?),
                7 => Refusal::Stale(GroupId(r.number()?)),
                8 => Refusal::Conflict(r.text()?),
                9 => Refusal::UnknownNode(NodeId(r.number()?)),
                code => return Err(Malformed::Unknown(code)),
            }),
            4 => Self::Joined { node: NodeId(r.number()?), meta_replica: r.replica()? },
            kind => return Err(Malformed::Unknown(kind)),
        };
        r.end()?;
        Ok(answer)
    }
}
