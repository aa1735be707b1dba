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
use metrolith::proto::v1::HeadPiece;
use metrolith::query::blocks::Blocks;
use metrolith::query::budget::NodeBudget;
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
            for (query, times) in &asked {
                let (want, got) = (answer(&near, query, *times).await, answer(&far, query, *times).await);
                prop_assert_eq!(got, want, "{} {:?}", query, times);
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
