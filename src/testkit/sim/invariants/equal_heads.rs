//! Replicas that have applied the same entries hold the same.

use std::collections::BTreeMap;

use xxhash_rust::xxh3::Xxh3;

use super::super::workload::group_of;
use super::super::world::{CLIENTS, NODES, World, groups};
use super::head_of;
use crate::ingest::ingester::Shard;
use crate::raft::GroupId;

/// What heads held after each index, and on which node that was seen first.
#[derive(Default)]
pub(in super::super) struct EqualHeads(BTreeMap<(GroupId, u64), (u64, u64)>);

impl EqualHeads {
    /// Looks at all heads now.
    pub(in super::super) fn observe(&mut self, world: &World) {
        for group in groups() {
            for node in 1..=NODES {
                let Some((shard, _)) = world.shard(node, group) else { continue };
                let (index, digest) = (shard.group.applied_index(), digest(&shard));
                let (first, held) = *self.0.entry((group, index)).or_insert((node, digest));
                if held != digest {
                    let how = format!("group {group} at {index}: node {node} holds other samples than node {first}");
                    world.violated("equal_heads", how);
                }
            }
        }
    }
}

fn digest(shard: &Shard) -> u64 {
    let mut hash = Xxh3::new();
    for client in (0..CLIENTS).filter(|client| group_of(*client) == shard.group.id()) {
        hash.update(&client.to_le_bytes());
        for (t, v) in head_of(shard, client) {
            hash.update(&t.to_le_bytes());
            hash.update(&v.to_bits().to_le_bytes());
        }
    }
    let ledger = &shard.state.read().ledger;
    hash.update(format!("{ledger:?}").as_bytes());
    hash.digest()
}
