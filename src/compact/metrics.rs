//! Figures of compaction.
//!
//! *Invariants:* counted once the commit is decided.
//!
//! *Not here:* when it runs (`compactor`).

use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

/// Handles of compaction's metrics.
#[derive(Debug, Clone)]
pub struct Metrics {
    compactions: Counter,
    blocks: Counter,
    samples: Counter,
    bytes_in: Counter,
    bytes_out: Counter,
    seconds: Histogram,
    /// Compactions that failed; the next pass tries again.
    pub failures: Counter,
    /// Blocks left out because they cannot be read.
    pub quarantined: Gauge,
}

impl Metrics {
    /// Registers the metrics of this module.
    pub fn register(registry: &mut Registry) -> Self {
        let m = Self {
            compactions: Counter::default(),
            blocks: Counter::default(),
            samples: Counter::default(),
            bytes_in: Counter::default(),
            bytes_out: Counter::default(),
            seconds: Histogram::new(exponential_buckets(0.1, 2.0, 14)),
            failures: Counter::default(),
            quarantined: Gauge::default(),
        };
        let r = registry.sub_registry_with_prefix("compaction");
        r.register("compactions", "Days of tenants compacted", m.compactions.clone());
        r.register("blocks", "Blocks that were merged into others", m.blocks.clone());
        r.register("samples", "Samples rewritten", m.samples.clone());
        r.register_with_unit("read", "Size of the blocks merged", Unit::Bytes, m.bytes_in.clone());
        r.register_with_unit("written", "Size of the blocks they became", Unit::Bytes, m.bytes_out.clone());
        r.register_with_unit("duration", "Time to compact a day of a tenant", Unit::Seconds, m.seconds.clone());
        r.register("failures", "Compactions that failed and are tried again", m.failures.clone());
        r.register("quarantined_blocks", "Blocks left out because they cannot be read", m.quarantined.clone());
        m
    }

    /// Counts a compaction that is decided.
    pub(super) fn compacted(&self, blocks: usize, samples: u64, bytes_in: u64, bytes_out: u64, took: Duration) {
        self.compactions.inc();
        self.blocks.inc_by(blocks as u64);
        self.samples.inc_by(samples);
        self.bytes_in.inc_by(bytes_in);
        self.bytes_out.inc_by(bytes_out);
        self.seconds.observe(took.as_secs_f64());
    }
}
