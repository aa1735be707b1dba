//! What must hold, one file each.

mod acked_samples_survive;
mod equal_heads;
mod leaders_are_elected;
pub(super) mod liveness;
mod promises_are_kept;
pub(super) mod reads_see_acks;

use std::sync::Arc;

pub(super) use equal_heads::EqualHeads;
pub(super) use leaders_are_elected::Leaders;
pub(super) use promises_are_kept::Promises;

use super::workload::TENANT;
use super::world::World;
use crate::ingest::ingester::Shard;
use crate::model::{Columns, Matcher, TenantId, TimeRange};

/// What a replica's head holds of a client, now.
pub(super) fn head_of(shard: &Shard, client: u64) -> Vec<(i64, f64)> {
    let Ok(tenant) = TenantId::new(TENANT) else { return Vec::new() };
    let found =
        shard.state.read().head.select(&tenant, &[Matcher::equal("client", &client.to_string())], TimeRange::all());
    let mut all = Vec::new();
    for series in found {
        let (mut cursor, mut out) = (series.into_cursor(), Columns::default());
        while cursor.next(&mut out).unwrap_or(false) {
            all.extend(out.timestamps.drain(..).zip(out.values.drain(..)));
            out.clear();
        }
    }
    all
}

/// What must hold once everything has settled.
pub(super) async fn at_the_end(world: &Arc<World>) {
    if let Some(replicas) = liveness::settled(world).await {
        acked_samples_survive::check(world, &replicas);
        world.heads.lock().observe(world);
    }
}
