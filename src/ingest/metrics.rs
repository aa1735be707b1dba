//! Figures of the write path.
//!
//! *Invariants:* gauges of heads are read from the heads when asked for, so they cannot drift.
//!
//! *Not here:* samples by fate (`ingest::outcome`), the log (`raft::metrics`).

use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

/// Why a shard's rows were not taken by whom they were given to, and had to be sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Setback {
    /// Another replica leads, or none.
    NotLeader,
    /// The replica cannot take rows now.
    Unavailable,
    /// The leader changed: they may or may not be stored.
    Unknown,
    /// The node cannot be spoken to.
    Unreachable,
    /// It was silent for too long.
    NoAnswer,
    /// The shard map had changed.
    StaleEpoch,
}

impl EncodeLabelValue for Setback {
    fn encode(&self, encoder: &mut LabelValueEncoder) -> Result<(), std::fmt::Error> {
        let name = match self {
            Self::NotLeader => "not_leader",
            Self::Unavailable => "unavailable",
            Self::Unknown => "unknown",
            Self::Unreachable => "unreachable",
            Self::NoAnswer => "no_answer",
            Self::StaleEpoch => "stale_epoch",
        };
        EncodeLabelValue::encode(&name, encoder)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SetbackLabel {
    reason: Setback,
}

/// Handles of the write path's metrics.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// From the first byte decoded to the answer.
    pub write_seconds: Histogram,
    /// Decompressed bytes of requests in work.
    pub inflight_bytes: Gauge,
    /// Requests turned away because the node was full.
    pub overloaded: Counter,
    /// Series in all heads.
    pub head_series: Gauge,
    /// Samples in all heads.
    pub head_samples: Gauge,
    /// Bytes of all heads.
    pub head_bytes: Gauge,
    /// Bytes of closed windows that wait for the bucket.
    pub backlog_bytes: Gauge,
    /// Windows flushed.
    pub flushes: Counter,
    /// Flushes that failed and will be repeated.
    pub flush_failures: Counter,
    /// Series rows that leaders on other nodes stored.
    pub forwarded_rows: Counter,
    /// Bytes sent to them, repeated ones too.
    pub forwarded_bytes: Counter,
    retries: Family<SetbackLabel, Counter>,
    flush_seconds: Histogram,
    flushed_samples: Counter,
    flushed_bytes: Counter,
}

impl Metrics {
    /// Registers the metrics of this module.
    pub fn register(registry: &mut Registry) -> Self {
        let m = Self {
            write_seconds: Histogram::new(exponential_buckets(0.0005, 2.0, 16)),
            inflight_bytes: Gauge::default(),
            overloaded: Counter::default(),
            head_series: Gauge::default(),
            head_samples: Gauge::default(),
            head_bytes: Gauge::default(),
            backlog_bytes: Gauge::default(),
            flushes: Counter::default(),
            flush_failures: Counter::default(),
            forwarded_rows: Counter::default(),
            forwarded_bytes: Counter::default(),
            retries: Family::default(),
            flush_seconds: Histogram::new(exponential_buckets(0.01, 2.0, 14)),
            flushed_samples: Counter::default(),
            flushed_bytes: Counter::default(),
        };
        let s = Unit::Seconds;
        registry.register_with_unit(
            "write",
            "Time to store a write request durably",
            s.clone(),
            m.write_seconds.clone(),
        );
        let bytes = Unit::Bytes;
        registry.register_with_unit("write_inflight", "Request bytes in work", bytes.clone(), m.inflight_bytes.clone());
        registry.register("write_overloaded", "Write requests answered 503 for want of room", m.overloaded.clone());
        registry.register("head_series", "Series in memory", m.head_series.clone());
        registry.register("head_samples", "Samples in memory", m.head_samples.clone());
        registry.register_with_unit("head", "Memory of all heads", bytes.clone(), m.head_bytes.clone());
        let help = "Bytes of closed windows that are not in the bucket";
        registry.register_with_unit("flush_backlog", help, bytes, m.backlog_bytes.clone());
        let help = "Series rows stored by leaders on other nodes";
        registry.register("distributor_forwarded_rows", help, m.forwarded_rows.clone());
        let help = "Bytes of rows sent to leaders on other nodes";
        registry.register("distributor_forwarded_bytes", help, m.forwarded_bytes.clone());
        let help = "Times a shard's rows were not taken and looked for a leader again, by reason";
        registry.register("distributor_retries", help, m.retries.clone());
        registry.register("flushes", "Windows written to the bucket", m.flushes.clone());
        registry.register("flush_failures", "Flushes that failed and are repeated", m.flush_failures.clone());
        registry.register_with_unit("flush", "Time to flush a window", s, m.flush_seconds.clone());
        registry.register("flushed_samples", "Samples written to the bucket", m.flushed_samples.clone());
        registry.register("flushed_bytes", "Bytes written to the bucket", m.flushed_bytes.clone());
        m
    }

    /// Counts rows that have to be sent again.
    pub fn setback(&self, reason: Setback) {
        self.retries.get_or_create(&SetbackLabel { reason }).inc();
    }

    /// Counts a flushed window.
    pub fn flushed(&self, samples: u64, bytes: u64, took: Duration) {
        self.flushes.inc();
        self.flushed_samples.inc_by(samples);
        self.flushed_bytes.inc_by(bytes);
        self.flush_seconds.observe(took.as_secs_f64());
    }
}
