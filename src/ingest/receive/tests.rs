//! A node that leads its shards, and another that sends it rows.

use std::time::Duration;

use prometheus_client::registry::Registry;

use super::*;
use crate::config::Config;
use crate::env::{Clock, SeededRng, SimDisk, SystemClock};
use crate::head::{Head, HeadOptions};
use crate::ingest::decode::{DecodeLimits, DecoderPool};
use crate::ingest::distributor::{Distributor, Ways};
use crate::ingest::exposition::push;
use crate::ingest::flush::{FlushOptions, Flusher};
use crate::ingest::gate::{Gate, GateOptions};
use crate::ingest::outcome::{self, Reason, Rejections};
use crate::ingest::series_budget::SeriesBudgets;
use crate::ingest::shard::{ShardMachine, ShardState};
use crate::ingest::{Shards, metrics};
use crate::meta::{self, ClusterId, Command, Init, META, Node, Views, shard_group};
use crate::model::{Batch, Epoch, Labels, NodeId, SampleRow, ShardId};
use crate::peers::{PeerError, Peers};
use crate::raft::{self, Bootstrap, Host, HostOptions, ReplicaId};
use crate::store::Bucket;
use crate::store::catalog::actions::TableSchema;

const SHARDS: u32 = 2;
const LIMIT: u64 = 5;
const NOW: i64 = 1_700_000_000_000;

struct Leader {
    ingest: Arc<Ingest>,
    host: Host,
    views: Views,
}

fn clock() -> Arc<dyn Clock> {
    Arc::new(SystemClock::new())
}

/// A node with all shards, and room for five series.
async fn leader(inflight_bytes: u64) -> Leader {
    let (mut registry, disk) = (Registry::default(), Arc::new(SimDisk::new(1)));
    let raft_metrics = raft::Metrics::register(&mut registry);
    let options = HostOptions { segment_bytes: 64 << 10, ..HostOptions::new("/node", NodeId(1)) };
    let host = Host::open(options, disk, clock(), Arc::new(SeededRng::new(3)), raft_metrics).await.unwrap();
    let (machine, views) = meta::Machine::new();
    let group = host.start_group(META, Box::new(machine), Bootstrap::SingleVoter).await.unwrap();
    let init = Init {
        cluster: ClusterId(uuid::Uuid::from_u128(1)),
        node: Node { id: NodeId(1), name: "one".into(), ..Node::default() },
        bucket: String::new(),
        replication: 1,
        shards: SHARDS,
        shard_replicas: (0..u64::from(SHARDS)).map(|n| ReplicaId(n + 100)).collect(),
        epoch: Epoch(1),
        tables: Vec::new(),
    };
    group.propose(Command::Init(init).encode()).await.unwrap();
    let (shards, budgets) = (Shards::default(), SeriesBudgets::default());
    for id in (0..SHARDS).map(ShardId) {
        let state = Arc::new(parking_lot::RwLock::new(ShardState::new(Head::new(HeadOptions::default(), 1))));
        let machine = Box::new(ShardMachine::new(Arc::clone(&state), budgets.clone()));
        let group = host.start_group(shard_group(Epoch(1), id), machine, Bootstrap::SingleVoter).await.unwrap();
        shards.add(Arc::new(Shard::new(id, state, group)));
    }
    let metrics = metrics::Metrics::register(&mut registry);
    let nobody = |_, _| panic!("a leader sends nothing on");
    let flusher = Flusher {
        shards: shards.clone(),
        meta: meta::Client { group, views: views.clone(), peers: Peers::default(), clock: clock() },
        views: views.clone(),
        bucket: Bucket::open("memory://").unwrap(),
        schema: TableSchema { version: 1, json: "{}".into() },
        clock: clock(),
        options: FlushOptions { out_of_order_ms: 0, pressure_bytes: u64::MAX },
        metrics: metrics.clone(),
        pass: tokio::sync::Mutex::default(),
        wanted: tokio::sync::Notify::new(),
    };
    let mut config = Config::default();
    config.limits.max_global_series_per_user = LIMIT;
    let bounds = GateOptions { inflight_bytes, head_bytes: u64::MAX, backlog_bytes: u64::MAX };
    let ingest = Ingest {
        config: Arc::new(config),
        distributor: Distributor::new(ways(NodeId(1), views.clone(), shards, Arc::new(nobody), &metrics)),
        flusher: Arc::new(flusher),
        gate: Gate::new(bounds, metrics.clone()),
        budgets,
        decoders: DecoderPool::new(2),
        decode_limits: DecodeLimits::default(),
        clock: clock(),
        metrics,
        outcomes: outcome::Metrics::register(&mut registry),
    };
    Leader { ingest: Arc::new(ingest), host, views }
}

fn ways(
    me: NodeId,
    views: Views,
    shards: Shards,
    send: crate::ingest::distributor::SendRows,
    metrics: &metrics::Metrics,
) -> Ways {
    let (clock, rng, timeout) = (clock(), Arc::new(SeededRng::new(1)), Duration::from_secs(60));
    Ways { me, views, shards, send, timeout, clock, rng, metrics: metrics.clone() }
}

/// A node without shards that sends everything to the leader.
fn other(leader: &Leader) -> Distributor {
    let ingest = Arc::clone(&leader.ingest);
    let send: crate::ingest::distributor::SendRows = Arc::new(move |node, request| {
        assert_eq!(node, NodeId(1), "where the placement is");
        let ingest = Arc::clone(&ingest);
        Box::pin(async move { Ok::<_, PeerError>(ingest.append_rows(request).await) })
    });
    Distributor::new(ways(NodeId(2), leader.views.clone(), Shards::default(), send, &leader.ingest.metrics))
}

fn batch(series: std::ops::Range<u32>, value: f64) -> Batch {
    let mut batch = Batch::default();
    for n in series {
        let labels = Labels::from_pairs([("__name__", format!("m{n}"))]);
        push(&mut batch, &TenantId::anonymous(), &labels, SampleRow { t: NOW, v: value, start: 0 });
    }
    batch
}

async fn append(distributor: &Distributor, batch: &Batch) -> Result<WriteOutcome, IngestError> {
    let tenant = TenantId::anonymous();
    // The limit of the sender does not matter: it does not know what the shards hold.
    let budget = SeriesBudgets::default().of(&tenant);
    let request = Request { tenant: &tenant, batch, out_of_order_ms: 0, budget: &budget, series_limit: 1 };
    distributor.append(request).await
}

#[tokio::test]
async fn rows_from_another_node_are_stored_as_if_they_had_come_here() {
    let leader = leader(1 << 20).await;
    let other = other(&leader);
    let outcome = append(&other, &batch(0..4, 1.0)).await.unwrap();
    assert_eq!((outcome.samples, outcome.rejected.total()), (4, 0));
    let held = |leader: &Leader| {
        let shards = leader.ingest.distributor.ways.shards.all();
        shards.iter().map(|s| s.state.read().series_of(&TenantId::anonymous())).collect::<Vec<_>>()
    };
    assert!(held(&leader).iter().all(|n| *n > 0), "every shard has some: {:?}", held(&leader));
    let outcome = append(&other, &batch(0..4, 1.0)).await.unwrap();
    assert_eq!((outcome.samples, outcome.rejected.total()), (4, 0), "a repeat is stored once and acknowledged");
    let outcome = append(&other, &batch(0..4, 2.0)).await.unwrap();
    assert_eq!((outcome.samples, outcome.rejected.count(Reason::NewValueForTimestamp)), (0, 4));
    assert!(outcome.rejected.to_string().contains("another value is stored"), "{}", outcome.rejected);
    let outcome = append(&other, &batch(2..9, 1.0)).await.unwrap();
    let refused = outcome.rejected.count(Reason::MaxSeriesPerUser);
    assert_eq!((outcome.samples, refused, held(&leader).iter().sum::<u64>()), (3, 4, LIMIT), "the leader's limit");
    assert_eq!(leader.ingest.budgets.of(&TenantId::anonymous()).active(), LIMIT);
    let here = leader.ingest.store(&TenantId::anonymous(), &mut batch(4..6, 1.0), Rejections::default()).await.unwrap();
    assert_eq!(here.samples + here.rejected.total(), 2);
    leader.host.shutdown().await;
}

#[tokio::test]
async fn rows_are_refused_for_want_of_room_before_they_are_unpacked() {
    let leader = leader(1000).await;
    let _taken = leader.ingest.gate.enter(990).unwrap();
    let e = append(&other(&leader), &batch(0..4, 1.0)).await.unwrap_err();
    assert!(matches!(&e, IngestError::Overloaded(why) if why.contains("node 1: requests in work")), "{e}");
    leader.host.shutdown().await;
}

#[tokio::test]
async fn rows_of_another_epoch_or_shard_and_broken_rows_are_refused() {
    let leader = leader(1 << 20).await;
    let of = |epoch, shard, shards, rows: &'static [u8]| {
        let group = shard_group(Epoch(epoch), ShardId(shard)).0;
        leader.ingest.append_rows(AppendRequest {
            group,
            shards,
            rows: rows.into(),
            uncompressed_bytes: 0,
            ..Default::default()
        })
    };
    let cases = [
        (of(0, 0, SHARDS, b"").await, Wire::StaleEpoch),
        (of(1, 0, SHARDS + 1, b"").await, Wire::StaleEpoch),
        (of(2, 0, SHARDS, b"").await, Wire::Unavailable),
        (of(1, SHARDS, SHARDS, b"").await, Wire::NotFound),
        (of(1, 0, SHARDS, b"rows").await, Wire::Invalid),
        (leader.ingest.append_rows(AppendRequest { shards: SHARDS, ..AppendRequest::default() }).await, Wire::NotFound),
    ];
    for (n, (reply, want)) in cases.into_iter().enumerate() {
        let failure = reply.failure.unwrap();
        assert_eq!(failure.kind(), want, "case {n}: {}", failure.message);
    }
    // All rows for one shard: some are not its own.
    let (tenant, budget) = (TenantId::anonymous(), SeriesBudgets::default().of(&TenantId::anonymous()));
    let batch = batch(0..8, 1.0);
    let request = Request { tenant: &tenant, batch: &batch, out_of_order_ms: 0, budget: &budget, series_limit: 0 };
    let group = shard_group(Epoch(1), ShardId(0));
    let packed = crate::ingest::rows::pack(request, group, &[0, 1, 2, 3, 4, 5, 6, 7], &[]).unwrap();
    let misplaced = AppendRequest {
        group: group.0,
        shards: SHARDS,
        rows: packed.bytes,
        uncompressed_bytes: 0,
        ..Default::default()
    };
    let failure = leader.ingest.append_rows(misplaced).await.failure.unwrap();
    assert_eq!((failure.kind(), failure.message.as_str()), (Wire::Invalid, "a row is not of shard 0"));
    leader.host.shutdown().await;
}
