//! What a node is built of, from its settings.
//!
//! *Invariants:* the node's id is known before its log is opened, and its log before anything that writes to it.
//!
//! *Not here:* the order of starting and stopping (`node`).

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::Context;
use futures::future::join_all;
use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use tokio::task::JoinSet;
use tonic::transport::server::TcpIncoming;

use super::background;
use super::identity::Identity;
use super::members::Reconciler;
use super::membership::{self, Door};
use super::quiet::Quiet;
use super::replicas::Replicas;
use crate::api::grpc;
use crate::api::http::About;
use crate::block;
use crate::compact::{self, CompactOptions, Compactor};
use crate::config::Config;
use crate::env::{Clock, SystemDisk, SystemRng};
use crate::ingest::decode::{DecodeLimits, DecoderPool};
use crate::ingest::distributor::{Distributor, Ways, over};
use crate::ingest::flush::{FlushOptions, Flusher};
use crate::ingest::gate::{Gate, GateOptions};
use crate::ingest::series_budget::SeriesBudgets;
use crate::ingest::{self, Ingest, Shards};
use crate::meta::{self, Copier};
use crate::peers::Peers;
use crate::promql::exec::control::Limits;
use crate::query::blocks::Blocks;
use crate::query::budget::NodeBudget;
use crate::query::evaluate::evaluate_through;
use crate::query::serve::ask_through;
use crate::query::{self, HeadServer, Leaf, Queries, QueryOptions, Remote};
use crate::raft::{self, Host, HostOptions, Router};
use crate::store::cache::{CacheConfig, CachedStore};
use crate::store::catalog::actions::TableSchema;
use crate::store::{self, Bucket, Tables};

/// Version of the tables' columns.
const SCHEMA_VERSION: u32 = 1;
/// Share of the block cache that goes to open readers.
const READER_SHARE: u64 = 2;
/// Longest a node waits for its groups before it takes requests.
const CATCH_UP_TIMEOUT: Duration = Duration::from_secs(30);

/// Everything the roles share while they are built.
pub struct Parts {
    pub config: Arc<Config>,
    pub clock: Arc<dyn Clock>,
    pub host: Host,
    pub bucket: Bucket,
    pub me: Identity,
    pub roles: Arc<OnceLock<grpc::Roles>>,
    tables: Arc<Tables>,
    pub meta: meta::Client,
    /// Series in the heads of this node.
    budgets: SeriesBudgets,
    metrics: Metrics,
}

/// Figures of all roles.
pub struct Metrics {
    raft: raft::Metrics,
    meta: meta::Metrics,
    store: store::Metrics,
    compact: compact::Metrics,
    ingest: ingest::metrics::Metrics,
    outcomes: ingest::outcome::Metrics,
    query: query::Metrics,
}

impl Metrics {
    pub fn register(registry: &mut Registry) -> Self {
        Self {
            raft: raft::Metrics::register(registry),
            meta: meta::Metrics::register(registry),
            store: store::Metrics::register(registry),
            compact: compact::Metrics::register(registry),
            ingest: ingest::metrics::Metrics::register(registry),
            outcomes: ingest::outcome::Metrics::register(registry),
            query: query::Metrics::register(registry),
        }
    }
}

impl Parts {
    /// Finds out who this node is, opens its log and meta, lets other nodes in; makes the cluster if there is none.
    pub async fn open(
        config: Arc<Config>,
        clock: Arc<dyn Clock>,
        metrics: Metrics,
        background: &mut JoinSet<()>,
    ) -> anyhow::Result<Self> {
        let (peers, door) = (Peers::default(), Door::open(&config).await?);
        let known = membership::identify(&config, &peers, &door).await?;
        let bucket = known.as_ref().map(|me| me.bucket.as_str()).filter(|url| !url.is_empty());
        let bucket = Bucket::open(bucket.unwrap_or(&config.bucket)).context("setting bucket")?;
        let mut options = HostOptions::new(config.data_dir.join(membership::LOG), membership::node_of(known.as_ref()));
        options.segment_bytes = config.raft.segment_bytes.0;
        options.snapshot_log_bytes = config.raft.snapshot_log_bytes.0;
        let router = Arc::new(Router::over(peers.clone()));
        let (disk, rng) = (Arc::new(SystemDisk), Arc::new(SystemRng));
        let host = Host::open_with_router(options, disk, Arc::clone(&clock), rng, metrics.raft.clone(), router)
            .await
            .with_context(|| format!("open the log in {}", config.data_dir.display()))?;
        let tables = Arc::new(Tables::new(bucket.clone(), metrics.store.clone()));
        let (group, views) = membership::start_meta(&host, known.as_ref()).await?;
        let me = match known {
            Some(me) => me,
            None => {
                probe(&bucket, &config, views.current().cluster.is_some()).await?;
                membership::make_cluster(&config, &door, &group, &views, &tables).await?;
                membership::remember(&config, &group, &views)?
            }
        };
        membership::introduce(&peers, &me);
        let meta = meta::Client { group, views, peers: peers.clone(), clock: Arc::clone(&clock) };
        let roles = Arc::new(OnceLock::new());
        let service =
            grpc::Service { peers: peers.clone(), host: host.clone(), meta: meta.clone(), roles: roles.clone() };
        let Door { listener, address } = door;
        let server = tonic::transport::Server::builder().add_service(service.server());
        background.spawn(async move {
            if let Err(e) = server.serve_with_incoming(TcpIncoming::from(listener).with_nodelay(Some(true))).await {
                tracing::error!(error = %e, "the gRPC server failed");
            }
        });
        membership::enter(&meta, &me, &clock).await?;
        background.spawn(membership::follow_addresses(peers, meta.views.clone()));
        background.spawn(membership::announce(Arc::clone(&config), address, meta.clone(), me.clone()));
        let budgets = SeriesBudgets::default();
        Ok(Self { config, clock, host, bucket, me, roles, tables, meta, budgets, metrics })
    }

    /// Starts the replicas that belong here, and what keeps them so; answers when those that were here before are up.
    pub async fn start_shards(&self, background: &mut JoinSet<()>) -> anyhow::Result<Shards> {
        let shards = Shards::default();
        let (me, host, meta) = (self.me.node(), self.host.clone(), self.meta.clone());
        let budgets = self.budgets.clone();
        let replicas = Replicas {
            me,
            host: host.clone(),
            shards: shards.clone(),
            meta: meta.clone(),
            budgets,
            clock: Arc::clone(&self.clock),
            over: Mutex::default(),
        };
        let state = self.meta.views.current();
        replicas.resume(&state).await.context("start the shards")?;
        if state.nodes.len() == 1 {
            // Nobody else could: the first start is not over before they are there.
            replicas.settle(&state).await.context("start the shards")?;
        }
        background.spawn(replicas.run());
        let (clock, replace_after) = (Arc::clone(&self.clock), self.config.replace_after);
        let quiet = Quiet {
            me,
            host: host.clone(),
            views: meta.views.clone(),
            peers: meta.peers.clone(),
            clock: Arc::clone(&clock),
            after: self.config.raft.quiesce_after,
            metrics: self.metrics.raft.clone(),
        };
        if !quiet.after.is_zero() {
            background.spawn(quiet.run());
        }
        background.spawn(Reconciler { host, meta, clock, replace_after }.run());
        Ok(shards)
    }

    /// Waits until the groups of this node have applied what was acknowledged before, as long as that is worth waiting for.
    pub async fn catch_up(&self) {
        let groups = self.host.groups();
        let caught_up = join_all(groups.iter().map(|group| async move {
            while let Err(e) = group.read_index().await {
                tracing::debug!(group = group.id().0, error = %e, "still catching up");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }));
        if tokio::time::timeout(CATCH_UP_TIMEOUT, caught_up).await.is_err() {
            tracing::warn!("some groups have no leader yet, taking requests without them");
        }
    }

    pub fn about(&self) -> About {
        About {
            config_yaml: self.config.to_yaml(),
            flags: self.config.to_flags(),
            node_name: self.config.node_name.clone(),
            directory: std::env::current_dir().map_or_else(|_| String::new(), |dir| dir.display().to_string()),
            started_ms: self.clock.now_ms(),
        }
    }

    pub fn copier(&self) -> Copier {
        let (meta, group) = (self.meta.clone(), self.meta.group.clone());
        let propose = move |entry| {
            let meta = meta.clone();
            Box::pin(async move {
                let answer = meta.propose_entry(entry).await;
                answer.map_err(|e| crate::error::Error::new(crate::error::HasKind::kind(&e), e.to_string()))
            }) as futures::future::BoxFuture<'static, _>
        };
        Copier {
            bucket: self.bucket.clone(),
            tables: Arc::clone(&self.tables),
            views: self.meta.views.clone(),
            propose: Arc::new(propose),
            leads: Arc::new(move || group.is_leader()),
            waits: meta::copier::WAITS,
            clock: Arc::clone(&self.clock),
            metrics: self.metrics.meta.clone(),
            store_metrics: self.metrics.store.clone(),
        }
    }

    pub fn sweeper(&self) -> background::Sweeper {
        background::Sweeper {
            bucket: self.bucket.clone(),
            tables: Arc::clone(&self.tables),
            meta: self.meta.clone(),
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

    pub fn compactor(&self) -> Compactor {
        let config = &self.config.compaction;
        Compactor {
            meta: self.meta.clone(),
            views: self.meta.views.clone(),
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

    pub fn ingest(&self, shards: Shards) -> Ingest {
        let config = &self.config;
        let out_of_order_ms = self.out_of_order_ms();
        let flusher = Flusher {
            shards: shards.clone(),
            meta: self.meta.clone(),
            views: self.meta.views.clone(),
            bucket: self.bucket.clone(),
            schema: Self::schema(),
            clock: Arc::clone(&self.clock),
            // A window waits at most one window longer for its late samples; later ones make a generation of their own.
            options: FlushOptions {
                out_of_order_ms: out_of_order_ms.min(crate::model::time::WINDOW_MS),
                pressure_bytes: config.head.max_memory_bytes.0 / 4 * 3,
            },
            metrics: self.metrics.ingest.clone(),
            pass: tokio::sync::Mutex::default(),
            wanted: tokio::sync::Notify::new(),
        };
        let ways = Ways {
            me: self.me.node(),
            views: self.meta.views.clone(),
            shards,
            send: over(self.meta.peers.clone()),
            timeout: config.write.timeout,
            clock: Arc::clone(&self.clock),
            rng: Arc::new(SystemRng),
            metrics: self.metrics.ingest.clone(),
        };
        let gate = GateOptions {
            inflight_bytes: config.write.max_inflight_bytes.0,
            head_bytes: config.head.max_memory_bytes.0,
            backlog_bytes: config.flush.max_backlog_bytes.0,
        };
        let body_bytes = config.write.max_body_bytes.0 as usize;
        Ingest {
            config: Arc::clone(config),
            distributor: Distributor::new(ways),
            flusher: Arc::new(flusher),
            gate: Gate::new(gate, self.metrics.ingest.clone()),
            budgets: self.budgets.clone(),
            decoders: DecoderPool::new(16),
            decode_limits: DecodeLimits { body_bytes, ..DecodeLimits::default() },
            clock: Arc::clone(&self.clock),
            metrics: self.metrics.ingest.clone(),
            outcomes: self.metrics.outcomes.clone(),
        }
    }

    /// The cache over the bucket, for data files.
    pub async fn cache(&self) -> anyhow::Result<CachedStore> {
        let config = &self.config.store;
        let memory_bytes = config.cache_memory_bytes.0 - config.cache_memory_bytes.0 / READER_SHARE;
        let disk = (config.cache_disk_bytes.0 > 0)
            .then(|| (self.config.data_dir.join("cache"), config.cache_disk_bytes.0 as usize));
        let cluster = self.meta.views.current().cluster.map(|id| id.0.to_string()).unwrap_or_default();
        let namespace = format!("{cluster} {}", self.bucket.url());
        let cache = CacheConfig { memory_bytes: memory_bytes as usize, disk, namespace };
        let store = Arc::clone(self.bucket.store());
        CachedStore::open(store, cache, self.metrics.store.clone()).await.context("open the cache of blocks")
    }

    /// The heads of this node, for others. What they take counts for the queries of this node.
    pub fn heads(&self, shards: Shards) -> HeadServer {
        let config = &self.config.query;
        HeadServer::new(shards, NodeBudget::new(config.max_total_bytes.0), config.max_concurrency)
    }

    pub fn queries(&self, shards: Shards, heads: HeadServer, store: CachedStore) -> Queries {
        let config = &self.config.query;
        let readers = self.config.store.cache_memory_bytes.0 / READER_SHARE;
        let node = Arc::clone(heads.budget());
        let leaf = Leaf {
            shards,
            tables: Arc::clone(&self.tables),
            meta: self.meta.views.clone(),
            blocks: Blocks::new(Arc::new(store), readers as usize),
            config: Arc::clone(&self.config),
            remote: Remote::new(ask_through(self.meta.peers.clone(), heads)),
            evaluate: Some(evaluate_through(self.meta.peers.clone())),
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

/// Checks that the bucket can be written.
async fn probe(bucket: &Bucket, config: &Config, is_cluster: bool) -> anyhow::Result<()> {
    let url = bucket.url();
    match bucket.probe(&config.node_name).await {
        Ok(put) => tracing::info!(bucket = url, conditional_put = ?put, "bucket is writable"),
        // A bucket that is away must not stop ingestion; windows wait for it.
        Err(e) if is_cluster => {
            tracing::warn!(bucket = url, error = %e, "bucket cannot be written now, history waits on this disk");
        }
        Err(e) => return Err(e).with_context(|| format!("write to bucket {url} (setting bucket)")),
    }
    Ok(())
}
