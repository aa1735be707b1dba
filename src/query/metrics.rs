//! Figures of queries.
//!
//! *Invariants:* every query is counted once, however it ended; every range query once more, by what the results cache did
//! for it, while there is one.
//!
//! *Not here:* the bucket (`store::metrics`).

use std::fmt::Write;
use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use super::active::{Active, QueryKind};
use crate::promql::stepwise::Entangled;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    kind: QueryKind,
    outcome: Ended,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
enum Ended {
    Answered,
    Failed,
}

/// What the results cache did for a range query.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Outcome {
    /// It had all steps.
    Hit,
    /// It had some.
    Partial,
    /// It had none of use.
    Miss,
    /// It was not asked.
    Bypassed,
}

/// Why the results cache was not asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Bypass {
    /// The client wanted it so.
    Wanted,
    /// Samples were to be counted, which takes an evaluation.
    Counted,
    /// The range has one step.
    OneStep,
    /// Steps of the query cannot be told apart.
    Entangled(Entangled),
}

impl EncodeLabelValue for Bypass {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        match self {
            Self::Entangled(why) => write!(encoder, "{why:?}"),
            other => write!(encoder, "{other:?}"),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CacheLabels {
    outcome: Outcome,
    reason: Option<Bypass>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DistributedLabels {
    outcome: Distribution,
}

/// What became of an evaluation for which other nodes were to aggregate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Distribution {
    /// They did.
    Merged,
    /// It had to be evaluated here as a whole.
    Whole,
}

/// Handles of the query path's metrics.
#[derive(Debug, Clone)]
pub struct Metrics {
    queries: Family<Labels, Counter>,
    seconds: Histogram,
    samples: Counter,
    fetched_bytes: Counter,
    fetch_requests: Counter,
    cache_requests: Family<CacheLabels, Counter>,
    cache_bytes: Gauge,
    cache_evicted: Counter,
    distributed: Family<DistributedLabels, Counter>,
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
            cache_requests: Family::default(),
            cache_bytes: Gauge::default(),
            cache_evicted: Counter::default(),
            distributed: Family::default(),
        };
        registry.register("queries", "Queries by kind and outcome", m.queries.clone());
        registry.register_with_unit("query", "Time to answer a query", Unit::Seconds, m.seconds.clone());
        registry.register("query_samples", "Samples read by queries", m.samples.clone());
        registry.register("query_fetched_bytes", "Bytes queries fetched from the bucket", m.fetched_bytes.clone());
        registry.register("query_fetch_requests", "Requests queries sent to the bucket", m.fetch_requests.clone());
        for outcome in [Outcome::Hit, Outcome::Partial, Outcome::Miss] {
            // Shown before the first one, so that a rate has a beginning.
            drop(m.cache_requests.get_or_create(&CacheLabels { outcome, reason: None }));
        }
        for outcome in [Distribution::Merged, Distribution::Whole] {
            drop(m.distributed.get_or_create(&DistributedLabels { outcome }));
        }
        let what = "Range queries by what the results cache had of them";
        registry.register("query_results_cache_requests", what, m.cache_requests.clone());
        registry.register("query_results_cache_bytes", "Bytes the results cache holds", m.cache_bytes.clone());
        let what = "Evaluations for which other nodes were to aggregate their series, by what became of it";
        registry.register("query_distributed", what, m.distributed.clone());
        let what = "Queries whose steps left the results cache to make room";
        registry.register("query_results_cache_evicted", what, m.cache_evicted.clone());
        m
    }

    /// Counts a query.
    pub fn finished(&self, active: &Active, took: Duration, answered: bool) {
        let outcome = if answered { Ended::Answered } else { Ended::Failed };
        self.queries.get_or_create(&Labels { kind: active.job.kind, outcome }).inc();
        self.seconds.observe(took.as_secs_f64());
        let fetched = active.fetched.totals();
        self.samples.inc_by(active.spent.lock().samples);
        self.fetched_bytes.inc_by(fetched.bytes);
        self.fetch_requests.inc_by(fetched.requests);
    }

    /// Counts a query that was not begun: it is no PromQL.
    pub fn refused(&self, kind: QueryKind) {
        self.queries.get_or_create(&Labels { kind, outcome: Ended::Failed }).inc();
    }

    /// Counts what the results cache had of a query.
    pub fn cached(&self, outcome: Outcome) {
        self.cache_requests.get_or_create(&CacheLabels { outcome, reason: None }).inc();
    }

    /// Counts a range query that went past the results cache.
    pub fn bypassed(&self, reason: Bypass) {
        let labels = CacheLabels { outcome: Outcome::Bypassed, reason: Some(reason) };
        self.cache_requests.get_or_create(&labels).inc();
    }

    /// Counts an evaluation for which other nodes were to aggregate.
    pub fn distributed(&self, outcome: Distribution) {
        self.distributed.get_or_create(&DistributedLabels { outcome }).inc();
    }

    /// Notes how much the results cache holds, after something went to make room.
    pub fn cache_holds(&self, bytes: usize, evicted: u64) {
        self.cache_bytes.set(bytes as i64);
        self.cache_evicted.inc_by(evicted);
    }
}
