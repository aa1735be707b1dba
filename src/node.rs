//! One process: builds its roles in the order of the data, stops them in reverse.
//!
//! *Invariants:* the node is ready only when its shards have applied their logs. Stopping takes new requests away first,
//! hands its leads over, snapshots the groups so that the next start replays nothing, then closes the log. A failure of the
//! log ends the process: nothing is acknowledged after it.
//!
//! *Not here:* what the roles do (their modules), flags (`cli`).

mod background;
mod data_dir;
mod founding;
mod identity;
mod joining;
mod members;
mod membership;
mod parts;
mod quiet;
mod replicas;

use std::future::IntoFuture;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use futures::future::join_all;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use crate::api::grpc;
use crate::api::http::{self, Readiness, Shared};
use crate::config::Config;
use crate::env::{Clock, SystemClock};
use crate::ingest::Ingest;
use crate::raft::{Group, Host};
use crate::store::cache::CachedStore;
use crate::telemetry;
use parts::{Metrics, Parts};

/// Longest the groups may take to write their snapshots while stopping.
const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(20);
/// Longest the groups led here may take to find another leader while stopping.
const HAND_OVER_TIMEOUT: Duration = Duration::from_secs(3);

/// Runs a node until it is told to stop.
pub async fn run(config: Config, metrics: telemetry::Root) -> anyhow::Result<()> {
    let mut stop = std::pin::pin!(background::stop_signal());
    let mut node = tokio::select! {
        signal = &mut stop => {
            // Nothing of it takes requests yet; what is on its disk is whole at any time.
            tracing::info!(signal, "stopping before the node was ready");
            return Ok(());
        }
        node = Node::start(config, metrics) => node?,
    };
    let fatal = node.host.clone();
    tokio::select! {
        signal = stop => {
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
    ready: Arc<Readiness>,
    address: SocketAddr,
    stop_http: oneshot::Sender<()>,
    http: tokio::task::JoinHandle<std::io::Result<()>>,
    background: JoinSet<()>,
    cache: CachedStore,
    ingest: Arc<Ingest>,
    _lock: data_dir::Lock,
}

impl Node {
    /// Starts everything; comes back when the node is ready.
    pub async fn start(config: Config, mut root: telemetry::Root) -> anyhow::Result<Self> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let began = clock.monotonic();
        let lock = data_dir::Lock::take(&config.data_dir)?;
        let registry = root.modules();
        let metrics = Metrics::register(registry);
        let mut background = JoinSet::new();
        let parts = Parts::open(Arc::new(config), clock, metrics, &mut background).await?;
        let shards = parts.start_shards(&mut background).await?;
        background.spawn(parts.copier().run());
        let ingest = Arc::new(parts.ingest(shards.clone()));
        let flush_interval = parts.config.flush.check_interval;
        background.spawn(Arc::clone(&ingest.flusher).run(flush_interval));
        background.spawn(background::observe(Arc::clone(&ingest)));
        let cache = parts.cache().await?;
        let heads = parts.heads(shards.clone());
        let queries = Arc::new(parts.queries(shards.clone(), heads.clone(), cache.clone()));
        let roles = grpc::Roles { ingest: Arc::clone(&ingest), heads, queries: Arc::clone(&queries) };
        if parts.roles.set(roles).is_err() {
            return Err(anyhow!("BUG: the roles of a node are built twice"));
        }
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
        let (cluster, ready_here) = (parts.meta.clone(), Arc::clone(&ready));
        let app = Shared { ingest, compactor, queries, shards, cluster, telemetry, ready: ready_here, about, admin };
        let app = Arc::new(app);
        let (stop_http, stopped) = oneshot::channel();
        let server = axum::serve(listener, http::router(app)).with_graceful_shutdown(async move {
            // A sender that is gone means the same as one that spoke: the node stops.
            let _ = stopped.await;
        });
        let http = tokio::spawn(server.into_future());
        parts.catch_up().await;
        ready.set_ready();
        let took = parts.clock.monotonic().saturating_sub(began);
        let node = parts.me.node;
        tracing::info!(%address, node, bucket = parts.bucket.url(), took_ms = took.as_millis() as u64, "ready");
        Ok(Self { host: parts.host, ready, address, stop_http, http, background, cache, ingest: gate, _lock: lock })
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
        let groups = self.host.groups();
        let handed_over = join_all(groups.iter().map(members::hand_over));
        if tokio::time::timeout(HAND_OVER_TIMEOUT, handed_over).await.is_err() {
            tracing::warn!("some groups found no other leader, they elect one");
        }
        self.background.shutdown().await;
        // Replicas may have come and gone meanwhile.
        let groups = self.host.groups();
        let snapshots = join_all(groups.iter().map(Group::snapshot_now));
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
