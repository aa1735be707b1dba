//! Who is in a group, and changing that.
//!
//! *Invariants:* every step may be repeated, and only the leader takes one. Voters change in one joint step at a time, which
//! ends with exactly the voters asked for; who is dropped leaves the group altogether.
//!
//! *Not here:* who should be in it (`meta::placement`), in which order to get there (`meta::membership`).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use openraft::errors::ClientWriteError;
use openraft::{ChangeMembers, Instant as _};

use super::error::RaftError;
use super::group::Group;
use super::types::{Peer, ReplicaId, TypeConfig};
use crate::model::NodeId;

/// Entries that a learner may be behind and still count as having caught up: the leader goes on while it is asked.
const CAUGHT_UP: u64 = 64;

/// Who is in a group.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Members {
    /// Who votes; of both sides while the voters are being changed.
    pub voters: BTreeMap<ReplicaId, NodeId>,
    /// Who only follows.
    pub learners: BTreeMap<ReplicaId, NodeId>,
    /// Whether a change of voters is under way.
    pub joint: bool,
}

type Changed = Result<(), RaftError>;

impl Group {
    /// Who leads, as far as this replica knows.
    pub fn leader(&self) -> Option<(ReplicaId, NodeId)> {
        let metrics = self.inner.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        let leader = metrics.current_leader?;
        let members = metrics.membership_config.membership();
        members.get_node(&leader).map(|peer| (ReplicaId(leader), peer.node))
    }

    /// Who is in the group, as far as this replica knows.
    pub fn members(&self) -> Members {
        let metrics = self.inner.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        let members = metrics.membership_config.membership();
        let votes: BTreeSet<u64> = members.voter_ids().collect();
        let all = members.nodes().map(|(id, peer)| (ReplicaId(*id), peer.node));
        let (voters, learners) = all.partition(|(id, _)| votes.contains(&id.0));
        Members { voters, learners, joint: members.get_joint_config().len() > 1 }
    }

    /// Whether a replica is in the group, as far as this one knows.
    pub fn has_member(&self, replica: ReplicaId) -> bool {
        let metrics = self.inner.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        metrics.membership_config.membership().get_node(&replica.0).is_some()
    }

    /// Whether there is another replica to replicate to.
    pub fn is_replicated(&self) -> bool {
        let metrics = self.inner.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        metrics.membership_config.membership().nodes().nth(1).is_some()
    }

    /// Whether this replica votes, as far as it knows: one that still catches up, or was never let in, does not.
    pub fn votes(&self) -> bool {
        let metrics = self.inner.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        metrics.membership_config.membership().voter_ids().any(|id| id == self.replica().0)
    }

    /// Which replicas follow this leader closely; none if it does not lead.
    pub fn caught_up(&self) -> BTreeSet<ReplicaId> {
        let metrics = self.inner.raft.data_metrics();
        let metrics = metrics.borrow_watched();
        let last = metrics.last_log.map_or(0, |id| id.index());
        let Some(replication) = &metrics.replication else { return BTreeSet::new() };
        let close = |reached: &Option<super::types::LogId>| reached.is_some_and(|id| id.index() + CAUGHT_UP >= last);
        replication.iter().filter(|(_, reached)| close(reached)).map(|(id, _)| ReplicaId(*id)).collect()
    }

    /// How long each replica has not answered this leader, `None` if it never did; nothing if it does not lead.
    pub fn silent_for(&self) -> BTreeMap<ReplicaId, Option<Duration>> {
        let metrics = self.inner.raft.data_metrics();
        let metrics = metrics.borrow_watched();
        let Some(heard) = &metrics.heartbeat else { return BTreeMap::new() };
        heard.iter().map(|(id, at)| (ReplicaId(*id), at.map(|at| at.elapsed()))).collect()
    }

    /// Adds a replica that follows; it is sent what it lacks from now on.
    pub async fn add_learner(&self, replica: ReplicaId, node: NodeId) -> Changed {
        self.change(ChangeMembers::AddNodes(BTreeMap::from([(replica.0, Peer { node })])), true).await
    }

    /// Makes exactly these replicas, which are in the group, its voters. Who voted and is not among them leaves the group.
    pub async fn change_voters(&self, voters: &BTreeSet<ReplicaId>) -> Changed {
        let voters = voters.iter().map(|id| id.0).collect();
        self.change(ChangeMembers::ReplaceAllVoters(voters), false).await
    }

    /// Removes replicas that follow.
    pub async fn remove_learners(&self, learners: &BTreeSet<ReplicaId>) -> Changed {
        self.change(ChangeMembers::RemoveNodes(learners.iter().map(|id| id.0).collect()), false).await
    }

    /// Asks a voter to take over; whether it does shows later.
    pub async fn transfer_leader(&self, to: ReplicaId) -> Changed {
        self.inner.raft.trigger().transfer_leader(to.0).await.map_err(|e| self.fatal(&e))
    }

    async fn change(&self, change: ChangeMembers<u64, Peer>, retain: bool) -> Changed {
        use openraft::errors::RaftError as Failed;
        // Its lease may have expired while nothing was written.
        self.lead_read_index().await?;
        match self.inner.raft.change_membership(change, retain).await {
            Ok(_) => Ok(()),
            Err(Failed::Fatal(e)) => Err(self.fatal(&e)),
            Err(Failed::APIError(ClientWriteError::ForwardToLeader(f))) => Err(self.not_leader(f)),
            Err(Failed::APIError(e)) => Err(self.refused::<ClientWriteError<TypeConfig>>(&e)),
        }
    }

    fn refused<E: std::fmt::Display>(&self, e: &E) -> RaftError {
        self.unavailable(&format!("change members: {e}"))
    }
}
