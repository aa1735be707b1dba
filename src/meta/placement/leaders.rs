//! Who should lead: spread evenly over the nodes that take replicas.
//!
//! *Invariants:* only a voter is preferred; a leader that is well placed stays.
//!
//! *Not here:* handing over (`membership`).

use std::collections::BTreeMap;

use super::Plan;
use crate::model::NodeId;
use crate::raft::{GroupId, ReplicaId};

impl Plan<'_> {
    /// Prefers a leader in every group that lacks one on a usable node, then evens out; changes at most `most` groups, those
    /// changed before included.
    pub(super) fn even_leaders(&mut self, most: usize) {
        let mut leads = self.leads();
        let groups: Vec<GroupId> = self.groups();
        for group in groups {
            let lacks = self.leading(group).is_none();
            if lacks && let Some((replica, node)) = self.least(group, &leads) {
                if !self.prefer(group, replica, most) {
                    return;
                }
                *leads.entry(node).or_default() += 1;
            }
        }
        // Every round makes the sum of the squares smaller, so it ends.
        while let Some((group, replica, from, to)) = self.relief_of_leaders(&leads) {
            if !self.prefer(group, replica, most) {
                return;
            }
            leads.entry(from).and_modify(|n| *n -= 1);
            *leads.entry(to).or_default() += 1;
        }
    }

    /// The groups whose leader can be chosen.
    fn groups(&self) -> Vec<GroupId> {
        let unchanged = self.state.groups.keys().filter(|group| !self.changes.contains_key(group));
        // Those that change anyway come first: they cost nothing.
        let all = self.changes.keys().chain(unchanged).copied();
        all.filter(|group| self.has_majority(&self.placement(*group).voting_nodes())).collect()
    }

    /// The usable node that is preferred in a group.
    fn leading(&self, group: GroupId) -> Option<NodeId> {
        let placement = self.placement(group);
        let node = placement.replicas.get(&placement.preferred?)?;
        self.usable.contains_key(node).then_some(*node)
    }

    fn leads(&self) -> BTreeMap<NodeId, usize> {
        let mut leads = BTreeMap::new();
        for node in self.groups().into_iter().filter_map(|group| self.leading(group)) {
            *leads.entry(node).or_default() += 1;
        }
        leads
    }

    /// The replica of a group whose node leads least.
    fn least(&self, group: GroupId, leads: &BTreeMap<NodeId, usize>) -> Option<(ReplicaId, NodeId)> {
        let able = self.placement(group).replicas.iter().filter(|(_, node)| self.usable.contains_key(node));
        let able = able.map(|(replica, node)| (*replica, *node));
        able.min_by(|(_, a), (_, b)| {
            let of = |node: &NodeId| leads.get(node).copied().unwrap_or_default();
            let near = || self.distance(group, *a, false).total_cmp(&self.distance(group, *b, false));
            of(a).cmp(&of(b)).then_with(near)
        })
    }

    /// A group whose leader should be on another node: group, replica, from, to.
    fn relief_of_leaders(&self, leads: &BTreeMap<NodeId, usize>) -> Option<(GroupId, ReplicaId, NodeId, NodeId)> {
        let of = |node: NodeId| leads.get(&node).copied().unwrap_or_default();
        let moves = self.groups().into_iter().filter_map(|group| {
            let from = self.leading(group)?;
            let (replica, to) = self.least(group, leads)?;
            (of(to) + 1 < of(from)).then_some((group, replica, from, to))
        });
        moves.max_by_key(|(_, _, from, to)| of(*from) - of(*to))
    }

    /// Prefers a replica, unless that would change one group too many.
    fn prefer(&mut self, group: GroupId, replica: ReplicaId, most: usize) -> bool {
        if !self.changes.contains_key(&group) && self.changes.len() >= most {
            return false;
        }
        let mut placement = self.placement(group).clone();
        placement.preferred = Some(replica);
        self.changes.insert(group, placement);
        true
    }
}
