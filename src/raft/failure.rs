//! A group's refusals on their way between nodes.
//!
//! *Invariants:* what a caller must tell apart stays apart: not led here (and who leads), not now, outcome unknown.
//!
//! *Not here:* the refusals themselves (`error`).

use super::error::RaftError;
use super::types::{GroupId, Peer, ReplicaId};
use crate::error::{HasKind, Kind};
use crate::model::NodeId;
use crate::proto::v1::Failure;
use crate::proto::v1::failure::Kind as Wire;

impl From<&RaftError> for Failure {
    fn from(e: &RaftError) -> Self {
        let (kind, leader) = match e {
            RaftError::NotLeader { leader, .. } => (Wire::NotLeader, *leader),
            RaftError::Unknown { .. } => (Wire::Unknown, None),
            RaftError::NoSuchGroup { .. } => (Wire::NotFound, None),
            other => match other.kind() {
                Kind::Invalid => (Wire::Invalid, None),
                Kind::Unavailable => (Wire::Unavailable, None),
                Kind::Limited => (Wire::Limited, None),
                _ => (Wire::Internal, None),
            },
        };
        let (leader_replica, leader_node) = leader.map_or((0, 0), |(replica, peer)| (replica.0, peer.node.0));
        Self { kind: kind.into(), message: e.to_string(), leader_replica, leader_node }
    }
}

impl RaftError {
    /// What another node refused, for `group`.
    pub fn from_failure(group: GroupId, failure: Failure) -> Self {
        let reason = failure.message;
        match Wire::try_from(failure.kind) {
            Ok(Wire::NotLeader) => {
                let peer = Peer { node: NodeId(failure.leader_node) };
                let leader = (failure.leader_node != 0).then_some((ReplicaId(failure.leader_replica), peer));
                Self::NotLeader { group, leader }
            }
            Ok(Wire::Unknown) => Self::Unknown { group },
            Ok(Wire::NotFound) => Self::NoSuchGroup { group, reason },
            _ => Self::Unavailable { group, reason },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_caller_must_tell_apart_stays_apart_on_its_way() {
        let group = GroupId(7);
        let leader = Some((ReplicaId(3), Peer { node: NodeId(2) }));
        for e in [
            RaftError::NotLeader { group, leader },
            RaftError::NotLeader { group, leader: None },
            RaftError::Unknown { group },
        ] {
            let again = RaftError::from_failure(group, Failure::from(&e));
            assert_eq!(format!("{again:?}"), format!("{e:?}"));
        }
        let e = RaftError::Unavailable { group, reason: "no disk".into() };
        let again = RaftError::from_failure(group, Failure::from(&e));
        assert!(matches!(&again, RaftError::Unavailable { reason, .. } if reason.contains("no disk")), "{again}");
    }
}
