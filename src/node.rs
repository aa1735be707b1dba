//! One process: builds its roles in the order of the data, stops them in reverse.
//!
//! *Invariants:* the node is ready only when its shards have applied their logs. Stopping takes new requests away first,
//! then snapshots the groups so that the next start replays nothing, then closes the log. A failure of the log ends the
//! process: nothing is acknowledged after it.
//!
//! *Not here:* what the roles do (their modules), flags (`cli`).

mod background;
mod data_dir;

use std::future::IntoFuture;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use futures::future::{join_all, try_join_all};
use parking_lot::RwLock;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use crate::api::http::{self, About, Readiness, Shared};
use crate::block;
use crate::compact::{self, CompactOptions, Compactor};
use crate::config::Config;
use crate::env::{Clock, Rng, SystemClock, SystemDisk, SystemRng};
use crate::head::{Head, HeadOptions};
use crate::ingest::decode::{DecodeLimits, DecoderPool};
use crate::ingest::distributor::Distributor;
use crate::ingest::flush::{FlushOptions, Flusher};
use crate::ingest::gate::{Gate, GateOptions};
use crate::ingest::ingester::Shard;
use crate::ingest::series_budget::SeriesBudgets;
use crate::ingest::shard::{ShardMachine, ShardState};
use crate::ingest::{self, Ingest, Shards};
use crate::meta::{self, Answer, ClusterId, Command, Copier, Init, ShardMap, Views, rebuild};
use crate::model::{NodeId, ShardId};
use crate::peers::Peers;
use crate::promql::exec::control::Limits;
use crate::query::blocks::Blocks;
use crate::query::budget::NodeBudget;
use crate::query::serve::ask_through;
use crate::query::{self, HeadServer, Leaf, Queries, QueryOptions, Remote};
use crate::raft::{self, Bootstrap, Group, GroupId, Host, HostOptions};
use crate::store::cache::{CacheConfig, CachedStore};
use crate::store::catalog::actions::TableSchema;
use crate::store::{self, Bucket, Tables};
use crate::telemetry;

/// Group of the meta state machine.
const META: GroupId = GroupId(0);
/// This machine, while a cluster has one.
const NODE: NodeId = NodeId(1);
/// Version of the tables' columns.
const SCHEMA_VERSION: u32 = 1;
/// Longest the groups may take to write their snapshots while stopping.
const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(20);
/// Share of the block cache that goes to open readers.
const READER_SHARE: u64 = 2;

/// Runs a node until it is told to stop.
pub async fn run(config: Config, metrics: telemetry::Root) -> anyhow::Result<()> {
    let mut node = Node::start(config, metrics).await?;
    let fatal = node.host.clone();
    tokio::select! {
        signal = background::stop_signal() => {
            tracing::info!(signal, "stopping");
            node.stop().await
        }
        // None of these ends by itself: one that did has failed, and without it the node would decay silently.
        Some(ended) = node.background.join_next() => match ended {
            Ok(()) => Err(anyhow!("BUG: a background task ended; what was acknowledged is on disk")),
            Err(e) => Err(anyhow!("a background task failed: {e}; what was acknowledged is on disk")),
        },
        reason = fatal.fatal() => Err(anyhow!("{reason}; what was acknowledged is on disk, start the node again")),
    }
}

/// A running node.
pub struct Node {
    host: Host,
    groups: Vec<Group>,
    ready: Arc<Readiness>,
    address: SocketAddr,
    stop_http: oneshot::Sender<()>,
    http: tokio::task::JoinHandle<std::io::Result<()>>,
    background: JoinSet<()>,
    cache: CachedStore,
    ingest: Arc<Ingest>,
    _lock: data_dir::Lock,
}

/// Everything the roles share while they are built.
struct Parts {
    config: Arc<Config>,
    clock: Arc<dyn Clock>,
    host: Host,
    bucket: Bucket,
    tables: Arc<Tables>,
    meta: Group,
    views: Views,
    metrics: Metrics,
}

struct Metrics {
    meta: meta::Metrics,
    store: store::Metrics,
    compact: compact::Metrics,
    ingest: ingest::metrics::Metrics,
    outcomes: ingest::outcome::Metrics,
    query: query::Metrics,
}

impl Node {
    /// Starts everything; comes back when the node is ready.
    pub async fn start(config: Config, mut root: telemetry::Root) -> anyhow::Result<Self> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let began = clock.monotonic();
        let lock = data_dir::Lock::take(&config.data_dir)?;
        let registry = root.modules();
        let raft_metrics = raft::Metrics::register(registry);
        let metrics = Metrics {
            meta: meta::Metrics::register(registry),
            store: store::Metrics::register(registry),
            compact: compact::Metrics::register(registry),
            ingest: ingest::metrics::Metrics::register(registry),
            outcomes: ingest::outcome::Metrics::register(registry),
            query: query::Metrics::register(registry),
        };
        let parts = Parts::open(Arc::new(config), clock, raft_metrics, metrics).await?;
        let started = parts.start_shards().await?;
        let shards = Shards::default();
        started.iter().for_each(|shard| shards.add(Arc::clone(shard)));
        let budgets = count_series(&started);
        let mut background = JoinSet::new();
        background.spawn(parts.copier().run());
        let ingest = Arc::new(parts.ingest(started.clone(), shards.clone(), budgets));
        let flush_interval = parts.config.flush.check_interval;
        background.spawn(Arc::clone(&ingest.flusher).run(flush_interval));
        background.spawn(background::observe(Arc::clone(&ingest)));
        let cache = parts.cache().await?;
        let queries = Arc::new(parts.queries(shards.clone(), cache.clone()));
        background.spawn(parts.sweeper().run());
        let compactor = Arc::new(parts.compactor());
        if parts.config.compaction.enabled {
            background.spawn(Arc::clone(&compactor).run());
        }
        let listener = TcpListener::bind(parts.config.http)
            .await
            .with_context(|| format!("listen on {} (setting http)", parts.config.http))?;
        let address = listener.local_addr()?;
        let telemetry = root.finish();
        if parts.config.self_monitoring.enabled {
            background.spawn(background::watch_self(Arc::clone(&ingest), telemetry.clone(), address));
        }
        let ready = Arc::new(Readiness::default());
        let (about, admin) = (parts.about(), parts.config.enable_admin_api);
        let gate = Arc::clone(&ingest);
        let app = Arc::new(Shared { ingest, compactor, queries, telemetry, ready: Arc::clone(&ready), about, admin });
        let (stop_http, stopped) = oneshot::channel();
        let server = axum::serve(listener, http::router(app)).with_graceful_shutdown(async move {
            // A sender that is gone means the same as one that spoke: the node stops.
            let _ = stopped.await;
        });
        let http = tokio::spawn(server.into_future());
        ready.set_ready();
        let took = parts.clock.monotonic().saturating_sub(began);
        tracing::info!(%address, bucket = parts.bucket.url(), took_ms = took.as_millis() as u64, "ready");
        let mut groups: Vec<Group> = started.iter().map(|s| s.group.clone()).collect();
        groups.push(parts.meta.clone());
        Ok(Self {
            host: parts.host,
            groups,
            ready,
            address,
            stop_http,
            http,
            background,
            cache,
            ingest: gate,
            _lock: lock,
        })
    }

    /// Where HTTP is served.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops in reverse order; what was acknowledged is on disk whether or not this succeeds.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        self.ready.set_stopping();
        self.ingest.gate.close();
        let _ = self.stop_http.send(());
        if tokio::time::timeout(SNAPSHOT_TIMEOUT / 4, &mut self.http).await.is_err() {
            tracing::warn!("connections still open, closing them");
            self.http.abort();
        }
        self.background.shutdown().await;
        let snapshots = join_all(self.groups.iter().map(Group::snapshot_now));
        match tokio::time::timeout(SNAPSHOT_TIMEOUT, snapshots).await {
            Ok(results) => {
                for e in results.into_iter().filter_map(Result::err) {
                    tracing::warn!(error = %e, "no snapshot, the next start replays the log");
                }
            }
            Err(_) => tracing::warn!("snapshots took too long, the next start replays the log"),
        }
        self.host.shutdown().await;
        if let Err(e) = self.cache.close().await {
            tracing::warn!(error = %e, "cached pieces were not kept");
        }
        tracing::info!("stopped");
        Ok(())
    }
}

impl Parts {
    /// Opens bucket, log and meta; makes the cluster if there is none.
    async fn open(
        config: Arc<Config>,
        clock: Arc<dyn Clock>,
        raft_metrics: raft::Metrics,
        metrics: Metrics,
    ) -> anyhow::Result<Self> {
        let bucket = Bucket::open(&config.bucket).context("setting bucket")?;
        let mut options = HostOptions::new(config.data_dir.join("raft"), NODE);
        options.segment_bytes = config.raft.segment_bytes.0;
        options.snapshot_log_bytes = config.raft.snapshot_log_bytes.0;
        let disk = Arc::new(SystemDisk);
        let host = Host::open(options, disk, Arc::clone(&clock), Arc::new(SystemRng), raft_metrics)
            .await
            .with_context(|| format!("open the log in {}", config.data_dir.display()))?;
        let tables = Arc::new(Tables::new(bucket.clone(), metrics.store.clone()));
        let (machine, views) = meta::Machine::new();
        let meta = host.start_group(META, Box::new(machine), Bootstrap::SingleVoter).await.context("start meta")?;
        let parts = Self { config, clock, host, bucket, tables, meta, views, metrics };
        let probed = parts.bucket.probe(&parts.config.node_name).await;
        let url = parts.bucket.url();
        match probed {
            Ok(put) => tracing::info!(bucket = url, conditional_put = ?put, "bucket is writable"),
            // A bucket that is away must not stop ingestion; windows wait for it.
            Err(e) if parts.views.current().cluster.is_some() => {
                tracing::warn!(bucket = url, error = %e, "bucket cannot be written now, history waits on this disk");
            }
            Err(e) => return Err(e).with_context(|| format!("write to bucket {url} (setting bucket)")),
        }
        if parts.views.current().cluster.is_none() {
            parts.make_cluster().await?;
        }
        Ok(parts)
    }

    /// Makes a one-node cluster over whatever tables the bucket has.
    async fn make_cluster(&self) -> anyhow::Result<()> {
        let restored = rebuild::restore(&self.tables).await.context("look for tables in the bucket")?;
        let tables = restored.tables.len();
        let init = Init {
            cluster: ClusterId(uuid::Uuid::new_v4()),
            node: meta::Node {
                id: NODE,
                name: self.config.node_name.clone(),
                zone: self.config.zone.clone(),
                http: self.config.http.to_string(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                meta_replica: Some(self.meta.replica()),
                ..meta::Node::default()
            },
            bucket: self.config.bucket.clone(),
            replication: meta::cluster::DEFAULT_REPLICATION,
            shards: self.config.shards,
            shard_replicas: Vec::new(),
            epoch: restored.epoch,
            tables: restored.tables,
        };
        let applied = self.meta.propose(Command::Init(init).encode()).await.context("make the cluster")?;
        match Answer::decode(&applied.reply)? {
            Answer::Refused(refusal) => Err(anyhow!("make the cluster: {refusal}")),
            _ => {
                tracing::info!(shards = self.config.shards, tables, "made a one-node cluster");
                Ok(())
            }
        }
    }

    fn about(&self) -> About {
        About {
            config_yaml: self.config.to_yaml(),
            flags: self.config.to_flags(),
            node_name: self.config.node_name.clone(),
            directory: std::env::current_dir().map_or_else(|_| String::new(), |dir| dir.display().to_string()),
            started_ms: self.clock.now_ms(),
        }
    }

    fn shard_map(&self) -> ShardMap {
        self.views.current().shard_map
    }

    async fn start_shards(&self) -> anyhow::Result<Vec<Arc<Shard>>> {
        let map = self.shard_map();
        let start = |id: ShardId| async move {
            let state = Arc::new(RwLock::new(ShardState::new(Head::new(HeadOptions::default(), SystemRng.next_u64()))));
            let machine = ShardMachine::new(Arc::clone(&state));
            let group = GroupId(map.epoch.0 << 32 | u64::from(id.0 + 1));
            let group = self.host.start_group(group, Box::new(machine), Bootstrap::SingleVoter).await;
            group.map(|group| Arc::new(Shard::new(id, state, group))).with_context(|| format!("start shard {id}"))
        };
        try_join_all(map.ids().map(start)).await
    }

    fn copier(&self) -> Copier {
        let meta = self.meta.clone();
        let propose = move |entry| {
            let meta = meta.clone();
            let answer = async move { meta.propose(entry).await.map(|applied| applied.reply) };
            Box::pin(async move {
                answer.await.map_err(|e| crate::error::Error::new(crate::error::HasKind::kind(&e), e.to_string()))
            }) as futures::future::BoxFuture<'static, _>
        };
        Copier {
            bucket: self.bucket.clone(),
            tables: Arc::clone(&self.tables),
            views: self.views.clone(),
            propose: Arc::new(propose),
            waits: meta::copier::WAITS,
            clock: Arc::clone(&self.clock),
            metrics: self.metrics.meta.clone(),
            store_metrics: self.metrics.store.clone(),
        }
    }

    fn sweeper(&self) -> background::Sweeper {
        background::Sweeper {
            bucket: self.bucket.clone(),
            tables: Arc::clone(&self.tables),
            views: self.views.clone(),
            clock: Arc::clone(&self.clock),
            age: self.config.store.gc_age,
            metrics: self.metrics.store.clone(),
        }
    }

    /// The latest that any tenant's samples may come, milliseconds.
    fn out_of_order_ms(&self) -> i64 {
        let widest = |limits: &crate::config::Limits| limits.out_of_order_time_window.as_millis() as i64;
        self.config.overrides.values().map(widest).fold(widest(&self.config.limits), i64::max)
    }

    fn schema() -> TableSchema {
        let promoted: Vec<Arc<str>> = block::schema::DEFAULT_PROMOTED.map(Arc::from).to_vec();
        TableSchema { version: SCHEMA_VERSION, json: block::schema::delta_schema_json(&promoted).into() }
    }

    fn compactor(&self) -> Compactor {
        let config = &self.config.compaction;
        Compactor {
            meta: self.meta.clone(),
            views: self.views.clone(),
            tables: Arc::clone(&self.tables),
            bucket: self.bucket.clone(),
            schema: Self::schema(),
            clock: Arc::clone(&self.clock),
            options: CompactOptions {
                interval: config.check_interval,
                quiet: config.quiet_period,
                out_of_order_ms: self.out_of_order_ms(),
            },
            metrics: self.metrics.compact.clone(),
            pass: tokio::sync::Mutex::default(),
            quarantined: parking_lot::Mutex::default(),
        }
    }

    fn ingest(&self, started: Vec<Arc<Shard>>, shards: Shards, budgets: SeriesBudgets) -> Ingest {
        let config = &self.config;
        let out_of_order_ms = self.out_of_order_ms();
        let flusher = Flusher {
            shards,
            meta: self.meta.clone(),
            views: self.views.clone(),
            bucket: self.bucket.clone(),
            epoch: self.shard_map().epoch,
            schema: Self::schema(),
            clock: Arc::clone(&self.clock),
            // A window waits at most one window longer for its late samples; later ones make a generation of their own.
            options: FlushOptions {
                out_of_order_ms: out_of_order_ms.min(crate::model::time::WINDOW_MS),
                pressure_bytes: config.head.max_memory_bytes.0 / 4 * 3,
            },
            budgets: budgets.clone(),
            metrics: self.metrics.ingest.clone(),
            pass: tokio::sync::Mutex::default(),
            wanted: tokio::sync::Notify::new(),
        };
        let gate = GateOptions {
            inflight_bytes: config.write.max_inflight_bytes.0,
            head_bytes: config.head.max_memory_bytes.0,
            backlog_bytes: config.flush.max_backlog_bytes.0,
        };
        let body_bytes = config.write.max_body_bytes.0 as usize;
        Ingest {
            config: Arc::clone(config),
            distributor: Distributor::new(self.shard_map(), started),
            flusher: Arc::new(flusher),
            gate: Gate::new(gate, self.metrics.ingest.clone()),
            budgets,
            decoders: DecoderPool::new(16),
            decode_limits: DecodeLimits { body_bytes, ..DecodeLimits::default() },
            clock: Arc::clone(&self.clock),
            metrics: self.metrics.ingest.clone(),
            outcomes: self.metrics.outcomes.clone(),
        }
    }

    /// The cache over the bucket, for data files.
    async fn cache(&self) -> anyhow::Result<CachedStore> {
        let config = &self.config.store;
        let memory_bytes = config.cache_memory_bytes.0 - config.cache_memory_bytes.0 / READER_SHARE;
        let disk = (config.cache_disk_bytes.0 > 0)
            .then(|| (self.config.data_dir.join("cache"), config.cache_disk_bytes.0 as usize));
        let cluster = self.views.current().cluster.map(|id| id.0.to_string()).unwrap_or_default();
        let namespace = format!("{cluster} {}", self.bucket.url());
        let cache = CacheConfig { memory_bytes: memory_bytes as usize, disk, namespace };
        let store = Arc::clone(self.bucket.store());
        CachedStore::open(store, cache, self.metrics.store.clone()).await.context("open the cache of blocks")
    }

    fn queries(&self, shards: Shards, store: CachedStore) -> Queries {
        let config = &self.config.query;
        let readers = self.config.store.cache_memory_bytes.0 / READER_SHARE;
        let node = NodeBudget::new(config.max_total_bytes.0);
        let heads = HeadServer::new(shards.clone(), Arc::clone(&node), config.max_concurrency);
        let leaf = Leaf {
            shards,
            tables: Arc::clone(&self.tables),
            meta: self.views.clone(),
            blocks: Blocks::new(Arc::new(store), readers as usize),
            config: Arc::clone(&self.config),
            remote: Remote::new(ask_through(Peers::default(), heads)),
        };
        let options = QueryOptions {
            timeout: config.timeout,
            lookback_ms: config.lookback_delta.as_millis() as i64,
            concurrency: config.max_concurrency,
            threads: match config.threads {
                0 => std::thread::available_parallelism().map_or(1, |cores| cores.get()),
                threads => threads,
            },
            limits: Limits {
                max_samples: usize::try_from(config.max_samples).unwrap_or(usize::MAX),
                max_bytes: usize::try_from(config.max_bytes.0).unwrap_or(usize::MAX),
            },
            features: config.features,
            slow: config.slow_log_threshold,
            results_cache_bytes: usize::try_from(config.results_cache_bytes.0).unwrap_or(usize::MAX),
        };
        Queries::new(Arc::new(leaf), node, options, Arc::clone(&self.clock), self.metrics.query.clone())
    }
}

/// How many series each tenant has in the heads as they came from the log.
fn count_series(shards: &[Arc<Shard>]) -> SeriesBudgets {
    let budgets = SeriesBudgets::default();
    for shard in shards {
        let state = shard.state.read();
        for (_, tenant) in state.head.tenants() {
            budgets.of(tenant).add(state.series_of(tenant));
        }
    }
    budgets
}
