//! Decoded samples of one stored series, or of one series of a subquery.
//!
//! *Invariants:* buffers are reused from series to series. [`RangeSamples`] holds no stale markers.
//!
//! *Not here:* packed samples (`chunk`, behind the source's cursors).

use std::sync::Arc;

use super::column::{Column, Sample};
use super::error::Error;
use crate::model::{Columns, Histogram, ResetHint, StepGrid, is_stale};
use crate::promql::functions::histogram_range::HistogramPoints;
use crate::promql::functions::window::{Points, is_absent};
use crate::promql::histogram::detect_reset;
use crate::promql::source::SampleCursor;

/// Reads everything a cursor has into `out`.
pub fn read_all(cursor: &mut dyn SampleCursor, out: &mut Columns, piece: &mut Columns) -> Result<(), Error> {
    out.clear();
    cursor.read_into(out, piece).map_err(Error::Storage)
}

/// Leaves of each histogram count, sum and whether it follows a reset. Where the store does not say so it is found out
/// here: later nobody sees the buckets.
pub fn totals_only(columns: &mut Columns) {
    let mut before: Option<Arc<Histogram>> = None;
    for (_, h) in columns.histograms.iter_mut().filter(|(_, h)| !h.is_stale()) {
        let reset_hint = match (h.reset_hint, &before) {
            (ResetHint::Unknown, Some(before)) if detect_reset(h, before) => ResetHint::Reset,
            (ResetHint::Unknown, Some(_)) => ResetHint::NotReset,
            (hint, _) => hint,
        };
        let totals = Histogram { schema: h.schema, reset_hint, count: h.count, sum: h.sum, ..Histogram::default() };
        before = Some(std::mem::replace(h, Arc::new(totals)));
    }
}

/// Samples for windows: floats and histograms apart, stale markers gone.
#[derive(Debug, Default)]
pub struct RangeSamples {
    /// Timestamps of floats.
    pub ts: Vec<i64>,
    /// Floats.
    pub vs: Vec<f64>,
    /// Start timestamps of floats, or empty.
    pub starts: Vec<i64>,
    /// Timestamps of histograms.
    pub histogram_ts: Vec<i64>,
    /// Histograms.
    pub histograms: Vec<Arc<Histogram>>,
    /// Start timestamps of histograms, or empty.
    pub histogram_starts: Vec<i64>,
}

impl RangeSamples {
    /// The floats.
    pub fn points(&self) -> Points<'_> {
        Points { ts: &self.ts, vs: &self.vs, starts: &self.starts }
    }

    /// The histograms.
    pub fn histogram_points(&self) -> HistogramPoints<'_> {
        HistogramPoints { ts: &self.histogram_ts, hs: &self.histograms, starts: &self.histogram_starts }
    }

    fn clear(&mut self) {
        self.ts.clear();
        self.vs.clear();
        self.starts.clear();
        self.histogram_ts.clear();
        self.histograms.clear();
        self.histogram_starts.clear();
    }

    /// Takes the samples of a stored series; `with_starts` keeps start timestamps. `columns` is left in any state.
    pub fn take(&mut self, columns: &mut Columns, with_starts: bool) {
        self.clear();
        let plain = columns.histograms.is_empty() && !columns.values.iter().any(|v| is_stale(*v));
        if plain {
            std::mem::swap(&mut self.ts, &mut columns.timestamps);
            std::mem::swap(&mut self.vs, &mut columns.values);
            if with_starts {
                std::mem::swap(&mut self.starts, &mut columns.starts);
            }
            return;
        }
        let keep_starts = with_starts && !columns.starts.is_empty();
        let mut histograms = columns.histograms.drain(..).peekable();
        for (i, (&t, &v)) in columns.timestamps.iter().zip(&columns.values).enumerate() {
            let histogram = histograms.next_if(|(at, _)| *at as usize == i);
            if is_stale(v) {
                continue;
            }
            if let Some((_, h)) = histogram {
                self.histogram_ts.push(t);
                self.histograms.push(h);
                if keep_starts {
                    self.histogram_starts.push(columns.starts[i]);
                }
                continue;
            }
            self.ts.push(t);
            self.vs.push(v);
            if keep_starts {
                self.starts.push(columns.starts[i]);
            }
        }
    }

    /// Takes the samples of a subquery's series.
    pub fn take_steps(&mut self, column: &Column, grid: StepGrid) {
        let samples = column.values.iter().filter(|v| !is_absent(**v)).count();
        self.clear();
        self.ts.reserve_exact(samples);
        self.vs.reserve_exact(samples);
        for step in 0..column.values.len() {
            match column.sample(step) {
                Some(Sample::Float(v)) => {
                    self.ts.push(grid.at(step));
                    self.vs.push(v);
                }
                Some(Sample::Histogram(h)) => {
                    self.histogram_ts.push(grid.at(step));
                    self.histograms.push(without_reset_hint(h));
                }
                None => {}
            }
        }
    }
}

/// Inner steps may skip samples or see one twice, so what a hint says of the previous sample does not hold any more.
fn without_reset_hint(h: Arc<Histogram>) -> Arc<Histogram> {
    if matches!(h.reset_hint, ResetHint::Unknown | ResetHint::Gauge) {
        return h;
    }
    Arc::new(Histogram { reset_hint: ResetHint::Unknown, ..(*h).clone() })
}
