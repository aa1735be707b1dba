//! Where replicas should be: from the machines there are to the placements that should change.
//!
//! *Invariants:* pure, and at rest where nothing is wrong: replicas stay where they are unless their node drains or is
//! gone, their number or their spread over zones is wrong, or their node holds more than its share. Spread over zones goes
//! before even load. Voters are odd in number. A group of which no majority lives is left alone: nothing could change it.
//!
//! *Not here:* making a group's membership equal to its placement (`membership`), who lives (the caller says).

use std::collections::{BTreeMap, BTreeSet};

use xxhash_rust::xxh3::xxh3_64;

use super::cluster::{META, Node, NodeStatus, Placement, shard_group};
use super::state::State;
use crate::model::{Epoch, NodeId, ShardId};
use crate::raft::{GroupId, ReplicaId};

mod leaders;

/// Most groups whose placement changes at a time: each copies a head to another node.
pub const MOVES: usize = 4;
/// Most voters of meta.
pub const META_VOTERS: usize = 5;

/// The placements that should change, at most [`MOVES`]; none if all is well. The caller asks again when the groups have
/// followed. `live` says which nodes are there, with some patience; `fresh` gives replica ids never given before.
pub fn plan(
    state: &State,
    live: &dyn Fn(NodeId) -> bool,
    fresh: &mut dyn FnMut() -> ReplicaId,
) -> Vec<(GroupId, Placement)> {
    let mut plan = Plan::new(state, live, fresh);
    plan.settle_meta();
    plan.settle_shards();
    plan.even_load();
    plan.even_leaders(MOVES);
    plan.changes.into_iter().collect()
}

/// Where the shards of a new epoch should be, for [`Command::Reshard`](super::Command::Reshard); empty if no node can take
/// any.
pub fn place_epoch(
    state: &State,
    epoch: Epoch,
    shards: u32,
    live: &dyn Fn(NodeId) -> bool,
    fresh: &mut dyn FnMut() -> ReplicaId,
) -> Vec<Placement> {
    let mut plan = Plan::new(state, live, fresh);
    if plan.usable.is_empty() {
        return Vec::new();
    }
    plan.shards += shards as usize;
    for group in (0..shards).map(|shard| shard_group(epoch, ShardId(shard))) {
        let chosen = plan.choose(group, &BTreeSet::new(), plan.replication, true);
        plan.change(group, &chosen);
    }
    plan.even_leaders(usize::MAX);
    let new = plan.changes.into_iter().filter(|(group, _)| !state.groups.contains_key(group));
    new.map(|(_, placement)| placement).collect()
}

struct Plan<'a> {
    state: &'a State,
    fresh: &'a mut dyn FnMut() -> ReplicaId,
    /// The nodes that take replicas.
    usable: BTreeMap<NodeId, &'a Node>,
    /// The nodes that are there.
    live: BTreeSet<NodeId>,
    /// Shard replicas per node, changes included.
    load: BTreeMap<NodeId, usize>,
    shards: usize,
    replication: usize,
    changes: BTreeMap<GroupId, Placement>,
}

/// The odd number at or below `n`: an even number of voters survives no more failures than one voter less.
fn odd(n: usize) -> usize {
    n.saturating_sub(1 - n % 2)
}

impl<'a> Plan<'a> {
    fn new(state: &'a State, live: &dyn Fn(NodeId) -> bool, fresh: &'a mut dyn FnMut() -> ReplicaId) -> Self {
        let live: BTreeSet<NodeId> = state.nodes.keys().copied().filter(|node| live(*node)).collect();
        let usable = |node: &&Node| node.status == NodeStatus::Active && live.contains(&node.id);
        let usable = state.nodes.values().filter(usable).map(|node| (node.id, node)).collect();
        let shards = state.groups.iter().filter(|(group, _)| **group != META);
        let mut load = BTreeMap::new();
        for node in shards.clone().flat_map(|(_, placement)| placement.replicas.values()) {
            *load.entry(*node).or_default() += 1;
        }
        let (shards, replication) = (shards.count(), state.replication.max(1) as usize);
        Self { state, fresh, usable, live, load, shards, replication, changes: BTreeMap::new() }
    }

    fn is_full(&self) -> bool {
        self.changes.len() >= MOVES
    }

    /// A group's placement, changed or not.
    fn placement(&self, group: GroupId) -> &Placement {
        static NONE: Placement = Placement { replicas: BTreeMap::new(), learners: BTreeMap::new(), preferred: None };
        self.changes.get(&group).or_else(|| self.state.groups.get(&group)).unwrap_or(&NONE)
    }

    fn load(&self, node: NodeId) -> usize {
        self.load.get(&node).copied().unwrap_or_default()
    }

    /// Most shard replicas a node should hold.
    fn share(&self) -> usize {
        let replicas = self.shards * odd(self.replication.min(self.usable.len()));
        replicas.div_ceil(self.usable.len().max(1)) + 1
    }

    fn settle_meta(&mut self) {
        if !self.state.groups.contains_key(&META) {
            return;
        }
        let before = self.placement(META).clone();
        if !self.has_majority(&before.voting_nodes()) {
            return;
        }
        // Nodes that never said which replica of meta they have cannot be placed.
        let known = |node: &NodeId| self.state.nodes.get(node).and_then(|n| n.meta_replica).map(|r| (r, *node));
        let chosen = self.choose(META, &before.voting_nodes(), META_VOTERS, false);
        let replicas: BTreeMap<ReplicaId, NodeId> = chosen.iter().filter_map(known).collect();
        let others = self.state.nodes.keys().filter(|node| !chosen.contains(node));
        let learners = others.filter_map(known).collect();
        let preferred = before.preferred.filter(|replica| replicas.contains_key(replica));
        let after = Placement { replicas, learners, preferred };
        if after != before && !after.replicas.is_empty() {
            self.changes.insert(META, after);
        }
    }

    fn settle_shards(&mut self) {
        for group in self.state.groups.keys().copied().filter(|group| *group != META) {
            if self.is_full() {
                return;
            }
            let before = self.placement(group).voting_nodes();
            let chosen = self.choose(group, &before, self.replication, true);
            if chosen != before {
                self.change(group, &chosen);
            }
        }
    }

    /// Takes replicas from nodes that hold more than their share, as long as no group's spread over zones gets worse.
    fn even_load(&mut self) {
        while !self.is_full() {
            let share = self.share();
            let heavy: Vec<NodeId> = self.usable.keys().copied().filter(|node| self.load(*node) > share).collect();
            let Some((group, from, to)) = heavy.into_iter().find_map(|node| self.relief(node, share)) else { return };
            let mut chosen = self.placement(group).voting_nodes();
            chosen.remove(&from);
            chosen.insert(to);
            self.change(group, &chosen);
        }
    }

    /// A replica to take from a node, and where to.
    fn relief(&self, from: NodeId, share: usize) -> Option<(GroupId, NodeId, NodeId)> {
        let groups =
            self.state.groups.keys().copied().filter(|group| *group != META && !self.changes.contains_key(group));
        let moves = groups.filter_map(|group| {
            let nodes = self.placement(group).voting_nodes();
            if !nodes.contains(&from) || !self.has_majority(&nodes) {
                return None;
            }
            let zones = self.zones(&nodes);
            let crowd = |node: NodeId| zones.get(self.zone(node)).copied().unwrap_or_default();
            let light = |node: &NodeId| self.load(*node) < share && self.load(*node) + 1 < self.load(from);
            let fits = |node: &NodeId| self.zone(*node) == self.zone(from) || crowd(*node) < crowd(from);
            let to = self.usable.keys().copied().filter(|node| !nodes.contains(node) && light(node) && fits(node));
            let to = to.min_by(|a, b| self.distance(group, *a, true).total_cmp(&self.distance(group, *b, true)))?;
            Some((self.distance(group, to, true), group, to))
        });
        moves.min_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, group, to)| (group, from, to))
    }

    /// The nodes a group's voters should be on, given where they are.
    fn choose(&self, group: GroupId, now: &BTreeSet<NodeId>, most: usize, weigh: bool) -> BTreeSet<NodeId> {
        if !now.is_empty() && !self.has_majority(now) {
            return now.clone();
        }
        let (mut chosen, others): (BTreeSet<_>, BTreeSet<_>) = now.iter().partition(|n| self.usable.contains_key(n));
        // A node that is not there now may come back: it keeps its place unless another one takes it.
        let active = |node: &NodeId| self.state.nodes.get(node).is_some_and(|n| n.status == NodeStatus::Active);
        let mut away: Vec<NodeId> = others.into_iter().filter(active).collect();
        let wanted = odd(most.min(self.usable.len() + away.len()));
        if wanted == 0 {
            return now.clone();
        }
        while chosen.len() < wanted {
            match self.best(group, &chosen, weigh).or_else(|| away.pop()) {
                Some(node) => chosen.insert(node),
                None => break,
            };
        }
        while chosen.len() > wanted {
            let Some(worst) = self.worst(group, &chosen, weigh) else { break };
            chosen.remove(&worst);
        }
        while let Some((from, to)) = self.better_spread(group, &chosen, weigh) {
            chosen.remove(&from);
            chosen.insert(to);
        }
        chosen
    }

    /// The usable node that should be added.
    fn best(&self, group: GroupId, chosen: &BTreeSet<NodeId>, weigh: bool) -> Option<NodeId> {
        let zones = self.zones(chosen);
        let rank =
            |node: NodeId| (zones.get(self.zone(node)).copied().unwrap_or_default(), self.distance(group, node, weigh));
        let free = self.usable.keys().copied().filter(|node| !chosen.contains(node));
        free.min_by(|a, b| {
            let (a, b) = (rank(*a), rank(*b));
            a.0.cmp(&b.0).then(a.1.total_cmp(&b.1))
        })
    }

    /// The node that should be left out.
    fn worst(&self, group: GroupId, chosen: &BTreeSet<NodeId>, weigh: bool) -> Option<NodeId> {
        let zones = self.zones(chosen);
        let rank = |node: NodeId| {
            let away = !self.usable.contains_key(&node);
            (away, zones.get(self.zone(node)).copied().unwrap_or_default(), if weigh { self.load(node) } else { 0 })
        };
        chosen.iter().copied().max_by(|a, b| {
            let far = || self.distance(group, *a, false).total_cmp(&self.distance(group, *b, false));
            rank(*a).cmp(&rank(*b)).then_with(far)
        })
    }

    /// A replica that would stand better in another zone.
    fn better_spread(&self, group: GroupId, chosen: &BTreeSet<NodeId>, weigh: bool) -> Option<(NodeId, NodeId)> {
        let zones = self.zones(chosen);
        let crowd = |node: NodeId| zones.get(self.zone(node)).copied().unwrap_or_default();
        let to = self.best(group, chosen, weigh)?;
        let most = zones.values().copied().max()?;
        let from: BTreeSet<NodeId> = chosen.iter().copied().filter(|node| crowd(*node) == most).collect();
        let from = self.worst(group, &from, weigh)?;
        (crowd(to) + 2 <= most).then_some((from, to))
    }

    fn has_majority(&self, nodes: &BTreeSet<NodeId>) -> bool {
        nodes.intersection(&self.live).count() * 2 > nodes.len()
    }

    fn zone(&self, node: NodeId) -> &'a str {
        self.state.nodes.get(&node).map_or("", |node| &node.zone)
    }

    /// Replicas per zone.
    fn zones(&self, nodes: &BTreeSet<NodeId>) -> BTreeMap<&'a str, usize> {
        let mut zones = BTreeMap::new();
        for node in nodes {
            *zones.entry(self.zone(*node)).or_default() += 1;
        }
        zones
    }

    /// How far a node is from a group: weighted rendezvous hashing, where a node weighs what it may still take.
    fn distance(&self, group: GroupId, node: NodeId, weigh: bool) -> f64 {
        let mut key = [0; 16];
        key[..8].copy_from_slice(&group.0.to_le_bytes());
        key[8..].copy_from_slice(&node.0.to_le_bytes());
        // 53 bits, above 0 and below 1.
        let unit = ((xxh3_64(&key) >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
        let room = if weigh { self.share().saturating_sub(self.load(node)) as f64 } else { 1.0 };
        -unit.ln() / room.max(0.001)
    }

    /// Notes that a group's voters should be on these nodes; replicas keep their ids.
    fn change(&mut self, group: GroupId, nodes: &BTreeSet<NodeId>) {
        let before = self.placement(group).clone();
        let mut after = before.clone();
        after.replicas.retain(|_, node| nodes.contains(node));
        for node in nodes.iter().filter(|node| before.replica_on(**node).is_none()) {
            after.replicas.insert((self.fresh)(), *node);
        }
        after.preferred = before.preferred.filter(|replica| after.replicas.contains_key(replica));
        for node in before.replicas.values() {
            self.load.entry(*node).and_modify(|n| *n = n.saturating_sub(1));
        }
        for node in after.replicas.values() {
            *self.load.entry(*node).or_default() += 1;
        }
        self.changes.insert(group, after);
    }
}

#[cfg(test)]
mod tests;
