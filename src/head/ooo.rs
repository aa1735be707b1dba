//! Samples of one series that came later than a newer one, for one generation of one window.
//!
//! *Invariants:* sorted by timestamp, no timestamp twice; at most [`FULL`] samples, then they are packed.
//!
//! *Not here:* judging them (`append`), merging on read (`chunk::iter`).

use std::sync::Arc;

use super::series::Held;
use crate::chunk::{Chunk, FloatEncoder, HistogramEncoder, StartRuns};
use crate::model::Histogram;

/// Samples at which a buffer is packed.
pub(super) const FULL: usize = 96;

#[derive(Debug, Clone)]
pub(super) enum Value {
    Float(f64),
    Histogram(Arc<Histogram>),
}

#[derive(Debug, Clone)]
struct Sample {
    t: i64,
    start: i64,
    value: Value,
}

#[derive(Debug, Clone)]
pub(super) struct OooBuffer {
    pub(super) window: i32,
    pub(super) generation: u32,
    samples: Vec<Sample>,
}

impl OooBuffer {
    pub(super) fn new(window: i32, generation: u32) -> Self {
        Self { window, generation, samples: Vec::new() }
    }

    pub(super) fn insert(&mut self, t: i64, start: i64, value: Value) {
        let at = self.samples.partition_point(|s| s.t < t);
        self.samples.insert(at, Sample { t, start, value });
    }

    pub(super) fn is_full(&self) -> bool {
        self.samples.len() >= FULL
    }

    pub(super) fn held(&self, t: i64) -> Option<Held> {
        let at = self.samples.binary_search_by_key(&t, |s| s.t).ok()?;
        Some(match &self.samples[at].value {
            Value::Float(v) => Held::Float(*v),
            Value::Histogram(h) => Held::Histogram(Arc::clone(h)),
        })
    }

    /// The samples as chunks: one of floats, and as many of histograms as their hints need.
    pub(super) fn pack(&self) -> Vec<Chunk> {
        let mut out = Vec::new();
        let (mut floats, mut float_starts) = (FloatEncoder::default(), StartRuns::default());
        let (mut histograms, mut histogram_starts) = (HistogramEncoder::default(), StartRuns::default());
        for sample in &self.samples {
            match &sample.value {
                Value::Float(v) => {
                    float_starts.push(floats.len(), sample.start);
                    floats.push(sample.t, *v);
                }
                Value::Histogram(h) => {
                    if !histograms.accepts(h) {
                        out.extend(histograms.finish(Some(&histogram_starts)));
                        histogram_starts.clear();
                    }
                    histogram_starts.push(histograms.len(), sample.start);
                    histograms.push(sample.t, Arc::clone(h));
                }
            }
        }
        out.extend(floats.finish(Some(&float_starts)));
        out.extend(histograms.finish(Some(&histogram_starts)));
        out
    }

    pub(super) fn heap_bytes(&self) -> usize {
        let histograms = self.samples.iter().map(|s| match &s.value {
            Value::Float(_) => 0,
            Value::Histogram(h) => h.heap_bytes(),
        });
        size_of::<Self>() + self.samples.capacity() * size_of::<Sample>() + histograms.sum::<usize>()
    }
}
