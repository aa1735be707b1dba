//! Samples and exemplars, and the columns in which decoded samples of one series travel.
//!
//! *Invariants:* in [`Columns`] timestamps ascend strictly; a timestamp carries either a float or a histogram.
//!
//! *Not here:* packing (`chunk`), evaluation (`promql`).

use std::sync::Arc;

use super::{Histogram, Labels};

/// Bits of the NaN that marks a series as gone (Prometheus `value.StaleNaN`).
pub const STALE_NAN_BITS: u64 = 0x7ff0_0000_0000_0002;

/// The stale marker.
pub fn stale_nan() -> f64 {
    f64::from_bits(STALE_NAN_BITS)
}

/// Whether `v` is the stale marker (any other NaN is an ordinary value).
pub fn is_stale(v: f64) -> bool {
    v.to_bits() == STALE_NAN_BITS
}

/// An example observation with the labels of its trace.
#[derive(Debug, Clone, PartialEq)]
pub struct Exemplar {
    /// Labels of the exemplar itself (`trace_id` and the like), not of its series.
    pub labels: Labels,
    /// Observed value.
    pub value: f64,
    /// Timestamp in milliseconds.
    pub t: i64,
}

/// Samples of one series, column by column, in order of time.
///
/// `values[i]` belongs to `timestamps[i]`. Where sample `i` is a histogram, `values[i]` is the histogram's `sum` and
/// `histograms` holds `(i, histogram)`, ascending by `i`. `starts` is empty when no sample has a start timestamp,
/// else of the same length, 0 meaning none.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Columns {
    /// Milliseconds since the epoch, strictly ascending.
    pub timestamps: Vec<i64>,
    /// Float values (a histogram's `sum` at its place, so that stale markers are seen in one column).
    pub values: Vec<f64>,
    /// Histograms by sample index.
    pub histograms: Vec<(u32, Arc<Histogram>)>,
    /// Start (created) timestamps in milliseconds, or empty.
    pub starts: Vec<i64>,
}

impl Columns {
    /// Number of samples.
    pub fn len(&self) -> usize {
        self.timestamps.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.timestamps.is_empty()
    }

    /// Forgets all samples, keeping the memory.
    pub fn clear(&mut self) {
        self.timestamps.clear();
        self.values.clear();
        self.histograms.clear();
        self.starts.clear();
    }

    /// Appends all samples of `piece`, which are later than these.
    pub fn append(&mut self, piece: &Columns) {
        self.timestamps.extend_from_slice(&piece.timestamps);
        self.append_values(piece);
    }

    /// As [`Columns::append`] where the timestamps of `piece` are here already.
    pub fn append_values(&mut self, piece: &Columns) {
        let base = self.values.len();
        self.values.extend_from_slice(&piece.values);
        self.histograms.extend(piece.histograms.iter().map(|(i, h)| (base as u32 + i, Arc::clone(h))));
        if !piece.starts.is_empty() || !self.starts.is_empty() {
            self.starts.resize(base, 0);
            self.starts.extend_from_slice(&piece.starts);
            self.starts.resize(self.values.len(), 0);
        }
    }

    /// Appends a float sample.
    pub fn push_float(&mut self, t: i64, v: f64) {
        self.timestamps.push(t);
        self.values.push(v);
        if !self.starts.is_empty() {
            self.starts.push(0);
        }
    }

    /// Appends a histogram sample.
    pub fn push_histogram(&mut self, t: i64, h: Arc<Histogram>) {
        self.histograms.push((self.timestamps.len() as u32, Arc::clone(&h)));
        self.push_float(t, h.sum);
    }

    /// Gives the newest sample a start timestamp (milliseconds; 0 is none).
    pub fn set_last_start(&mut self, start: i64) {
        if start == 0 && self.starts.is_empty() {
            return;
        }
        self.starts.resize(self.timestamps.len(), 0);
        if let Some(last) = self.starts.last_mut() {
            *last = start;
        }
    }

    /// The start timestamp of sample `i`, 0 when it has none.
    pub fn start(&self, i: usize) -> i64 {
        self.starts.get(i).copied().unwrap_or(0)
    }

    /// The histogram of sample `i`, if it is one (binary search).
    pub fn histogram(&self, i: usize) -> Option<&Arc<Histogram>> {
        let at = self.histograms.binary_search_by_key(&(i as u32), |(n, _)| *n).ok()?;
        Some(&self.histograms[at].1)
    }

    /// Heap bytes held.
    pub fn heap_bytes(&self) -> usize {
        8 * (self.timestamps.capacity() + self.values.capacity() + self.starts.capacity())
            + 16 * self.histograms.capacity()
            + self.histograms.iter().map(|(_, h)| h.heap_bytes()).sum::<usize>()
    }
}
