//! Partitions of the series: the shards of the one epoch that lives.
//!
//! *Invariants:* a series' labels alone decide its partition. While two epochs live there are none: some series are in
//! shards of both.

use crate::meta::{self, ShardMap, shard_group};
use crate::model::labels::{series_hash_seeded, tenant_seed};
use crate::model::{Labels, ShardId, TenantId};
use crate::raft::GroupId;

/// Some shards of an epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Partitions {
    pub(super) map: ShardMap,
    /// By shard.
    chosen: Box<[bool]>,
}

impl Partitions {
    /// Those of a map for which `chosen` says so.
    pub(super) fn of(map: ShardMap, chosen: impl Fn(ShardId) -> bool) -> Self {
        Self { map, chosen: map.ids().map(chosen).collect() }
    }

    /// Which they are, ascending.
    pub(super) fn shards(&self) -> impl Iterator<Item = ShardId> {
        self.map.ids().zip(&self.chosen).filter(|(_, chosen)| **chosen).map(|(shard, _)| shard)
    }

    /// The group of one of the map's shards.
    pub(super) fn group(&self, shard: ShardId) -> GroupId {
        shard_group(self.map.epoch, shard)
    }

    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        !self.chosen.contains(&true)
    }

    /// Whether a shard of the map is among them.
    pub(super) fn has(&self, shard: ShardId) -> bool {
        self.chosen.get(shard.0 as usize) == Some(&true)
    }

    /// Whether a series is of one of them.
    pub(super) fn has_hash(&self, hash: u64) -> bool {
        self.has(self.map.shard_of(hash))
    }
}

/// The map of the only epoch.
pub(super) fn only_map(state: &meta::State) -> Option<ShardMap> {
    let [map] = state.epochs[..] else { return None };
    Some(map)
}

/// Says of which partition a tenant's series are; all of the same without a map.
pub(super) struct Numbering {
    map: Option<ShardMap>,
    seed: u64,
}

impl Numbering {
    /// By the shards of a map.
    pub(super) fn new(map: Option<ShardMap>, tenant: &TenantId) -> Self {
        Self { map, seed: tenant_seed(tenant.as_str()) }
    }

    /// That of a series.
    pub(super) fn of(&self, labels: &Labels) -> u32 {
        self.map.map_or(0, |map| map.shard_of(series_hash_seeded(self.seed, labels.canonical())).0)
    }
}
