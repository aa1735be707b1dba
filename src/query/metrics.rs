//! Figures of queries.
//!
//! *Invariants:* every query is counted once, however it ended.
//!
//! *Not here:* the bucket (`store::metrics`).

use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use super::active::{Active, QueryKind};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    kind: QueryKind,
    outcome: Outcome,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
enum Outcome {
    Answered,
    Failed,
}

/// Handles of the query path's metrics.
#[derive(Debug, Clone)]
pub struct Metrics {
    queries: Family<Labels, Counter>,
    seconds: Histogram,
    samples: Counter,
    fetched_bytes: Counter,
    fetch_requests: Counter,
}

impl Metrics {
    /// Registers the metrics of this module.
    pub fn register(registry: &mut Registry) -> Self {
        let m = Self {
            queries: Family::default(),
            seconds: Histogram::new(exponential_buckets(0.001, 2.0, 18)),
            samples: Counter::default(),
            fetched_bytes: Counter::default(),
            fetch_requests: Counter::default(),
        };
        registry.register("queries", "Queries by kind and outcome", m.queries.clone());
        registry.register_with_unit("query", "Time to answer a query", Unit::Seconds, m.seconds.clone());
        registry.register("query_samples", "Samples read by queries", m.samples.clone());
        registry.register("query_fetched_bytes", "Bytes queries fetched from the bucket", m.fetched_bytes.clone());
        registry.register("query_fetch_requests", "Requests queries sent to the bucket", m.fetch_requests.clone());
        m
    }

    /// Counts a query.
    pub fn finished(&self, active: &Active, took: Duration, answered: bool) {
        let outcome = if answered { Outcome::Answered } else { Outcome::Failed };
        self.queries.get_or_create(&Labels { kind: active.job.kind, outcome }).inc();
        self.seconds.observe(took.as_secs_f64());
        let fetched = active.fetched.totals();
        self.samples.inc_by(active.spent.lock().samples);
        self.fetched_bytes.inc_by(fetched.bytes);
        self.fetch_requests.inc_by(fetched.requests);
    }

    /// Counts a query that was not begun: it is no PromQL.
    pub fn refused(&self, kind: QueryKind) {
        self.queries.get_or_create(&Labels { kind, outcome: Outcome::Failed }).inc();
    }
}
