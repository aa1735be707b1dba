//! The words this module shares with openraft; nobody else names its types.
//!
//! *Invariants:* none of these types is ever written to disk or wire by a derived encoding (`codec` does that).

use std::fmt;

use bytes::Bytes;
use openraft::RaftTypeConfig;

use crate::model::ids::NodeId;

openraft::declare_raft_types!(
    /// openraft's parameters: entries and replies are opaque bytes, replicas are numbers.
    pub(crate) TypeConfig:
        D = Command,
        R = Bytes,
        NodeId = u64,
        Node = Peer,
        AsyncRuntime = super::runtime::Runtime,
);

pub(crate) type LeaderId = <TypeConfig as RaftTypeConfig>::LeaderId;
pub(crate) type LogId = openraft::LogId<LeaderId>;
pub(crate) type Vote = <TypeConfig as RaftTypeConfig>::Vote;
pub(crate) type Entry = <TypeConfig as RaftTypeConfig>::Entry;
pub(crate) type Payload = <TypeConfig as RaftTypeConfig>::Payload;
pub(crate) type Membership = openraft::Membership<u64, Peer>;
pub(crate) type StoredMembership = openraft::StoredMembership<LeaderId, u64, Peer>;
pub(crate) type SnapshotMeta = openraft::SnapshotMeta<LeaderId, u64, Peer>;

/// One Raft group of the cluster; given once, never again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupId(pub u64);

impl fmt::Display for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One copy of one group; fresh for every copy, even of the same group on the same node, and never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ReplicaId(pub u64);

impl fmt::Display for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Where a replica lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Peer {
    /// The machine.
    pub node: NodeId,
}

/// An entry's payload: bytes only the state machine understands.
#[derive(Clone, PartialEq, Eq)]
pub struct Command(pub Bytes);

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

/// The index after `id`: where a log that ends (or was purged) there goes on.
pub(crate) fn next_index(id: Option<&LogId>) -> u64 {
    id.map_or(0, |id| id.index() + 1)
}
