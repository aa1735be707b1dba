//! Series in memory, as a source of queries.
//!
//! *Invariants:* series come back sorted by labels. Native histograms come back with the reset hints a store that cuts
//! chunks at resets gives them: nothing known of a chunk's first histogram, no reset at the later ones.
//!
//! *Not here:* scripts that fill it (`script`).

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::future::BoxFuture;

use crate::error::Error;
use crate::model::matcher::all_match;
use crate::model::{Columns, Histogram, Labels, ResetHint, TimeRange, is_stale};
use crate::promql::histogram::detect_reset;
use crate::promql::source::{SampleCursor, SelectRequest, SelectedSeries, SeriesSet, Source};

/// Length of the spans at whose borders a chunk ends, milliseconds.
const CHUNK_SPAN_MS: i64 = 24 * 3600 * 1000;

/// One sample to append.
#[derive(Debug, Clone, PartialEq)]
pub enum Point {
    /// A float.
    Float(f64),
    /// A native histogram.
    Histogram(Arc<Histogram>),
}

/// Series in memory.
#[derive(Debug, Clone, Default)]
pub struct MemorySource {
    series: BTreeMap<Labels, Arc<Columns>>,
}

impl MemorySource {
    /// Nothing stored.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends a sample with its start timestamp (0 is none); the error says why it is refused.
    pub fn append(&mut self, labels: &Labels, t: i64, start: i64, point: &Point) -> Result<(), String> {
        let columns = Arc::make_mut(self.series.entry(labels.clone()).or_default());
        if let Some(&last) = columns.timestamps.last() {
            if t < last {
                return Err(format!("{labels}: out of order sample at {t}, newest is {last}"));
            }
            if t == last {
                return if is_newest(columns, point) {
                    Ok(())
                } else {
                    Err(format!("{labels}: duplicate sample for timestamp {t}"))
                };
            }
        }
        match point {
            // Stale markers of a histogram series are histograms.
            Point::Float(v) if is_stale(*v) && ends_with_histogram(columns) => {
                columns.push_histogram(t, Arc::new(Histogram { sum: *v, ..Histogram::default() }));
            }
            Point::Float(v) => columns.push_float(t, *v),
            Point::Histogram(h) => {
                h.validate().map_err(|e| format!("{labels}: {e}"))?;
                let hint = hint_for(columns, t, h);
                columns.push_histogram(t, Arc::new(Histogram { reset_hint: hint, ..(**h).clone() }));
            }
        }
        columns.set_last_start(start);
        Ok(())
    }

    /// Stores a whole series, in place of an earlier one of the same labels.
    pub fn insert(&mut self, labels: Labels, samples: Columns) {
        self.series.insert(labels, Arc::new(samples));
    }

    /// All series with their samples, sorted by labels.
    pub fn iter(&self) -> impl Iterator<Item = (&Labels, &Columns)> {
        self.series.iter().map(|(labels, samples)| (labels, &**samples))
    }

    /// Number of series.
    pub fn len(&self) -> usize {
        self.series.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.series.is_empty()
    }
}

fn is_newest(columns: &Columns, point: &Point) -> bool {
    let at = columns.len() - 1;
    match (point, columns.histogram(at)) {
        (Point::Float(v), None) => v.to_bits() == columns.values[at].to_bits(),
        (Point::Histogram(h), Some(stored)) => Histogram { reset_hint: h.reset_hint, ..(**stored).clone() } == **h,
        _ => false,
    }
}

fn ends_with_histogram(columns: &Columns) -> bool {
    columns.histograms.last().is_some_and(|(i, _)| *i as usize + 1 == columns.len())
}

/// The hint a histogram reads with when it is appended to these samples.
fn hint_for(columns: &Columns, t: i64, h: &Histogram) -> ResetHint {
    if h.reset_hint == ResetHint::Gauge {
        return ResetHint::Gauge;
    }
    let (Some((_, before)), Some(&last)) = (columns.histograms.last(), columns.timestamps.last()) else {
        return ResetHint::Unknown;
    };
    let begins = !ends_with_histogram(columns)
        || before.reset_hint == ResetHint::Gauge
        || h.reset_hint == ResetHint::Reset
        || (before.is_stale() && !h.is_stale())
        || t.div_euclid(CHUNK_SPAN_MS) != last.div_euclid(CHUNK_SPAN_MS)
        || before.schema != h.schema
        || before.zero_threshold != h.zero_threshold
        || before.custom_values != h.custom_values
        || detect_reset(&Histogram { reset_hint: ResetHint::Unknown, ..h.clone() }, before);
    if begins { ResetHint::Unknown } else { ResetHint::NotReset }
}

/// Hands out the samples inside a range in one piece.
#[derive(Clone)]
struct MemoryCursor {
    samples: Arc<Columns>,
    range: TimeRange,
    done: bool,
}

impl SampleCursor for MemoryCursor {
    fn next(&mut self, out: &mut Columns) -> Result<bool, Error> {
        out.clear();
        if std::mem::replace(&mut self.done, true) {
            return Ok(false);
        }
        let from = self.samples.timestamps.partition_point(|t| *t < self.range.start);
        let to = self.samples.timestamps.partition_point(|t| *t <= self.range.end).max(from);
        out.timestamps.extend_from_slice(&self.samples.timestamps[from..to]);
        out.values.extend_from_slice(&self.samples.values[from..to]);
        if !self.samples.starts.is_empty() {
            out.starts.extend_from_slice(&self.samples.starts[from..to]);
        }
        let inside = |i: &u32| (from..to).contains(&(*i as usize));
        let histograms = self.samples.histograms.iter().filter(|(i, _)| inside(i));
        out.histograms.extend(histograms.map(|(i, h)| (i - from as u32, Arc::clone(h))));
        Ok(!out.is_empty())
    }

    fn fork(&self) -> Box<dyn SampleCursor> {
        Box::new(self.clone())
    }
}

impl Source for MemorySource {
    fn select<'a>(&'a self, request: &'a SelectRequest) -> BoxFuture<'a, Result<SeriesSet, Error>> {
        Box::pin(async move {
            let matching = self.series.iter().filter(|(l, _)| all_match(&request.matchers, l.canonical()));
            let series = matching.map(|(labels, samples)| SelectedSeries {
                labels: labels.clone(),
                place: 0,
                partition: 0,
                batch: 0,
                cursor: Box::new(MemoryCursor { samples: Arc::clone(samples), range: request.range, done: false }),
            });
            Ok(SeriesSet { series: series.collect(), warnings: Vec::new() })
        })
    }
}
