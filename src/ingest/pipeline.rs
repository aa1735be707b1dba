//! The write path of a node, from a request's body to its durable samples.
//!
//! *Invariants:* order of the stages: room, decode, limits, shards. An outcome is answered only when all stages are done,
//! and every refused sample is counted in it.
//!
//! *Not here:* HTTP (`api::http::write`), the stages themselves (their modules).

use std::sync::Arc;

use super::IngestError;
use super::admit::admit;
use super::decode::{DecodeLimits, DecoderPool, Protocol};
use super::distributor::Distributor;
use super::flush::Flusher;
use super::gate::{Gate, Pass};
use super::ingester::Request;
use super::metrics::Metrics;
use super::outcome::{self, Rejections, WriteOutcome};
use super::series_budget::SeriesBudgets;
use crate::config::Config;
use crate::env::Clock;
use crate::head::WindowState;
use crate::model::{Batch, TenantId};

/// Accepts samples.
pub struct Ingest {
    /// Settings, for limits.
    pub config: Arc<Config>,
    /// To the shards.
    pub distributor: Distributor,
    /// To the table.
    pub flusher: Arc<Flusher>,
    /// Room.
    pub gate: Gate,
    /// Series by tenant.
    pub budgets: SeriesBudgets,
    /// Reused decoders.
    pub decoders: DecoderPool,
    /// Bounds of decoding.
    pub decode_limits: DecodeLimits,
    /// Wall clock.
    pub clock: Arc<dyn Clock>,
    /// Figures of the path.
    pub metrics: Metrics,
    /// Figures of samples.
    pub outcomes: outcome::Metrics,
}

impl Ingest {
    /// Largest body a request may have.
    pub fn max_body_bytes(&self) -> usize {
        self.decode_limits.body_bytes
    }

    /// Stores a remote-write request that `pass` let in.
    pub async fn write(
        &self,
        mut pass: Pass<'_>,
        tenant: &TenantId,
        protocol: Protocol,
        body: &[u8],
    ) -> Result<WriteOutcome, IngestError> {
        let began = self.clock.monotonic();
        // The unpacked text, and the batch that is made of it. A body that declares nonsense is refused by the decoder.
        let unpacked = snap::raw::decompress_len(body).unwrap_or(0).min(self.decode_limits.body_bytes);
        pass.grow(unpacked.saturating_mul(2))?;
        let mut decoder = self.decoders.take();
        decoder.decode(protocol, body, tenant, &self.decode_limits)?;
        let rejected = std::mem::take(&mut decoder.rejected);
        let outcome = self.store(tenant, &mut decoder.batch, rejected).await?;
        self.metrics.write_seconds.observe(self.clock.monotonic().saturating_sub(began).as_secs_f64());
        Ok(outcome)
    }

    /// Stores a batch that is decoded already, of which `rejected` was left out.
    pub async fn store(
        &self,
        tenant: &TenantId,
        batch: &mut Batch,
        mut rejected: Rejections,
    ) -> Result<WriteOutcome, IngestError> {
        let limits = self.config.limits_of(tenant);
        admit(batch, limits, self.clock.now_ms(), &mut rejected);
        let budget = self.budgets.of(tenant);
        let request = Request {
            tenant,
            batch,
            out_of_order_ms: limits.out_of_order_time_window.as_millis() as i64,
            budget: &budget,
            series_limit: limits.max_global_series_per_user,
        };
        let mut outcome = self.distributor.append(request).await?;
        rejected.merge(&outcome.rejected);
        outcome.rejected = rejected;
        self.outcomes.record(tenant, &outcome);
        Ok(outcome)
    }

    /// Closes every window and waits until the table holds it.
    pub async fn flush_now(&self) -> Result<(), IngestError> {
        self.flusher.flush_all().await
    }

    /// Reads the heads' figures for the gate and the metrics; answers the bytes of all heads.
    pub fn observe(&self) -> u64 {
        let (mut series, mut samples, mut bytes, mut backlog) = (0, 0, 0, 0);
        for shard in self.distributor.ways.shards.all().iter() {
            let state = shard.state.read();
            let stats = state.head.stats();
            series += stats.series;
            samples += stats.samples;
            bytes += stats.bytes as u64;
            let closed = state.head.windows().into_iter().filter(|w| w.state == WindowState::Closed);
            backlog += closed.map(|w| w.bytes).sum::<u64>();
        }
        self.gate.observe(bytes, backlog);
        self.metrics.head_series.set(series as i64);
        self.metrics.head_samples.set(samples as i64);
        self.metrics.head_bytes.set(bytes as i64);
        self.metrics.backlog_bytes.set(backlog as i64);
        bytes
    }
}
