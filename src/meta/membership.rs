//! From the membership a group has to the one it should have, step by step.
//!
//! *Invariants:* pure; only the group's leader takes the steps. No step makes a voter of a replica that has not caught up,
//! or removes one before its replacement votes, so a majority that has caught up keeps one. A step may be repeated or lost:
//! the next one is told from what is so then.
//!
//! *Not here:* what is wanted (`placement`), how a group changes (`raft`).

use std::collections::BTreeSet;

use super::cluster::Placement;
use crate::model::NodeId;
use crate::raft::{Members, ReplicaId};

/// What a leader does next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// The group is as it should be, or must wait for replicas to catch up.
    Nothing,
    /// Let a replica follow.
    AddLearner(ReplicaId, NodeId),
    /// Make exactly these the voters; those left out leave the group.
    ChangeVoters(BTreeSet<ReplicaId>),
    /// Let these no longer follow.
    RemoveLearners(BTreeSet<ReplicaId>),
    /// Hand over leading.
    TransferLeader(ReplicaId),
}

/// The next step of the leader `me` from `members` to `wanted`; `caught_up` are the replicas that follow it closely.
pub fn next(members: &Members, wanted: &Placement, caught_up: &BTreeSet<ReplicaId>, me: ReplicaId) -> Step {
    let close = |replica: &ReplicaId| *replica == me || caught_up.contains(replica);
    let present = |replica: &ReplicaId| members.voters.contains_key(replica) || members.learners.contains_key(replica);
    let ready = !wanted.replicas.is_empty() && wanted.replicas.keys().all(|r| present(r) && close(r));
    let voters: BTreeSet<ReplicaId> = wanted.replicas.keys().copied().collect();
    if members.joint {
        // A change left behind by another leader: nothing else goes on before it ends. Who follows closely is a majority
        // of both its sides, or this replica would not lead.
        let able = || members.voters.keys().copied().filter(|r| close(r)).collect();
        return Step::ChangeVoters(if ready { voters } else { able() });
    }
    let all = || wanted.replicas.iter().chain(&wanted.learners);
    if let Some((replica, node)) = all().find(|(replica, _)| !present(replica)) {
        return Step::AddLearner(*replica, *node);
    }
    let right = members.voters.keys().eq(wanted.replicas.keys());
    if !right && ready {
        // A leader that is to go hands over first if it can: otherwise the group waits for an election.
        let heir = wanted.preferred.into_iter().chain(voters.iter().copied()).find(|r| members.voters.contains_key(r));
        return match heir {
            Some(heir) if !voters.contains(&me) => Step::TransferLeader(heir),
            _ => Step::ChangeVoters(voters),
        };
    }
    let surplus: BTreeSet<ReplicaId> = (members.learners.keys().copied())
        .filter(|r| !wanted.replicas.contains_key(r) && !wanted.learners.contains_key(r))
        .collect();
    if !surplus.is_empty() {
        return Step::RemoveLearners(surplus);
    }
    match wanted.preferred {
        Some(preferred) if preferred != me && members.voters.contains_key(&preferred) && close(&preferred) => {
            Step::TransferLeader(preferred)
        }
        _ => Step::Nothing,
    }
}

#[cfg(test)]
mod tests;
