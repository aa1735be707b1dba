//! What a node does unasked: watches its heads, ingests its own metrics, waits for a signal.
//!
//! *Invariants:* these tasks may be dropped at any moment.
//!
//! *Not here:* flushing (`ingest::flush`), copying catalogs (`meta::copier`).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::time::MissedTickBehavior;

use crate::env::Clock;
use crate::ingest::outcome::Rejections;
use crate::ingest::{Ingest, exposition};
use crate::meta;
use crate::meta::sweep::sweep;
use crate::model::{Batch, Labels, TenantId};
use crate::store::{self, Bucket, Tables};
use crate::telemetry::{Exposition, Metrics};

/// How often the heads' figures are read.
const OBSERVE: Duration = Duration::from_secs(1);

/// Reads the heads' figures, for bounds and metrics; asks for a flush when they are pressed for memory.
pub async fn observe(ingest: Arc<Ingest>) {
    let mut ticks = tokio::time::interval(OBSERVE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if ingest.observe() > ingest.flusher.options.pressure_bytes {
            ingest.flusher.wanted.notify_one();
        }
    }
}

/// Ingests the node's own metrics, so that a newcomer has something to query.
pub async fn watch_self(ingest: Arc<Ingest>, metrics: Metrics, address: SocketAddr) {
    let target = Labels::from_pairs([("job", "metrolith"), ("instance", &address.to_string())]);
    let tenant = TenantId::anonymous();
    let mut ticks = tokio::time::interval(ingest.config.self_monitoring.interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut batch = Batch::default();
    loop {
        ticks.tick().await;
        batch.clear();
        let now = ingest.clock.now_ms();
        let read = metrics
            .encode(Exposition::OpenMetrics)
            .map_err(|e| e.to_string())
            .and_then(|text| exposition::read(&text, now, &tenant, &target, &mut batch));
        if let Err(e) = read {
            tracing::warn!(error = e, "own metrics cannot be read");
            continue;
        }
        if let Err(e) = ingest.store(&tenant, &mut batch, Rejections::default()).await {
            tracing::warn!(error = %e, "own metrics could not be stored");
        }
    }
}

/// How often the bucket is searched for files that belong to nothing.
const SWEEP: Duration = Duration::from_secs(6 * 3600);

/// Removes what dead flushes left in the bucket.
pub struct Sweeper {
    /// Where.
    pub bucket: Bucket,
    /// Catalogs.
    pub tables: Arc<Tables>,
    /// What is decided.
    pub meta: meta::Client,
    /// Wall clock.
    pub clock: Arc<dyn Clock>,
    /// Age from which a file without an entry is removed.
    pub age: Duration,
    /// Figures.
    pub metrics: store::Metrics,
}

impl Sweeper {
    /// Sweeps every table from time to time.
    pub async fn run(self) {
        loop {
            tokio::time::sleep(SWEEP).await;
            // One node of a cluster is enough.
            if !self.meta.group.is_leader() {
                continue;
            }
            let (bucket, tables, views) = (&self.bucket, &self.tables, &self.meta.views);
            let swept = sweep(bucket, tables, views, &self.metrics, self.clock.now_ms(), self.age).await;
            tracing::info!(
                removed = swept.removed,
                waiting = swept.waiting,
                foreign = swept.foreign,
                "swept the bucket"
            );
        }
    }
}

/// Waits for SIGTERM or SIGINT; says which.
pub async fn stop_signal() -> &'static str {
    let (Ok(mut terminate), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        // Without handlers the default action ends the process, which is safe at any time.
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    }
}
