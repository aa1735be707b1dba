//! Once all faults have ended, every client is served and all replicas come to hold the same within a bounded time.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::super::world::{CLIENTS, World, groups};
use crate::ingest::ingester::Shard;
use crate::meta::Placement;

/// For every client to be served, and after that for all replicas to be equal.
const WITHIN: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(100);

/// Waits until every client is served.
pub(in super::super) async fn check(world: &Arc<World>) {
    let healed = Instant::now();
    loop {
        let served = |client: &u64| world.answered.lock().get(client).is_some_and(|at| *at > healed);
        let waiting: Vec<u64> = (0..CLIENTS).filter(|client| !served(client)).collect();
        if waiting.is_empty() {
            return;
        }
        if healed.elapsed() > WITHIN {
            world.violated("liveness", format!("clients {waiting:?} are not served"));
            return;
        }
        tokio::time::sleep(POLL).await;
    }
}

/// The replicas of all groups once they are where they should be and equal; `None` if that takes too long.
pub(super) async fn settled(world: &Arc<World>) -> Option<Vec<(u64, Arc<Shard>)>> {
    let began = Instant::now();
    let wanted = world.wanted.lock().clone();
    loop {
        let all: Option<Vec<_>> = wanted.values().zip(groups()).map(|(p, group)| of_group(world, group, p)).collect();
        if let Some(all) = all {
            return Some(all.into_iter().flatten().collect());
        }
        if began.elapsed() > WITHIN {
            world.violated("liveness", "replicas do not become equal".into());
            return None;
        }
        tokio::time::sleep(POLL).await;
    }
}

fn of_group(world: &World, group: crate::raft::GroupId, wanted: &Placement) -> Option<Vec<(u64, Arc<Shard>)>> {
    let (_, leader) = world.leader(group)?;
    let members = leader.group.members();
    let here: Option<Vec<_>> =
        members.voters.values().map(|node| Some((node.0, world.shard(node.0, group)?.0))).collect();
    let here = here?;
    let equal = here.iter().all(|(_, shard)| shard.group.applied_index() == leader.group.applied_index());
    (equal && !members.joint && members.voters.len() == wanted.replicas.len()).then_some(here)
}
