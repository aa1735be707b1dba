//! The replicas of shards that belong on this node: starts what the cluster wants here, removes what it does not.
//!
//! *Invariants:* a replica founds its group only if the cluster says it is a founder and a read of meta has just
//! confirmed it: an old view could make a second group of the same name. A replica is removed only when the group's leader
//! says that it is no member any more, so no group loses a vote it counts on.
//!
//! *Not here:* what is wanted (`meta::placement`), members of a group (`node::members`).

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, RwLock};

use crate::env::{Clock, Rng, SystemRng};
use crate::head::{Head, HeadOptions};
use crate::ingest::Shards;
use crate::ingest::ingester::Shard;
use crate::ingest::series_budget::SeriesBudgets;
use crate::ingest::shard::{ShardMachine, ShardState};
use crate::meta::{self, META, State, shard_of_group};
use crate::model::NodeId;
use crate::raft::{Bootstrap, GroupId, Host, Peer, RaftError, ReplicaId};

/// How often what is here is compared with what is wanted, without a change of either.
const CHECK: Duration = Duration::from_secs(1);

/// How long a group that is over stays for queries that know it.
const LINGER: Duration = Duration::from_secs(60);

/// Keeps this node's replicas as they are wanted.
pub struct Replicas {
    /// This node.
    pub me: NodeId,
    /// Its groups.
    pub host: Host,
    /// Its shards.
    pub shards: Shards,
    /// What is wanted.
    pub meta: meta::Client,
    /// Series in the heads of this node.
    pub budgets: SeriesBudgets,
    /// For the linger.
    pub clock: Arc<dyn Clock>,
    /// Groups that are over, and since when.
    pub over: Mutex<HashMap<GroupId, Duration>>,
}

impl Replicas {
    /// Works until dropped, which is safe at any moment.
    pub async fn run(self) {
        let mut views = self.meta.views.clone();
        loop {
            let state = views.current();
            if let Err(e) = self.settle(&state).await {
                tracing::warn!(error = %e, "replicas are not as they should be yet, trying again");
            }
            tokio::select! {
                changed = views.changed() => if changed.is_none() { return },
                () = tokio::time::sleep(CHECK) => {}
            }
        }
    }

    /// Starts what is in the log of this node: what it may do without asking anybody.
    pub async fn resume(&self, state: &State) -> Result<(), RaftError> {
        let wanted = self.wanted(state);
        let stored = wanted.into_iter().filter(|(group, replica)| self.host.stored_replica(*group) == Some(*replica));
        futures::future::try_join_all(stored.map(|(group, _)| self.start(group, Bootstrap::Resume))).await?;
        Ok(())
    }

    /// Starts and removes replicas until they are as `state` wants them.
    pub async fn settle(&self, state: &State) -> Result<(), RaftError> {
        let wanted = self.wanted(state);
        self.resume(state).await?;
        let mut confirmed = false;
        for (group, replica) in &wanted {
            if self.host.stored_replica(*group).is_some() {
                continue;
            }
            let founders = state.founders.get(group).filter(|founders| founders.contains_key(replica));
            if founders.is_some() && !std::mem::replace(&mut confirmed, true) {
                self.meta.barrier().await?;
                if self.meta.views.current().groups != state.groups {
                    // The view was old; the new one comes at once.
                    return Ok(());
                }
            }
            let founds = founders.is_some();
            let bootstrap = match founders {
                Some(founders) => {
                    let members = founders.iter().map(|(id, node)| (*id, Peer { node: *node })).collect();
                    Bootstrap::Members { replica: *replica, members }
                }
                None => Bootstrap::Joining { replica: *replica },
            };
            self.start(*group, bootstrap).await?;
            tracing::info!(group = group.0, %replica, founds, "replica started");
        }
        for group in self.host.stored_groups().into_iter().filter(|group| *group != META) {
            let Some(replica) = self.host.stored_replica(group) else { continue };
            if wanted.get(&group) != Some(&replica) && self.is_out(state, group, replica).await {
                self.shards.remove(group);
                self.host.delete_group(group).await?;
                self.over.lock().remove(&group);
                tracing::info!(group = group.0, %replica, "replica removed");
            }
        }
        Ok(())
    }

    /// The replicas of shards that belong here.
    fn wanted(&self, state: &State) -> BTreeMap<GroupId, ReplicaId> {
        let here = |(group, placement): (&GroupId, &meta::Placement)| Some((*group, placement.replica_on(self.me)?));
        state.groups.iter().filter(|(group, _)| **group != META).filter_map(here).collect()
    }

    async fn start(&self, id: GroupId, bootstrap: Bootstrap) -> Result<(), RaftError> {
        let Some((_, shard)) = shard_of_group(id).filter(|_| self.shards.get(id).is_none()) else { return Ok(()) };
        let state = Arc::new(RwLock::new(ShardState::new(Head::new(HeadOptions::default(), SystemRng.next_u64()))));
        let machine = ShardMachine::new(Arc::clone(&state), self.budgets.clone());
        let group = self.host.start_group(id, Box::new(machine), bootstrap).await?;
        self.shards.add(Arc::new(Shard::new(shard, state, group)));
        Ok(())
    }

    /// Whether a replica that is not wanted has left its group: its leader knows, or the group is over.
    async fn is_out(&self, state: &State, group: GroupId, replica: ReplicaId) -> bool {
        let Some(placement) = state.groups.get(&group) else {
            // A query that was planned before the epoch retired may still ask for it.
            let now = self.clock.monotonic();
            let since = *self.over.lock().entry(group).or_insert(now);
            return now.saturating_sub(since) >= LINGER;
        };
        let members = self.meta.members_of(group, placement).await;
        members.is_some_and(|m| !m.voters.contains_key(&replica) && !m.learners.contains_key(&replica))
    }
}
