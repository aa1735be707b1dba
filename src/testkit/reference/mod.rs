//! PromQL written for clarity: the oracle the fast engine is compared with.
//!
//! It walks the parsed tree and computes every expression one step at a time, one series at a time, from plain lists of
//! samples. Nothing is cached, shared between windows or taken apart by column; what a rule of the language says can be
//! read off the function that implements it. Where to look:
//!
//! - `value`: what expressions yield; `data`: which samples a selector sees; `evaluator`: the tree;
//! - `matching` and `elements`: binary operators; `aggregate` and `ranking`: aggregations;
//! - `range_call`: functions of range vectors (`over_time`, `rate`, `extended`, `trend`);
//! - `call`: functions of instant vectors (`float_math`, `relabel`, `classic`, `native`, `info`);
//! - `running`: sums of floats and of native histograms that lose no low bits.
//!
//! *Invariants:* nothing of `promql::exec`, `promql::plan` or `promql::functions` is computed with: only the tree, the
//! types of an answer and the arithmetic of two native histograms are shared, so that a mistake shows as a difference.
//!
//! *Not here:* speed, limits, cancellation.

mod aggregate;
mod apart;
mod call;
mod classic;
mod data;
mod durations;
mod elements;
mod evaluator;
mod extended;
mod float_math;
mod info;
mod matching;
mod native;
mod notes;
mod over_time;
mod range_call;
mod ranking;
mod rate;
mod relabel;
mod running;
mod trend;
mod trim;
mod value;

use std::collections::HashSet;

use crate::model::Labels;
use crate::promql::annotations::Annotations;
use crate::promql::ast::Ast;
use crate::promql::exec::error::Error;
use crate::promql::exec::result::{InstantSample, QueryResult, QueryStats, QueryValue, RangeSeries};
use crate::promql::exec::{EngineOptions, Times};
use crate::testkit::memory_source::MemorySource;
use evaluator::Evaluator;
use value::{Sample, Series, Value};

/// The reference evaluator.
#[derive(Debug, Clone, Default)]
pub struct Reference {
    options: EngineOptions,
}

impl Reference {
    /// A reference evaluator; limits among the options are not looked at.
    pub fn new(options: EngineOptions) -> Self {
        Self { options }
    }

    /// Evaluates a checked query over everything stored in `data`.
    pub fn query(&self, data: &MemorySource, ast: &Ast, times: Times) -> Result<QueryResult, Error> {
        let grid = times.grid();
        let mut ast = ast.clone();
        durations::fold(&mut ast, grid)?;
        let mut without_buckets = HashSet::new();
        evaluator::without_buckets(&ast, ast.root, None, &mut without_buckets);
        let notes = Annotations::default();
        let mut evaluator = Evaluator { ast: &ast, data, options: self.options, query: grid, without_buckets, notes };
        let value = evaluator.eval(ast.root, grid)?;
        let value = match times {
            Times::Instant(t) => instant_answer(value, t)?,
            Times::Range(_) => QueryValue::Matrix(range_answer(value)?),
        };
        Ok(QueryResult { value, annotations: evaluator.notes, stats: QueryStats::default() })
    }
}

fn instant_answer(value: Value, t: i64) -> Result<QueryValue, Error> {
    Ok(match value {
        Value::Scalar(steps) => QueryValue::Scalar(t, steps.get(&t).copied().unwrap_or(f64::NAN)),
        Value::Text(bytes) => QueryValue::String(t, bytes),
        Value::Matrix(series) => QueryValue::Matrix(range_answer(Value::Matrix(series))?),
        Value::Vector(series) => {
            let mut out: Vec<InstantSample> = Vec::new();
            for (labels, samples) in series.into_iter().map(final_labels) {
                let Some((_, sample)) = samples.into_iter().next() else { continue };
                if out.iter().any(|s| s.labels == labels) {
                    return Err(Error::same_labels());
                }
                out.push(InstantSample { labels, t, sample });
            }
            QueryValue::Vector(out)
        }
    })
}

/// Series by labels; those that became equal when their names were removed are one, as long as they never have a sample
/// at the same time.
fn range_answer(value: Value) -> Result<Vec<RangeSeries>, Error> {
    let series = match value {
        Value::Scalar(steps) => {
            let samples = steps.into_iter().map(|(t, v)| (t, Sample::Float(v))).collect();
            vec![Series { labels: Labels::empty(), dropped: false, samples }]
        }
        Value::Vector(series) | Value::Matrix(series) => series,
        Value::Text(_) => return Err(Error::query("BUG: a string is no answer of a range query")),
    };
    let named = series.into_iter().map(final_labels);
    let merged = value::merge(named.map(|(labels, samples)| Series { labels, dropped: false, samples }).collect())?;
    let mut out: Vec<RangeSeries> = merged.into_iter().map(range_series).collect();
    out.retain(|s| !s.floats.is_empty() || !s.histograms.is_empty());
    out.sort_by(|a, b| a.labels.cmp(&b.labels));
    Ok(out)
}

fn final_labels(series: Series) -> (Labels, value::Samples) {
    let labels = if series.dropped { value::without_metadata(&series.labels) } else { series.labels };
    (labels, series.samples)
}

fn range_series(series: Series) -> RangeSeries {
    let mut out = RangeSeries { labels: series.labels, ..RangeSeries::default() };
    for (t, sample) in series.samples {
        match sample {
            Sample::Float(v) => out.floats.push((t, v)),
            Sample::Histogram(h) => out.histograms.push((t, h)),
        }
    }
    out
}
