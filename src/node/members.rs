//! Brings the groups that are led here to the members the cluster wants, and lets meta want what is best.
//!
//! *Invariants:* one step of a group at a time, each decided from what the group is then: whoever leads next goes on where
//! this one stopped.
//!
//! *Not here:* the decisions (`meta::membership`, `meta::placement`), replicas of this node (`node::replicas`).

use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, stream};

use crate::env::{Clock, Rng, SystemRng};
use crate::meta::membership::{self, Step};
use crate::meta::{self, Command, Placement, State, placement};
use crate::model::NodeId;
use crate::raft::{Group, GroupId, Host, RaftError, ReplicaId};

/// How often groups are looked at.
const CHECK: Duration = Duration::from_millis(500);

/// How long groups may take to follow a placement before the next one is made.
const FOLLOW: Duration = Duration::from_secs(30);

/// Groups whose members change at the same time: each may send a snapshot.
const AT_ONCE: usize = 4;

/// How often to look whether the lead was taken over.
const HAND_OVER: Duration = Duration::from_millis(10);

/// How long one step may take before the next look.
const STEP: Duration = Duration::from_secs(10);

/// Keeps the members of groups as they are wanted.
pub struct Reconciler {
    /// This node's groups.
    pub host: Host,
    /// What is wanted.
    pub meta: meta::Client,
    /// For how long groups have been following.
    pub clock: Arc<dyn Clock>,
    /// How long a node is silent before its replicas are given to others.
    pub replace_after: Duration,
}

impl Reconciler {
    /// Works until dropped, which is safe at any moment.
    pub async fn run(self) {
        let mut placed = Duration::ZERO;
        loop {
            tokio::time::sleep(CHECK).await;
            let state = self.meta.views.current();
            let now = self.clock.monotonic();
            // A node that is gone never follows: after a while that is not waited for.
            let waited = now.saturating_sub(placed) > FOLLOW;
            if self.meta.group.is_leader() && (waited || self.has_settled(&state)) && self.place(&state).await {
                placed = now;
            }
            let led: Vec<(Group, Placement)> = (state.groups.iter())
                .filter_map(|(id, wanted)| Some((self.host.group(*id).filter(Group::is_leader)?, wanted.clone())))
                .collect();
            stream::iter(led).for_each_concurrent(AT_ONCE, take_step).await;
        }
    }

    /// Whether the groups of this node have the members they should have: more is not asked of them before.
    fn has_settled(&self, state: &State) -> bool {
        state.groups.iter().all(|(id, wanted)| {
            let Some(group) = self.host.group(*id) else { return true };
            let members = group.members();
            !members.joint && members.voters.keys().eq(wanted.replicas.keys())
        })
    }

    /// Proposes better placements; whether there were any.
    async fn place(&self, state: &State) -> bool {
        let silent = self.meta.group.silent_for();
        let live = |node: NodeId| {
            let replica = state.nodes.get(&node).and_then(|node| node.meta_replica);
            let silent = replica.and_then(|replica| silent.get(&replica).copied());
            silent.is_none_or(|silent| silent < self.replace_after)
        };
        let mut fresh = || ReplicaId(SystemRng.next_u64().max(1));
        let changes = placement::plan(state, &live, &mut fresh);
        if changes.is_empty() {
            return false;
        }
        let groups: Vec<u64> = changes.iter().map(|(group, _): &(GroupId, Placement)| group.0).collect();
        match self.meta.propose(Command::Place { changes, based_on: state.applied }).await {
            Ok(meta::Answer::Refused(refusal)) => tracing::info!(%refusal, "placement was changed meanwhile"),
            Ok(_) => tracing::info!(?groups, "placement changed"),
            Err(e) => tracing::debug!(error = %e, "placement could not be changed"),
        }
        true
    }
}

/// Takes the next step of a group that is led here, within its time.
async fn take_step((group, wanted): (Group, Placement)) {
    if let Ok(Err(e)) = tokio::time::timeout(STEP, step(&group, &wanted)).await {
        tracing::debug!(group = group.id().0, error = %e, "members are not changed yet");
    }
}

async fn step(group: &Group, wanted: &Placement) -> Result<(), RaftError> {
    let members = group.members();
    match membership::next(&members, wanted, &group.caught_up(), group.replica()) {
        Step::Nothing => Ok(()),
        Step::AddLearner(replica, node) => {
            tracing::info!(group = group.id().0, %replica, %node, "adding a replica");
            group.add_learner(replica, node).await
        }
        Step::ChangeVoters(voters) => {
            tracing::info!(group = group.id().0, voters = voters.len(), "changing voters");
            group.change_voters(&voters).await
        }
        Step::RemoveLearners(learners) => group.remove_learners(&learners).await,
        Step::TransferLeader(replica) => {
            tracing::info!(group = group.id().0, %replica, "handing over the lead");
            group.transfer_leader(replica).await
        }
    }
}

/// Lets another voter lead a group that is led here, and waits until one does; groups of one end with their node.
pub async fn hand_over(group: &Group) {
    let (members, close) = (group.members(), group.caught_up());
    let heir = members.voters.keys().find(|replica| **replica != group.replica() && close.contains(replica));
    let Some(heir) = heir.filter(|_| group.is_leader()) else { return };
    if let Err(e) = group.transfer_leader(*heir).await {
        tracing::debug!(group = group.id().0, error = %e, "the lead is not handed over");
        return;
    }
    while group.is_leader() {
        tokio::time::sleep(HAND_OVER).await;
    }
}
