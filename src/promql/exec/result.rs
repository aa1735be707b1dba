//! Answers as callers get them.
//!
//! *Invariants:* series of a matrix are sorted by labels and have at least one sample; those of an instant vector keep
//! the order the query asked for, and are sorted by labels where it asked for none.
//!
//! *Not here:* JSON (`api`), merging of partial answers (`query::merge`).

use std::sync::Arc;

use super::column::{Column, Sample, ScalarColumn, Series, Value};
use super::control::Budget;
use super::counts::SampleCounts;
use super::error::Error;
use super::labels::{drop_reserved, has_equal, merge_equal};
use super::sort::sorted;
use crate::model::{Histogram, Labels, StepGrid};
use crate::promql::annotations::Annotations;
use crate::promql::functions::window::is_absent;

/// A series of a range vector or of a range query's answer.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RangeSeries {
    /// Labels.
    pub labels: Labels,
    /// Timestamps (ms) and values.
    pub floats: Vec<(i64, f64)>,
    /// Timestamps (ms) and native histograms.
    pub histograms: Vec<(i64, Arc<Histogram>)>,
}

impl RangeSeries {
    /// Number of samples.
    pub fn samples(&self) -> usize {
        self.floats.len() + self.histograms.len()
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        let histograms: usize = self.histograms.iter().map(|(_, h)| 16 + h.heap_bytes()).sum();
        size_of::<Self>() + self.labels.heap_bytes() + 16 * self.floats.capacity() + histograms
    }
}

/// A sample of an instant query's answer.
#[derive(Debug, Clone, PartialEq)]
pub struct InstantSample {
    /// Labels.
    pub labels: Labels,
    /// Timestamp, milliseconds.
    pub t: i64,
    /// Float or histogram.
    pub sample: Sample,
}

impl InstantSample {
    /// Bytes held.
    pub fn bytes(&self) -> usize {
        let histogram = if let Sample::Histogram(h) = &self.sample { h.heap_bytes() } else { 0 };
        size_of::<Self>() + self.labels.heap_bytes() + histogram
    }
}

/// The value of a query.
#[derive(Debug, Clone, PartialEq)]
pub enum QueryValue {
    /// A number at a time (milliseconds).
    Scalar(i64, f64),
    /// A string at a time, not necessarily UTF-8.
    String(i64, Box<[u8]>),
    /// An instant vector.
    Vector(Vec<InstantSample>),
    /// A range vector, or the answer of a range query.
    Matrix(Vec<RangeSeries>),
}

impl QueryValue {
    /// Bytes held.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Scalar(..) => 0,
            Self::String(_, text) => text.len(),
            Self::Vector(samples) => samples.iter().map(InstantSample::bytes).sum(),
            Self::Matrix(series) => series.iter().map(RangeSeries::bytes).sum(),
        }
    }
}

/// What a query cost.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct QueryStats {
    /// Samples read from storage.
    pub samples_read: u64,
    /// Most samples held at once.
    pub peak_samples: u64,
    /// Series read from storage.
    pub series_read: u64,
    /// Samples per step, where they were asked for.
    pub counts: Option<Box<SampleCounts>>,
    /// What a step's value is may depend on other steps: equal labels were looked for in the whole range, or the order
    /// of series decided between equal values.
    pub entangled: bool,
}

/// The answer of a query.
#[derive(Debug, Clone, PartialEq)]
pub struct QueryResult {
    /// Its value.
    pub value: QueryValue,
    /// Warnings and infos.
    pub annotations: Annotations,
    /// What it cost.
    pub stats: QueryStats,
}

/// The value of a plan's root as callers get it.
pub(super) fn finish(value: Value, grid: StepGrid, instant: bool, budget: &mut Budget) -> Result<QueryValue, Error> {
    match value {
        Value::Text(text) => Ok(QueryValue::String(grid.start, text)),
        Value::Matrix(series) => {
            let series = sorted(series, |a, b| a.labels.cmp(&b.labels), budget)?;
            Ok(QueryValue::Matrix(merge_matrix(series)?))
        }
        Value::Scalar(column) if instant => Ok(QueryValue::Scalar(grid.start, column.at(0))),
        Value::Scalar(column) => {
            budget.hold(0, 16 * grid.len())?;
            Ok(QueryValue::Matrix(vec![scalar_series(&column, grid)]))
        }
        Value::Vector(vector) => {
            let mut series = remove_names(vector.series, budget)?;
            if instant {
                if has_equal(&series, budget)? {
                    return Err(Error::same_labels());
                }
                if !vector.ordered {
                    series = sorted(series, |a, b| a.labels.cmp(&b.labels), budget)?;
                }
                budget.hold(0, series.len() * size_of::<InstantSample>())?;
                let samples = series.into_iter().filter_map(|s| instant_sample(s, grid.start));
                return Ok(QueryValue::Vector(samples.collect()));
            }
            series = merge_equal(series, budget)?;
            series = sorted(series, |a, b| a.labels.cmp(&b.labels), budget)?;
            let mut matrix = Vec::with_capacity(series.len());
            for s in series {
                budget.check()?;
                // The column goes when its samples are there.
                budget.room(16 * s.column.values.len())?;
                let before = s.bytes();
                let made = range_series(s, grid);
                budget.release(0, before);
                budget.hold(0, made.bytes())?;
                matrix.push(made);
            }
            matrix.retain(|s| s.samples() > 0);
            Ok(QueryValue::Matrix(matrix))
        }
    }
}

/// Merges neighbours that became equal when their names were removed.
fn merge_matrix(series: Vec<RangeSeries>) -> Result<Vec<RangeSeries>, Error> {
    let mut out: Vec<RangeSeries> = Vec::with_capacity(series.len());
    for s in series {
        match out.last_mut().filter(|last| last.labels == s.labels) {
            None => out.push(s),
            Some(last) => {
                last.floats.extend(s.floats);
                last.histograms.extend(s.histograms);
                last.floats.sort_by_key(|f| f.0);
                last.histograms.sort_by_key(|h| h.0);
                let mut times: Vec<i64> = last.floats.iter().map(|f| f.0).collect();
                times.extend(last.histograms.iter().map(|h| h.0));
                times.sort_unstable();
                if times.windows(2).any(|w| w[0] == w[1]) {
                    return Err(Error::same_labels());
                }
            }
        }
    }
    Ok(out)
}

fn remove_names(mut series: Vec<Series>, budget: &Budget) -> Result<Vec<Series>, Error> {
    for s in series.iter_mut().filter(|s| s.dropped) {
        budget.check()?;
        s.labels = drop_reserved(&s.labels);
    }
    Ok(series)
}

fn scalar_series(column: &ScalarColumn, grid: StepGrid) -> RangeSeries {
    let floats = grid.iter().enumerate().map(|(i, t)| (t, column.at(i))).collect();
    RangeSeries { labels: Labels::empty(), floats, histograms: Vec::new() }
}

fn instant_sample(series: Series, t: i64) -> Option<InstantSample> {
    let sample = series.column.sample(0)?;
    Some(InstantSample { labels: series.labels, t, sample })
}

fn range_series(series: Series, grid: StepGrid) -> RangeSeries {
    let Column { values, histograms } = series.column;
    let floats = values.iter().enumerate().filter(|(_, v)| !is_absent(**v)).map(|(i, v)| (grid.at(i), *v)).collect();
    let histograms = histograms.into_iter().map(|(i, h)| (grid.at(i as usize), h)).collect();
    RangeSeries { labels: series.labels, floats, histograms }
}
