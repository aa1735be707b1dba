//! What a query cost, as `stats=…` answers it.
//!
//! *Invariants:* names and figures under `timings` and `samples` are those of Prometheus; what only we know stands under
//! `storage`. Figures per step are given for `stats=all` alone, and only where `promql-per-step-stats` is on.
//!
//! *Not here:* counting (`promql::exec::counts`, `query::job`).

use serde_json::{Value, json};

use super::params::Params;
use crate::config::{Feature, Features};
use crate::model::StepGrid;
use crate::promql::exec::result::QueryStats;
use crate::query::Active;

/// Which figures are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StatsWanted {
    /// None.
    None,
    /// Those of the whole query.
    Total,
    /// Those of each step too.
    All,
    /// As `Total`, but said in a word that is not known.
    Unknown,
}

impl StatsWanted {
    /// What a request asks for, and gets with these features.
    pub fn of(params: &Params, features: Features) -> Self {
        match params.get("stats") {
            None => Self::None,
            Some("all") if features.has(Feature::PerStepStats) => Self::All,
            Some("true" | "all") => Self::Total,
            Some(_) => Self::Unknown,
        }
    }

    /// What is to be said about the parameter.
    pub fn warning(self) -> Option<&'static str> {
        let text = "values of the parameter \"stats\" other than \"true\" and \"all\" are deprecated";
        (self == Self::Unknown).then_some(text)
    }
}

/// The figures as JSON.
pub fn to_json(active: &Active, stats: &QueryStats, wanted: StatsWanted) -> String {
    let (spent, fetched) = (*active.spent.lock(), active.fetched.totals());
    let evaluation = spent.prepare + spent.evaluate;
    let mut samples = serde_json::Map::new();
    let mut put = |name: &str, value: Value| drop(samples.insert(name.to_owned(), value));
    if let Some(counts) = &stats.counts {
        let total = |steps: &[u64]| json!(steps.iter().sum::<u64>());
        for (name, steps) in [("totalQueryableSamples", &counts.queryable), ("samplesRead", &counts.read)] {
            if wanted == StatsWanted::All {
                put(&format!("{name}PerStep"), per_step(counts.grid, steps));
            }
            put(name, total(steps));
        }
    }
    put("peakSamples", json!(stats.peak_samples));
    json!({
        "timings": {
            "evalTotalTime": evaluation.as_secs_f64(),
            "resultSortTime": 0,
            "queryPreparationTime": spent.prepare.as_secs_f64(),
            "innerEvalTime": spent.evaluate.as_secs_f64(),
            "execQueueTime": spent.queue.as_secs_f64(),
            "execTotalTime": (spent.queue + evaluation).as_secs_f64(),
        },
        "samples": samples,
        "storage": {
            "seriesRead": spent.series,
            "samplesRead": spent.samples,
            "cachedSteps": spent.cached_steps,
            "bucketBytes": fetched.bytes,
            "bucketRequests": fetched.requests,
            "cacheHits": fetched.cache_hits,
            "cacheMisses": fetched.cache_misses,
            "peakBytes": active.peak_bytes(),
            "cpuTime": spent.cpu.map(|cpu| cpu.as_secs_f64()),
        },
    })
    .to_string()
}

/// `[[time, samples], …]`, times in seconds.
fn per_step(grid: StepGrid, steps: &[u64]) -> Value {
    let time = |t: i64| if t % 1000 == 0 { json!(t / 1000) } else { json!(t as f64 / 1000.0) };
    grid.iter().zip(steps).map(|(t, n)| json!([time(t), n])).collect()
}
