//! The shards with a replica on this node.
//!
//! *Invariants:* a list that was handed out never changes; replicas come and go in new lists, ordered by group.
//!
//! *Not here:* which shards belong on this node (`meta::placement`), starting and ending them (`node`).

use std::sync::Arc;

use arc_swap::ArcSwap;

use super::ingester::Shard;
use crate::raft::GroupId;

/// The shards of this node; clones share them.
#[derive(Clone, Default)]
pub struct Shards(Arc<ArcSwap<Vec<Arc<Shard>>>>);

impl Shards {
    /// All of them now.
    pub fn all(&self) -> Arc<Vec<Arc<Shard>>> {
        self.0.load_full()
    }

    /// The replica of one group.
    pub fn get(&self, group: GroupId) -> Option<Arc<Shard>> {
        let all = self.0.load();
        let at = all.binary_search_by_key(&group, |shard| shard.group.id()).ok()?;
        Some(Arc::clone(&all[at]))
    }

    /// Adds a replica, or replaces the one of the same group.
    pub fn add(&self, shard: Arc<Shard>) {
        self.0.rcu(|all| {
            let mut all = Vec::clone(all);
            match all.binary_search_by_key(&shard.group.id(), |shard| shard.group.id()) {
                Ok(at) => all[at] = Arc::clone(&shard),
                Err(at) => all.insert(at, Arc::clone(&shard)),
            }
            all
        });
    }

    /// Removes the replica of a group.
    pub fn remove(&self, group: GroupId) {
        self.0.rcu(|all| all.iter().filter(|shard| shard.group.id() != group).cloned().collect::<Vec<_>>());
    }
}
