//! Moves replicas between nodes, as `node` does with what meta decides: fresh replicas, the real order of steps.
//!
//! *Invariants:* a replica is removed from its node only after the leader has confirmed that it left the group.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::world::{NODES, REPLICAS, World, groups};
use crate::env::Rng;
use crate::ingest::ingester::Shard;
use crate::meta::Placement;
use crate::meta::membership::{Step, next};
use crate::model::NodeId;
use crate::raft::{Bootstrap, GroupId, ReplicaId};

const CHECK: Duration = Duration::from_millis(200);
/// For one change of members.
const PATIENCE: Duration = Duration::from_secs(5);

/// Works until the world stops.
pub(super) async fn run(world: Arc<World>) {
    // Some seeds move much, some nothing.
    let often = [0, 40, 8][world.rng.below(3) as usize];
    let mut fresh = 1000;
    while !world.is_stopped() {
        tokio::time::sleep(CHECK).await;
        for group in groups() {
            if often > 0 && !world.is_calm() && world.rng.below(often) == 0 {
                move_one(&world, group, &mut fresh);
            }
            settle(&world, group).await;
        }
    }
}

/// Wants one replica on another node.
fn move_one(world: &World, group: GroupId, fresh: &mut u64) {
    let mut wanted = world.wanted.lock();
    let Some(placement) = wanted.get_mut(&group) else { return };
    let free: Vec<u64> = (1..=NODES).filter(|node| placement.replica_on(NodeId(*node)).is_none()).collect();
    let from = placement.replicas.keys().copied().nth(world.rng.below(REPLICAS) as usize);
    let (Some(from), Some(to)) = (from, free.get(world.rng.below(free.len() as u64) as usize)) else { return };
    placement.replicas.remove(&from);
    *fresh += 1;
    placement.replicas.insert(ReplicaId(group.0 << 32 | *fresh), NodeId(*to));
    world.trace.event(|| format!("group {group}: replica {from} shall move to node {to}"));
    world.count("replica moved");
}

async fn settle(world: &Arc<World>, group: GroupId) {
    let Some(wanted) = world.wanted.lock().get(&group).cloned() else { return };
    for (replica, node) in &wanted.replicas {
        let Some(running) = world.running(node.0) else { continue };
        if running.host.stored_replica(group).is_none() {
            // It fails with its node's disk, and is tried again.
            drop(running.replica(group, Bootstrap::Joining { replica: *replica }).await);
        }
    }
    let Some((_, leader)) = world.leader(group) else { return };
    if let Err(_elapsed) = tokio::time::timeout(PATIENCE, step(world, &leader, &wanted)).await {
        world.trace.event(|| format!("group {group}: a change of members takes long"));
    }
    remove_old(world, group, &leader, &wanted).await;
}

/// The leader's next step towards `wanted`; one that fails is told anew.
async fn step(world: &World, leader: &Shard, wanted: &Placement) {
    let group = &leader.group;
    let step = next(&group.members(), wanted, &group.caught_up(), group.replica());
    if step == Step::Nothing {
        return;
    }
    world.trace.event(|| format!("group {}: {step:?}", group.id()));
    let done = match step {
        Step::Nothing => Ok(()),
        Step::AddLearner(replica, node) => group.add_learner(replica, node).await,
        Step::ChangeVoters(voters) => group.change_voters(&voters).await,
        Step::RemoveLearners(learners) => group.remove_learners(&learners).await,
        Step::TransferLeader(to) => group.transfer_leader(to).await,
    };
    if let Err(e) = done {
        world.trace.event(|| format!("group {}: {e}", group.id()));
    }
}

/// Removes replicas that left the group.
async fn remove_old(world: &Arc<World>, group: GroupId, leader: &Shard, wanted: &Placement) {
    if !matches!(tokio::time::timeout(PATIENCE, leader.group.lead_read_index()).await, Ok(Ok(_))) {
        return;
    }
    let members = leader.group.members();
    let of: BTreeSet<ReplicaId> = members.voters.keys().chain(members.learners.keys()).copied().collect();
    for node in 1..=NODES {
        let Some(running) = world.running(node) else { continue };
        let Some(replica) = running.host.stored_replica(group) else { continue };
        if !of.contains(&replica) && !wanted.replicas.contains_key(&replica) {
            running.shards.lock().remove(&group);
            world.trace.event(|| format!("group {group}: replica {replica} goes from node {node}"));
            // It fails with its node's disk, and is tried again.
            drop(running.host.delete_group(group).await);
        }
    }
}
