//! Clients: writers that repeat a sample until it is acknowledged, readers that ask any replica.
//!
//! *Invariants:* a sample counts as acknowledged only if the node that said so was alive when it did.
//!
//! *Not here:* what they were told (`history`), what must follow from it (`invariants`).

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::history::value;
use super::invariants::{head_of, reads_see_acks};
use super::world::{CLIENTS, GROUPS, NODES, World, groups};
use super::{Planted, faults};
use crate::env::Rng;
use crate::ingest::IngestError;
use crate::ingest::exposition::push;
use crate::ingest::ingester::{Request, Shard};
use crate::ingest::outcome::WriteOutcome;
use crate::ingest::series_budget::SeriesBudgets;
use crate::model::{Batch, Labels, SampleRow, TenantId};
use crate::raft::{GroupId, RaftError};

pub(super) const TENANT: &str = "sim";
/// How late samples may be: everything a client ever wrote.
const OUT_OF_ORDER_MS: i64 = 24 * 3_600_000;
const PATIENCE: Duration = Duration::from_secs(5);
const READERS: u64 = 6;

pub(super) fn group_of(client: u64) -> GroupId {
    groups().nth((client % u64::from(GROUPS)) as usize).unwrap_or(GroupId(0))
}

pub(super) fn labels_of(client: u64) -> Labels {
    Labels::from_pairs([("__name__", "sim".to_owned()), ("client", client.to_string())])
}

/// Starts all clients; they end when the world stops.
pub(super) fn start(world: &Arc<World>) -> Vec<JoinHandle<()>> {
    let writers = (0..CLIENTS).map(|client| tokio::spawn(write(world.clone(), client)));
    let readers = (0..READERS).map(|_| tokio::spawn(read(world.clone())));
    writers.chain(readers).collect()
}

async fn write(world: Arc<World>, client: u64) {
    let pace = Duration::from_millis([30, 100, 300][world.rng.below(3) as usize]);
    let mut hint = None;
    while !world.is_stopped() {
        let t = world.history.lock().next(client);
        // Sometimes a client gives up, and its sample is stored or not.
        for _ in 0..1 + world.rng.below(40) {
            let node = hint.take().unwrap_or_else(|| 1 + world.rng.below(NODES));
            match attempt(&world, client, node, t).await {
                Attempt::Acked => {
                    hint = Some(node);
                    world.history.lock().acked(client, t);
                    world.answered.lock().insert(client, Instant::now());
                    world.trace.note(&[client, t as u64, node]);
                    faults::aimed(&world, node, 1, "after an acknowledgement");
                    break;
                }
                Attempt::Elsewhere(other) => hint = other,
                Attempt::Unknown => {}
            }
            if world.is_stopped() {
                return;
            }
            tokio::time::sleep(world.draw(Duration::from_millis(100))).await;
        }
        tokio::time::sleep(world.draw(pace)).await;
    }
}

enum Attempt {
    Acked,
    Elsewhere(Option<u64>),
    Unknown,
}

async fn attempt(world: &Arc<World>, client: u64, node: u64, t: i64) -> Attempt {
    let Some((shard, alive)) = world.shard(node, group_of(client)) else { return Attempt::Elsewhere(None) };
    let done = tokio::time::timeout(PATIENCE, append(&shard, client, t)).await;
    match done {
        _ if !alive.load(Ordering::Relaxed) => Attempt::Unknown,
        Ok(Ok(outcome)) if outcome.samples == 1 && outcome.rejected.is_empty() => Attempt::Acked,
        Ok(Ok(outcome)) => {
            let how = format!("client {client} at {t}: {:?}", outcome.rejected.first());
            world.violated("good_samples_are_taken", how);
            Attempt::Unknown
        }
        Ok(Err(IngestError::Raft(RaftError::NotLeader { leader, .. }))) => {
            Attempt::Elsewhere(leader.map(|(_, peer)| peer.node.0))
        }
        Ok(Err(_)) | Err(_) => Attempt::Unknown,
    }
}

async fn append(shard: &Shard, client: u64, t: i64) -> Result<WriteOutcome, IngestError> {
    let tenant = TenantId::new(TENANT).map_err(|_| IngestError::Stopping)?;
    let mut batch = Batch::default();
    push(&mut batch, &tenant, &labels_of(client), SampleRow { t, v: value(client, t), start: 0 });
    let budget = SeriesBudgets::default().of(&tenant);
    let request =
        Request { tenant: &tenant, batch: &batch, out_of_order_ms: OUT_OF_ORDER_MS, budget: &budget, series_limit: 0 };
    shard.append(request, &[0], &[]).await
}

async fn read(world: Arc<World>) {
    while !world.is_stopped() {
        tokio::time::sleep(world.draw(Duration::from_millis(300))).await;
        let (client, node) = (world.rng.below(CLIENTS), 1 + world.rng.below(NODES));
        let Some((shard, alive)) = world.shard(node, group_of(client)) else { continue };
        let promised = world.history.lock().promised(client);
        if !world.planted(Planted::SkippedReadIndex) {
            let asked = tokio::time::timeout(2 * PATIENCE, shard.group.read_index()).await;
            if !matches!(asked, Ok(Ok(_))) {
                continue;
            }
        }
        // A node that died meanwhile answers nobody.
        if alive.load(Ordering::Relaxed) {
            world.count_read();
            reads_see_acks::check(&world, node, client, &promised, &head_of(&shard, client));
        }
    }
}
