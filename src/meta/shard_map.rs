//! The shard map: which shard owns a series.
//!
//! *Invariants:* a map never changes; another number of shards is another epoch.
//!
//! *Not here:* which nodes hold a shard's replicas.

use crate::model::{Epoch, ShardId};

/// The shards of one epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ShardMap {
    /// Its version.
    pub epoch: Epoch,
    /// Number of shards; shard ids are below it.
    pub shards: u32,
}

impl ShardMap {
    /// The shard of a series, by [`series_hash`](crate::model::labels::series_hash): the hash space is cut into equal
    /// ranges in order, so that a block's range of hashes tells its shard (Lemire's fastrange).
    pub fn shard_of(&self, hash: u64) -> ShardId {
        ShardId(((u128::from(hash) * u128::from(self.shards)) >> 64) as u32)
    }

    /// All shards.
    pub fn ids(&self) -> impl Iterator<Item = ShardId> + use<> {
        (0..self.shards).map(ShardId)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_the_hash_space_into_equal_ranges_in_order() {
        let map = ShardMap { epoch: Epoch(1), shards: 12 };
        assert_eq!(map.shard_of(0), ShardId(0));
        assert_eq!(map.shard_of(u64::MAX), ShardId(11));
        for n in 0..12u64 {
            let first = (((u128::from(n)) << 64).div_ceil(12)) as u64;
            assert_eq!(map.shard_of(first), ShardId(n as u32));
            assert_eq!(map.shard_of(first.wrapping_sub(1)), ShardId((n as u32 + 11) % 12));
        }
        assert_eq!(map.ids().count(), 12);
    }
}
