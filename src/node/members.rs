//! Brings the groups that are led here to the members the cluster wants, and lets meta want what is best.
//!
//! *Invariants:* one step of a group at a time, each decided from what the group is then: whoever leads next goes on where
//! this one stopped.
//!
//! *Not here:* the decisions (`meta::membership`, `meta::placement`), replicas of this node (`node::replicas`).

use std::collections::BTreeMap;
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
        let (mut placed, mut heard) = (Duration::ZERO, Heard::default());
        loop {
            tokio::time::sleep(CHECK).await;
            let state = self.meta.views.current();
            let now = self.clock.monotonic();
            heard.look(self.meta.group.is_leader().then(|| self.meta.group.silent_for()), now);
            // A node that is gone never follows: after a while that is not waited for.
            let waited = now.saturating_sub(placed) > FOLLOW;
            if self.meta.group.is_leader()
                && (waited || self.has_settled(&state))
                && self.place(&state, |replica| heard.silent_for(replica, now)).await
            {
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
    async fn place(&self, state: &State, silent_for: impl Fn(ReplicaId) -> Option<Duration>) -> bool {
        let me = self.meta.group.replica();
        let live = |node: NodeId| {
            let replica = state.nodes.get(&node).and_then(|node| node.meta_replica).filter(|replica| *replica != me);
            replica.and_then(&silent_for).is_none_or(|silent| silent < self.replace_after)
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

/// When this node, leading meta, last heard of each replica of it.
#[derive(Default)]
struct Heard(BTreeMap<ReplicaId, Duration>);

impl Heard {
    /// Takes over for how long each replica is silent now; `None` where nobody asks it, because another node leads. A
    /// replica that never answered is silent from the first look on, not from never.
    fn look(&mut self, silent: Option<BTreeMap<ReplicaId, Option<Duration>>>, now: Duration) {
        let Some(silent) = silent else { return self.0.clear() };
        self.0.retain(|replica, _| silent.contains_key(replica));
        for (replica, silent) in silent {
            let said = silent.map(|silent| now.saturating_sub(silent));
            let at = self.0.get(&replica).copied().max(said).unwrap_or(now);
            self.0.insert(replica, at);
        }
    }

    /// For how long a replica is silent; `None` if it is not in the group yet.
    fn silent_for(&self, replica: ReplicaId, now: Duration) -> Option<Duration> {
        Some(now.saturating_sub(*self.0.get(&replica)?))
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

#[cfg(test)]
mod tests {
    use super::*;

    const A: ReplicaId = ReplicaId(1);
    const B: ReplicaId = ReplicaId(2);

    fn secs(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn a_replica_that_never_answered_a_new_leader_is_missed_like_one_that_did() {
        let mut heard = Heard::default();
        let silent = |a: Option<u64>| Some(BTreeMap::from([(A, a.map(secs)), (B, None)]));
        heard.look(silent(None), secs(100));
        assert_eq!([A, B].map(|r| heard.silent_for(r, secs(100))), [Some(secs(0)); 2]);
        heard.look(silent(Some(2)), secs(110));
        assert_eq!([A, B].map(|r| heard.silent_for(r, secs(110))), [Some(secs(2)), Some(secs(10))]);
        // The lead was lost and won again between two looks: what was heard before still counts.
        heard.look(silent(None), secs(111));
        assert_eq!([A, B].map(|r| heard.silent_for(r, secs(111))), [Some(secs(3)), Some(secs(11))]);
    }

    #[test]
    fn silence_counts_only_while_this_node_asks() {
        let mut heard = Heard::default();
        heard.look(Some(BTreeMap::from([(A, Some(secs(9)))])), secs(100));
        assert_eq!([A, B].map(|r| heard.silent_for(r, secs(100))), [Some(secs(9)), None], "B is not in the group");
        heard.look(None, secs(200));
        heard.look(Some(BTreeMap::from([(A, None)])), secs(300));
        assert_eq!(heard.silent_for(A, secs(301)), Some(secs(1)));
        heard.look(Some(BTreeMap::new()), secs(302));
        assert_eq!(heard.silent_for(A, secs(302)), None, "it has left the group");
    }
}
