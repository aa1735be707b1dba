//! In the end every replica of a group holds every acknowledged sample once, and nothing that was never written.

use std::sync::Arc;

use super::super::workload::group_of;
use super::super::world::{CLIENTS, World};
use super::head_of;
use crate::ingest::ingester::Shard;

pub(super) fn check(world: &World, replicas: &[(u64, Arc<Shard>)]) {
    for client in 0..CLIENTS {
        let promised = world.history.lock().promised(client);
        for (node, shard) in replicas.iter().filter(|(_, shard)| shard.group.id() == group_of(client)) {
            let held = head_of(shard, client);
            let lost: Vec<i64> =
                promised.iter().copied().filter(|t| held.binary_search_by_key(t, |(t, _)| *t).is_err()).collect();
            if !lost.is_empty() {
                let of = promised.len();
                let how = format!("node {node}, client {client}: {} of {of} lost, first {}", lost.len(), lost[0]);
                world.violated("acked_samples_survive", how);
            }
            if let Some(how) = world.history.lock().phantom(client, &held) {
                world.violated("nothing_twice_or_unwritten", format!("node {node}: {how}"));
            }
        }
    }
}
