//! Reads from a node that has no replica of some shards, against a node that has them all.
//!
//! *Invariants:* the shards are the same ones, so whatever differs is what became of a head on its way. What stands for the
//! connection between the nodes is the seam that queries use: requests in, pieces out.
//!
//! *Not here:* parts one by one (`head::part`), the connection itself (`peers`).

#![allow(clippy::unwrap_used, reason = "test code, helpers included")]

#[path = "random/data.rs"]
mod data;
#[path = "random/query.rs"]
mod query;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use data::RandomData;
use futures::{FutureExt, StreamExt, stream};
use metrolith::env::{SeededRng, SimDisk, SystemClock};
use metrolith::error::{Error, Kind};
use metrolith::head::{Head, HeadOptions, PartReader, Want};
use metrolith::ingest::Shards;
use metrolith::ingest::ingester::Shard;
use metrolith::ingest::series_budget::SeriesBudgets;
use metrolith::ingest::shard::{ShardMachine, ShardState, SharedShard};
use metrolith::meta::{self, Answer, ClusterId, Command, Init, Views, shard_group};
use metrolith::model::labels::series_hash;
use metrolith::model::{
    Columns, Epoch, ExemplarRow, Labels, MatchOp, Matcher, MetadataRow, MetricType, NodeId, ShardId, StepGrid,
    TenantId, TimeRange,
};
use metrolith::peers::PeerError;
use metrolith::promql::exec::Times;
use metrolith::promql::exec::control::Limits;
use metrolith::promql::source::{SelectRequest, Source};
use metrolith::proto::v1::{EvaluatePiece, EvaluateRequest, Failure, HeadPiece};
use metrolith::query::blocks::Blocks;
use metrolith::query::budget::NodeBudget;
use metrolith::query::distribute::AskEvaluate;
use metrolith::query::remote::AskNode;
use metrolith::query::{HeadServer, Job, Leaf, Queries, QueryKind, QueryOptions, QueryRequest, ReadQuery, Remote};
use metrolith::raft::{self, Bootstrap, Host, HostOptions, ReplicaId, StateMachine};
use metrolith::store::{self, Bucket, Tables};
use parking_lot::RwLock;
use prometheus_client::registry::Registry;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

const SHARDS: u32 = 4;
const EPOCH: Epoch = Epoch(1);
const TOTAL_BYTES: u64 = 1 << 30;

/// The shards, and what two nodes know of the cluster.
struct World {
    shards: Vec<Arc<Shard>>,
    views: Views,
    server: HeadServer,
    _host: Host,
}

fn new_state() -> ShardState {
    ShardState::new(Head::new(HeadOptions::default(), 7))
}

fn shards(of: impl IntoIterator<Item = Arc<Shard>>) -> Shards {
    let all = Shards::default();
    of.into_iter().for_each(|shard| all.add(shard));
    all
}

/// Meta as it is when node 1 has all replicas.
fn views() -> Views {
    let (mut machine, views) = meta::Machine::new();
    let node = meta::Node {
        id: NodeId(1),
        name: "one".into(),
        grpc: "127.0.0.1:1".into(),
        meta_replica: Some(ReplicaId(1)),
        ..meta::Node::default()
    };
    let init = Init {
        cluster: ClusterId(uuid::Uuid::from_u128(7)),
        node,
        bucket: "memory://".into(),
        replication: 1,
        shards: SHARDS,
        shard_replicas: (0..SHARDS).map(|n| ReplicaId(100 + u64::from(n))).collect(),
        epoch: EPOCH,
        tables: Vec::new(),
    };
    let answer = machine.apply(1, &Command::Init(init).encode());
    assert_eq!(Answer::decode(&answer).unwrap(), Answer::Done);
    views
}

impl World {
    async fn new() -> Self {
        let options = HostOptions::new("/node", NodeId(1));
        let (disk, rng) = (Arc::new(SimDisk::new(1)), Arc::new(SeededRng::new(1)));
        let metrics = raft::Metrics::register(&mut Registry::default());
        let host = Host::open(options, disk, Arc::new(SystemClock::new()), rng, metrics).await.unwrap();
        let mut all = Vec::new();
        for id in (0..SHARDS).map(ShardId) {
            let state: SharedShard = Arc::new(RwLock::new(new_state()));
            let machine = Box::new(ShardMachine::new(Arc::clone(&state), SeriesBudgets::default()));
            let group = host.start_group(shard_group(EPOCH, id), machine, Bootstrap::SingleVoter).await.unwrap();
            all.push(Arc::new(Shard::new(id, state, group)));
        }
        let server = HeadServer::new(shards(all.clone()), NodeBudget::new(TOTAL_BYTES), 2);
        Self { shards: all, views: views(), server, _host: host }
    }

    /// A node that has the shards whose bit is set, and asks for the others.
    fn queries(&self, here: u32, max_bytes: usize, ask: AskNode) -> Arc<Queries> {
        self.distributing(here, max_bytes, ask, None)
    }

    /// As [`World::queries`], one that has others evaluate what they have.
    fn distributing(&self, here: u32, max_bytes: usize, ask: AskNode, evaluate: Option<AskEvaluate>) -> Arc<Queries> {
        let mut registry = Registry::default();
        let bucket = Bucket::open("memory://").unwrap();
        let blocks = Blocks::new(Arc::clone(bucket.store()), 1 << 20);
        let tables = Arc::new(Tables::new(bucket, store::Metrics::register(&mut registry)));
        let has = |shard: &&Arc<Shard>| here & 1 << shard.id.0 != 0;
        let leaf = Leaf {
            shards: shards(self.shards.iter().filter(has).cloned()),
            tables,
            meta: self.views.clone(),
            blocks,
            config: Arc::default(),
            remote: Remote::new(ask).with_pauses(&[1, 1]),
            evaluate,
        };
        let options = QueryOptions {
            timeout: Duration::from_secs(60),
            lookback_ms: 300_000,
            concurrency: 4,
            threads: 1,
            limits: Limits { max_bytes, ..Limits::default() },
            features: Default::default(),
            slow: Duration::ZERO,
            results_cache_bytes: 1 << 20,
        };
        let metrics = metrolith::query::Metrics::register(&mut registry);
        let node = NodeBudget::new(TOTAL_BYTES);
        Arc::new(Queries::new(Arc::new(leaf), node, options, Arc::new(SystemClock::new()), metrics))
    }

    /// Asks the shards themselves, whichever node is meant.
    fn ask(&self) -> AskNode {
        let server = self.server.clone();
        Arc::new(move |_, request| server.serve(request).map(Ok).boxed())
    }

    /// Has the node evaluate that has all shards.
    fn evaluate(&self) -> AskEvaluate {
        let near = self.near();
        Arc::new(move |_, request| near.evaluate(request).map(Ok).boxed())
    }

    fn near(&self) -> Arc<Queries> {
        self.queries(u32::MAX, 1 << 30, Arc::new(|node, _| stream::iter([Err(PeerError::Unknown(node))]).boxed()))
    }

    fn write<T>(&self, labels: &Labels, change: impl FnOnce(&mut Head, metrolith::model::SeriesId) -> T) -> T {
        let (tenant, canonical) = (TenantId::anonymous(), labels.canonical());
        let hash = series_hash(tenant.as_str(), canonical);
        let shard = self.views.current().shard_map.shard_of(hash);
        let mut state = self.shards[shard.0 as usize].state.write();
        let id = state.head.get_or_create(&tenant, hash, canonical);
        change(&mut state.head, id)
    }

    /// Fills the heads: samples in order, half of the windows closed, then late ones, exemplars and metadata.
    async fn fill(&self, data: &RandomData, late: &[(usize, i64, u8)], exemplars: &[(usize, i64)]) -> Vec<Labels> {
        self.shards.iter().for_each(|shard| *shard.state.write() = new_state());
        let source = data.source();
        let request = SelectRequest { matchers: Vec::new(), range: TimeRange::all() };
        let mut columns = Columns::default();
        let mut all = Vec::new();
        for mut series in source.select(&request).await.unwrap().series {
            while series.cursor.next(&mut columns).unwrap() {
                for i in 0..columns.len() {
                    let (t, start) = (columns.timestamps[i], columns.start(i));
                    self.write(&series.labels, |head, id| match columns.histogram(i) {
                        Some(h) => head.append_histogram(id, t, Arc::clone(h), start, i64::MAX),
                        None => head.append_float(id, t, columns.values[i], start, i64::MAX),
                    });
                }
            }
            all.push(series.labels);
        }
        for shard in self.shards.iter().step_by(2) {
            shard.state.write().head.close(0);
        }
        for (series, t, v) in late {
            let Some(labels) = all.get(*series) else { continue };
            self.write(labels, |head, id| head.append_float(id, *t, f64::from(*v), 0, i64::MAX));
        }
        for (n, (series, t)) in exemplars.iter().enumerate() {
            let Some(labels) = all.get(*series) else { continue };
            let trace = Labels::from_pairs([("trace_id", n.to_string().as_str())]);
            self.write(labels, |head, id| head.append_exemplar(id, &ExemplarRow { t: *t, v: n as f64, labels: trace }));
        }
        for labels in &all {
            let text = |t: &str| Arc::from(t);
            let metric = labels.metric();
            let row = MetadataRow { metric: text(metric), kind: MetricType::Gauge, help: text("help"), unit: text("") };
            self.write(labels, |head, _| head.put_metadata(&TenantId::anonymous(), row));
        }
        all
    }
}

fn job(kind: QueryKind) -> Job {
    Job { tenant: TenantId::anonymous(), kind, text: "test".into(), times: None }
}

/// Everything that can be looked up, as text.
async fn look_up(queries: &Arc<Queries>, matchers: &[Matcher], range: TimeRange) -> String {
    let (matchers, selectors) = (matchers.to_vec(), vec![matchers.to_vec()]);
    let own = selectors.clone();
    let found = queries.look_up(job(QueryKind::Series), move |leaf, active| {
        async move {
            let (tenant, budget, matchers) = (TenantId::anonymous(), &*active.budget, &matchers);
            let mut out = vec![
                format!("{:?}", leaf.series(&tenant, &own, range, budget).await?),
                format!("{:?}", leaf.series(&tenant, &[], range, budget).await?),
                format!("{:?}", leaf.label_names(&tenant, &own, range, budget).await?),
                format!("{:?}", leaf.label_names(&tenant, &[], range, budget).await?),
                format!("{:?}", leaf.label_names(&tenant, &[], TimeRange::all(), budget).await?),
            ];
            for name in ["__name__", "a", "le", "nothing"] {
                out.push(format!("{:?}", leaf.label_values(&tenant, name, &own, range, budget).await?));
                out.push(format!("{:?}", leaf.label_values(&tenant, name, &[], range, budget).await?));
            }
            out.push(format!("{:?}", leaf.exemplars(&tenant, &own, range, budget).await?));
            for metric in [None, Some("m"), Some("nothing")] {
                out.push(format!("{:?}", leaf.metadata(&tenant, metric, budget).await?));
            }
            out.push(format!("{:?}", leaf.statistics(&tenant, 5, budget).await?));
            for matchers in [&matchers[..], &[]] {
                let counts = leaf.label_counts(&tenant, matchers, budget).await?;
                let mut names: Vec<_> = counts
                    .names
                    .into_iter()
                    .map(|(name, values)| {
                        let mut values: Vec<_> = values.into_iter().collect();
                        values.sort();
                        (name, values)
                    })
                    .collect();
                names.sort();
                out.push(format!("{} {names:?}", counts.series));
            }
            out.push(format!("{:?}", leaf.settled(&tenant, budget).await?));
            out.push(leaf.blocks_of(&tenant, budget).await?.len().to_string());
            Ok(out)
        }
        .boxed()
    });
    let mut out = found.await.unwrap().value;
    let newest = queries.newest(job(QueryKind::Federate), selectors.clone(), range.end).await;
    out.push(format!("{:?}", newest.unwrap().value));
    let query = ReadQuery { matchers: selectors[0].clone(), range };
    let samples = queries.read_samples(job(QueryKind::Read), vec![query]).await;
    out.push(format!("{:?}", samples.unwrap().value));
    out.join("\n")
}

async fn answer(queries: &Arc<Queries>, text: &str, times: Times) -> String {
    let request = QueryRequest {
        tenant: TenantId::anonymous(),
        text: text.to_owned(),
        times,
        timeout: None,
        lookback_ms: None,
        count_samples: false,
        no_cache: false,
    };
    match queries.run(request).await {
        // Every float prints as itself; NaN does not equal itself.
        Ok(answered) => {
            let result = &answered.result;
            format!("{:?} {:?} {}", result.value, result.annotations, result.stats.samples_read)
        }
        Err(e) => format!("{e}"),
    }
}

fn matchers() -> impl Strategy<Value = Vec<Matcher>> {
    let op = select(&[MatchOp::Equal, MatchOp::NotEqual, MatchOp::Regex, MatchOp::NotRegex][..]);
    let one =
        (select(&["__name__", "a", "b", "job", "le"][..]), op, select(&["m", "x", "1", "", "x|y", ".+", ".*"][..]));
    vec(one.prop_map(|(name, op, value)| Matcher::new(name, op, value).unwrap()), 1..3)
}

fn times() -> impl Strategy<Value = Times> {
    let grid = (0..300i64, 1..12i64, select(&[15_000i64, 30_000, 7_000][..])).prop_map(|(start, n, step)| {
        let start = start * 1000;
        Times::Range(StepGrid { start, end: start + n * step, step })
    });
    prop_oneof![1 => (0..500i64).prop_map(|t| Times::Instant(t * 1000)), 2 => grid]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_node_answers_alike_whichever_shards_it_has(
        data in data::data(),
        late in vec((0usize..8, 0i64..600_000, 0u8..4), 0..120),
        exemplars in vec((0usize..8, 0i64..600_000), 0..8),
        asked in vec((query::query(), times()), 6),
        lookups in vec((matchers(), 0i64..600_000, 0i64..600_000), 3),
        here in 0u32..(1 << SHARDS) - 1,
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            let world = World::new().await;
            world.fill(&data, &late, &exemplars).await;
            let (near, far) = (world.near(), world.queries(here, 1 << 30, world.ask()));
            let helped = world.distributing(here, 1 << 30, world.ask(), Some(world.evaluate()));
            for (query, times) in &asked {
                for query in [query.clone(), format!("sum by (a) ({query})"), format!("avg(rate({query}[2m]))")] {
                    let want = answer(&near, &query, *times).await;
                    prop_assert_eq!(&answer(&far, &query, *times).await, &want, "{} {:?}", query, times);
                    prop_assert_eq!(&answer(&helped, &query, *times).await, &want, "{} {:?}, distributed", query, times);
                }
            }
            for (matchers, a, b) in &lookups {
                let range = TimeRange::new(*a.min(b), *a.max(b));
                let (want, got) = (look_up(&near, matchers, range).await, look_up(&far, matchers, range).await);
                prop_assert_eq!(got, want, "{:?} {:?}", matchers, range);
            }
            Ok(())
        })?;
    }
}

/// Bytes of a part with a bit of everything.
fn part(want: Want<'_>) -> Vec<u8> {
    let (tenant, mut head) = (TenantId::anonymous(), Head::new(HeadOptions::default(), 0));
    for n in 0..3 {
        let labels = Labels::from_pairs([("__name__", "x"), ("n", n.to_string().as_str())]);
        let id = head.get_or_create(&tenant, n, labels.canonical());
        for t in [30_000, 10_000, 8_000_000] {
            head.append_float(id, t, n as f64, 5, i64::MAX);
        }
        head.append_exemplar(id, &ExemplarRow { t: 30_000, v: 1.0, labels: labels.clone() });
    }
    let never = |_| Ok::<(), std::convert::Infallible>(());
    let part = head.part(&tenant, want, &[], TimeRange::all(), never).unwrap();
    part.into_pieces().flat_map(Result::unwrap).collect()
}

/// Reads bytes as a part, and looks at all that comes out.
fn survives(bytes: &[u8]) -> Result<(), String> {
    let (tenant, all) = (TenantId::anonymous(), TimeRange::all());
    let mut reader = PartReader::default();
    reader.read(bytes).map_err(|e| e.to_string())?;
    let head = reader.finish().ok_or("it has no end")?;
    let mut columns = Columns::default();
    for series in head.select(&tenant, &[], all) {
        let mut cursor = series.into_cursor();
        while cursor.next(&mut columns).map_err(|e| e.to_string())? {}
    }
    assert!(head.label_names(&tenant, &[], TimeRange::new(0, 5)).len() <= bytes.len());
    assert!(head.exemplars(&tenant, &[], all).len() <= bytes.len());
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_end_in_a_part_or_in_an_error(
        bytes in vec(any::<u8>(), 0..60),
        kind in 0usize..3,
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let whole = part([Want::Samples, Want::Exemplars, Want::Counts][kind]);
        prop_assert_eq!(survives(&whole), Ok(()));
        prop_assert!(survives(&whole[..whole.len() - 1]).is_err());
        let _ = survives(&[&whole[..8], &bytes].concat());
        // Payloads that are changed under a checksum that fits.
        let (mut changed, mut rest) = (whole[..8].to_vec(), &whole[8..]);
        while !rest.is_empty() {
            let len = u64::from_le_bytes(rest[1..9].try_into().unwrap()) as usize;
            let mut section = rest[..9 + len].to_vec();
            for (at, byte) in &changes {
                if len > 0 && at.index(3) == 0 {
                    section[9 + at.index(len)] ^= byte;
                }
            }
            changed.extend_from_slice(&section);
            changed.extend_from_slice(&crc32fast::hash(&section).to_le_bytes());
            rest = &rest[9 + len + 4..];
        }
        let _ = survives(&changed);
    }
}

/// Some series with samples in all shards.
async fn filled(series: usize) -> World {
    let world = World::new().await;
    for n in 0..series {
        let labels = Labels::from_pairs([("__name__", "x"), ("n", n.to_string().as_str())]);
        world.write(&labels, |head, id| {
            (0..120).for_each(|i| {
                head.append_float(id, i * 15_000, (n as i64 * i % 7) as f64, 0, i64::MAX);
            });
        });
    }
    world
}

fn failed() -> PeerError {
    PeerError::Unknown(NodeId(1))
}

const COUNT: &str = "count(x)";
const NOW: Times = Times::Instant(1_800_000);

#[tokio::test(flavor = "multi_thread")]
async fn a_part_that_takes_more_than_the_query_may_hold_ends_while_it_streams() {
    let world = filled(6000).await;
    let taken = Arc::new(AtomicUsize::new(0));
    let (ask, counted) = (world.ask(), Arc::clone(&taken));
    let count: AskNode = Arc::new(move |node, mut request| {
        // As one that does not mind what the asker can take.
        request.max_bytes = u64::MAX;
        let counted = Arc::clone(&counted);
        let count = move |_: &_| {
            counted.fetch_add(1, Ordering::Relaxed);
        };
        ask(node, request).inspect(count).boxed()
    });
    let all = world.queries(0, 1 << 30, Arc::clone(&count));
    let want = answer(&world.near(), COUNT, NOW).await;
    assert_eq!(answer(&all, COUNT, NOW).await, want);
    let pieces = taken.swap(0, Ordering::Relaxed);
    assert!(pieces > 8, "several pieces of each part: {pieces}");
    let refused = answer(&world.queries(0, 700_000, count), COUNT, NOW).await;
    assert!(refused.contains("query.max_bytes is 700000"), "{refused}");
    assert!(taken.load(Ordering::Relaxed) < pieces);
    // The other side stops by itself, too.
    let refused = answer(&world.queries(0, 700_000, world.ask()), COUNT, NOW).await;
    assert!(refused.contains("query.max_bytes is"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_breaks_is_begun_anew_and_never_half_an_answer() {
    let world = filled(3000).await;
    let asked = Arc::new(parking_lot::Mutex::new(std::collections::BTreeMap::<u64, u32>::new()));
    let (ask, counted) = (world.ask(), Arc::clone(&asked));
    let breaking: AskNode = Arc::new(move |node, request| {
        let mut asked = counted.lock();
        let times = asked.entry(request.group).or_default();
        *times += 1;
        let pieces = ask(node, request);
        match times {
            1 => pieces.take(1).chain(stream::iter([Err(failed())])).boxed(),
            2 => pieces.take(1).boxed(),
            _ => pieces,
        }
    });
    let far = world.queries(0, 1 << 30, breaking);
    assert_eq!(answer(&far, COUNT, NOW).await, answer(&world.near(), COUNT, NOW).await);
    assert!(asked.lock().values().eq(&[3; SHARDS as usize]), "{:?}", asked.lock());
}

/// Series of two metrics whose sums depend on the order of additions, and some histograms.
async fn uneven(series: usize) -> World {
    let world = World::new().await;
    for n in 0..series {
        for metric in ["x_total", "y"] {
            let (n_text, group) = (n.to_string(), (n % 7).to_string());
            let labels = Labels::from_pairs([("__name__", metric), ("n", &n_text), ("g", &group)]);
            world.write(&labels, |head, id| {
                (0..120).for_each(|i| {
                    let v = ((n * 31 + i) as f64 + 0.1).powi(5) * 10f64.powi((n * i) as i32 % 23 - 11);
                    head.append_float(id, i as i64 * 15_000, v, 0, i64::MAX);
                });
            });
        }
    }
    for n in 0..5 {
        let labels = Labels::from_pairs([("__name__", "h"), ("n", n.to_string().as_str())]);
        world.write(&labels, |head, id| {
            (0..120).for_each(|i| {
                head.append_histogram(id, i * 15_000, Default::default(), 0, i64::MAX);
            });
        });
    }
    world
}

/// How often something was asked for, and the bytes that came.
#[derive(Clone, Default)]
struct Traffic(Arc<[AtomicUsize; 2]>);

impl Traffic {
    fn asked(&self) {
        self.0[0].fetch_add(1, Ordering::Relaxed);
    }

    fn came(&self, bytes: usize) {
        self.0[1].fetch_add(bytes, Ordering::Relaxed);
    }

    /// What was counted; counting begins anew.
    fn take(&self) -> (usize, usize) {
        (self.0[0].swap(0, Ordering::Relaxed), self.0[1].swap(0, Ordering::Relaxed))
    }
}

fn counting_heads(ask: AskNode, traffic: Traffic) -> AskNode {
    Arc::new(move |node, request| {
        traffic.asked();
        let own = traffic.clone();
        let pieces = ask(node, request);
        pieces.inspect(move |piece| own.came(piece.as_ref().map_or(0, |p| p.data.len()))).boxed()
    })
}

fn counting_parts(ask: AskEvaluate, traffic: Traffic) -> AskEvaluate {
    Arc::new(move |node, request| {
        traffic.asked();
        let own = traffic.clone();
        let pieces = ask(node, request);
        pieces.inspect(move |piece| own.came(piece.as_ref().map_or(0, |p| p.data.len()))).boxed()
    })
}

/// Instants and ranges.
const WHEN: [Times; 3] = [
    NOW,
    Times::Range(StepGrid { start: 300_000, end: 1_700_000, step: 35_000 }),
    Times::Range(StepGrid { start: 1_600_000, end: 2_400_000, step: 60_000 }),
];

#[tokio::test(flavor = "multi_thread")]
async fn aggregations_are_evaluated_where_the_heads_are_and_come_to_the_same() {
    let world = uneven(60).await;
    let (near, heads, parts) = (world.near(), Traffic::default(), Traffic::default());
    for here in [0b0000, 0b0101, 0b0111] {
        let evaluate = counting_parts(world.evaluate(), parts.clone());
        let ask = counting_heads(world.ask(), heads.clone());
        let far = world.distributing(here, 1 << 30, ask, Some(evaluate));
        for query in [
            "sum(x_total)",
            "sum by (g) (rate(x_total[2m]))",
            "avg without (n) (x_total)",
            "avg(x_total / 7)",
            "count by (g) (x_total > 5)",
            "min by (g) (-x_total)",
            "max(clamp(x_total, 0, 1e9))",
            "group without (n, g) (x_total)",
            "sum(increase(x_total[3m] offset 2m))",
            "sum by (g) (x_total @ 900)",
            "sum(rate(x_total[2m])) / sum(rate(x_total[4m]))",
            "sum(rate(x_total[2m])) / count(rate(x_total[2m]))",
            "topk(2, sum by (g) (rate(x_total[2m])))",
            "sum(sum by (g) (x_total))",
            "max_over_time(sum by (g) (rate(x_total[2m]))[5m:30s])",
            // With an annotation that each part has.
            "sum by (g) (rate(y[2m]))",
            "sum(quantile_over_time(3, x_total[2m]))",
            "sum({__name__=~\"x_total|y\"})",
            "sum(nothing)",
            "sum(histogram_count(h))",
        ] {
            for times in WHEN {
                let want = answer(&near, query, times).await;
                heads.take();
                parts.take();
                assert_eq!(answer(&far, query, times).await, want, "{query} {times:?} {here:b}");
                assert_eq!(parts.take().0, 1, "{query} is evaluated elsewhere");
                // Only how far the tenant's samples are settled was asked.
                let asked = heads.take();
                assert!(asked.1 < 1000, "{query}: {asked:?}");
            }
        }
        for query in [
            "sum(h)",
            "avg by (n) (rate(h[2m]))",
            "sum({__name__=~\"x_total|h\"})",
            "sum(rate({__name__=~\"x_total|y\"}[2m]))",
            "sum by (n) (rate({n=\"1\"}[2m]))",
            "stddev by (g) (x_total)",
            "topk(3, x_total)",
            "quantile(0.5, x_total)",
            "sum(x_total) + sum(x_total + on (n) y)",
            "sum(max_over_time(x_total[5m:1m]))",
            "count_values(\"v\", x_total)",
        ] {
            for times in WHEN {
                let want = answer(&near, query, times).await;
                assert_eq!(answer(&far, query, times).await, want, "{query} {times:?} {here:b}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sums_move_far_less_than_heads() {
    let world = uneven(600).await;
    let (heads, parts) = (Traffic::default(), Traffic::default());
    let ask = counting_heads(world.ask(), heads.clone());
    let plain = world.queries(0b0001, 1 << 30, Arc::clone(&ask));
    let helped = world.distributing(0b0001, 1 << 30, ask, Some(counting_parts(world.evaluate(), parts.clone())));
    for query in ["sum(rate(x_total[5m]))", "avg by (g) (x_total)"] {
        for times in WHEN {
            let want = answer(&plain, query, times).await;
            let moved = heads.take().1;
            assert_eq!(answer(&helped, query, times).await, want);
            let with_help = heads.take().1 + parts.take().1;
            println!("{query}: {with_help} bytes instead of {moved}");
            assert!(with_help * 8 < moved, "{query} {times:?}: {with_help} bytes instead of {moved}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_does_not_evaluate_costs_no_answer() {
    let world = uneven(20).await;
    let (query, near) = ("sum by (g) (rate(x_total[2m]))", world.near());
    let want = answer(&near, query, NOW).await;
    let evaluate = world.evaluate();
    let piece = |data: &'static [u8]| EvaluatePiece { data: data.into(), ..EvaluatePiece::default() };
    let failing = |failure: Kind| {
        let failure = Failure { kind: failure.into(), message: "no".into(), ..Failure::default() };
        EvaluatePiece { failure: Some(failure), ..EvaluatePiece::default() }
    };
    use metrolith::proto::v1::failure::Kind;
    let answers: [AskEvaluate; 8] = [
        Arc::new(|_, _| stream::iter([Err(failed())]).boxed()),
        Arc::new(|_, _| stream::empty().boxed()),
        Arc::new(move |_, _| stream::iter([Ok(failing(Kind::Unavailable))]).boxed()),
        Arc::new(move |_, _| stream::iter([Ok(failing(Kind::Limited))]).boxed()),
        Arc::new(move |_, _| stream::iter([Ok(piece(b"\x01garbage"))]).boxed()),
        Arc::new({
            let evaluate = Arc::clone(&evaluate);
            move |node, request| evaluate(node, request).take(1).chain(stream::iter([Err(failed())])).boxed()
        }),
        // As one of another version.
        Arc::new({
            let evaluate = Arc::clone(&evaluate);
            move |node, request| evaluate(node, EvaluateRequest { version: 99, ..request }).boxed()
        }),
        // As one that answers for shards that somebody else has.
        Arc::new(move |node, request| evaluate(node, EvaluateRequest { of: vec![0], ..request }).boxed()),
    ];
    for (n, broken) in answers.into_iter().enumerate() {
        let far = world.distributing(0b0001, 1 << 30, world.ask(), Some(broken));
        assert_eq!(answer(&far, query, NOW).await, want, "{n}");
        assert_eq!(far.active().list(None).len(), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_is_refused_by_a_node_that_does_not_have_all_of_it() {
    let world = uneven(5).await;
    let request = EvaluateRequest {
        version: metrolith::promql::exec::partial::VERSION,
        tenant: "anonymous".into(),
        query: "sum(x_total)".into(),
        start: 1_800_000,
        end: 1_800_000,
        step: 1,
        lookback: 300_000,
        nodes: vec![1],
        epoch: EPOCH.0,
        shards: SHARDS,
        of: vec![2, 3],
        max_samples: 1 << 30,
        max_bytes: 1 << 30,
        ..EvaluateRequest::default()
    };
    let said = async |queries: &Arc<Queries>, request: EvaluateRequest| {
        let pieces: Vec<EvaluatePiece> = queries.evaluate(request).collect().await;
        pieces.last().unwrap().failure.as_ref().map_or(String::new(), |failure| failure.message.clone())
    };
    let (near, some) = (world.near(), world.queries(0b0110, 1 << 30, world.ask()));
    assert_eq!(said(&near, request.clone()).await, "");
    assert!(said(&some, request.clone()).await.contains("caught-up replica"));
    for (changed, why) in [
        (EvaluateRequest { shards: 5, ..request.clone() }, "caught-up replica"),
        (EvaluateRequest { of: vec![9], ..request.clone() }, "caught-up replica"),
        (EvaluateRequest { nodes: vec![0], ..request.clone() }, "planned in another way"),
        (EvaluateRequest { tenant: "no/tenant".into(), ..request.clone() }, "tenant"),
        (EvaluateRequest { query: "sum(".into(), ..request.clone() }, "parse error"),
        (EvaluateRequest { step: 0, ..request.clone() }, "by 0"),
        (EvaluateRequest { max_bytes: 100, ..request.clone() }, "bytes"),
    ] {
        let said = said(&near, changed).await;
        assert!(said.contains(why), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_asker_that_goes_away_ends_what_was_evaluated_for_it() {
    let world = uneven(5).await;
    let server = world.near();
    // It waits for a shard that somebody writes to for a long time.
    let evaluate: AskEvaluate = {
        let server = Arc::clone(&server);
        Arc::new(move |_, request| server.evaluate(request).map(Ok).boxed())
    };
    let far = world.distributing(0b0001, 1 << 30, world.ask(), Some(evaluate));
    let blocked = Arc::clone(&world.shards[3].state);
    let (let_go, may_go) = std::sync::mpsc::channel::<()>();
    let (is_locked, locked) = tokio::sync::oneshot::channel();
    let holder = std::thread::spawn(move || {
        let _write = blocked.write();
        is_locked.send(()).unwrap();
        let _ = may_go.recv();
    });
    locked.await.unwrap();
    let asking = tokio::spawn(async move { answer(&far, "sum(x_total)", NOW).await });
    while server.active().list(None).is_empty() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let fragment = server.active().list(None).pop().unwrap();
    assert_eq!(fragment.job.kind, QueryKind::Fragment);
    asking.abort();
    while fragment.budget.check().is_ok() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    drop(fragment);
    let_go.send(()).unwrap();
    holder.join().unwrap();
    while !server.active().list(None).is_empty() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shard_that_no_node_gives_makes_the_answer_unavailable() {
    let world = World::new().await;
    let far = world.queries(0b0111, 1 << 30, Arc::new(|_, _| stream::iter([Err(failed())]).boxed()));
    let names = far.look_up(job(QueryKind::Labels), |leaf, active| {
        let tenant = TenantId::anonymous();
        async move { leaf.label_names(&tenant, &[], TimeRange::all(), &active.budget).await }.boxed()
    });
    let Error { kind, message } = names.await.unwrap_err();
    assert_eq!(kind, Kind::Unavailable);
    assert!(message.contains("read the head of shard group") && message.contains("no address"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn pieces_that_cannot_be_read_are_refused() {
    let world = filled(10).await;
    let served = |piece: HeadPiece| {
        let ask: AskNode = Arc::new(move |_, _| stream::iter([Ok(piece.clone())]).boxed());
        world.queries(0, 1 << 30, ask)
    };
    let data = |data: &'static [u8], raw_bytes| HeadPiece { data: data.into(), raw_bytes, ..HeadPiece::default() };
    for (piece, said) in [
        (data(b"MLHEAD\0\x02", 0), "known version"),
        (data(b"short", 0), "section 0"),
        (data(b"not compressed", 100), "decompress"),
        (data(b"", u32::MAX), "query.max_bytes"),
        (data(b"", 100 << 20), "a piece of 104857600 bytes"),
    ] {
        let refused = answer(&served(piece), COUNT, NOW).await;
        assert!(refused.contains(said), "{refused}");
    }
}

#[tokio::test]
async fn a_part_says_how_far_its_shard_was_flushed_at_that_moment() {
    let world = filled(1).await;
    for (n, shard) in world.shards.iter().enumerate() {
        let mut state = shard.state.write();
        state.ledger.flushed = n as u64;
        state.ledger.tables.insert("anonymous".into(), 10 + n as u64);
        state.ledger.tables.insert("other".into(), 99);
    }
    for (n, shard) in world.shards.iter().enumerate() {
        let asked = metrolith::proto::v1::ReadHeadRequest {
            group: shard.group.id().0,
            tenant: "anonymous".into(),
            max_bytes: 1 << 20,
            ..Default::default()
        };
        let pieces: Vec<HeadPiece> = world.server.serve(asked).collect().await;
        let floors = pieces[0].floors.unwrap();
        assert_eq!((floors.flushed, floors.table_version), (n as u64, Some(10 + n as u64)));
        assert!(pieces[1..].iter().all(|piece| piece.floors.is_none()));
    }
    let nobody = metrolith::proto::v1::ReadHeadRequest { group: 1, ..Default::default() };
    let pieces: Vec<HeadPiece> = world.server.serve(nobody).collect().await;
    assert!(pieces[0].failure.as_ref().unwrap().message.contains("no replica of group"));
}
