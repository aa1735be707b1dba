//! The machines of a cluster and which of them hold which replicas.
//!
//! *Invariants:* node and replica ids are given once, never again. A placement is what is *wanted*: a group's own
//! membership follows it (`membership`) and may be behind.
//!
//! *Not here:* what is wanted (`placement`), who may change it when (`state`).

use std::collections::{BTreeMap, BTreeSet};

use super::codec::{Malformed, Reader, Writer};
use crate::model::{Epoch, NodeId, ShardId};
use crate::raft::{GroupId, ReplicaId};

/// Group of the meta state machine.
pub const META: GroupId = GroupId(0);
/// Replicas wanted per shard unless the cluster was told another number.
pub const DEFAULT_REPLICATION: u32 = 3;

/// The Raft group of a shard.
pub fn shard_group(epoch: Epoch, shard: ShardId) -> GroupId {
    GroupId(epoch.0 << 32 | (u64::from(shard.0) + 1))
}

/// The shard a group holds; `None` for meta.
pub fn shard_of_group(group: GroupId) -> Option<(Epoch, ShardId)> {
    let shard = (group.0 as u32).checked_sub(1)?;
    Some((Epoch(group.0 >> 32), ShardId(shard)))
}

/// Whether a node takes new replicas.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NodeStatus {
    /// It does.
    #[default]
    Active,
    /// It does not, and loses those it has.
    Draining,
}

/// A machine of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Node {
    /// Its id.
    pub id: NodeId,
    /// Its name, for people; no two nodes have the same.
    pub name: String,
    /// Where it stands, for spreading replicas; may be empty.
    pub zone: String,
    /// Where other nodes reach it, `host:port`; empty if it never said.
    pub grpc: String,
    /// Where clients reach it, `host:port`; empty if it never said.
    pub http: String,
    /// Whether it takes new replicas.
    pub status: NodeStatus,
    /// Version of its binary, as it last said; may be empty.
    pub version: String,
    /// Its replica of the meta group; `None` for a node of the first release until it says so by joining again.
    pub meta_replica: Option<ReplicaId>,
}

/// The replicas a group should have.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Placement {
    /// The voters, and the node of each.
    pub replicas: BTreeMap<ReplicaId, NodeId>,
    /// Those that only watch; only meta has them.
    pub learners: BTreeMap<ReplicaId, NodeId>,
    /// The voter that should lead.
    pub preferred: Option<ReplicaId>,
}

impl Placement {
    /// A group of one replica.
    pub fn single(replica: ReplicaId, node: NodeId) -> Self {
        Self { replicas: BTreeMap::from([(replica, node)]), learners: BTreeMap::new(), preferred: Some(replica) }
    }

    /// The replica on a node, voting or not.
    pub fn replica_on(&self, node: NodeId) -> Option<ReplicaId> {
        self.replicas.iter().chain(&self.learners).find(|(_, on)| **on == node).map(|(replica, _)| *replica)
    }

    /// The nodes of the voters.
    pub fn voting_nodes(&self) -> BTreeSet<NodeId> {
        self.replicas.values().copied().collect()
    }

    /// Takes a node's replicas out.
    pub(super) fn remove_node(&mut self, node: NodeId) {
        self.replicas.retain(|_, on| *on != node);
        self.learners.retain(|_, on| *on != node);
        self.preferred = self.preferred.filter(|replica| self.replicas.contains_key(replica));
    }

    /// What contradicts itself, if something does.
    pub(super) fn contradiction(&self, group: GroupId) -> Option<&'static str> {
        let all = self.replicas.len() + self.learners.len();
        let nodes: BTreeSet<NodeId> = self.replicas.values().chain(self.learners.values()).copied().collect();
        if self.replicas.is_empty() {
            return Some("has no replica");
        }
        if nodes.len() < all || self.learners.keys().any(|replica| self.replicas.contains_key(replica)) {
            return Some("has two replicas on one node or one replica on two");
        }
        if self.preferred.is_some_and(|replica| !self.replicas.contains_key(&replica)) {
            return Some("prefers a replica it does not have");
        }
        (group != META && !self.learners.is_empty()).then_some("has learners, only meta may")
    }
}

impl Writer {
    pub(super) fn node(&mut self, node: &Node) -> &mut Self {
        self.number(node.id.0).text(&node.name).text(&node.zone).text(&node.grpc).text(&node.http);
        self.status(node.status).text(&node.version).replica(node.meta_replica)
    }

    pub(super) fn status(&mut self, status: NodeStatus) -> &mut Self {
        self.number(match status {
            NodeStatus::Active => 0,
            NodeStatus::Draining => 1,
        })
    }

    pub(super) fn placement(&mut self, placement: &Placement) -> &mut Self {
        self.replicas(&placement.replicas).replicas(&placement.learners).replica(placement.preferred)
    }

    pub(super) fn replicas(&mut self, replicas: &BTreeMap<ReplicaId, NodeId>) -> &mut Self {
        self.number(replicas.len() as u64);
        for (replica, node) in replicas {
            self.replica(Some(*replica)).number(node.0);
        }
        self
    }

    /// A replica that may be absent: its eight bytes or none, with their number (ids are random, all bits are used).
    pub(super) fn replica(&mut self, replica: Option<ReplicaId>) -> &mut Self {
        match replica {
            Some(replica) => self.bytes(&replica.0.to_le_bytes()),
            None => self.bytes(&[]),
        }
    }
}

impl Reader {
    pub(super) fn node(&mut self) -> Result<Node, Malformed> {
        Ok(Node {
            id: NodeId(self.number()?),
            name: self.text()?,
            zone: self.text()?,
            grpc: self.text()?,
            http: self.text()?,
            status: self.status()?,
            version: self.text()?,
            meta_replica: self.optional_replica()?,
        })
    }

    /// A node as the first release wrote it.
    pub(super) fn node_v1(&mut self) -> Result<Node, Malformed> {
        Ok(Node { id: NodeId(self.number()?), name: self.text()?, zone: self.text()?, ..Node::default() })
    }

    pub(super) fn status(&mut self) -> Result<NodeStatus, Malformed> {
        match self.number()? {
            0 => Ok(NodeStatus::Active),
            1 => Ok(NodeStatus::Draining),
            status => Err(Malformed::Unknown(status)),
        }
    }

    pub(super) fn placement(&mut self) -> Result<Placement, Malformed> {
        Ok(Placement { replicas: self.replicas()?, learners: self.replicas()?, preferred: self.optional_replica()? })
    }

    pub(super) fn replicas(&mut self) -> Result<BTreeMap<ReplicaId, NodeId>, Malformed> {
        (0..self.count()?).map(|_| Ok((self.replica()?, NodeId(self.number()?)))).collect()
    }

    pub(super) fn replica(&mut self) -> Result<ReplicaId, Malformed> {
        self.optional_replica()?.ok_or(Malformed::Number)
    }

    pub(super) fn optional_replica(&mut self) -> Result<Option<ReplicaId>, Malformed> {
        let bytes = self.bytes()?;
        if bytes.is_empty() {
            return Ok(None);
        }
        let id: [u8; 8] = bytes[..].try_into().map_err(|_| Malformed::Number)?;
        Ok(Some(ReplicaId(u64::from_le_bytes(id))))
    }
}
