//! What the log and the groups tell about themselves.
//!
//! *Invariants:* handles are cheap to clone and to update: no lookup by label on a hot path.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

/// Label set of figures kept per group.
pub(crate) type GroupLabels = [(&'static str, u64); 1];

/// The module's metrics.
#[derive(Clone)]
pub struct Metrics {
    pub(crate) log_written: Counter,
    pub(crate) log_entries: Counter,
    pub(crate) log_fsync: Histogram,
    pub(crate) log_batch_bytes: Histogram,
    pub(crate) log_batch_entries: Histogram,
    pub(crate) log_segments: Gauge,
    pub(crate) log_live: Gauge,
    pub(crate) log_cached: Gauge,
    pub(crate) log_stalled: Gauge,
    pub(crate) log_reads: Counter,
    pub(crate) log_cut: Counter,
    pub(crate) proposals: Counter,
    pub(crate) proposals_failed: Counter,
    pub(crate) read_indexes: Counter,
    pub(crate) applied: Counter,
    pub(crate) apply_lag: Family<GroupLabels, Gauge>,
    /// Groups that keep no clock, because nothing happens in them.
    pub quiet_groups: Gauge,
    pub(crate) snapshots: Counter,
    pub(crate) snapshots_failed: Counter,
    pub(crate) snapshot_bytes: Counter,
    pub(crate) snapshot_seconds: Histogram,
}

impl Metrics {
    /// Registers everything under `raft_`.
    pub fn register(registry: &mut Registry) -> Self {
        let r = registry.sub_registry_with_prefix("raft");
        let seconds = || Histogram::new(exponential_buckets(0.000_1, 2.0, 16));
        let this = Self {
            log_written: Counter::default(),
            log_entries: Counter::default(),
            log_fsync: seconds(),
            log_batch_bytes: Histogram::new(exponential_buckets(256.0, 4.0, 9)),
            log_batch_entries: Histogram::new(exponential_buckets(1.0, 2.0, 11)),
            log_segments: Gauge::default(),
            log_live: Gauge::default(),
            log_cached: Gauge::default(),
            log_stalled: Gauge::default(),
            log_reads: Counter::default(),
            log_cut: Counter::default(),
            proposals: Counter::default(),
            proposals_failed: Counter::default(),
            read_indexes: Counter::default(),
            applied: Counter::default(),
            apply_lag: Family::default(),
            quiet_groups: Gauge::default(),
            snapshots: Counter::default(),
            snapshots_failed: Counter::default(),
            snapshot_bytes: Counter::default(),
            snapshot_seconds: seconds(),
        };
        let bytes = || Unit::Bytes;
        r.register_with_unit("log_written", "Bytes written to the log", bytes(), this.log_written.clone());
        r.register("log_entries", "Entries written to the log", this.log_entries.clone());
        r.register_with_unit("log_fsync", "Time of one sync of the log", Unit::Seconds, this.log_fsync.clone());
        r.register_with_unit("log_batch", "Size of one group commit", bytes(), this.log_batch_bytes.clone());
        r.register("log_batch_entries", "Entries in one group commit", this.log_batch_entries.clone());
        r.register("log_segments", "Segment files of the log", this.log_segments.clone());
        r.register_with_unit("log_live", "Bytes in all segments of the log", bytes(), this.log_live.clone());
        r.register_with_unit("log_cached", "Recent entries kept in memory", bytes(), this.log_cached.clone());
        r.register("log_stalled", "1 while the log waits for disk space", this.log_stalled.clone());
        r.register("log_reads", "Entries read back from segments", this.log_reads.clone());
        r.register_with_unit("log_cut", "Bytes of torn commits cut at the start", bytes(), this.log_cut.clone());
        r.register("proposals", "Entries proposed", this.proposals.clone());
        r.register("proposals_failed", "Proposals answered with an error", this.proposals_failed.clone());
        r.register("read_indexes", "Linearizable read barriers", this.read_indexes.clone());
        r.register("applied_entries", "Entries applied to state machines", this.applied.clone());
        r.register("quiet_groups", "Groups of this node in which nothing happens", this.quiet_groups.clone());
        r.register("apply_lag_entries", "Entries durable here, not yet applied", this.apply_lag.clone());
        r.register("snapshots", "Snapshots written", this.snapshots.clone());
        r.register("snapshots_failed", "Snapshots that could not be written", this.snapshots_failed.clone());
        r.register_with_unit("snapshot_written", "Bytes of snapshots", bytes(), this.snapshot_bytes.clone());
        r.register_with_unit("snapshot", "Time to write a snapshot", Unit::Seconds, this.snapshot_seconds.clone());
        this
    }
}
