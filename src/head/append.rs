//! Takes one sample and says what became of it.
//!
//! *Invariants:* a sample in order of its series costs O(1) and, but for the growth of its chunk, no allocation. A
//! timestamp is held at most once per series.
//!
//! *Not here:* limits and samples from the future (`ingest::admit`).

use std::sync::Arc;

use super::core::{Head, Tenant};
use super::exemplars::Entry;
use super::ooo::{OooBuffer, Value};
use super::series::{Held, Series};
use super::window::{Windows, window_of};
use crate::model::{ExemplarRow, Histogram, SeriesId};

/// Samples at which a chunk of floats is full.
const FULL_SAMPLES: usize = 1024;
/// Bytes at which a chunk is full.
const FULL_BYTES: usize = 2048;

/// What became of a sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Verdict {
    /// Held now.
    Accepted = 0,
    /// Held already, with the same value: fine.
    Duplicate = 1,
    /// Another value is held at this timestamp.
    Conflict = 2,
    /// Older than the tenant's newest sample by more than the limit (or so far out that no head holds it).
    TooOld = 3,
    /// There is no series of this id (any more): resolve the labels again.
    UnknownSeries = 4,
}

impl Head {
    /// Appends a float. `start` is the start timestamp (0: none); samples older than the tenant's newest by more than
    /// `ooo_limit_ms` are refused. All in milliseconds.
    #[inline]
    pub fn append_float(&mut self, id: SeriesId, t: i64, v: f64, start: i64, ooo_limit_ms: i64) -> Verdict {
        let Some(series) = self.ids.get(id.0).and_then(|slot| self.slab.get_mut(slot)) else {
            return Verdict::UnknownSeries;
        };
        let tenant = &mut self.tenants[series.tenant as usize];
        let Some(window) = window_of(t).filter(|_| t >= tenant.newest.saturating_sub(ooo_limit_ms)) else {
            return Verdict::TooOld;
        };
        if t <= series.floats.last_t() {
            return late(series, &mut self.windows, &mut self.series_bytes, (window, t, start), Value::Float(v));
        }
        let fits = !series.floats.is_empty()
            && series.window == window
            && series.floats.len() < FULL_SAMPLES
            && series.floats.bytes() < FULL_BYTES;
        if !fits {
            if !self.windows.admits(window) {
                return Verdict::TooOld;
            }
            begin(series, &mut self.windows, &mut self.series_bytes, window);
        }
        if start != 0 || series.extra.is_some() {
            push_start(series, &mut self.series_bytes, start);
        }
        let (capacity, len) = (series.floats.heap_bytes(), series.floats.bytes());
        series.floats.push(t, v);
        self.series_bytes += series.floats.heap_bytes() - capacity;
        self.windows.record(window, t, series.floats.bytes() - len);
        tenant.newest = tenant.newest.max(t);
        Verdict::Accepted
    }

    /// Appends a native histogram; arguments as for [`Head::append_float`].
    pub fn append_histogram(
        &mut self,
        id: SeriesId,
        t: i64,
        h: Arc<Histogram>,
        start: i64,
        ooo_limit_ms: i64,
    ) -> Verdict {
        let Some(series) = self.ids.get(id.0).and_then(|slot| self.slab.get_mut(slot)) else {
            return Verdict::UnknownSeries;
        };
        let tenant = &mut self.tenants[series.tenant as usize];
        let Some(window) = window_of(t).filter(|_| t >= tenant.newest.saturating_sub(ooo_limit_ms)) else {
            return Verdict::TooOld;
        };
        if t <= series.floats.last_t() {
            return late(series, &mut self.windows, &mut self.series_bytes, (window, t, start), Value::Histogram(h));
        }
        let fits = |e: &crate::chunk::HistogramEncoder| e.bytes() < 2 * FULL_BYTES && e.accepts(&h);
        if series.window != window || !series.histograms().is_some_and(fits) {
            if !self.windows.admits(window) {
                return Verdict::TooOld;
            }
            begin(series, &mut self.windows, &mut self.series_bytes, window);
        }
        push_start(series, &mut self.series_bytes, start);
        let before = series.heap_bytes();
        let encoder = series.extra().histograms.get_or_insert_default();
        let len = encoder.bytes();
        encoder.push(t, h);
        let grown = encoder.bytes() - len;
        series.floats.set_last_t(t);
        // It may take less than before: the encoder keeps the newest histogram, and stale markers have no buckets.
        self.series_bytes = self.series_bytes + series.heap_bytes() - before;
        self.windows.record(window, t, grown);
        tenant.newest = tenant.newest.max(t);
        Verdict::Accepted
    }

    /// Keeps an exemplar of a series. One older than the newest of its series is `TooOld`.
    pub fn append_exemplar(&mut self, id: SeriesId, row: &ExemplarRow) -> Verdict {
        let Some(series) = self.ids.get(id.0).and_then(|slot| self.slab.get(slot)) else {
            return Verdict::UnknownSeries;
        };
        let Some(window) = window_of(row.t) else { return Verdict::TooOld };
        let tenant: &mut Tenant = &mut self.tenants[series.tenant as usize];
        let exemplar = crate::model::Exemplar { labels: row.labels.clone(), value: row.v, t: row.t };
        let entry = Entry { series: id.0, generation: self.windows.generation(window), exemplar };
        tenant.exemplars.push(entry, self.options.exemplars)
    }
}

/// Finishes the open chunk and opens the window of the next one.
#[cold]
fn begin(series: &mut Series, windows: &mut Windows, bytes: &mut usize, window: i32) {
    let before = series.heap_bytes();
    series.seal();
    *bytes = *bytes + series.heap_bytes() - before;
    series.generation = windows.open(window);
    series.window = window;
}

/// Notes the start timestamp of the sample that is about to be appended in order.
fn push_start(series: &mut Series, bytes: &mut usize, start: i64) {
    if start == 0 && series.extra.as_ref().is_none_or(|e| e.starts.is_empty()) {
        return;
    }
    let before = series.heap_bytes();
    let len = series.floats.len() + series.histograms().map_or(0, |h| h.len());
    series.extra().starts.push(len, start);
    *bytes = *bytes + series.heap_bytes() - before;
}

/// A sample not newer than the newest of its series: seen already, or out of order.
#[cold]
fn late(
    series: &mut Series,
    windows: &mut Windows,
    bytes: &mut usize,
    (window, t, start): (i32, i64, i64),
    value: Value,
) -> Verdict {
    if let Some(held) = series.held(t) {
        return if same(&held, &value) { Verdict::Duplicate } else { Verdict::Conflict };
    }
    if !windows.admits(window) {
        return Verdict::TooOld;
    }
    let before = series.heap_bytes();
    let generation = windows.open(window);
    let list = &mut series.extra().ooo;
    let at = list.iter().position(|b| b.window == window && b.generation == generation).unwrap_or_else(|| {
        list.push(OooBuffer::new(window, generation));
        list.len() - 1
    });
    list[at].insert(t, start, value);
    if list[at].is_full() {
        let full = list.swap_remove(at);
        for chunk in full.pack() {
            series.push_sealed(chunk, generation);
        }
        series.drop_idle_extra();
    }
    *bytes = *bytes + series.heap_bytes() - before;
    windows.record(window, t, 16);
    Verdict::Accepted
}

fn same(held: &Held, value: &Value) -> bool {
    match (held, value) {
        (Held::Float(a), Value::Float(b)) => a.to_bits() == b.to_bits(),
        (Held::Histogram(a), Value::Histogram(b)) => same_histogram(a, b),
        _ => false,
    }
}

/// Whether two histograms are the same observation; hints are the head's own business.
fn same_histogram(a: &Histogram, b: &Histogram) -> bool {
    if a.is_stale() || b.is_stale() {
        return a.is_stale() && b.is_stale();
    }
    a.integer == b.integer
        && a.schema == b.schema
        && a.zero_threshold == b.zero_threshold
        && a.zero_count == b.zero_count
        && a.count == b.count
        && a.sum.to_bits() == b.sum.to_bits()
        && a.positive_spans == b.positive_spans
        && a.negative_spans == b.negative_spans
        && a.positive == b.positive
        && a.negative == b.negative
        && a.custom_values == b.custom_values
}
