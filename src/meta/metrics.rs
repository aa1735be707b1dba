//! How far the bucket's catalogs are behind what meta decided.
//!
//! *Invariants:* gauges are set by the copier alone, after each round.
//!
//! *Not here:* what the bucket did (`store::metrics`).

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

/// Figures of this module.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    /// Table versions decided but not known to be in the bucket.
    pub backlog_versions: Gauge,
    /// Their bytes.
    pub backlog_bytes: Gauge,
    /// Seconds since the bucket last took everything that was decided.
    pub backlog_age: Gauge<f64, std::sync::atomic::AtomicU64>,
    /// Table versions copied to the bucket.
    pub copied: Counter,
    /// Attempts that failed and will be repeated.
    pub copy_failures: Counter,
    /// Versions whose key holds another content: an operator must look.
    pub conflicts: Counter,
}

impl Metrics {
    /// Registers every figure.
    pub fn register(registry: &mut Registry) -> Self {
        let m = Self::default();
        registry.register(
            "catalog_backlog_versions",
            "Table versions decided, not yet in the bucket",
            m.backlog_versions.clone(),
        );
        registry.register_with_unit(
            "catalog_backlog",
            "Bytes of table versions not yet in the bucket",
            Unit::Bytes,
            m.backlog_bytes.clone(),
        );
        registry.register_with_unit(
            "catalog_backlog_age",
            "Time since the bucket last held everything decided, 0 without a backlog",
            Unit::Seconds,
            m.backlog_age.clone(),
        );
        registry.register("catalog_versions_copied", "Table versions copied to the bucket", m.copied.clone());
        registry.register(
            "catalog_copy_failures",
            "Copies of table versions that failed and are repeated",
            m.copy_failures.clone(),
        );
        registry.register(
            "catalog_conflicts",
            "Table versions whose key in the bucket holds another content",
            m.conflicts.clone(),
        );
        m
    }
}
