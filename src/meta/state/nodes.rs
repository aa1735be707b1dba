//! Machines, placements and epochs: what commands do to them.
//!
//! *Invariants:* every placement belongs to meta or to a shard of a live epoch, and names only nodes of the cluster. No
//! command leaves a group without a replica.
//!
//! *Not here:* where replicas should go (`placement`).

use std::collections::BTreeSet;

use super::State;
use crate::meta::answer::{Answer, Refusal};
use crate::meta::cluster::{META, Node, NodeStatus, Placement, shard_group, shard_of_group};
use crate::meta::command::{Init, Join};
use crate::meta::shard_map::ShardMap;
use crate::model::{Epoch, NodeId};
use crate::raft::GroupId;

/// Most shards an epoch may have.
pub const SHARDS_MAX: u32 = 4096;

impl State {
    /// The node of this id or name.
    pub fn find_node(&self, id_or_name: &str) -> Option<&Node> {
        let named = self.nodes.values().find(|node| node.name == id_or_name);
        named.or_else(|| self.nodes.get(&NodeId(id_or_name.parse().ok()?)))
    }

    /// Whether a group is meta or a shard of a live epoch.
    pub fn has_group(&self, group: GroupId) -> bool {
        let of_epoch =
            |(epoch, shard)| self.epochs.iter().any(|map: &ShardMap| map.epoch == epoch && shard < map.shards);
        group == META || shard_of_group(group).is_some_and(|(epoch, shard)| of_epoch((epoch, shard.0)))
    }

    /// The first node and the replicas it has.
    pub(super) fn first_node(&mut self, init: &Init) -> Result<(), Refusal> {
        check_shards(init.shards as usize)?;
        let map = ShardMap { epoch: init.epoch, shards: init.shards };
        let node = init.node.id;
        if !init.shard_replicas.is_empty() && init.shard_replicas.len() != init.shards as usize {
            let given = init.shard_replicas.len();
            return Err(Refusal::Invalid(format!("{given} replicas are given for {} shards", init.shards)));
        }
        let next_node = node.0.checked_add(1).ok_or_else(|| Refusal::Invalid("no node id is left".into()))?;
        self.bucket.clone_from(&init.bucket);
        self.replication = init.replication.max(1);
        self.next_node = next_node;
        self.shard_map = map;
        self.epochs = vec![map];
        if let Some(replica) = init.node.meta_replica {
            self.set_placement(META, Placement::single(replica, node));
        }
        for (shard, replica) in map.ids().zip(&init.shard_replicas) {
            self.set_placement(shard_group(map.epoch, shard), Placement::single(*replica, node));
        }
        self.nodes.insert(node, init.node.clone());
        Ok(())
    }

    pub(super) fn join(&mut self, join: Join) -> Result<Answer, Refusal> {
        if let (Some(mine), Some(theirs)) = (self.cluster, join.cluster)
            && mine != theirs
        {
            return Err(Refusal::OtherCluster(mine.to_string()));
        }
        if !join.bucket.is_empty() && !self.bucket.is_empty() && join.bucket != self.bucket {
            let text =
                format!("node {:?} was told bucket {}, the cluster uses {}", join.name, join.bucket, self.bucket);
            return Err(Refusal::Conflict(text));
        }
        let same_name = self.nodes.values().find(|node| node.name == join.name && node.id != join.node);
        let id = match same_name {
            // The answer to a first attempt was lost.
            Some(node) if join.node.0 == 0 && node.meta_replica.is_some() && node.meta_replica == join.meta_replica => {
                node.id
            }
            Some(node) => {
                let text = format!(
                    "the cluster has a node named {:?} already, node {} at {}: choose another name, or remove that node",
                    node.name, node.id, node.grpc
                );
                return Err(Refusal::Conflict(text));
            }
            None if join.node.0 == 0 => return self.add_node(join),
            None => join.node,
        };
        self.update_node(id, join)
    }

    fn add_node(&mut self, join: Join) -> Result<Answer, Refusal> {
        let missing = |what| Err(Refusal::Invalid(format!("a node joins without {what}")));
        let Some(replica) = join.meta_replica else { return missing("a replica of meta") };
        if join.name.is_empty() || join.grpc.is_empty() {
            return missing("a name and an address");
        }
        if self.nodes.values().any(|node| node.meta_replica == Some(replica)) {
            return Err(Refusal::Invalid(format!("replica {replica} of meta was given before")));
        }
        let id = NodeId(self.next_node);
        self.next_node = id.0.checked_add(1).ok_or_else(|| Refusal::Invalid("no node id is left".into()))?;
        if self.bucket.is_empty() {
            self.bucket = join.bucket;
        }
        let Join { name, zone, grpc, http, version, .. } = join;
        let status = NodeStatus::Active;
        let node = Node { id, name, zone, grpc, http, status, version, meta_replica: Some(replica) };
        self.nodes.insert(id, node);
        // Watching begins at once: a node that does not see meta can do nothing.
        if let Some(mut meta) = self.groups.get(&META).cloned() {
            meta.learners.insert(replica, id);
            self.set_placement(META, meta);
        }
        Ok(Answer::Joined { node: id, meta_replica: replica })
    }

    fn update_node(&mut self, id: NodeId, join: Join) -> Result<Answer, Refusal> {
        let Some(node) = self.nodes.get_mut(&id) else { return Err(Refusal::UnknownNode(id)) };
        let Some(replica) = node.meta_replica.or(join.meta_replica) else {
            return Err(Refusal::Invalid(format!("node {id} joins without a replica of meta")));
        };
        node.meta_replica = Some(replica);
        (node.name, node.zone, node.version) = (join.name, join.zone, join.version);
        (node.grpc, node.http) = (join.grpc, join.http);
        if self.bucket.is_empty() {
            self.bucket = join.bucket;
        }
        Ok(Answer::Joined { node: id, meta_replica: replica })
    }

    pub(super) fn set_status(&mut self, id: NodeId, status: NodeStatus) -> Result<Answer, Refusal> {
        self.nodes.get_mut(&id).ok_or(Refusal::UnknownNode(id))?.status = status;
        Ok(Answer::Done)
    }

    pub(super) fn remove_node(&mut self, id: NodeId, force: bool) -> Result<Answer, Refusal> {
        if !self.nodes.contains_key(&id) {
            // Ids are given once: it was removed before.
            return if id.0 != 0 && id.0 < self.next_node { Ok(Answer::Done) } else { Err(Refusal::UnknownNode(id)) };
        }
        let holds = |placement: &&Placement| placement.replicas.values().any(|on| *on == id);
        let held = self.groups.values().filter(holds).count();
        let only = self.groups.values().filter(holds).filter(|placement| placement.replicas.len() == 1).count();
        if held > 0 && !force {
            return Err(Refusal::Conflict(format!("node {id} still holds replicas of {held} groups: drain it first")));
        }
        if only > 0 {
            let text =
                format!("node {id} holds the only replica of {only} groups: removing it would lose what they hold");
            return Err(Refusal::Conflict(text));
        }
        let changed: Vec<(GroupId, Placement)> = (self.groups.iter())
            .filter(|(_, placement)| placement.replica_on(id).is_some())
            .map(|(group, placement)| (*group, placement.clone()))
            .collect();
        for (group, mut placement) in changed {
            placement.remove_node(id);
            self.set_placement(group, placement);
        }
        self.nodes.remove(&id);
        Ok(Answer::Done)
    }

    pub(super) fn place(&mut self, changes: Vec<(GroupId, Placement)>, based_on: u64) -> Result<Answer, Refusal> {
        for (group, placement) in &changes {
            if !self.has_group(*group) || self.changed_at.get(group).is_some_and(|at| *at > based_on) {
                return Err(Refusal::Stale(*group));
            }
            self.check_placement(*group, placement)?;
        }
        for (group, placement) in changes {
            self.set_placement(group, placement);
        }
        Ok(Answer::Done)
    }

    pub(super) fn reshard(&mut self, epoch: Epoch, shards: Vec<Placement>) -> Result<Answer, Refusal> {
        check_shards(shards.len())?;
        let newest = self.shard_map.epoch;
        if Some(epoch.0) != newest.0.checked_add(1) || epoch.0 > u64::from(u32::MAX) {
            return Err(Refusal::Conflict(format!("epoch {epoch} cannot follow epoch {newest}, the newest")));
        }
        let map = ShardMap { epoch, shards: shards.len() as u32 };
        let groups = || map.ids().map(|shard| shard_group(epoch, shard));
        for (group, placement) in groups().zip(&shards) {
            self.check_placement(group, placement)?;
        }
        for (group, placement) in groups().zip(shards) {
            self.set_placement(group, placement);
        }
        self.epochs.push(map);
        self.shard_map = map;
        Ok(Answer::Done)
    }

    /// Notes a shard that is over; an epoch of which all are is forgotten.
    pub(super) fn shard_emptied(&mut self, group: GroupId) -> Result<Answer, Refusal> {
        let Some((epoch, _)) = shard_of_group(group) else {
            return Err(Refusal::Invalid(format!("group {group} is no shard")));
        };
        if epoch >= self.shard_map.epoch {
            return Err(Refusal::Conflict(format!("epoch {epoch} is the newest, it takes writes")));
        }
        if !self.has_group(group) {
            return Ok(Answer::Done); // a repeat
        }
        self.emptied.insert(group);
        let shards = self.epochs.iter().find(|map| map.epoch == epoch).copied().unwrap_or_default();
        if shards.ids().all(|shard| self.emptied.contains(&shard_group(epoch, shard))) {
            self.retire(epoch);
        }
        Ok(Answer::Done)
    }

    fn retire(&mut self, epoch: Epoch) {
        self.epochs.retain(|map| map.epoch != epoch);
        let stays = |group: &GroupId| shard_of_group(*group).is_none_or(|(of, _)| of != epoch);
        self.groups.retain(|group, _| stays(group));
        self.changed_at.retain(|group, _| stays(group));
        self.founders.retain(|group, _| stays(group));
        self.emptied.retain(stays);
    }

    fn check_placement(&self, group: GroupId, placement: &Placement) -> Result<(), Refusal> {
        let invalid = |what: String| Err(Refusal::Invalid(format!("the placement of group {group} {what}")));
        if let Some(contradiction) = placement.contradiction(group) {
            return invalid(contradiction.to_owned());
        }
        for (replica, node) in placement.replicas.iter().chain(&placement.learners) {
            match self.nodes.get(node) {
                None => return Err(Refusal::UnknownNode(*node)),
                Some(known) if group == META && known.meta_replica != Some(*replica) => {
                    return invalid(format!("has replica {replica} on node {node}, which was given another one"));
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    fn set_placement(&mut self, group: GroupId, placement: Placement) {
        self.changed_at.insert(group, self.applied);
        self.founders.entry(group).or_insert_with(|| placement.replicas.clone());
        self.groups.insert(group, placement);
    }

    /// Panics if machines, epochs and placements contradict each other.
    pub(super) fn check_cluster(&self) {
        let placed: BTreeSet<&GroupId> = self.groups.keys().collect();
        assert_eq!(placed, self.changed_at.keys().collect(), "BUG: placements and their changes");
        assert!(self.emptied.iter().all(|group| placed.contains(group)), "BUG: an emptied group that is none");
        assert_eq!(placed, self.founders.keys().collect(), "BUG: placements and their founders");
        assert_eq!(self.epochs.last().copied().unwrap_or_default(), self.shard_map, "BUG: newest epoch");
        assert!(self.nodes.keys().all(|node| node.0 < self.next_node), "BUG: next node id");
        let names: BTreeSet<&str> = self.nodes.values().map(|node| node.name.as_str()).collect();
        assert_eq!(names.len(), self.nodes.len(), "BUG: two nodes have one name");
        for (group, placement) in &self.groups {
            assert!(self.has_group(*group), "BUG: group {group} belongs to no live epoch");
            assert_eq!(self.check_placement(*group, placement), Ok(()), "BUG: placement of group {group}");
        }
    }
}

fn check_shards(shards: usize) -> Result<(), Refusal> {
    if shards == 0 || shards > SHARDS_MAX as usize {
        return Err(Refusal::Invalid(format!("a cluster has 1 to {SHARDS_MAX} shards, not {shards}")));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
